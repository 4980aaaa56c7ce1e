"""Street View House Numbers, Sec. 4.4 of Gregor et al. (2015): Figs. 9, 10 and 11.

The multi-digit set, cropped to 64x64 pixels around each number as Goodfellow et al. (2013) do. The
model sees 54x54 of them: a random place in training, the center elsewhere.
`python -m drawjax.data.prepare svhn_numbers` prepares the set. SVHN (Netzer et al. 2011) is for
non-commercial use only.
"""

from drawjax.cli import main
from drawjax.config import DrawConfig, GenerationConfig, GenerationDataConfig, TrainConfig

PRESETS = {
    "paper": GenerationConfig(
        workdir="runs/svhn_generation",
        data=GenerationDataConfig(binarization="none", crop=54),
        model=DrawConfig(
            num_glimpses=32,
            hidden_size=800,
            latent_size=100,
            read_size=12,
            write_size=12,
            likelihood="intensities",
        ),
    ),
    "demo": GenerationConfig(
        workdir="runs/svhn_generation_demo",
        data=GenerationDataConfig(binarization="none", crop=54),
        model=DrawConfig(
            num_glimpses=12,
            hidden_size=200,
            latent_size=32,
            read_size=12,
            write_size=12,
            likelihood="intensities",
        ),
        train=TrainConfig(
            steps=1_000,
            batch_size=32,
            learning_rate=2e-3,
            decay_fraction=0.5,
            ema_decay=0.99,
            log_every=50,
            eval_every=200,
        ),
        samples=36,
    ),
}

if __name__ == "__main__":
    main(PRESETS, dataset="svhn_numbers", description=__doc__)
