"""MNIST generation with two digits, Sec. 4.3 of Gregor et al. (2015): Fig. 8.

Two digits at random places on 60x60 black, intensities added and clipped at one; made anew for
every batch, on the device. The paper gives no sizes for it: these are ours, MNIST's row of Table 3
with half the steps and larger windows for the larger image.
"""

from drawjax.cli import main
from drawjax.config import DrawConfig, GenerationConfig, GenerationDataConfig, TrainConfig

PRESETS = {
    "paper": GenerationConfig(
        workdir="runs/two_digit_mnist_generation",
        data=GenerationDataConfig(binarization="dynamic", pair_size=60),
        model=DrawConfig(
            num_glimpses=32,
            hidden_size=256,
            latent_size=100,
            read_size=5,
            write_size=8,
            clip_ratio=2.0,
        ),
        train=TrainConfig(learning_rate=3e-3),
    ),
    "demo": GenerationConfig(
        workdir="runs/two_digit_mnist_generation_demo",
        data=GenerationDataConfig(binarization="dynamic", pair_size=60),
        model=DrawConfig(
            num_glimpses=20,
            hidden_size=160,
            latent_size=20,
            read_size=5,
            write_size=8,
            clip_ratio=2.0,
        ),
        train=TrainConfig(
            steps=5_000,
            batch_size=64,
            learning_rate=4e-3,
            decay_fraction=0.5,
            ema_decay=0.995,
            eval_every=1_000,
        ),
    ),
}

if __name__ == "__main__":
    main(PRESETS, dataset="mnist", description=__doc__)
