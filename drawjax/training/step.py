"""One training step, a pure function of the state, the batch and a few numbers; and compiled.

`Streams` says what is drawn from which key.

Devices lie in a grid: points of a sweep x shares of the batch.
"""

import dataclasses
import functools
import logging
import math
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import NamedSharding, P

from drawjax.config import PRNG, TrainConfig
from drawjax.training.task import Task

_log = logging.getLogger(__name__)

PyTree = Any

# What a row of metrics has beside those of the task's loss.
_METRICS = (
    "step", "split", "loss", "gradient_norm", "skipped_in_row", "skipped", "learning_rate",
    "images_per_second",
)  # fmt: skip


class Streams(NamedTuple):
    """PRNG keys of a run, by purpose. The order of the data comes from the seed itself."""

    params: jax.Array  #: initial parameters
    noise: jax.Array  #: training; folded with the step
    evaluation: jax.Array  #: folded with the number of an image; experiments take that of seed 0
    figures: jax.Array  #: samples that are shown


def streams(seed: int | jax.Array) -> Streams:
    """The keys of the run with this seed; the seed may be traced."""
    key = jax.random.key(seed, impl=PRNG)
    return Streams(*jax.random.split(key, len(Streams._fields)))


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


def check_optimizer(optimizer: Any) -> None:
    """Raises ValueError if this is no Optax transformation; None stands for ours."""
    if optimizer is None or isinstance(optimizer, optax.GradientTransformation):
        return
    name = getattr(optimizer, "__qualname__", repr(optimizer))
    raise ValueError(
        f"optimizer must be an Optax transformation, such as optax.adam(1e-3); got {name}"
    )


def _optimizer(
    task: Task, hyperparams: Hyperparams, step: jax.Array
) -> optax.GradientTransformationExtraArgs:
    # Built inside the traced step, so that its numbers may be traced. The rate goes by the state's
    # own counter: Optax's stands still in a skipped step, whose update is thrown away.
    if task.optimizer is not None:
        return optax.with_extra_args_support(task.optimizer)
    return optax.chain(
        optax.clip_by_global_norm(hyperparams.clip_norm),
        optax.adamw(learning_rate(hyperparams, step), weight_decay=hyperparams.weight_decay),
    )


def initial_state(
    task: Task, hyperparams: Hyperparams, init_params: PyTree | None = None
) -> TrainState:
    """The state before the first step, of these parameters or else of fresh ones."""
    if init_params is None:
        params = task.init(streams(hyperparams.seed).params)
    else:
        params = jax.tree.map(jnp.copy, init_params)  # the caller's are not given away
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

    def batch_loss(params: PyTree) -> tuple[jax.Array, dict[str, jax.Array]]:
        given = task.loss(params, batch, key, constants, state.step)
        if not (isinstance(given, tuple) and len(given) == 2 and isinstance(given[1], Mapping)):
            raise ValueError(
                f"a loss must return a tuple (loss, dict of metrics), got {type(given).__name__}"
            )
        loss, metrics = given[0], dict(given[1])
        if not _holds(loss, jnp.floating) or jnp.shape(loss):
            kind = getattr(loss, "dtype", type(loss).__name__)
            raise ValueError(f"a loss must be a scalar float, got {kind} {list(jnp.shape(loss))}")
        check_metrics(metrics, taken=_METRICS)
        return loss, metrics

    (loss, metrics), gradient = jax.value_and_grad(batch_loss, has_aux=True)(state.params)
    norm = optax.tree.norm(gradient)
    good = jnp.isfinite(loss) & jnp.isfinite(norm)
    updates, opt_state = _optimizer(task, hyperparams, state.step).update(
        gradient, state.opt_state, state.params,
        value=loss, grad=gradient, value_fn=lambda params: batch_loss(params)[0],  # as Optax asks
    )  # fmt: skip
    params = optax.apply_updates(state.params, updates)
    # The average follows quickly at first, so that it forgets the initial parameters.
    decay = jnp.minimum(hyperparams.ema_decay, (1 + state.step) / (10 + state.step))
    ema_params = optax.incremental_update(params, state.ema_params, 1 - decay)

    def accepted(new: jax.Array, old: jax.Array) -> jax.Array:
        return jnp.where(good, jnp.astype(new, old.dtype), old)

    params, ema_params, opt_state = jax.tree.map(
        accepted,
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


def check_metrics(metrics: Mapping[str, Any], *, taken: Collection[str] = ()) -> None:
    """Raises ValueError if one is no real number, or has a name that is taken."""
    for name, value in metrics.items():
        if name in taken:
            raise ValueError(f"a metric cannot be called {name}, which is one of every run's")
        if not _holds(value, jnp.floating, jnp.integer, jnp.bool_):
            raise ValueError(f"metric {name} must be a real number, got {type(value).__name__}")
        if shape := jnp.shape(value):
            raise ValueError(f"metric {name} must be a scalar, got an array of shape {shape}")


def _holds(value: Any, *kinds: Any) -> bool:
    """Whether a value is, or an array holds, numbers of one of these kinds; text is none."""
    dtype = value.dtype if hasattr(value, "dtype") else np.asarray(value).dtype
    return any(jnp.issubdtype(dtype, kind) for kind in kinds)


class Program:
    """The compiled initial state and step of configs that differ only in `Hyperparams`.

    One config gives plain arrays. Several, points of a sweep trained side by side, give arrays with
    a leading axis, `[points, ...]`, and a step that is vmapped over it.

    Raises:
      ValueError: if the batch does not divide over the devices, or the optimizer is none.
    """

    def __init__(self, task: Task, configs: Sequence[TrainConfig]):
        check_optimizer(task.optimizer)
        mesh = make_mesh(configs[0].batch_size, points=len(configs))
        replicated, spread = NamedSharding(mesh, P()), NamedSharding(mesh, P("point"))
        hyperparams: Any = Hyperparams.of(configs[0])
        init = functools.partial(initial_state, task)
        step = functools.partial(train_step, task)
        self.abstract: TrainState = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=replicated),
            jax.eval_shape(init, hyperparams),
        )
        """Shapes, types and shardings of one point's state."""
        self._stacked = len(configs) > 1
        if self._stacked:
            hyperparams = jax.tree.map(
                lambda *values: np.asarray(
                    values, np.float32 if isinstance(values[0], float) else np.int32
                ),
                *map(Hyperparams.of, configs),
            )
            init = jax.vmap(init, in_axes=(0, None))
            step = jax.vmap(step, in_axes=(0, 0, 0, None))
        sharding = spread if self._stacked else replicated
        self._batch_sharding = NamedSharding(
            mesh, P("point", "data") if self._stacked else P("data")
        )
        self.initial = functools.partial(
            jax.jit(init, out_shardings=sharding), hyperparams, task.init_params
        )
        """Makes the state before the first step, of the task's `init_params` or else its `init`."""
        # A step that made a NaN is taken again to find where: that needs its arguments.
        self._hunting = bool(jax.config.jax_debug_nans)  # pyright: ignore[reportAttributeAccessIssue]
        self._step = jax.jit(
            step,
            donate_argnums=() if self._hunting else (0,),
            out_shardings=(sharding, None),
        )
        self._plain_step = step
        self._rest = hyperparams, jax.device_put(task.constants, replicated)
        self._compiled = False
        self._take = jax.jit(
            lambda state, point: jax.tree.map(lambda leaf: leaf[point], state),
            out_shardings=replicated,
        )
        self._stack = jax.jit(
            lambda *states: jax.tree.map(lambda *leaves: jnp.stack(leaves), *states),
            out_shardings=spread,
        )

    def step(
        self, state: TrainState, batches: Sequence[PyTree]
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        """Takes a step of every point, by this process's share of a batch for each.

        The state's buffers are used again, so it is gone afterwards.

        Returns:
          The next state, and the step's scalars, `[]` or `[points]`.

        Raises:
          FloatingPointError: under `jax_debug_nans`, from the operation that made the first NaN.
        """
        batch = batches[0]
        if self._stacked:
            batch = jax.tree.map(lambda *leaves: np.stack(leaves), *batches)
        batch = jax.make_array_from_process_local_data(self._batch_sharding, batch)
        began = time.monotonic()
        if not self._compiled:
            _log.info("compiling the training step")
        with jax.debug_nans(False):
            after = self._step(state, batch, *self._rest)
        if not self._compiled:
            _log.info("compiling the training step: done in %.1f s", time.monotonic() - began)
            self._compiled = True
        if self._hunting and not np.all(np.isfinite([after[1]["loss"], after[1]["gradient_norm"]])):
            self._find(state, batch)
        return after

    def _find(self, state: TrainState, batch: PyTree) -> None:
        """Takes a step again, operation by operation, up to the one that is not finite."""
        _log.error("step %d is not finite; looking for the operation", np.max(state.step) + 1)
        for infinities in (False, True):  # many an infinity is meant
            with jax.disable_jit(), jax.debug_nans(True), jax.debug_infs(infinities):
                self._plain_step(state, batch, *self._rest)
        raise FloatingPointError(
            "the compiled step is not finite, yet each of its operations alone is"
        )

    def take(self, state: TrainState, point: int) -> TrainState:
        """The state of one point."""
        return self._take(state, point) if self._stacked else state

    def put(self, states: Sequence[TrainState]) -> TrainState:
        """The state made of those of all points."""
        return self._stack(*states) if self._stacked else states[0]


def make_mesh(batch_size: int, *, points: int = 1) -> jax.sharding.Mesh:
    """All devices of all processes, with axes `point` and `data`.

    Args:
      batch_size: images per step of one point, over all devices together.
      points: points of a sweep trained side by side; they are spread over as many devices as divide
        both, the batch over the rest.

    Raises:
      ValueError: if the batch does not divide.
    """
    count = jax.device_count()
    spread = math.gcd(points, count) if jax.process_count() == 1 else 1
    rest = count // spread
    if batch_size % rest:
        raise ValueError(
            f"train.batch_size must divide over {rest} devices, got {batch_size}; "
            f"there are {count} devices"
        )
    return jax.make_mesh(
        (spread, rest), ("point", "data"), axis_types=(jax.sharding.AxisType.Auto,) * 2
    )
