"""Training steps of each experiment under JAX's debugging switches."""

import dataclasses
import importlib

import jax
import numpy as np
import pytest

from benchmarks import presets
from drawjax.config import ClassificationConfig
from drawjax.training.step import Hyperparams, initial_state, train_step


def _task(experiment):
    """The demo's task with a tiny model on random images, and its config."""
    config = importlib.import_module(f"experiments.{experiment}").PRESETS["demo"]
    tiny = {"num_glimpses": 2, "hidden_size": 8}
    if not isinstance(config, ClassificationConfig):
        tiny["latent_size"] = 3
    config = dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, **tiny),
        train=dataclasses.replace(config.train, batch_size=16, warmup_steps=0),
    )
    return presets.task(config, presets.STORED[experiment]), config


def _two_steps(experiment):
    """The state after two steps, and their metrics."""
    task, config = _task(experiment)
    numbers = Hyperparams.of(config.train)
    step = jax.jit(lambda *arguments: train_step(task, *arguments))
    state, batches, metrics = initial_state(task, numbers), task.batches(0), []
    for _ in range(2):
        state, said = step(state, next(batches), numbers, task.constants)
        metrics.append(said)
    return jax.device_get((state, metrics))


@pytest.mark.slow
# Two digits are drawn and binarized as one is, and house numbers as other color images.
@pytest.mark.parametrize("experiment", [
    name for name in presets.STORED if name not in ("mnist_generation", "cifar10_generation")
])  # fmt: skip
def test_steps_under_debugging_switches(experiment):
    plain, said = _two_steps(experiment)
    assert plain.skipped == 0
    # Without jit, each operation's result is looked at for a NaN.
    for switches in (["jax_enable_x64"], ["jax_debug_nans", "jax_disable_jit"]):
        before = {switch: jax.config.values[switch] for switch in switches}
        try:
            for switch in switches:
                jax.config.update(switch, True)
            state, metrics = _two_steps(experiment)
        finally:
            for switch, value in before.items():
                jax.config.update(switch, value)
        assert state.step == 2, switches
        assert state.skipped == 0, switches
        if "jax_enable_x64" in switches:  # other random bits; the parameters stay as they are typed
            dtypes = {leaf.dtype for leaf in jax.tree.leaves(state.params)}
            assert dtypes == {np.dtype("float32")}
            assert metrics[0]["loss"] == pytest.approx(said[0]["loss"], rel=0.05)
            continue
        for found, expected in zip(metrics, said, strict=True):
            assert found["loss"] == pytest.approx(expected["loss"], rel=1e-4)
            assert found["gradient_norm"] == pytest.approx(expected["gradient_norm"], rel=1e-3)
