"""MNIST generation, Sec. 4.2 of Gregor et al. (2015): Table 2 and Figs. 1, 6, 7.

The default is the paper's run: Table 3's MNIST row on binarized MNIST. `--preset demo` draws
digits after a few minutes on two CPU cores.

Presets: `paper`; `no_attention`, the paper's other row; `all_images`, which trains on the
validation images too; `fresh`, which draws the binarization of each training image anew each time;
`learned_prior`, ours, which the paper does not have, at twice the rate for half the steps;
`classes`, ours too, a smaller model that draws the digit one asks for; `demo`.
"""

import dataclasses

from drawjax.cli import main
from drawjax.config import DrawConfig, GenerationConfig, GenerationDataConfig, TrainConfig

_PAPER = GenerationConfig(
    workdir="runs/mnist_generation",
    data=GenerationDataConfig(binarization="static"),
    model=DrawConfig(
        num_glimpses=64,
        hidden_size=256,
        latent_size=100,
        read_size=2,
        write_size=5,
        precision="bfloat16",
    ),
    # 200 epochs. The fall of the rate brings as much as thousands of steps at a constant one.
    train=TrainConfig(steps=100_000, batch_size=100, learning_rate=2e-3, decay_fraction=0.8),
)
_FRESH = dataclasses.replace(
    _PAPER,
    workdir="runs/mnist_generation_fresh",
    data=GenerationDataConfig(binarization="dynamic"),
    train=TrainConfig(
        steps=30_000, batch_size=800, learning_rate=2.5e-3, decay_fraction=0.6, ema_decay=0.999
    ),
)

_DEMO = GenerationConfig(
    workdir="runs/mnist_generation_demo",
    data=GenerationDataConfig(binarization="dynamic"),
    model=DrawConfig(num_glimpses=16, hidden_size=128, latent_size=16, read_size=3, write_size=6),
    train=TrainConfig(
        steps=2_500,
        batch_size=64,
        learning_rate=8e-3,
        decay_fraction=0.6,
        ema_decay=0.99,
        eval_every=500,
        checkpoint_every=500,
    ),
)

PRESETS = {
    "paper": _PAPER,
    "no_attention": dataclasses.replace(
        _PAPER,
        workdir="runs/mnist_generation_no_attention",
        model=dataclasses.replace(_PAPER.model, read_size=None, write_size=None),
        train=TrainConfig(
            steps=30_000,
            batch_size=200,
            learning_rate=2e-3,
            weight_decay=0.1,
            decay_fraction=0.6,
            ema_decay=0.998,
        ),
    ),
    "all_images": dataclasses.replace(
        _PAPER,
        workdir="runs/mnist_generation_all_images",
        data=GenerationDataConfig(binarization="static", train_on_validation=True),
    ),
    "fresh": _FRESH,
    "learned_prior": dataclasses.replace(
        _PAPER,
        workdir="runs/mnist_generation_learned_prior",
        model=dataclasses.replace(_PAPER.model, prior="learned"),
        # Twice the rate was 4 nats ahead after 200,000 images of a sweep; 100 epochs.
        train=dataclasses.replace(
            _PAPER.train, steps=50_000, learning_rate=4e-3, decay_fraction=0.6
        ),
    ),
    "classes": dataclasses.replace(
        _DEMO,
        workdir="runs/mnist_generation_classes",
        model=dataclasses.replace(_DEMO.model, num_classes=10, prior="learned"),
        train=dataclasses.replace(
            _DEMO.train,
            steps=20_000,
            learning_rate=4e-3,
            ema_decay=0.998,
            eval_every=1_000,
            checkpoint_every=1_000,
        ),
        samples=100,
    ),
    "demo": _DEMO,
}

if __name__ == "__main__":
    main(PRESETS, dataset="binarized_mnist", description=__doc__)
