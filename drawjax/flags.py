"""Dataclasses from flags, by tyro: presets, nearest names, errors of one line."""

import contextlib
import dataclasses
import difflib
import io
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NoReturn, TypeVar

import tyro

__all__ = ["fail", "nearest", "parse", "read"]

T = TypeVar("T")


def parse(
    default: T | Mapping[str, T],
    argv: Sequence[str] | None = None,
    *,
    description: str | None = None,
    options: Any = None,
) -> Any:
    """Reads a dataclass from the command line.

    Args:
      default: an instance, or several by name: `--preset NAME` picks the one whose values flags
        then replace, and the first is taken without the flag.
      argv: the arguments; None: the process's.
      description: what `--help` says first.
      options: an instance of another dataclass, whose flags stand beside.

    Returns:
      The instance, or a pair of both if there are `options`. Bad flags end the process with one
      line and exit code 2.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    description = description or ""
    config: Any = default
    known = ["--help"]
    if isinstance(default, Mapping):
        names = list(default)
        chosen, arguments = _preset(arguments, names)
        config = default[chosen]
        known.append("--preset")
        if "--preset" not in description:
            description += (
                f"\n\n--preset {{{','.join(names)}}} picks the defaults (default: {names[0]})."
            )
    parts = {"config": config} | ({} if options is None else {"options": options})
    for part in parts.values():
        known += _names(part)
    for argument in arguments:
        flag = argument.partition("=")[0].replace("_", "-")
        own = (flag, flag.replace("no-", "", 1))
        if flag.startswith("--") and not any(name in known for name in own):
            if not flag.startswith("--tyro-"):
                fail(f"unknown flag {flag}{nearest(flag, known)}")
    unnamed = tyro.conf.arg(name="")
    fields = [(name, Annotated[type(part), unnamed]) for name, part in parts.items()]
    both = dataclasses.make_dataclass("Arguments", fields)
    try:
        parsed = read(both(**parts), arguments, description=description, prog=_prog())
    except ValueError as error:
        fail(str(error))
    return parsed.config if options is None else (parsed.config, parsed.options)


def read(
    default: T,
    arguments: Sequence[str],
    *,
    description: str = "",
    prog: str | None = None,
    markers: Sequence[Any] = (),
) -> T:
    """Replaces fields of a nested dataclass by what flags say.

    `--help` prints and ends the process.

    Args:
      default: an instance.
      arguments: the flags, `--model.hidden-size 100`.
      description: what `--help` says first.
      prog: the command that `--help` names.
      markers: tyro's, for all flags.

    Raises:
      ValueError: for a flag that cannot be read, or a value that the dataclass refuses.
    """
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(
                type(default), default=default, args=arguments, description=description,
                prog=prog, config=tuple(markers),
            )  # fmt: skip
    except SystemExit as stop:
        if not stop.code:
            raise
        raise ValueError(_unboxed(said.getvalue())) from None


def fail(message: str) -> NoReturn:
    """Ends the process with one line, for a flag that is wrong."""
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(2)


def _unboxed(text: str) -> str:
    """The message in the box that tyro draws (it has no other door), without its advice."""
    lines = [line.strip("│╭╮╰╯ ") for line in text.splitlines()]  # a box of spaces, in ASCII
    lines = [line for line in lines[1:] if line]  # without the title
    rules = [bool(set(line) <= {"─", "-"}) for line in lines]
    if rules and rules[0]:
        lines, rules = lines[1:], rules[1:]
    end = rules.index(True) if True in rules else None
    message = " ".join(lines[:end]) or " ".join(text.split())
    # "Error parsing config.train: train.steps must ..." names the place twice.
    place, colon, rest = message.partition(": ")
    return rest if colon and place.startswith("Error parsing") and "--" not in place else message


def _preset(arguments: list[str], names: Sequence[str]) -> tuple[str, list[str]]:
    """The preset that the arguments name, and the other arguments."""
    chosen = names[0]
    for position, argument in enumerate(arguments):
        flag, equals, value = argument.partition("=")
        if flag == "--preset":
            width = 1 if equals else 2
            chosen = value if equals else "".join(arguments[position + 1 : position + 2])
            arguments = arguments[:position] + arguments[position + width :]
            break
    if chosen not in names:
        listed = ", ".join(names)
        fail(f"unknown preset {chosen!r}{nearest(chosen, names)}; presets: {listed}")
    return chosen, arguments


def _names(config: Any, prefix: str = "--") -> list[str]:
    names = []
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        name = prefix + field.name.replace("_", "-")
        names += _names(value, name + ".") if dataclasses.is_dataclass(value) else [name]
    return names


def nearest(name: str, names: Sequence[str]) -> str:
    """`; did you mean ...?` with the nearest of some names, or nothing."""
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else ""


def _prog() -> str:
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    name = pathlib.Path(sys.argv[0]).name
    return f"python -m {spec.name.removesuffix('.__main__')}" if spec is not None else name
