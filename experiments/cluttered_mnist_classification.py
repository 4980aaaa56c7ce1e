"""Cluttered MNIST classification, Sec. 4.1 of Gregor et al. (2015): Table 1 and Fig. 5.

A Differentiable RAM looks 8 times (`--preset four_glimpses`: 4 times) through 12x12 windows at a
digit in 100x100 pixels of clutter. Every training image is made anew; the 10,000 test images are
fixed. `--preset scales` is ours, which the paper does not have: two scales, a small convolutional
network on the glimpse, and a last view of the whole image.
"""

import dataclasses

from drawjax.cli import main
from drawjax.config import ClassificationConfig, ClutterDataConfig, RamConfig, TrainConfig

_PAPER = ClassificationConfig(
    workdir="runs/cluttered_mnist_classification",
    model=RamConfig(num_glimpses=8, hidden_size=256, read_size=12),
    train=TrainConfig(
        steps=200_000,
        learning_rate=3e-4,
        decay_fraction=0.6,
        clip_norm=1.0,
        ema_decay=0.999,
        eval_every=10_000,
    ),
)

PRESETS = {
    "paper": _PAPER,
    "four_glimpses": dataclasses.replace(
        _PAPER,
        workdir="runs/cluttered_mnist_classification_four_glimpses",
        model=dataclasses.replace(_PAPER.model, num_glimpses=4),
        train=dataclasses.replace(_PAPER.train, steps=150_000),
    ),
    "scales": dataclasses.replace(
        _PAPER,
        workdir="runs/cluttered_mnist_classification_scales",
        model=dataclasses.replace(
            _PAPER.model, num_glimpses=6, num_scales=2, glimpse_features=16, last_view=12
        ),
        train=dataclasses.replace(
            _PAPER.train, steps=50_000, clip_norm=10.0, ema_decay=0.99, eval_every=1_000
        ),
    ),
    "demo": ClassificationConfig(
        workdir="runs/cluttered_mnist_classification_demo",
        data=ClutterDataConfig(clutter_size=60, pieces=4),
        model=RamConfig(num_glimpses=6, hidden_size=128, read_size=12),
        train=TrainConfig(
            steps=4_000, batch_size=64, clip_norm=1.0, ema_decay=0.99, eval_every=1_000
        ),
    ),
}

if __name__ == "__main__":
    main(PRESETS, dataset="mnist", description=__doc__)
