"""Bounds on a generating model's likelihood beside the one it is trained on (Eq. 12)."""

import hashlib
import math
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from drawjax import data, draw, modules, objective
from drawjax.kept import Kept
from drawjax.recipes.evaluation import over_images, standard_error

__all__ = ["best_scales", "bits_per_dimension", "importance_weighted", "noise"]

_IMAGES = 20  # a batch of the importance-weighted bound: a bar over fewer still moves
# Images times samples that are drawn at once; on a CPU what stays in its cache.
_ROWS, _ROWS_ON_CPU = 1_000, 500


def noise(model: draw.Model, keys: jax.Array) -> jax.Array:
    """The noise of one sample of z for each image, `[T, batch, Z]`, from a key an image.

    It is the first of the samples of `importance_weighted`.
    """
    shape = (model.num_glimpses, model.latent_size)
    return jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, 0), shape), out_axes=1)(
        keys
    )


def importance_weighted(
    model: draw.Model,
    inputs: Callable[[Any, jax.Array], tuple[jax.Array, jax.Array]],
    source: data.Source,
    key: jax.Array,
    *,
    num_samples: int,
    count: int,
    folder: pathlib.Path | None = None,
) -> dict[str, float]:
    """The K-sample bound of Burda et al. (2016) on the first images of a source.

    Args:
      model: the generating model.
      inputs: `(batch, keys) -> (images, noise keys)`, what the model sees.
      source: the images.
      key: PRNG key of the evaluation.
      num_samples: K.
      count: how many images.
      folder: where the values of images that are done are kept, as importance.npz: an evaluation
        that was stopped goes on, and one of more images begins after them. None: nowhere.

    Returns:
      In nats an image, with standard errors: minus the bound, `importance_weighted`, and by how
      much it is tighter than the bound of Eq. 12 by the same samples, `importance_gain`, which few
      images tell well. Also `importance_samples` and `importance_images`.
    """
    graph, params = modules.split(model)
    rows = _ROWS_ON_CPU if jax.default_backend() == "cpu" else _ROWS
    size = min(_IMAGES * jax.local_device_count(), count)
    sharding = _over_devices(size)

    @jax.jit
    def losses(params, batch, keys):
        images, noise_keys = inputs(batch, keys)
        weighted, plain = draw.importance_weighted_bound(
            modules.merge(graph, params), images, noise_keys,
            num_samples=num_samples,
            chunk=max(1, rows * sharding.num_devices // len(images)),
        )  # fmt: skip
        return {"weighted": -weighted, "gain": weighted - plain}

    keep = None
    if folder is not None:
        # What the model sees of the first batch tells the data and its form.
        batch, _ = next(data.eval_batches(source, batch_size=min(_IMAGES, count)))
        seen, _ = inputs(batch, data.image_keys(key, batch["index"]))
        parts = params, jax.random.key_data(key), num_samples, len(source), seen
        digest = hashlib.sha256(b"".join(np.asarray(x).tobytes() for x in jax.tree.leaves(parts)))
        keep = Kept(folder / "importance.npz", digest.hexdigest())
    values = over_images(
        lambda batch, keys: losses(params, *jax.device_put((batch, keys), sharding)), source, key,
        batch_size=size, count=count, what="evaluating by importance", keep=keep,
    )  # fmt: skip
    weighted, gain = values["weighted"].astype(float), values["gain"].astype(float)
    return {
        "importance_weighted": float(weighted.mean()),
        "importance_weighted_standard_error": standard_error(weighted),
        "importance_gain": float(gain.mean()),
        "importance_gain_standard_error": standard_error(gain),
        "importance_samples": num_samples,
        "importance_images": len(weighted),
    }


def _over_devices(batch_size: int) -> jax.sharding.NamedSharding:
    """Spreads a batch over the devices of this process, as far as it divides."""
    count = math.gcd(batch_size, jax.local_device_count())
    mesh = jax.make_mesh(
        (count,), ("data",), (jax.sharding.AxisType.Auto,), devices=jax.local_devices()[:count]
    )
    return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))


_Means = Callable[[Any, jax.Array], tuple[jax.Array, jax.Array, jax.Array]]
"""`(batch, keys) -> (images, means, KL [batch])` of a model."""


def best_scales(
    means: _Means, source: data.Source, key: jax.Array, channels: int, *, batch_size: int
) -> np.ndarray:
    """The logistic scale of each channel that suits 2,000 images best, of a grid, `[channels]`."""
    grid = jnp.linspace(-6.0, -0.5, 56)

    @jax.jit
    def emissions(images, means):  # [batch, grid, channels]
        def of(log_scale):
            one = jax.vmap(objective.discretized_logistic_loss, in_axes=(-1, -1, None))
            return one(images[..., None, :], means[..., None, :], log_scale[None])

        return jnp.moveaxis(jax.lax.map(of, grid), -1, 0)

    def function(batch, keys):
        images, its_means, _ = means(batch, keys)
        return {"emission": emissions(its_means, images)}

    values = over_images(
        function, source, key, batch_size=batch_size, count=2_000, what="fitting scales"
    )["emission"]
    best = np.argmin(values.sum(axis=0), axis=0)
    assert len(best) == channels or channels == 1
    return np.exp(np.asarray(grid)[best])


def bits_per_dimension(
    means: _Means, source: data.Source, key: jax.Array, scales: np.ndarray, *, batch_size: int
) -> dict[str, Any]:
    """A bound on a source in bits per dimension, for images of 256 levels.

    The model's means get a discretized logistic emission.

    Args:
      means: what the model makes of a batch.
      source: the images.
      key: PRNG key of the evaluation.
      scales: of the logistic distribution, a number a channel.
      batch_size: images a call.

    Returns:
      `bits_per_dimension`, its `standard_error`, and the `scales`.
    """
    size = 0

    def function(batch, keys):
        nonlocal size
        images, its_means, kl = means(batch, keys)
        size = math.prod(images.shape[1:])
        return {
            "loss": kl + objective.discretized_logistic_loss(its_means, images, jnp.log(scales))
        }

    values = over_images(
        function, source, key, batch_size=batch_size, what="evaluating bits per dimension"
    )
    bits = values["loss"] / (size * math.log(2))
    return {
        "bits_per_dimension": float(bits.mean()),
        "standard_error": standard_error(bits),
        "scales": [float(scale) for scale in scales],
    }
