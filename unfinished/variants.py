"""The sweep before the long run with a learned prior.

`PYTHONPATH=. python unfinished/variants.py NAME`.

Each variant is the preset `learned_prior` on static binarization, 4,000 steps of 100 images, the
rate falling over the second half, with one change. Curves go to the logbook, what wins to the
preset. The test figures that the runs print at their end are not looked at.
"""

import dataclasses
import sys
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from drawjax import cli, draw, modules
from drawjax.cells import LSTM, Dense
from drawjax.config import GenerationConfig, GenerationDataConfig, TrainConfig
from drawjax.generation import Generation
from drawjax.objective import Normal
from experiments.mnist_generation import PRESETS

STEPS, RATE = 4_000, 2e-3
BASE = dataclasses.replace(
    PRESETS["learned_prior"],
    data=GenerationDataConfig(binarization="static"),
    train=TrainConfig(
        steps=STEPS, batch_size=100, learning_rate=RATE, decay_fraction=0.5, ema_decay=0.998,
        eval_every=500, checkpoint_every=500,
    ),
)  # fmt: skip


class NormLSTM(LSTM):
    """h = sigmoid(o) tanh(LN(c)), with a small gain (Ba et al. 2016)."""

    def __init__(self, *sizes: int, gain: float, **how: Any):
        super().__init__(*sizes, **how)
        units = sizes[1]
        self.gain, self.shift = nnx.Param(jnp.full(units, gain)), nnx.Param(jnp.zeros(units))

    def __call__(self, carry: Any, inputs: jax.Array) -> Any:
        cell, hidden = carry
        i, f, g, o = jnp.split(self.gates(jnp.concatenate([inputs, hidden], -1)), 4, axis=-1)
        cell = jax.nn.sigmoid(f) * cell + jax.nn.sigmoid(i) * jnp.tanh(g)
        normalized = jax.nn.standardize(cell, axis=-1, epsilon=1e-5)
        hidden = jax.nn.sigmoid(o) * jnp.tanh(self.gain[...] * normalized + self.shift[...])
        return (cell, hidden), hidden


def normalized(gain: float) -> Any:
    class Normalized(modules.Draw):
        def __init__(self, config: Any, image_shape: Any, *, key: jax.Array):
            super().__init__(config, image_shape, key=key)
            first, second = jax.random.split(jax.random.fold_in(key, 1))
            units, rows = config.hidden_size, self.encoder.gates.kernel.shape[0]
            how = {"gain": gain, "dtype": config.dtype}
            self.encoder = NormLSTM(rows - units, units, key=first, **how)
            self.decoder = NormLSTM(config.latent_size, units, key=second, **how)

    return Normalized


class WidePrior(modules.Draw):
    """A prior with a hidden layer of 256 units."""

    def __init__(self, config: Any, image_shape: Any, *, key: jax.Array):
        super().__init__(config, image_shape, key=key)
        units, key = config.hidden_size, jax.random.fold_in(key, 1)
        self.prior_hidden = Dense(units, units, key=key, dtype=config.dtype)

    def prior(self, h_dec: jax.Array) -> draw.Distribution:
        hidden = jnp.tanh(self.prior_hidden(h_dec))
        return Normal(self.prior_mean(hidden), self.prior_log_scale(hidden))


class Dropped(modules.Draw):
    """Drops inputs of both cells by masks that are set from outside, the same at every step."""

    masks: Any = None

    def encode(self, carry: Any, inputs: jax.Array) -> Any:
        return super().encode(carry, inputs if self.masks is None else inputs * self.masks[0])

    def decode(self, carry: Any, latent: jax.Array) -> Any:
        return super().decode(carry, latent if self.masks is None else latent * self.masks[1])


def dropping(rate: float) -> Any:
    class WithDropout(Generation):
        def loss(self, params: Any, batch: Any, key: jax.Array, constants: Any, step: Any) -> Any:
            mask_key, key = jax.random.split(key)
            count, model = len(batch["image"]), self.bound(params)
            sizes = (
                model.encoder.gates.kernel.shape[0] - model.config.hidden_size,
                model.latent_size,
            )
            masks = tuple(
                jax.random.bernoulli(k, 1 - rate, (count, size)) / (1 - rate)
                for k, size in zip(jax.random.split(mask_key), sizes, strict=True)
            )
            self.masked = masks
            try:
                return super().loss(params, batch, key, constants, step)
            finally:
                self.masked = None

        masked: Any = None

        def bound(self, params: Any) -> Any:
            model = super().bound(params)
            if self.masked is not None:
                vars(model)["masks"] = self.masked  # for this trace alone
            return model

    return WithDropout


def falling(rate: float) -> Any:
    return optax.join_schedules(
        [
            optax.linear_schedule(rate / 200, rate, 199),
            optax.linear_schedule(rate, 0, STEPS // 2),
        ],
        [STEPS // 2],
    )


def adamax(rate: float) -> Any:
    return optax.chain(optax.clip_by_global_norm(5.0), optax.adamax(falling(rate)))


def with_train(**changes: Any) -> GenerationConfig:
    return dataclasses.replace(BASE, train=dataclasses.replace(BASE.train, **changes))


VARIANTS: dict[str, dict[str, Any]] = {
    "base": {},
    "norm_01": {"model": normalized(0.1)},
    "norm_03": {"model": normalized(0.3)},
    "norm_01_4": {"model": normalized(0.1), "config": with_train(learning_rate=4e-3)},
    "adamax_2": {"optimizer": adamax(2e-3)},
    "adamax_4": {"optimizer": adamax(4e-3)},
    "rate_1": {"config": with_train(learning_rate=1e-3)},
    "rate_4": {"config": with_train(learning_rate=4e-3)},
    "rate_8": {"config": with_train(learning_rate=8e-3)},
    "batch_200": {
        "config": with_train(steps=STEPS // 2, batch_size=200, eval_every=250, ema_decay=0.996)
    },
    "batch_200_28": {
        "config": with_train(
            steps=STEPS // 2, batch_size=200, learning_rate=2.8e-3, eval_every=250, ema_decay=0.996
        )
    },
    "wide_prior": {"model": WidePrior},
    "wide_prior_4": {"model": WidePrior, "config": with_train(learning_rate=4e-3)},
    "dropout_02": {"model": Dropped, "experiment": dropping(0.2)},
    "dropout_05": {"model": Dropped, "experiment": dropping(0.5)},
}

if __name__ == "__main__":
    name = sys.argv[1]
    chosen = dict(VARIANTS[name])
    config = dataclasses.replace(chosen.pop("config", BASE), workdir=f"runs/variants/{name}")
    cli.main({name: config}, dataset="binarized_mnist", argv=sys.argv[2:], **chosen)
