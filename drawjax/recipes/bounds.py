"""Bounds on a generating model's likelihood beside the one it is trained on (Eq. 12)."""

import math
from typing import TYPE_CHECKING, Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from drawjax import data, draw, objective
from drawjax.recipes.evaluation import evaluation_batches, standard_error

if TYPE_CHECKING:
    from drawjax.recipes.generation import Generation

__all__ = ["bits_per_dimension", "importance_weighted"]

_IMAGES = 20  # a batch of the importance-weighted bound: a bar over fewer still moves
_ROWS = 1_000  # images times samples that are drawn at once


def importance_weighted(
    work: "Generation", params: Any, source: data.Source, num_samples: int, count: int | None = None
) -> dict[str, float]:
    """The K-sample bound of Burda et al. (2016) on the first images of a source.

    Args:
      work: the model bound to its data.
      params: its parameters.
      source: the images.
      num_samples: K.
      count: how many images; None: all.

    Returns:
      In nats an image, with standard errors: minus the bound, `importance_weighted`, and by how
      much it is tighter than the bound of Eq. 12 by the same samples, `importance_gain`, which few
      images tell well. Also `importance_samples` and `importance_images`.
    """
    count = min(count or len(source), len(source))
    model = work.config.model

    @jax.jit
    def losses(params, batch, key):
        image_key, noise_key = jax.random.split(key)
        images = work.view.images(batch, image_key, False)
        weighted, plain = draw.importance_weighted_bound(
            work.networks(params), images, noise_key, steps=model.num_glimpses, latents=model.latent_size,
            num_samples=num_samples, chunk=max(1, _ROWS // len(images)),
        )  # fmt: skip
        return -weighted, weighted - plain

    columns = [
        [np.asarray(values)[weight > 0] for values in losses(params, batch, key)]
        for batch, weight, key in evaluation_batches(
            source, count, _IMAGES, "evaluating by importance"
        )
    ]
    weighted, gain = (
        np.concatenate(parts)[:count].astype(float) for parts in zip(*columns, strict=True)
    )
    return {
        "importance_weighted": float(weighted.mean()),
        "importance_weighted_standard_error": standard_error(weighted),
        "importance_gain": float(gain.mean()),
        "importance_gain_standard_error": standard_error(gain),
        "importance_samples": num_samples,
        "importance_images": count,
    }


def bits_per_dimension(work: "Generation", params: Any) -> dict[str, Any]:
    """A bound on the test set in bits per dimension, for images of 256 levels.

    The model's means get a discretized logistic emission whose scale, one number a channel, is
    the best of a grid on 2,000 training images.

    Returns:
      `bits_per_dimension`, its `standard_error`, and the `scales` chosen.
    """
    grid = jnp.linspace(-6.0, -0.5, 56)
    model = work.config.model

    @jax.jit
    def losses(params, batch, key, log_scales):  # [S, channels] -> emission [S, batch], KL
        image_key, noise_key = jax.random.split(key)
        images = work.view.images(batch, image_key, False)
        noise = jax.random.normal(noise_key, (model.num_glimpses, len(images), model.latent_size))
        trace = draw.infer(work.networks(params), images, noise)
        means = jax.nn.sigmoid(trace.canvases[-1])

        def emission(log_scale):
            one = jax.vmap(objective.discretized_logistic_loss, in_axes=(-1, -1, 0))
            return one(means[..., None, :], images[..., None, :], log_scale[:, None])

        return jax.lax.map(emission, log_scales), jnp.sum(cast(jax.Array, trace.kl), axis=0)

    def total(source, count, log_scales):  # [S, channels, count], [count]
        emissions, kls = [], []
        for batch, weight, key in evaluation_batches(
            source, count, work.config.eval_batch_size, "evaluating bits per dimension"
        ):
            emission, kl = losses(params, batch, key, log_scales)
            emissions.append(np.asarray(emission)[..., weight > 0])
            kls.append(np.asarray(kl)[weight > 0])
        return np.concatenate(emissions, axis=-1), np.concatenate(kls)

    train, test, shape = work.images.train, work.images.test, work.view.image_shape
    fit, _ = total(train, min(2_000, len(train)), jnp.tile(grid[:, None], (1, shape[2])))
    best = grid[np.argmin(fit.sum(axis=-1), axis=0)]
    emission, kl = total(test, len(test), best[None])
    bits = (emission[0].sum(axis=0) + kl) / (math.prod(shape) * math.log(2))
    return {
        "bits_per_dimension": float(bits.mean()),
        "standard_error": standard_error(bits),
        "scales": [float(scale) for scale in np.exp(best)],
    }
