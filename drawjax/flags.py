"""Dataclasses from flags, by tyro: presets, nearest names, errors of one line."""

import contextlib
import dataclasses
import decimal
import difflib
import io
import pathlib
import re
import sys
import typing
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, NoReturn, TypeVar

import tyro

__all__ = ["fail", "given", "nearest", "parse", "read", "together"]

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
    chosen, config = None, default
    if isinstance(default, Mapping):
        chosen, arguments = _preset(arguments, list(default))
        config = default[chosen]
    types = _types(config) | ({} if options is None else _types(options))
    known = ["--help", *(["--preset"] if chosen else []), *types]
    for argument in arguments:
        flag = argument.partition("=")[0].replace("_", "-")
        own = (flag, flag.replace("no-", "", 1))
        if flag.startswith("--") and not any(name in known for name in own):
            if not flag.startswith("--tyro-"):
                fail(f"unknown flag {flag}{nearest(flag, known)}")
    try:
        parsed = read(
            together(default, options, chosen), arguments, description=description or "",
            prog=_prog(), types=types,
        )  # fmt: skip
    except ValueError as error:
        fail(str(error))
    return parsed.config if options is None else (parsed.config, parsed.options)


def together(default: Any, options: Any = None, preset: str | None = None) -> Any:
    """All that `parse` reads, as one dataclass: the preset, the config's flags, the options'."""
    unnamed = tyro.conf.arg(name="")
    fields, values = [], {}
    if isinstance(default, Mapping):
        names = tuple(default)
        values["preset"] = preset or names[0]
        said = tyro.conf.arg(help="Whose values the other flags replace.")
        fields.append(("preset", Annotated[Literal[names], said]))
        default = default[values["preset"]]
    for name, part in (("config", default), ("options", options)):
        if part is not None:
            fields.append((name, Annotated[type(part), unnamed]))
            values[name] = part
    return dataclasses.make_dataclass("Arguments", fields)(**values)


def read(
    default: T,
    arguments: Sequence[str],
    *,
    description: str = "",
    prog: str | None = None,
    markers: Sequence[Any] = (),
    types: Mapping[str, Any] | None = None,
) -> T:
    """Replaces fields of a nested dataclass by what flags say.

    `--help` prints and ends the process.

    Args:
      default: an instance.
      arguments: the flags, `--model.hidden-size 100`.
      description: what `--help` says first.
      prog: the command that `--help` names.
      markers: tyro's, for all flags.
      types: of the flags' values, which say where `none` and `1e4` are None and 10000; None: those
        of the fields.

    Raises:
      ValueError: for a flag that cannot be read, or a value that the dataclass refuses.
    """
    arguments = _spelled(arguments, _types(default) if types is None else types)
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


def given(argv: Sequence[str] | None = None) -> set[str]:
    """The fields that arguments name, `model.hidden_size`, --sweep's too; None: the process's."""
    names, before = set(), ""
    for argument in sys.argv[1:] if argv is None else argv:
        flag, _, rest = argument.partition("=")
        if before == "--sweep":
            names.add(flag)
        elif flag == "--sweep":
            names.add(rest.partition("=")[0])
        elif flag.startswith("--"):
            name = flag.removeprefix("--").replace("-", "_")
            # --model.no-remat is --model.remat False.
            names |= {name, re.sub(r"(^|\.)no_", r"\1", name)}
        before = argument
    return names - {""}


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
    given, others, rest = [], [], iter(arguments)
    for argument in rest:
        flag, equals, value = argument.partition("=")
        if flag == "--preset":
            given.append(value if equals else next(rest, ""))
        else:
            others.append(argument)
    if len(given) > 1:
        fail(f"--preset is given twice: {' and '.join(given)}")
    (chosen,) = given or names[:1]
    if chosen not in names:
        listed = ", ".join(names)
        fail(f"unknown preset {chosen!r}{nearest(chosen, names)}; presets: {listed}")
    return chosen, others


def _spelled(arguments: Sequence[str], types: Mapping[str, Any]) -> list[str]:
    """The arguments with none and null as None, and 1e4 as 10000, where a flag's type takes it."""
    spelled, flag = [], ""
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if argument.startswith("--"):
            flag = name.replace("_", "-")
            if equals:
                argument = f"{name}={_value(value, types.get(flag))}"
        else:
            argument = _value(argument, types.get(flag))
        spelled.append(argument)
    return spelled


def _value(text: str, hint: Any) -> str:
    among = typing.get_args(hint) or (hint,)
    if type(None) in among and text.lower() in ("none", "null"):
        return "None"
    if int in among and re.fullmatch(r"[+-]?[\d_.]+[eE]\+?\d{1,2}", text):
        with contextlib.suppress(ValueError):
            number = decimal.Decimal(text.replace("_", ""))
            return str(int(number)) if number == int(number) else text
    return text


def _types(config: Any, prefix: str = "--") -> dict[str, Any]:
    """The types of a nested dataclass's fields, by flag."""
    hints = typing.get_type_hints(type(config))
    found = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        name = prefix + field.name.replace("_", "-")
        inner = dataclasses.is_dataclass(value)
        found |= _types(value, name + ".") if inner else {name: hints[field.name]}
    return found


def nearest(name: str, names: Sequence[str]) -> str:
    """`; did you mean ...?` with the nearest of some names, or nothing."""
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else ""


def _prog() -> str:
    if " " in sys.argv[0]:  # "drawjax sample"
        return sys.argv[0]
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    name = pathlib.Path(sys.argv[0]).name
    return f"python -m {spec.name.removesuffix('.__main__')}" if spec is not None else name
