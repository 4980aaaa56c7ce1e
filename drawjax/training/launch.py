"""The command line that experiments share: flags from dataclasses, presets, one-line errors."""

import dataclasses
import difflib
import logging
import os
import pathlib
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, NoReturn, TypeVar

import jax
import tyro

from drawjax import progress
from drawjax.pipes import readers_may_leave
from drawjax.training import flags, hosts, sweeps
from drawjax.training.errors import Diverged, Interrupted, RunError

__all__ = ["experiment", "main", "parse"]

Config = TypeVar("Config")

_USAGE, _FAILED, _DIVERGED = 2, 1, 3


@dataclasses.dataclass(frozen=True)
class _Options:
    """What a command can do with any experiment."""

    sweep: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """FIELD=VALUE,VALUE,...: run once for each value, with several --sweep for each combination.
    Points that differ only in numbers (rate, seed, clipping, decay) train side by side."""
    sweep_index: int | None = None
    """Run this point of the sweep alone, counted from 0; for a scheduler's array jobs."""
    sweep_parallel: int | None = None
    """Train at most so many points side by side; None: all that can be."""
    debug_nans: bool = False
    """Stop at the operation that makes the first NaN; slow."""
    coordinator: str | None = None
    """HOST:PORT of process 0, where one run has several processes; None: as the scheduler (SLURM,
    GKE, Cloud TPU, Open MPI) says."""
    processes: int | None = None
    """How many processes the run has."""
    process: int | None = None
    """Which of them this is, from 0."""


def parse(
    presets: Mapping[str, Config],
    argv: Sequence[str] | None = None,
    *,
    description: str | None = None,
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
    return _parse(presets, argv, description or "", None)[0]


@readers_may_leave()
def experiment(
    presets: Mapping[str, Config],
    run: Callable[[Sequence[Config]], Sequence[Any]],
    argv: Sequence[str] | None = None,
    *,
    description: str | None = None,
) -> NoReturn:
    """Runs an experiment as the command line asks, alone or as a sweep, and ends the process.

    Args:
      presets: as in `parse`.
      run: does what configs say. It is given several only in a sweep, and then such as can be
        trained side by side; it returns one result a config, `Diverged` among them.
      argv: the arguments; None: the process's.
      description: what `--help` says first.
    """
    config, options = _parse(presets, argv, description or "", _Options())
    try:
        points = sweeps.expand(config, options.sweep)
        if options.sweep_index is not None:
            if not options.sweep:
                raise ValueError("--sweep-index picks a point of a --sweep, and there is none")
            points = [sweeps.pick(points, options.sweep_index)]
        groups = sweeps.grouped(points, options.sweep_parallel)
    except ValueError as error:
        _fail(str(error), _USAGE)

    def command() -> None:
        hosts.connect(options.coordinator, options.processes, options.process)
        if not hosts.is_first():
            logging.getLogger().setLevel(logging.WARNING)
        if options.debug_nans:  # else as JAX_DEBUG_NANS says
            jax.config.update("jax_debug_nans", True)
        if options.sweep:
            sweeps.run(config, options.sweep, groups, run)
            return
        (outcome,) = run([config])
        if isinstance(outcome, Diverged):
            raise outcome

    main(command)


@readers_may_leave()
def main(command: Callable[[], Any]) -> NoReturn:
    """Runs a command and ends the process, with one line for the errors that a user can mend.

    Logs go to stderr. Exit codes: 0: done. 1: the data, the folder or a value is not usable. 2: bad
    flags. 3: training diverged. 128 + N: stopped by signal N (130 Ctrl-C, 143 SIGTERM), saved.

    Compiled programs are kept in ~/.cache/drawjax; JAX_COMPILATION_CACHE_DIR names another folder,
    or, if empty, none. DRAWJAX_TRACEBACK=1 shows where an error came from.
    """
    _quiet()
    cache = os.environ.get("JAX_COMPILATION_CACHE_DIR", "~/.cache/drawjax")
    if cache:
        jax.config.update("jax_compilation_cache_dir", str(pathlib.Path(cache).expanduser()))
    try:
        with progress.logs_above_bars():
            command()
        sys.exit(0)
    except Interrupted as stop:
        message, code = str(stop), 128 + stop.signum
    except BrokenPipeError:
        raise
    except KeyboardInterrupt:
        message, code = "stopped", 130
    except FloatingPointError as error:  # --debug-nans
        traceback.print_exc()
        message, code = str(error).splitlines()[0], _DIVERGED
    except Diverged as error:
        message, code = str(error), _DIVERGED
    except (ValueError, RunError, OSError) as error:
        if os.environ.get("DRAWJAX_TRACEBACK"):
            traceback.print_exc()
        message, code = str(error), _FAILED
    except Exception as error:  # a fault of the program, which the others are to hear of too
        traceback.print_exc()
        message, code = repr(error), _FAILED
    message = " ".join(message.split())
    print(f"error: {message}", file=sys.stderr)
    sys.exit(code)


def _parse(
    presets: Mapping[str, Config],
    argv: Sequence[str] | None,
    description: str,
    options: _Options | None,
) -> tuple[Config, Any]:
    arguments = list(sys.argv[1:] if argv is None else argv)
    names = list(presets)
    chosen, arguments = _preset(arguments, names)
    config = presets[chosen]
    known = [*_names(config), *(_names(options) if options is not None else [])]
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
    unnamed = tyro.conf.arg(name="")
    parts: list[tuple[str, Any]] = [("config", Annotated[type(config), unnamed])]
    if options is not None:
        parts.append(("options", Annotated[type(options), unnamed]))
    both = dataclasses.make_dataclass("Arguments", parts)
    default = both(config) if options is None else both(config, options)
    try:
        parsed = flags.read(default, arguments, description=description, prog=_prog())
    except ValueError as error:
        _fail(str(error), _USAGE)
    return parsed.config, getattr(parsed, "options", None)


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
        _fail(f"unknown preset {chosen!r}{_nearest(chosen, names)}; presets: {listed}", _USAGE)
    return chosen, arguments


def _names(config: Any, prefix: str = "--") -> list[str]:
    names = []
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        name = prefix + field.name.replace("_", "-")
        names += _names(value, name + ".") if dataclasses.is_dataclass(value) else [name]
    return names


def _nearest(name: str, names: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else ""


def _prog() -> str:
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    return f"python -m {spec.name}" if spec is not None else pathlib.Path(sys.argv[0]).name


def _quiet() -> None:
    """Logs of our own; of others only what a user can use."""
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", force=True
    )
    for chatty in ("jax", "orbax", "tensorflow_datasets", "asyncio"):
        logging.getLogger(chatty).setLevel(logging.ERROR)
    # Orbax logs, with tracebacks, what it raises as well.
    logging.getLogger("absl").setLevel(logging.CRITICAL)


def _fail(message: str, code: int) -> NoReturn:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(code)
