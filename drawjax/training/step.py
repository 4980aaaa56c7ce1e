"""One training step, a pure function of the state, the batch and a few numbers."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

from drawjax.training.config import TrainConfig
from drawjax.training.task import Task

__all__ = ["Numbers", "TrainState", "initial_state", "learning_rate", "train_step"]

PyTree = Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Numbers:
    """The part of a `TrainConfig` that changes no shape.

    Runs that differ only here share a compiled program.

    Leaves are numbers or scalar arrays; they are traced, not compiled in.
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
    def of(cls, config: TrainConfig) -> "Numbers":
        """The numbers of a config."""
        return cls(**{field.name: getattr(config, field.name) for field in dataclasses.fields(cls)})


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """All that a run carries from step to step; what a checkpoint holds."""

    step: jax.Array  #: int32 [], steps taken
    params: PyTree
    average: PyTree  #: moving average of params
    optimizer: PyTree  #: Optax's state
    skipped: jax.Array  #: int32 [], steps skipped so far
    skipped_in_row: jax.Array  #: int32 [], of which the last ones


def learning_rate(numbers: Numbers, step: jax.Array) -> jax.Array:
    """Warm-up, constant, then linear decay to zero over the last `decay_steps` steps."""
    warm = (step + 1) / jnp.maximum(numbers.warmup_steps, 1)
    left = (numbers.steps - step) / jnp.maximum(numbers.decay_steps, 1)
    return numbers.learning_rate * jnp.clip(jnp.minimum(warm, left), 0.0, 1.0)


def _optimizer(numbers: Numbers) -> optax.GradientTransformation:
    # Built inside the traced step, so that its numbers may be traced.
    return optax.chain(
        optax.clip_by_global_norm(numbers.clip_norm),
        optax.adamw(
            lambda step: learning_rate(numbers, jnp.asarray(step)),
            weight_decay=numbers.weight_decay,
        ),
    )


def initial_state(task: Task, numbers: Numbers) -> TrainState:
    """The state before the first step."""
    params = task.init(jax.random.key(numbers.seed))
    zero = jnp.zeros((), jnp.int32)
    return TrainState(
        step=zero,
        params=params,
        average=jax.tree.map(jnp.copy, params),
        optimizer=_optimizer(numbers).init(params),
        skipped=zero,
        skipped_in_row=jnp.zeros((), jnp.int32),
    )


def train_step(
    task: Task, state: TrainState, batch: PyTree, numbers: Numbers, constants: PyTree
) -> tuple[TrainState, dict[str, jax.Array]]:
    """Takes one step of Adam; a step whose loss or gradient is not finite changes no parameter.

    Returns:
      The next state, and scalars: those of the loss, `loss`, `gradient_norm`, `learning_rate`,
      `skipped_in_row`.
    """
    key = jax.random.fold_in(jax.random.key(numbers.seed), state.step)
    (loss, metrics), gradient = jax.value_and_grad(task.loss, has_aux=True)(
        state.params, batch, key, constants
    )
    norm = optax.tree.norm(gradient)
    good = jnp.isfinite(loss) & jnp.isfinite(norm)
    updates, optimizer = _optimizer(numbers).update(gradient, state.optimizer, state.params)
    params = optax.apply_updates(state.params, updates)
    # The average follows quickly at first, so that it forgets the initial parameters.
    decay = jnp.minimum(numbers.ema_decay, (1 + state.step) / (10 + state.step))
    average = optax.incremental_update(params, state.average, 1 - decay)
    params, average, optimizer = jax.tree.map(
        lambda new, old: jnp.where(good, new, old),
        (params, average, optimizer),
        (state.params, state.average, state.optimizer),
    )
    bad = (~good).astype(jnp.int32)
    in_row = (state.skipped_in_row + 1) * bad
    metrics |= {
        "loss": loss,
        "gradient_norm": norm,
        "learning_rate": learning_rate(numbers, state.step),
        "skipped_in_row": in_row,
    }
    return (
        TrainState(state.step + 1, params, average, optimizer, state.skipped + bad, in_row),
        metrics,
    )
