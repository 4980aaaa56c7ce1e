"""What saving costs a training run at the default interval: Table 3's MNIST row, batch 100.

Blocks of steps with a save and without take turns; a block ends when its save is on the disk. What
the save adds, and at least the time for which it holds the loop up, against the time between two
saves is the share.
"""

import pathlib
import tempfile
import time
from typing import Any

import jax
import numpy as np

from benchmarks import problem, timing
from drawjax.modules import DrawConfig
from drawjax.training import Run, TrainConfig
from drawjax.training.program import Program

STEPS = 5  # a block


def measure() -> list[dict[str, Any]]:
    train = TrainConfig()
    program = Program(problem.task(DrawConfig()), [train])
    state = program.initial()
    batch = np.asarray(problem.images(train.batch_size))
    held: list[float] = []
    with tempfile.TemporaryDirectory() as folder, Run(pathlib.Path(folder), train) as run:

        def block(saving: bool) -> jax.Array:
            nonlocal state
            for number in range(STEPS):
                state, metrics = program.step(state, [batch])
                if saving and not number:
                    jax.block_until_ready(state)
                    start = time.perf_counter()
                    run.save(state, {"place": 0})
                    held.append(time.perf_counter() - start)
            jax.block_until_ready(state)
            run.wait()
            return metrics["loss"]

        times = timing.compare(
            {"plain": lambda: block(False), "saving": lambda: block(True)}, rounds=6
        )
    step = times["plain"].fastest / STEPS
    added = times["saving"].fastest - times["plain"].fastest
    work = times["saving"].processor - times["plain"].processor
    return [
        {
            "state MB": sum(leaf.nbytes for leaf in jax.tree.leaves(state)) / 1e6,
            "step ms": 1e3 * step,
            "held up ms": 1e3 * min(held),
            "added ms": 1e3 * added,
            "added processor ms": 1e3 * work,
            "steps between saves": train.checkpoint_every,
            "share %": 100 * max(added, min(held)) / (train.checkpoint_every * step),
        }
    ]


if __name__ == "__main__":
    timing.main(measure, __doc__)
