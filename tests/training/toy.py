"""A task so small that only the loop around it is tested: regression with a noisy loss.

As a program: `python -m tests.training.toy --workdir FOLDER`, which the tests start, kill and
start again.
"""

import contextlib
import dataclasses
import json
import os
import time

import grain
import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from drawjax import cli
from drawjax.config import option
from drawjax.training import Diverged, RunWriter, Task, TrainConfig, read_best, train_points

_WEIGHTS = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
_INPUTS = np.random.default_rng(1).normal(size=(50, 6)).astype(np.float32)

CONFIG = TrainConfig(
    steps=30, batch_size=8, learning_rate=0.05, warmup_steps=3, log_every=5, eval_every=10,
    checkpoint_every=5, keep_checkpoints=2,
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class ToyConfig:
    """A run of the toy."""

    workdir: str = option("toy", harmless=True)
    """The run's folder."""
    train: TrainConfig = CONFIG
    width: int = 4
    """Hidden units."""
    pause: float = option(0.0, harmless=True)
    """Seconds to wait before each batch."""


class _Slow:
    """Batches that take their time, up to batch $TOY_FAULT, which cannot be read."""

    def __init__(self, batches, pause):
        self._batches, self._pause = batches, pause
        self._left = int(os.environ.get("TOY_FAULT", -1))

    def __next__(self):
        if not self._left:
            raise OSError("no such batch")
        self._left -= 1
        time.sleep(self._pause)
        return next(self._batches)

    def get_state(self):
        return self._batches.get_state()

    def set_state(self, state):
        self._batches.set_state(state)


def batches(seed, batch_size=8, pause=0.0):
    """Grain batches of inputs and targets; this process's share of each."""
    share = batch_size // jax.process_count()
    start = share * jax.process_index()

    def read(numbers):
        x = _INPUTS[numbers[start : start + share]]
        return {"x": x, "y": x @ _WEIGHTS, "number": numbers[start : start + share]}

    numbers = grain.MapDataset.range(len(_INPUTS)).shuffle(seed=seed).repeat()
    options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=4)
    return _Slow(iter(numbers.batch(batch_size).map(read).to_iter_dataset(options)), pause)


def predict(params, x):
    """The model."""
    return jnp.tanh(x @ params["in"] + params["bias"][None]) @ params["out"]


def loss(params, batch, key, constants, step):
    """Squared error, with noise on the input so that the key matters."""
    x = batch["x"] + 0.1 * jax.random.normal(key, batch["x"].shape)
    error = jnp.mean((predict(params, x) - batch["y"]) ** 2)
    return error + 0.0 * jnp.sum(constants), {"twice": 2 * error}


class Toy(Task):
    """The toy as a task; `changes` replace its parts."""

    constants = np.ones(2, np.float32)

    def __init__(self, config: ToyConfig = ToyConfig(), **changes):
        self.config = config
        vars(self).update(changes)

    def init(self, key):
        one, two = jax.random.split(key)
        width = self.config.width
        return {
            "in": jax.random.normal(one, (6, width)),
            "bias": jnp.zeros(width),
            "out": jax.random.normal(two, (width, 3)) / width**0.5,
        }

    def loss(self, params, batch, key, constants, step):
        return loss(params, batch, key, constants, step)

    def batches(self, seed):
        return batches(seed, self.config.train.batch_size, self.config.pause)

    def validate(self, params):
        return {"loss": float(jnp.mean((predict(params, _INPUTS) - _INPUTS @ _WEIGHTS) ** 2))}


task = Toy


def run(configs):
    """Trains and leaves all numbers of the last state in `final.npz`."""
    with contextlib.ExitStack() as stack:
        runs = [
            stack.enter_context(RunWriter(c.workdir, c, keep=c.train.keep_checkpoints))
            for c in configs
        ]
        outcomes = train_points(task(configs[0]), [config.train for config in configs], runs)
        for folder, state in zip(runs, outcomes, strict=True):
            if isinstance(state, Diverged):
                continue
            best, validation = read_best(folder.workdir, state.ema_params)
            assert jax.tree.structure(best) == jax.tree.structure(state.ema_params)
            # One copy of what lies on several devices, or on several hosts.
            whole = multihost_utils.process_allgather(state, tiled=True)
            if jax.process_index() == 0:
                np.savez(folder.workdir / "final.npz", *map(np.asarray, jax.tree.leaves(whole)))
                results = json.dumps({"validation": validation})
                (folder.workdir / "results.json").write_text(results)
    return outcomes


if __name__ == "__main__":
    cli.run_experiment({"toy": ToyConfig(), "wide": ToyConfig(width=256)}, run)
