"""Kills a training run at random moments and holds what it becomes to a run left in peace.

A person runs it for as long as they like, on the toy or on any experiment:

    python -m tests.training.kill_test --kills 100
    python -m tests.training.kill_test --kills 20 --steps 3000 --every 10 --command \\
        experiments.mnist_generation --preset demo --model.num-glimpses 4 --model.hidden-size 16 \\
        --samples 4

Each kill is SIGKILL or SIGTERM, in the middle of writing a checkpoint, at a random time after one,
or at a random time of the start; after it the same command starts again. The last state
(parameters, optimizer, average, counters), the best parameters and the validation curve must be
those of the undisturbed run, bit for bit.
"""

import argparse
import json
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence

import jax
import numpy as np
import orbax.checkpoint as ocp

_ROOT = pathlib.Path(__file__).parents[2]
_TIMEOUT = 300  # seconds that no run takes to its first checkpoint, or to its end when it may
_TOY = ("tests.training.toy", "--pause", "0.02")
_SAVE, _LATER, _START = _MOMENTS = ("in a save", "after a save", "at the start")


class Killed:
    """One run, which is started and killed again and again.

    Args:
      workdir: its folder; what it says goes to a file beside it.
      command: a module and its flags.
      steps: of the run.
      every: steps between two checkpoints.
    """

    def __init__(self, workdir: pathlib.Path, command: Sequence[str], steps: int, every: int):
        self.workdir = workdir
        self._log = workdir.with_name(f"{workdir.name}.log")
        self._command = [
            sys.executable, "-m", *command, "--workdir", str(workdir), "--train.steps", str(steps),
            "--train.checkpoint-every", str(every), "--train.eval-every", str(2 * every + 1),
        ]  # fmt: skip
        self._took = 5.0  # seconds that the last start took to its first checkpoint

    def kill_once(self, signum: int, when: str, share: float, span: float) -> str | None:
        """Starts the run, kills it, and says how that went; None if it was done before.

        Args:
          signum: the signal.
          when: one of `_MOMENTS`.
          share: where in the span, or in the start, from 0 to 1.
          span: seconds after a checkpoint that a kill may wait.
        """
        process, began, before = self.start(), time.monotonic(), _steps(self.workdir)
        if when == _START:
            time.sleep(share * self._took)
        else:
            while process.poll() is None and _steps(self.workdir) <= before:
                time.sleep(0.005)
                if time.monotonic() - began > _TIMEOUT:
                    process.kill()
                    raise TimeoutError(f"no checkpoint in {_TIMEOUT} s; see {self._log}")
            self._took = time.monotonic() - began
        if when == _SAVE:
            while process.poll() is None and not _saving(self.workdir):
                time.sleep(0.0002)
        elif when == _LATER:
            time.sleep(share * span)
        saving = _saving(self.workdir)
        process.send_signal(signum)
        code = process.wait(_TIMEOUT)
        if code == 0:
            return None
        # SIGTERM ends a process by itself before training begins and once it is over.
        if code != -signum and (code != 128 + signum or signum == signal.SIGKILL):
            raise AssertionError(f"exit code {code}; see {self._log}")
        return (
            f"{signal.Signals(signum).name} {_SAVE if saving else when}, exit code {code}, "
            f"checkpoints {sorted(_steps(self.workdir))}"
        )

    def finish(self, process: subprocess.Popen) -> None:
        """Lets the run come to its end."""
        if code := process.wait(_TIMEOUT):
            raise AssertionError(f"exit code {code}; see {self._log}")

    def start(self) -> subprocess.Popen:
        """Starts the run, or goes on with it."""
        with self._log.open("a") as log:
            return subprocess.Popen(self._command, cwd=_ROOT, stdout=log, stderr=log)


def differences(one: pathlib.Path, other: pathlib.Path) -> list[str]:
    """What differs between two finished runs; empty if nothing."""
    differ = []
    for kind in ("checkpoints", "best"):
        a, b = ({f"step {max(_steps(run, kind))}": _arrays(run, kind)} for run in (one, other))
        if jax.tree.structure(a) != jax.tree.structure(b):
            differ.append(f"structure or step of {kind}: {[*a]} and {[*b]}")
            continue
        leaves = zip(jax.tree_util.tree_leaves_with_path(a), jax.tree.leaves(b), strict=True)
        differ += [
            f"{kind}{jax.tree_util.keystr(path)}"
            for (path, x), y in leaves
            if np.asarray(x).tobytes() != np.asarray(y).tobytes()
        ]
    if _validation(one) != _validation(other):
        differ.append(f"validation: {_validation(one)} and {_validation(other)}")
    return differ


def kill_test(
    folder: pathlib.Path, *, kills: int, steps: int, every: int = 3, span: float = 0.25,
    seed: int = 0, command: Sequence[str] = _TOY, show=print,
) -> None:  # fmt: skip
    """Kills a run `kills` times and compares it with another; AssertionError if they differ."""
    rng = random.Random(seed)
    killed = Killed(folder / "killed", command, steps, every)
    whole = Killed(folder / "whole", command, steps, every)
    undisturbed = whole.start()
    done = 0
    try:
        while done < kills:
            signum = (signal.SIGKILL, signal.SIGTERM)[done % 2]
            said = killed.kill_once(signum, _MOMENTS[done % 3], rng.random(), span)
            if said is None:
                show(f"the run ended after {done} kills; more --steps leave room for more")
                break
            done += 1
            show(f"kill {done}: {said}")
        killed.finish(killed.start())
        whole.finish(undisturbed)
    finally:
        undisturbed.kill()
    if differ := differences(killed.workdir, whole.workdir):
        raise AssertionError(f"killed {done} times, the run differs in: {', '.join(differ)}")
    if done < kills:
        raise AssertionError(f"only {done} kills of {kills}")
    show(f"killed {done} times, every bit is that of the undisturbed run")


def _steps(workdir: pathlib.Path, kind: str = "checkpoints") -> set[int]:
    return {int(path.name) for path in (workdir / kind).glob("*") if path.name.isdigit()}


def _saving(workdir: pathlib.Path) -> bool:
    return any((workdir / "checkpoints").glob("*tmp*"))


def _arrays(workdir: pathlib.Path, kind: str):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the devices it was saved on
        return ocp.PyTreeCheckpointer().restore(
            workdir / kind / str(max(_steps(workdir, kind))) / "arrays"
        )


def _validation(workdir: pathlib.Path) -> list[tuple[int, float]]:
    entries = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return [(entry["step"], entry["loss"]) for entry in entries if entry["split"] == "validation"]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--steps", type=int, default=600, help="of the run; about 15 a kill")
    parser.add_argument("--every", type=int, default=3, help="steps between two checkpoints")
    parser.add_argument("--span", type=float, default=0.25, help="seconds, see `Killed.kill_once`")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument(
        "--command", nargs=argparse.REMAINDER, default=_TOY, help="a module and its flags, last"
    )
    arguments = vars(parser.parse_args())
    with tempfile.TemporaryDirectory() as name:
        kill_test(pathlib.Path(name), **arguments)
