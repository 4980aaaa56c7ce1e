"""Normalization in the network on glimpses: `PYTHONPATH=. python unfinished/glimpses.py NAME`.

Each variant is the preset `scales` of cluttered_mnist_classification at a rate of 3e-4, 5,000 steps
of 100 images with the rate falling over the last 60 %, with one change. The test figures that the
runs print at their end are not looked at. The winner goes on for 150,000 steps.
"""

import dataclasses
import sys
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from drawjax import cli, modules
from drawjax.cells import Dense
from experiments.cluttered_mnist_classification import PRESETS

BASE = dataclasses.replace(
    PRESETS["scales"],
    train=dataclasses.replace(
        PRESETS["scales"].train, steps=5_000, learning_rate=3e-4, ema_decay=0.99, eval_every=1_000
    ),
)
GROUPS = 4


class Normalized(nnx.Module):
    """A convolution's product, normalized, scaled and shifted; its ReLU comes after."""

    def __init__(self, product: Dense, statistics: str):
        self.product, self.statistics = product, statistics
        channels = product.bias.shape[0]
        self.gain, self.shift = nnx.Param(jnp.ones(channels)), nnx.Param(jnp.zeros(channels))

    def __call__(self, around: jax.Array) -> jax.Array:
        out = self.product(around)
        if self.statistics == "batch":
            normal = jax.nn.standardize(out, axis=(0, 1, 2), epsilon=1e-5)
        else:
            groups = out.reshape(*out.shape[:-1], GROUPS, -1)
            normal = jax.nn.standardize(groups, axis=(-4, -3, -1), epsilon=1e-5).reshape(out.shape)
        return self.gain[...] * normal + self.shift[...]


def normalized(statistics: str) -> Any:
    class NormalizedRam(modules.Ram):
        def __init__(self, config: Any, image_shape: Any, *, key: jax.Array):
            super().__init__(config, image_shape, key=key)
            net: Any = self.conv
            for conv in (net.first, net.second, net.third):
                conv.around = Normalized(conv.around, statistics)

    return NormalizedRam


VARIANTS: dict[str, dict[str, Any]] = {
    "base": {},
    "group": {"model": normalized("group")},
    "batch": {"model": normalized("batch")},
}

if __name__ == "__main__":
    name = sys.argv[1]
    config = dataclasses.replace(BASE, workdir=f"runs/glimpses/{name}")
    cli.main({name: config}, dataset="mnist", argv=sys.argv[2:], **VARIANTS[name])
