"""What batches cost a training step: images made inside it, and records read beside it.

Made: the time of making a batch's images alone, as a share of the whole step, which makes them.
Read: the time in which steps wait for their batch, as a share of all their time; sets that are too
large for memory are decoded record by record. Rows of sets that are not prepared are left out.
"""

import contextlib
import time
from collections.abc import Callable
from typing import Any
from unittest import mock

import jax

from benchmarks import timing
from drawjax import data
from drawjax.data import DataNotFoundError, prepared
from drawjax.experiment import Experiment
from drawjax.runner import experiment_of
from drawjax.training.step import Program
from experiments import (
    cifar10_generation,
    cluttered_mnist_classification,
    svhn_generation,
    two_digit_mnist_generation,
)

STEPS = 40  # whose waiting is counted, after as many that use up what was read ahead


def _bound(preset: Any, dataset: str) -> Experiment:
    return experiment_of(preset, data.load(dataset, preset.data))


def _svhn() -> Experiment:
    """SVHN read as the whole set is, record by record, also where only a sample is prepared."""
    config = svhn_generation.PRESETS["paper"]
    with mock.patch.object(prepared, "_IN_MEMORY", 0):
        try:
            return _bound(config, "svhn_numbers")
        except DataNotFoundError:
            return _bound(config, "svhn_goodfellow64_sample")


def _training(experiment: Experiment) -> tuple[Callable[[Any], jax.Array], Any, Any]:
    """A function that takes a training step with a batch, the batches, and the constants."""
    program = Program(experiment, [experiment.config.train])
    state = program.initial()

    def step(batch: Any) -> jax.Array:
        nonlocal state
        state, metrics = program.step(state, [batch])
        return jax.block_until_ready(metrics["loss"])

    return step, experiment.batches(0), experiment.constants


def _made(experiment: Experiment) -> dict[str, Any]:
    step, batches, constants = _training(experiment)
    batch = next(batches)

    @jax.jit
    def make(batch: Any, key: jax.Array, pool: jax.Array) -> jax.Array:
        images, keys = batch["image"], jax.random.split(key, len(batch["image"]))
        return data.preprocess(experiment.config.data, images, keys, pool, training=True)

    given = jax.device_put((batch, jax.random.key(0), constants))  # as inside the step
    times = timing.compare(
        {"make": lambda: make(*given), "step": lambda: step(batch)},
        rounds=20,
    )
    return _row(times["make"].fastest, times["step"].fastest, limit=5)


def _read(experiment: Experiment) -> dict[str, Any]:
    step, batches, _ = _training(experiment)
    for _ in range(STEPS):
        step(next(batches))
    waited, start = 0.0, time.perf_counter()
    for _ in range(STEPS):
        asked = time.perf_counter()
        batch = next(batches)
        waited += time.perf_counter() - asked
        step(batch)
    return _row(waited / STEPS, (time.perf_counter() - start) / STEPS, limit=2)


def _row(batch: float, step: float, limit: int) -> dict[str, Any]:
    share = 100 * batch / step
    return {"batch ms": 1e3 * batch, "step ms": 1e3 * step, "share %": share, "limit %": limit}


def measure() -> list[dict[str, Any]]:
    made = {"two digits": two_digit_mnist_generation, "clutter": cluttered_mnist_classification}
    rows = [
        {"batch": f"{name}, made inside the step"} | _made(_bound(module.PRESETS["paper"], "mnist"))
        for name, module in made.items()
    ]
    read = {
        "cifar10": lambda: _bound(cifar10_generation.PRESETS["paper"], "cifar10"),
        "svhn_numbers": _svhn,
    }
    for name, bind in read.items():
        with contextlib.suppress(DataNotFoundError):
            rows.append({"batch": f"{name}, read beside the step"} | _read(bind()))
    return rows


if __name__ == "__main__":
    timing.main(measure, __doc__)
