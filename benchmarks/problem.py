"""The training problem that the benchmarks time: Table 3's rows on random images."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from drawjax import draw, modules
from drawjax.modules import DrawConfig
from drawjax.training import Task, TrainConfig
from drawjax.training.step import Hyperparams, TrainState, initial_state, train_step

__all__ = ["IMAGE_SHAPE", "images", "model_flops", "task", "training_step"]

IMAGE_SHAPE = (28, 28, 1)


def images(batch: int, shape: tuple[int, int, int] = IMAGE_SHAPE) -> jax.Array:
    """Random binary images, `[batch, *shape]`, as sparse as digits."""
    return (jax.random.uniform(jax.random.key(1), (batch, *shape)) > 0.8).astype(jnp.float32)


class _Draw(Task):
    """DRAW on batches that are arrays of images."""

    def __init__(self, config: DrawConfig, shape: tuple[int, int, int]):
        self._config, self._shape = config, shape
        self._graph, _ = modules.split(modules.Draw(config, shape, key=jax.random.key(0)))

    def init(self, key: jax.Array) -> Any:
        return modules.split(modules.Draw(self._config, self._shape, key=key))[1]

    def loss(self, params: Any, batch: jax.Array, key: jax.Array, constants: Any, step: jax.Array):
        del constants, step
        config = self._config
        noise = jax.random.normal(key, (config.num_glimpses, batch.shape[0], config.latent_size))
        model = modules.merge(self._graph, params)
        reconstruction, latent = draw.loss(model, batch, noise, remat=config.remat)
        parts = {"reconstruction": jnp.mean(reconstruction), "latent": jnp.mean(latent)}
        return parts["reconstruction"] + parts["latent"], parts

    def batches(self, seed: int) -> Any:
        return iter(())


def task(config: DrawConfig, shape: tuple[int, int, int] = IMAGE_SHAPE) -> Task:
    """The task of training DRAW on batches that are arrays of images."""
    return _Draw(config, shape)


def training_step(
    config: DrawConfig,
    batch: int,
    *,
    devices: int = 1,
    shape: tuple[int, int, int] = IMAGE_SHAPE,
) -> tuple[Callable[[], jax.Array], Any]:
    """The library's own training step on one fixed batch, spread over `devices`.

    Returns:
      A function that takes one step and returns its loss, and the compiled program.
    """
    bound = task(config, shape)
    hyperparams = Hyperparams.of(TrainConfig())
    auto = (jax.sharding.AxisType.Auto,)
    grid = jax.make_mesh((devices,), ("data",), auto, devices=jax.devices()[:devices])
    whole = jax.NamedSharding(grid, jax.P())
    state: TrainState = jax.jit(lambda: initial_state(bound, hyperparams), out_shardings=whole)()
    x = jax.device_put(images(batch, shape), jax.NamedSharding(grid, jax.P("data")))

    def step(state: TrainState, x: jax.Array, hyperparams: Hyperparams):
        return train_step(bound, state, x, hyperparams, ())

    hyperparams = jax.device_put(jax.tree.map(jnp.asarray, hyperparams), whole)
    program = jax.jit(step, donate_argnums=0, out_shardings=(whole, whole))
    program = program.lower(state, x, hyperparams).compile()

    def run() -> jax.Array:
        nonlocal state
        state, metrics = program(state, x, hyperparams)
        return metrics["loss"]

    return run, program


def model_flops(config: DrawConfig, batch: int, shape: tuple[int, int, int] = IMAGE_SHAPE) -> int:
    """Operations of the products with learned weights, forward and both backward ones."""
    shapes = jax.eval_shape(task(config, shape).init, jax.random.key(0))
    kernels = [
        leaf
        for path, leaf in jax.tree.leaves_with_path(shapes)
        if jax.tree_util.keystr(path).endswith("['kernel']")
    ]
    return 3 * 2 * batch * config.num_glimpses * sum(kernel.size for kernel in kernels)
