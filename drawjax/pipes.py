"""Commands whose output goes into a pipe that may be closed early, as in `... --help | head`."""

import contextlib
import os
import signal
import sys
from collections.abc import Iterator

__all__ = ["readers_may_leave"]


@contextlib.contextmanager
def readers_may_leave() -> Iterator[None]:
    """Ends the process quietly, as SIGPIPE would, once nobody reads its output any more.

    Around a command, or as a decorator of it. The signal itself stays ignored, as Python has it:
    it would also end a run whose log alone is gone.
    """
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # What is still buffered would fail once more when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
