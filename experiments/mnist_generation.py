"""MNIST generation, Sec. 4.2 of Gregor et al. (2015): Table 2 and Figs. 1, 6, 7.

The default is the paper's run: Table 3's MNIST row on binarized MNIST. `--preset demo` draws
digits after a few minutes on two CPU cores. `--model.read-size None --model.write-size None` is
DRAW without attention.
"""

from drawjax import main
from drawjax.data import GenerationDataConfig
from drawjax.modules import DrawConfig
from drawjax.recipes.generation import GenerationConfig
from drawjax.training import TrainConfig

PRESETS = {
    "paper": GenerationConfig(
        workdir="runs/mnist_generation",
        data=GenerationDataConfig(binarization="static"),
        model=DrawConfig(
            num_glimpses=64, hidden_size=256, latent_size=100, read_size=2, write_size=5
        ),
        train=TrainConfig(learning_rate=2e-3),
    ),
    "demo": GenerationConfig(
        workdir="runs/mnist_generation_demo",
        data=GenerationDataConfig(binarization="dynamic"),
        model=DrawConfig(
            num_glimpses=16, hidden_size=128, latent_size=16, read_size=3, write_size=6
        ),
        train=TrainConfig(
            steps=2_500,
            batch_size=64,
            learning_rate=8e-3,
            decay_fraction=0.6,
            ema_decay=0.99,
            eval_every=500,
            checkpoint_every=500,
        ),
    ),
}

if __name__ == "__main__":
    main(PRESETS, dataset="binarized_mnist", description=__doc__)
