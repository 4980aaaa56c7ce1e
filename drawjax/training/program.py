"""The compiled part of training: one run, or several points of a sweep side by side."""

import contextlib
import dataclasses
import functools
import logging
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from drawjax.config.train import TrainConfig
from drawjax.progress import announced
from drawjax.training import mesh
from drawjax.training.step import Hyperparams, TrainState, initial_state, train_step
from drawjax.training.task import Task

__all__ = ["Program"]

_log = logging.getLogger(__name__)

PyTree = Any


class Program:
    """Initial state and training step of configs that differ only in `Hyperparams`.

    One config gives plain arrays. Several give arrays with a leading axis, `[points, ...]`, and a
    step that is vmapped over it.

    Args:
      task: what to train.
      configs: how; the points.
    """

    def __init__(self, task: Task, configs: Sequence[TrainConfig]):
        self._task = task
        first = configs[0]
        self.points = len(configs)
        self._stacked = self.points > 1
        self._mesh = mesh.make(first.batch_size, points=self.points)
        init = functools.partial(initial_state, task)
        step = functools.partial(train_step, task)
        self._hyperparams: Any = Hyperparams.of(first)
        single = jax.eval_shape(init, self._hyperparams)
        self._single = mesh.shardings(self._mesh, single)
        self._shardings = self._single
        self.abstract: TrainState = jax.tree.map(
            lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
            single,
            self._single,
        )
        """Shapes, types and shardings of one point's state."""
        if self._stacked:
            self._hyperparams = jax.tree.map(
                lambda *values: np.asarray(
                    values, np.float32 if isinstance(values[0], float) else np.int32
                ),
                *map(Hyperparams.of, configs),
            )
            init = jax.vmap(init)
            step = jax.vmap(step, in_axes=(0, 0, 0, None))
            self._shardings = mesh.shardings(
                self._mesh, jax.eval_shape(init, self._hyperparams), stacked=True
            )
        self._init = jax.jit(init, out_shardings=self._shardings)
        self._plain_step = step
        # A step that made a NaN is taken again to find where: that needs its arguments.
        self._hunting = bool(jax.config.jax_debug_nans)  # pyright: ignore[reportAttributeAccessIssue]
        donated = () if self._hunting else (0,)
        self._step = jax.jit(step, donate_argnums=donated, out_shardings=(self._shardings, None))
        self._compiled = False
        self._constants = jax.device_put(task.constants, mesh.replicated(self._mesh))
        self._take = jax.jit(
            lambda state, point: jax.tree.map(lambda leaf: leaf[point], state),
            out_shardings=self._single,
        )
        self._evaluated = jax.jit(lambda tree: tree, out_shardings=mesh.replicated(self._mesh))

    def initial(self) -> TrainState:
        """The state before the first step, from the task's `init_params` or else its `init`."""
        state = self._init(self._hyperparams)
        if self._task.init_params is None:
            return state

        def begin(state, params):
            params = jax.tree.map(
                lambda new, old: jnp.broadcast_to(new, old.shape), params, state.params
            )
            return dataclasses.replace(
                state, params=params, ema_params=jax.tree.map(jnp.copy, params)
            )

        return jax.jit(begin, out_shardings=self._shardings)(state, self._task.init_params)

    def step(
        self, state: TrainState, batches: Sequence[PyTree]
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        """Takes a step of every point.

        Args:
          state: the state; its buffers are used again, so it is gone afterwards.
          batches: this process's share of a batch, for each point.

        Returns:
          The next state, and the step's scalars, `[]` or `[points]`.

        Raises:
          FloatingPointError: under `jax_debug_nans`, from the operation that made the first NaN.
        """
        batch = batches[0]
        if self._stacked:
            batch = jax.tree.map(lambda *leaves: np.stack(leaves), *batches)
        batch = mesh.put_batch(self._mesh, batch, stacked=self._stacked)
        first, self._compiled = not self._compiled, True
        if not self._hunting:
            with announced("compiling the training step") if first else contextlib.nullcontext():
                return self._step(state, batch, self._hyperparams, self._constants)
        with jax.debug_nans(False):
            after = self._step(state, batch, self._hyperparams, self._constants)
        if not np.all(np.isfinite([after[1]["loss"], after[1]["gradient_norm"]])):
            self._find(state, batch)
        return after

    def _find(self, state: TrainState, batch: PyTree) -> None:
        """Takes a step again, operation by operation, up to the one that is not finite."""
        _log.error("step %d is not finite; looking for the operation", np.max(state.step) + 1)
        for infinities in (False, True):  # many an infinity is meant
            with jax.disable_jit(), jax.debug_nans(True), jax.debug_infs(infinities):
                self._plain_step(state, batch, self._hyperparams, self._constants)
        raise FloatingPointError(
            "the compiled step is not finite, yet each of its operations alone is"
        )

    def take(self, state: TrainState, point: int) -> TrainState:
        """The state of one point."""
        return self._take(state, point) if self._stacked else state

    def put(self, states: Sequence[TrainState]) -> TrainState:
        """The state made of those of all points."""
        if not self._stacked:
            return states[0]

        def stack(*states):
            return jax.tree.map(lambda *leaves: jax.numpy.stack(leaves), *states)

        return jax.jit(stack, out_shardings=self._shardings)(*states)

    def evaluated(self, state: TrainState, point: int) -> PyTree:
        """The averaged parameters of one point, whole on every device."""
        return self._evaluated(self.take(state, point).ema_params)
