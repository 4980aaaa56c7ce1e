"""MNIST generation with two digits, Sec. 4.3 of Gregor et al. (2015): Fig. 8.

Two digits at random places on 60x60 black, intensities added and clipped at one; made anew for
every batch, on the device. The paper gives no sizes for it: these are ours, MNIST's row of Table 3
with half the steps and larger windows for the larger image.
"""

from typing import Any

import jax
import jax.numpy as jnp

from drawjax import data
from drawjax.data import DataConfig, ImageSet
from drawjax.data.two_digit import two_digits
from drawjax.modules import DrawConfig
from drawjax.recipes import generation
from drawjax.recipes.generation import GenerationConfig, View
from drawjax.training import TrainConfig, launch

SIDE = 60  # pixels

PRESETS = {
    "paper": GenerationConfig(
        workdir="runs/two_digit_mnist_generation",
        data=DataConfig(binarization="dynamic"),
        model=DrawConfig(
            num_glimpses=32, hidden_size=256, latent_size=100, read_size=5, write_size=8, clip_ratio=2.0
        ),
        train=TrainConfig(learning_rate=3e-3),
    ),
    "demo": GenerationConfig(
        workdir="runs/two_digit_mnist_generation_demo",
        data=DataConfig(binarization="dynamic"),
        model=DrawConfig(
            num_glimpses=20, hidden_size=160, latent_size=20, read_size=5, write_size=8, clip_ratio=2.0
        ),
        train=TrainConfig(
            steps=5_000, batch_size=64, learning_rate=4e-3, decay_fraction=0.5, ema_decay=0.995,
            eval_every=1_000,
        ),
    ),
}  # fmt: skip


def view(config: GenerationConfig, images: ImageSet) -> View:
    """Each digit of a batch meets another of the same batch."""

    def see(batch: dict[str, Any], key: jax.Array, training: bool) -> jax.Array:
        del training
        place_key, pair_key, binarize_key = jax.random.split(key, 3)
        digits = batch["image"]
        shift = jax.random.randint(pair_key, (), 1, max(2, len(digits)))
        pairs = two_digits(place_key, digits, jnp.roll(digits, shift, axis=0), size=SIDE)
        return data.binarize(pairs, config.data.binarization, binarize_key)

    return View((SIDE, SIDE, images.image_shape[2]), see)


if __name__ == "__main__":
    launch.experiment(
        PRESETS,
        lambda configs: generation.run_points(configs, "mnist", view),
        description=__doc__,
    )
