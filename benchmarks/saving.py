"""What saving costs a training run at the default interval: Table 3's MNIST row, batch 100."""

import pathlib
import tempfile
import time
from typing import Any

import jax
import numpy as np

from benchmarks import problem, timing
from drawjax.modules import DrawConfig
from drawjax.training import RunWriter, TrainConfig
from drawjax.training.step import Program


def measure() -> list[dict[str, Any]]:
    train = TrainConfig()
    program = Program(problem.task(DrawConfig()), [train])
    state = program.initial()
    batch = np.asarray(problem.images(train.batch_size))
    steps, saves = [], []
    with tempfile.TemporaryDirectory() as folder, RunWriter(pathlib.Path(folder), train) as run:
        for _ in range(6):
            start = time.perf_counter()
            state, _ = jax.block_until_ready(program.step(state, [batch]))
            steps.append(time.perf_counter() - start)
            start = time.perf_counter()
            run.save(state, {"place": 0})
            saves.append(time.perf_counter() - start)
    # The first of each compiles.
    return [
        {
            "state MB": sum(leaf.nbytes for leaf in jax.tree.leaves(state)) / 1e6,
            "step ms": 1e3 * min(steps[1:]),
            "save ms": 1e3 * min(saves[1:]),
            "steps between saves": train.checkpoint_every,
            "share %": 100 * min(saves[1:]) / (train.checkpoint_every * min(steps[1:])),
        }
    ]


if __name__ == "__main__":
    timing.main(measure, __doc__)
