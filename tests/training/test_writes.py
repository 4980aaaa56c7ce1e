"""Kills a small run at each of its writes in turn; the next start makes it the undisturbed run."""

import concurrent.futures
import dataclasses
import itertools
import json
import multiprocessing
import os
import pathlib
import signal
import sys

import pytest

from tests.training import kill_test, toy

CONFIG = dataclasses.replace(
    toy.CONFIG, steps=4, log_every=1, eval_every=2, checkpoint_every=2, keep_checkpoints=1
)


def _run(folder: pathlib.Path, kill_at: int = 0) -> None:
    """Trains in this process, which ends before write number `kill_at`, if there is one."""
    writes = itertools.count(1)  # of all threads

    def watch(event, arguments):
        path = arguments[0] if arguments else None
        if not isinstance(path, str | os.PathLike) or not str(path).startswith(f"{folder}/"):
            return
        mode = arguments[1] if event == "open" else None
        creates = event == "open" and isinstance(mode, str) and set(mode) & set("wax+")
        if not creates and event not in ("os.rename", "shutil.rmtree"):
            return
        if next(writes) == kill_at:
            if creates and "w" in mode:  # torn: the old content is gone, the new not there
                os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC))
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)  # os.replace is an os.rename too
    toy.run([toy.ToyConfig(workdir=str(folder), train=CONFIG)])
    _end(folder).touch()


def _end(folder: pathlib.Path) -> pathlib.Path:
    return folder.with_suffix(".end")


def _files(folder: pathlib.Path) -> set[str]:
    """The names of a run's files; TensorBoard's and the arrays' have random parts."""
    files = (path.relative_to(folder) for path in folder.rglob("*"))
    return {str(f) for f in files if f.parts[0] != "tensorboard" and "d" not in f.parts}


def _rows(folder: pathlib.Path) -> list[dict]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != "images_per_second"} for row in rows]


@pytest.mark.slow
def test_a_run_killed_at_any_write_ends_with_the_same_bits_and_files(tmp_path):
    # Forked from a process that has imported everything, and in which JAX has not started.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])

    def ends(folder, kill_at=0):
        """Whether the run comes to its end."""
        process = context.Process(target=_run, args=(folder, kill_at))
        process.start()
        process.join()  # an exit code may be lost where two threads start processes
        return _end(folder).exists()

    whole = tmp_path / "whole"
    assert ends(whole)

    def killed(number):
        folder = tmp_path / f"killed{number}"
        return ends(folder, number), ends(folder)

    number, outcomes = 1, []
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        while not any(ended for ended, _ in outcomes):
            for n, (_, ended) in enumerate(outcomes, start=number - 2):
                folder = tmp_path / f"killed{n}"
                assert ended, n
                assert kill_test.differences(folder, whole) == [], n
                assert _files(folder) == _files(whole), n
                assert _rows(folder) == _rows(whole), n
            outcomes = list(pool.map(killed, (number, number + 1)))
            number += 2
    assert outcomes[-1] == (True, True)  # there are no more writes
    assert number > 20
