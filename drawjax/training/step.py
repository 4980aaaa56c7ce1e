"""One training step, a pure function of the state, the batch and a few numbers."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

from drawjax.config.train import TrainConfig
from drawjax.training.keys import streams
from drawjax.training.task import Task

__all__ = ["Hyperparams", "TrainState", "initial_state", "learning_rate", "train_step"]

PyTree = Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Hyperparams:
    """The part of a `TrainConfig` that changes no shape.

    Runs that differ only here share a compiled program. Leaves are numbers or scalar arrays; they
    are traced, not compiled in.
    """

    steps: jax.Array | int
    decay_steps: jax.Array | int
    warmup_steps: jax.Array | int
    learning_rate: jax.Array | float
    clip_norm: jax.Array | float
    weight_decay: jax.Array | float
    ema_decay: jax.Array | float
    seed: jax.Array | int

    @classmethod
    def of(cls, config: TrainConfig) -> "Hyperparams":
        """The numbers of a config."""
        return cls(**{field.name: getattr(config, field.name) for field in dataclasses.fields(cls)})


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """All that a run carries from step to step; what a checkpoint holds."""

    step: jax.Array  #: int32 [], steps taken, skipped ones among them
    params: PyTree
    ema_params: PyTree  #: exponential moving average of params
    opt_state: PyTree  #: Optax's state
    skipped: jax.Array  #: int32 [], steps skipped so far
    skipped_in_row: jax.Array  #: int32 [], of which the last ones


def learning_rate(hyperparams: Hyperparams, step: jax.Array) -> jax.Array:
    """Warm-up, constant, then linear decay to zero over the last `decay_steps` steps."""
    warm = (step + 1) / jnp.maximum(hyperparams.warmup_steps, 1)
    left = (hyperparams.steps - step) / jnp.maximum(hyperparams.decay_steps, 1)
    return hyperparams.learning_rate * jnp.clip(jnp.minimum(warm, left), 0.0, 1.0)


def _optimizer(
    task: Task, hyperparams: Hyperparams, step: jax.Array
) -> optax.GradientTransformation:
    # Built inside the traced step, so that its numbers may be traced. The rate goes by the state's
    # own counter: Optax's stands still in a skipped step, whose update is thrown away.
    if task.optimizer is not None:
        return task.optimizer
    return optax.chain(
        optax.clip_by_global_norm(hyperparams.clip_norm),
        optax.adamw(learning_rate(hyperparams, step), weight_decay=hyperparams.weight_decay),
    )


def initial_state(task: Task, hyperparams: Hyperparams) -> TrainState:
    """The state before the first step."""
    params = task.init(streams(hyperparams.seed).params)
    zero = jnp.zeros((), jnp.int32)
    return TrainState(
        step=zero,
        params=params,
        ema_params=jax.tree.map(jnp.copy, params),
        opt_state=_optimizer(task, hyperparams, zero).init(params),
        skipped=jnp.zeros((), jnp.int32),
        skipped_in_row=jnp.zeros((), jnp.int32),
    )


def train_step(
    task: Task, state: TrainState, batch: PyTree, hyperparams: Hyperparams, constants: PyTree
) -> tuple[TrainState, dict[str, jax.Array]]:
    """Takes one step; one whose loss or gradient is not finite changes no parameter.

    Returns:
      The next state, and scalars: those of the loss, `loss`, `gradient_norm`, `skipped_in_row` and,
      unless the task brings an optimizer of its own, the `learning_rate` that was applied.
    """
    key = jax.random.fold_in(streams(hyperparams.seed).noise, state.step)
    (loss, metrics), gradient = jax.value_and_grad(task.loss, has_aux=True)(
        state.params, batch, key, constants
    )
    norm = optax.tree.norm(gradient)
    good = jnp.isfinite(loss) & jnp.isfinite(norm)
    optimizer = _optimizer(task, hyperparams, state.step)
    updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    # The average follows quickly at first, so that it forgets the initial parameters.
    decay = jnp.minimum(hyperparams.ema_decay, (1 + state.step) / (10 + state.step))
    ema_params = optax.incremental_update(params, state.ema_params, 1 - decay)
    params, ema_params, opt_state = jax.tree.map(
        lambda new, old: jnp.where(good, new, old).astype(old.dtype),
        (params, ema_params, opt_state),
        (state.params, state.ema_params, state.opt_state),
    )
    bad = (~good).astype(jnp.int32)
    in_row = (state.skipped_in_row + 1) * bad
    metrics |= {"loss": loss, "gradient_norm": norm, "skipped_in_row": in_row}
    if task.optimizer is None:
        metrics["learning_rate"] = learning_rate(hyperparams, state.step)
    return (
        TrainState(state.step + 1, params, ema_params, opt_state, state.skipped + bad, in_row),
        metrics,
    )
