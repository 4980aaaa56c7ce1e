"""Kills a training run at random moments and holds what it becomes to a run left in peace.

A person runs it for as long as they like:

    python -m tests.training.kill_test --kills 100

Each kill is SIGKILL or SIGTERM, at a random time or in the middle of writing a checkpoint; after it
the same command starts again. The last state (parameters, optimiser, average, counters), the best
parameters and the validation curve must be those of the undisturbed run, bit for bit.
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

import numpy as np

_ROOT = pathlib.Path(__file__).parents[2]
_TIMEOUT = 300  # seconds that no run of the toy takes


def command(workdir: pathlib.Path, steps: int, pause: float) -> list[str]:
    """The command that is killed."""
    return [
        sys.executable, "-m", "tests.training.toy", "--workdir", str(workdir),
        "--pause", str(pause), "--train.steps", str(steps), "--train.checkpoint-every", "3",
        "--train.eval-every", "7",
    ]  # fmt: skip


def start(workdir: pathlib.Path, steps: int, pause: float) -> subprocess.Popen:
    """Starts it."""
    with (workdir.parent / f"{workdir.name}.log").open("a") as log:
        return subprocess.Popen(command(workdir, steps, pause), cwd=_ROOT, stdout=log, stderr=log)


def kill_once(
    workdir: pathlib.Path, signum: int, *, steps: int, pause: float, during_save: bool, delay: float
) -> str | None:
    """Starts the run, kills it, and says how that went; None if it was done before."""
    process = start(workdir, steps, pause)
    began, before = time.monotonic(), _checkpoints(workdir)
    # Before the first new checkpoint a kill would be of the imports, which is dull.
    while process.poll() is None and _checkpoints(workdir) == before:
        time.sleep(0.005)
        if time.monotonic() - began > _TIMEOUT:
            process.kill()
            raise TimeoutError(f"no checkpoint in {_TIMEOUT} s; see {workdir}.log")
    if during_save:
        while process.poll() is None and not _saving(workdir):
            time.sleep(0.0002)
    else:
        time.sleep(delay)
    saving = _saving(workdir)
    process.send_signal(signum)
    code = process.wait(_TIMEOUT)
    if code == 0:
        return None
    expected = -signal.SIGKILL if signum == signal.SIGKILL else 128 + signum
    if code != expected:
        raise AssertionError(f"exit code {code}, expected {expected}; see {workdir}.log")
    return (
        f"{signal.Signals(signum).name}{' during a save' if saving else ''}, "
        f"checkpoints {sorted(_checkpoints(workdir))}"
    )


def finish(workdir: pathlib.Path, steps: int) -> None:
    """Lets the run come to its end."""
    process = start(workdir, steps, 0.0 if not workdir.exists() else _saved_pause(workdir))
    if code := process.wait(_TIMEOUT):
        raise AssertionError(f"exit code {code}; see {workdir}.log")


def differences(one: pathlib.Path, other: pathlib.Path) -> list[str]:
    """What differs between two finished runs; empty if nothing."""
    differ = []
    with np.load(one / "final.npz") as a, np.load(other / "final.npz") as b:
        if sorted(a) != sorted(b):
            differ.append("structure of the state")
        differ += [f"array {name}" for name in a if a[name].tobytes() != b[name].tobytes()]
    if _validation(one) != _validation(other):
        differ.append(f"validation: {_validation(one)} and {_validation(other)}")
    if _best(one) != _best(other):
        differ.append(f"best: {_best(one)} and {_best(other)}")
    return differ


def kill_test(
    folder: pathlib.Path, *, kills: int, steps: int, pause: float, seed: int, show=print
) -> None:
    """Kills a run `kills` times and compares it with another; AssertionError if they differ."""
    rng = random.Random(seed)
    killed, whole = folder / "killed", folder / "whole"
    done = 0
    while done < kills:
        signum = (signal.SIGKILL, signal.SIGTERM)[done % 2]
        said = kill_once(
            killed, signum, steps=steps, pause=pause, during_save=done % 3 == 0,
            delay=rng.uniform(0, 12 * pause),
        )  # fmt: skip
        if said is None:
            show(f"the run ended after {done} kills; more --steps leave room for more")
            break
        done += 1
        show(f"kill {done}: {said}")
    finish(killed, steps)
    finish(whole, steps)
    if differ := differences(killed, whole):
        raise AssertionError(f"killed {done} times, the run differs in: {', '.join(differ)}")
    if done < kills:
        raise AssertionError(f"only {done} kills of {kills}")
    show(f"killed {done} times, every bit is that of the undisturbed run")


def _saved_pause(workdir: pathlib.Path) -> float:
    return json.loads((workdir / "config.json").read_text())["pause"]


def _checkpoints(workdir: pathlib.Path) -> set[int]:
    return {int(path.name) for path in (workdir / "checkpoints").glob("*") if path.name.isdigit()}


def _saving(workdir: pathlib.Path) -> bool:
    return any((workdir / "checkpoints").glob("*tmp*"))


def _validation(workdir: pathlib.Path) -> list[tuple[int, float]]:
    entries = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return [(entry["step"], entry["loss"]) for entry in entries if entry["split"] == "validation"]


def _best(workdir: pathlib.Path) -> list[str]:
    return sorted(path.name for path in (workdir / "best").iterdir() if path.name.isdigit())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--steps", type=int, default=600, help="of the run; about 15 a kill")
    parser.add_argument("--pause", type=float, default=0.03, help="seconds between two steps")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    arguments = vars(parser.parse_args())
    with tempfile.TemporaryDirectory() as name:
        kill_test(pathlib.Path(name), **arguments)
