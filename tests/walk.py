"""Which files control enters from a command to the first likelihood: `python -m tests.walk`.

Prints JSON: `entered`, the files in the order of their first call; `moves`, how often control goes
from one to another; `stack`, those in the call stack at the end. Definitions that are only
executed, of modules, classes and annotations, do not count.
"""

import functools
import inspect
import json
import os
import pathlib
import runpy
import shutil
import sys
import tempfile

ROOT = pathlib.Path(__file__).parents[1]


@functools.cache  # of each call there is in JAX
def _short(path: str) -> str | None:
    """The path from the root, of files of the library and the experiments."""
    relative = os.path.relpath(path, ROOT)
    return relative if relative.startswith(("drawjax/", "experiments/")) else None


def trace(module: str, arguments: list[str], end: str, folder: str) -> None:
    """Runs a module as a command up to the call of `end`, a qualified name; prints the walk.

    Removes the folder that the command wrote to, and ends the process.
    """
    entered: list[str] = []
    moves = 0
    last = None

    def called(frame, event, arg):
        nonlocal moves, last
        code = frame.f_code
        here = _short(code.co_filename) if event == "call" else None
        if here is None or not code.co_flags & inspect.CO_OPTIMIZED:
            return
        if code.co_name == "__annotate__":  # of a definition, since Python 3.14
            return
        if here not in entered:
            entered.append(here)
        moves, last = moves + (here != last), here
        if code.co_qualname != end:
            return
        sys.setprofile(None)
        stack: list[str] = []
        while frame is not None:
            here = _short(frame.f_code.co_filename)
            if here is not None and here not in stack[:1]:
                stack.insert(0, here)
            frame = frame.f_back
        print(json.dumps({"entered": entered, "moves": moves, "stack": stack}), flush=True)
        shutil.rmtree(folder)
        os._exit(0)

    sys.argv = [module, *arguments]
    sys.setprofile(called)
    runpy.run_module(module, run_name="__main__")


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    made = tempfile.mkdtemp()
    flags = ["--preset", "demo", "--workdir", f"{made}/run", "--data.dir", "nowhere"]
    trace("experiments.mnist_generation", flags, "Bernoulli.log_prob", made)
