"""Dataclasses from flags, by tyro, with errors of one line."""

import contextlib
import io
from collections.abc import Sequence
from typing import Any, TypeVar

import tyro

__all__ = ["read"]

T = TypeVar("T")


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


def _unboxed(text: str) -> str:
    """The message in the box that tyro draws, without what it says of `--help`."""
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
