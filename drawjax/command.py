"""What all commands share: logs, errors of one line, exit codes, an output that nobody reads."""

import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Any, NoReturn, TextIO

from drawjax.progress import logs_above_bars

__all__ = ["main"]

_FAILED, _NOT_FINITE = 1, 3


def main(
    command: Callable[[], Any], *, leave: Callable[[int], object] = lambda code: None
) -> NoReturn:
    """Runs a command and ends the process, with one line for the errors that a user can mend.

    Logs go to stderr. Exit codes: what the command returns, or 0: done. 1: the data, the folder or
    a value is not usable. 2: bad flags. 3: training diverged. 128 + N: stopped by signal N
    (130 Ctrl-C, 143 SIGTERM), a run being saved; 141: nobody reads the output any more, as in
    `... --help | head`.

    Compiled programs are kept in ~/.cache/drawjax; JAX_COMPILATION_CACHE_DIR names another folder,
    or, if empty, none. DRAWJAX_TRACEBACK=1 shows where an error came from.

    Args:
      command: what to run.
      leave: called last with an exit code that is not 0.
    """
    # Closed files (as under cron) would make the first files opened take their place.
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = sys.stdout or open(os.devnull, "w")
    sys.stderr = sys.stderr or open(os.devnull, "w")
    _set_up_logs()
    _set_up_cache()
    try:
        with logs_above_bars():
            code = _run(command)
        sys.stdout.flush()
    except BrokenPipeError:
        # The signal itself stays ignored, as Python has it: it would also end a run whose log alone
        # is gone.
        code = 128 + signal.SIGPIPE
        _discard(sys.stdout)
    except OSError as error:
        code = _FAILED
        _discard(sys.stdout)
        _say(f"cannot write to the output: {error.strerror}")
    try:
        sys.stderr.flush()
    except OSError:
        _discard(sys.stderr)
    if code:
        leave(code)
    sys.exit(code)


def _run(command: Callable[[], Any]) -> int:
    """Runs it, and says what went wrong; returns the exit code."""
    try:
        return command() or 0
    except SystemExit as stop:  # --help, or a bad flag
        if isinstance(stop.code, str):
            return _say(stop.code)
        return stop.code or 0
    except BrokenPipeError:
        raise
    except KeyboardInterrupt:
        return _say("stopped", 128 + signal.SIGINT)
    except FloatingPointError as error:  # of --debug-nans
        traceback.print_exc()
        return _say(str(error).splitlines()[0], _NOT_FINITE)
    except Exception as error:
        if not _has_devices():
            platforms = os.environ["JAX_PLATFORMS"]
            return _say(f"JAX finds none of the devices that JAX_PLATFORMS={platforms} names")
        code = getattr(error, "exit_code", None)  # of the errors of a run
        expected = code or isinstance(error, (ValueError, OSError, ModuleNotFoundError))
        if not expected or os.environ.get("DRAWJAX_TRACEBACK"):
            traceback.print_exc()
        return _say(str(error) if expected else repr(error), code or _FAILED)


def _say(message: str, code: int = _FAILED) -> int:
    try:
        print(f"error: {' '.join(message.split())}", file=sys.stderr)
    except OSError:
        _discard(sys.stderr)
    return code


def _has_devices() -> bool:
    """Whether JAX has a device, as far as it was asked for certain ones."""
    if "jax" not in sys.modules or not os.environ.get("JAX_PLATFORMS"):
        return True
    try:
        return bool(sys.modules["jax"].devices())
    except (RuntimeError, AssertionError):  # which one depends on whether it was asked before
        return False


def _discard(file: TextIO) -> None:
    """Throws away what cannot be written, or the interpreter would fail once more when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), file.fileno())


def _set_up_logs() -> None:
    """Logs of our own; of others only what a user can use."""
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", force=True
    )
    for chatty in ("jax", "orbax", "tensorflow_datasets", "asyncio"):
        logging.getLogger(chatty).setLevel(logging.ERROR)
    # Orbax logs, with tracebacks, what it raises as well.
    logging.getLogger("absl").setLevel(logging.CRITICAL)


def _set_up_cache() -> None:
    folder = os.environ.get("JAX_COMPILATION_CACHE_DIR", os.path.expanduser("~/.cache/drawjax"))
    if not os.path.isabs(folder):  # "", or a user without a home
        return
    if "jax" in sys.modules:
        sys.modules["jax"].config.update("jax_compilation_cache_dir", folder)
    else:
        os.environ["JAX_COMPILATION_CACHE_DIR"] = folder
