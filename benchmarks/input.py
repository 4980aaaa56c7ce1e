"""What batches cost a training step: images made inside it, and records read beside it.

Made: the time of making a batch's images alone, as a share of the whole step, which makes them.
Read: the time in which steps wait for their batch, as a share of all their time; sets that are too
large for memory are decoded record by record. Rows of sets that are not prepared are left out.
"""

import contextlib
import dataclasses
import time
from collections.abc import Callable
from typing import Any

import jax

from benchmarks import timing
from drawjax import data
from drawjax.data import DataNotFoundError, prepared
from drawjax.recipes.classification import Classification
from drawjax.recipes.generation import Generation, plain_view
from drawjax.training.program import Program
from experiments import (
    cifar10_generation,
    cluttered_mnist_classification,
    svhn_generation,
    two_digit_mnist_generation,
)

STEPS = 4  # whose waiting is counted, after one that is not


def _two_digits() -> tuple[Generation, Callable[..., jax.Array]]:
    config = two_digit_mnist_generation.PRESETS["paper"]
    images = data.load(config.data, "mnist")
    view = two_digit_mnist_generation.view(config, images)
    return Generation(config, images, view), lambda batch, key, _: view.images(batch, key, True)


def _clutter() -> tuple[Classification, Callable[..., jax.Array]]:
    config = cluttered_mnist_classification.PRESETS["paper"]
    work = Classification(config, data.load(config.data, "mnist"))
    return work, work.clutter


def _cifar10() -> Generation:
    config = cifar10_generation.PRESETS["paper"]
    images = data.load(config.data, "cifar10")
    return Generation(config, images, plain_view(config, images))


def _svhn() -> Generation:
    """SVHN read as the whole set is, record by record, also where only a sample is prepared."""
    config = svhn_generation.PRESETS["paper"]
    limit, prepared._IN_MEMORY = prepared._IN_MEMORY, 0
    try:
        images = data.load(config.data, "svhn_numbers")
    except DataNotFoundError:
        sample = dataclasses.replace(config.data, name="svhn_goodfellow64_sample")
        images = data.load(sample, "")
    finally:
        prepared._IN_MEMORY = limit
    return Generation(config, images, svhn_generation.view(config, images))


def _training(work: Any) -> tuple[Callable[[Any], jax.Array], Any, Any]:
    """A function that takes a training step with a batch, the batches, and the task's constants."""
    task = work.task()
    program = Program(task, [work.config.train])
    state = program.initial()

    def step(batch: Any) -> jax.Array:
        nonlocal state
        state, metrics = program.step(state, [batch])
        return jax.block_until_ready(metrics["loss"])

    return step, task.batches(0), task.constants


def _made(work: Any, images: Callable[..., jax.Array]) -> dict[str, Any]:
    step, batches, constants = _training(work)
    batch, make = next(batches), jax.jit(images)
    given = jax.device_put((batch, jax.random.key(0), constants))  # as inside the step
    times = timing.compare(
        {"make": lambda: make(*given), "step": lambda: step(batch)},
        rounds=20,
    )
    return _row(times["make"].fastest, times["step"].fastest, limit=5)


def _read(work: Any) -> dict[str, Any]:
    step, batches, _ = _training(work)
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
    rows = [
        {"batch": f"{name}, made inside the step"} | _made(*bind())
        for name, bind in {"two digits": _two_digits, "clutter": _clutter}.items()
    ]
    for name, bind in {"cifar10": _cifar10, "svhn_numbers": _svhn}.items():
        with contextlib.suppress(DataNotFoundError):
            rows.append({"batch": f"{name}, read beside the step"} | _read(bind()))
    return rows


if __name__ == "__main__":
    timing.main(measure, __doc__)
