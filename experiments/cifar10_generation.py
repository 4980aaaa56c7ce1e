"""CIFAR-10 generation, Sec. 4.5 of Gregor et al. (2015): Fig. 12.

RGB values are treated as independent emission probabilities, so the cost in nats is a
cross-entropy and no likelihood of the 8-bit image. `discretized` in results.json is a bound of that
kind in bits per dimension: the same means with a discretized logistic emission. `--preset logistic`
is ours: it trains that likelihood itself, its scales drawn with the image, and has a learned prior.
"""

import dataclasses

from drawjax.cli import main
from drawjax.config import DrawConfig, GenerationConfig, GenerationDataConfig, TrainConfig

_PAPER = GenerationConfig(
    workdir="runs/cifar10_generation",
    data=GenerationDataConfig(binarization="none"),
    model=DrawConfig(
        num_glimpses=64,
        hidden_size=400,
        latent_size=200,
        read_size=5,
        write_size=5,
        likelihood="intensities",
    ),
)

PRESETS = {
    "paper": _PAPER,
    "logistic": dataclasses.replace(
        _PAPER,
        workdir="runs/cifar10_generation_logistic",
        model=dataclasses.replace(
            _PAPER.model,
            likelihood="discretized_logistic",
            likelihood_scale="canvas",
            prior="learned",
        ),
    ),
    "demo": GenerationConfig(
        workdir="runs/cifar10_generation_demo",
        data=GenerationDataConfig(binarization="none"),
        model=DrawConfig(
            num_glimpses=16,
            hidden_size=200,
            latent_size=32,
            read_size=5,
            write_size=8,
            likelihood="intensities",
        ),
        train=TrainConfig(
            steps=2_000,
            batch_size=64,
            learning_rate=2e-3,
            decay_fraction=0.5,
            ema_decay=0.995,
            eval_every=1_000,
        ),
    ),
}

if __name__ == "__main__":
    main(PRESETS, dataset="cifar10", description=__doc__)
