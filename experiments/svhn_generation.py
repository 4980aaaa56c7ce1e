"""Street View House Numbers, Sec. 4.4 of Gregor et al. (2015): Figs. 9, 10 and 11.

The multi-digit set, cropped to 64x64 pixels around each number as Goodfellow et al. (2013) do. The
model sees 54x54 of them: a random place in training, the center elsewhere.
`python -m drawjax.data.prepare svhn_numbers` prepares the set. SVHN (Netzer et al. 2011) is for
non-commercial use only.
"""

from typing import Any

import jax

from drawjax import data
from drawjax.data import DataConfig, ImageSet
from drawjax.data.crop import center_crop, random_crop
from drawjax.modules import DrawConfig
from drawjax.recipes import generation
from drawjax.recipes.generation import GenerationConfig, View
from drawjax.training import TrainConfig, launch

SIDE = 54  # pixels

PRESETS = {
    "paper": GenerationConfig(
        workdir="runs/svhn_generation",
        data=DataConfig(binarization="none"),
        model=DrawConfig(num_glimpses=32, hidden_size=800, latent_size=100, read_size=12, write_size=12),
    ),
    "demo": GenerationConfig(
        workdir="runs/svhn_generation_demo",
        data=DataConfig(binarization="none"),
        model=DrawConfig(num_glimpses=12, hidden_size=200, latent_size=32, read_size=12, write_size=12),
        train=TrainConfig(
            steps=1_000, batch_size=32, learning_rate=2e-3, decay_fraction=0.5, ema_decay=0.99,
            log_every=50, eval_every=200,
        ),
        samples=36,
    ),
}  # fmt: skip


def view(config: GenerationConfig, images: ImageSet) -> View:
    """54x54 of every image: a random place in training, the center elsewhere."""
    del config

    def see(batch: dict[str, Any], key: jax.Array, training: bool) -> jax.Array:
        whole = data.to_unit(batch["image"])
        if training:
            return random_crop(key, whole, size=SIDE)
        return center_crop(whole, size=SIDE)

    return View((SIDE, SIDE, images.image_shape[2]), see)


if __name__ == "__main__":
    launch.experiment(
        PRESETS,
        lambda configs: generation.run_points(configs, "svhn_numbers", view),
        description=__doc__,
    )
