"""The command line that experiments share: flags from dataclasses, presets, one-line errors."""

import dataclasses
import difflib
import logging
import os
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn, TypeVar

import jax
import tyro

from drawjax.training.errors import Diverged, Interrupted, RunError

__all__ = ["main", "parse"]

Config = TypeVar("Config")

_USAGE, _FAILED, _DIVERGED = 2, 1, 3


def parse(
    presets: Mapping[str, Config], argv: Sequence[str] | None = None, *, description: str = ""
) -> Config:
    """Reads a config from the command line.

    Args:
      presets: configs by name; `--preset NAME` picks the one whose values flags then replace. The
        first is taken without the flag.
      argv: the arguments; None: the process's.
      description: what `--help` says first.

    Returns:
      The config. Bad flags end the process with one line and exit code 2.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    names = list(presets)
    chosen = names[0]
    for position, argument in enumerate(arguments):
        if argument == "--preset" or argument.startswith("--preset="):
            width = 1 if "=" in argument else 2
            chosen = (
                argument.partition("=")[2]
                if width == 1
                else "".join(arguments[position + 1 : position + 2])
            )
            del arguments[position : position + width]
            break
    if chosen not in presets:
        _fail(f"unknown preset {chosen!r}{_nearest(chosen, names)}; presets: {', '.join(names)}",
              _USAGE)  # fmt: skip
    config = presets[chosen]
    known = _flags(config)
    for argument in arguments:
        flag = argument.partition("=")[0].replace("_", "-")
        if flag.startswith("--") and flag not in known and flag != "--help":
            negated = flag.replace("no-", "", 1)
            if negated not in known:
                _fail(f"unknown flag {flag}{_nearest(flag, [*known, '--preset'])}", _USAGE)
    if "--preset" not in description:
        description += (
            f"\n\n--preset {{{','.join(names)}}} picks the defaults (default: {names[0]})."
        )
    try:
        return tyro.cli(
            type(config), default=config, args=arguments, description=description, prog=_prog()
        )
    except ValueError as error:
        _fail(str(error), _USAGE)


def main(command: Callable[[], Any]) -> NoReturn:
    """Runs a command and ends the process: logs to stderr, one line and no traceback for the
    errors a user can mend, and an exit code.

    0: done. 1: the data, the folder or a value is not usable. 2: bad flags. 3: training diverged.
    128 + N: stopped by signal N (130 Ctrl-C, 143 SIGTERM), saved.
    """
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", force=True
    )
    for chatty in ("absl", "jax", "orbax", "tensorflow_datasets"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    logging.getLogger("absl").setLevel(logging.ERROR)
    cache = os.environ.get("JAX_COMPILATION_CACHE_DIR", "~/.cache/drawjax")
    if cache:
        jax.config.update("jax_compilation_cache_dir", str(pathlib.Path(cache).expanduser()))
    try:
        command()
    except Interrupted as stop:
        _fail(str(stop), 128 + stop.signum)
    except KeyboardInterrupt:
        _fail("stopped", 130)
    except Diverged as error:
        _fail(str(error), _DIVERGED)
    except (ValueError, RunError, OSError) as error:
        if os.environ.get("DRAWJAX_TRACEBACK"):
            raise
        _fail(str(error), _FAILED)
    sys.exit(0)


def _flags(config: Any, prefix: str = "--") -> list[str]:
    flags = []
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        name = prefix + field.name.replace("_", "-")
        flags += _flags(value, name + ".") if dataclasses.is_dataclass(value) else [name]
    return flags


def _nearest(name: str, names: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else ""


def _prog() -> str:
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    return f"python -m {spec.name}" if spec is not None else pathlib.Path(sys.argv[0]).name


def _fail(message: str, code: int) -> NoReturn:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(code)
