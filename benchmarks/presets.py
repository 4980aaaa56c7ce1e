"""How long each preset takes: its own training step on random images, times its steps.

Loading, evaluating and drawing are left out; of a real run they are a few percent.
"""

import dataclasses
import importlib
import time
from typing import Any

import jax
import numpy as np

from benchmarks import timing
from drawjax import data
from drawjax.__main__ import use_huge_pages
from drawjax.config import ExperimentConfig
from drawjax.data.sources import from_arrays
from drawjax.runner import experiment_of
from drawjax.training import Task
from drawjax.training.step import Program

STORED = {  # shapes of the experiments' images, as their sets have them
    "mnist_generation": (28, 28, 1),
    "two_digit_mnist_generation": (28, 28, 1),
    "cluttered_mnist_classification": (28, 28, 1),
    "cifar10_generation": (32, 32, 3),
    "svhn_generation": (64, 64, 3),
}
SECONDS = 8.0  # of steps, for each preset


def task(config: ExperimentConfig, stored: tuple[int, int, int]) -> Task:
    """What training does by a config, on two batches of random images as its set has them."""
    rng = np.random.default_rng(0)
    count = 2 * config.train.batch_size
    pixels = rng.integers(0, 256, size=(count, *stored), dtype=np.uint8)
    labels = {part: rng.integers(0, 10, size=count) for part in ("train", "validation", "test")}
    images = data.load(from_arrays(pixels, pixels, pixels, labels=labels), config.data)
    return experiment_of(config, images)


def rate(config: ExperimentConfig, stored: tuple[int, int, int], seconds: float) -> float:
    """Training images per second of a config on random images of a shape, after compiling."""
    its_task = task(config, stored)
    program, batches = Program(its_task, [config.train]), its_task.batches(0)
    state, _ = jax.block_until_ready(program.step(program.initial(), [next(batches)]))
    taken, start = 0, time.perf_counter()
    while taken < 2 or time.perf_counter() - start < seconds:
        state, _ = jax.block_until_ready(program.step(state, [next(batches)]))
        taken += 1
    return config.train.batch_size * taken / (time.perf_counter() - start)


def measure() -> list[dict[str, Any]]:
    rows = []
    for experiment, stored in STORED.items():
        presets = importlib.import_module(f"experiments.{experiment}").PRESETS
        for name, config in presets.items():
            images = config.train.steps * config.train.batch_size
            row: dict[str, Any] = {"experiment": experiment, "preset": name}
            row["million images"] = images / 1e6
            for precision in ("float32", "bfloat16"):
                model = dataclasses.replace(config.model, precision=precision)
                chosen = dataclasses.replace(config, model=model)
                row[f"images/s, {precision}"] = rate(chosen, stored, SECONDS)
                row[f"hours, {precision}"] = images / row[f"images/s, {precision}"] / 3600
            rows.append(row)
    return rows


if __name__ == "__main__":
    use_huge_pages()
    timing.main(measure, __doc__)
