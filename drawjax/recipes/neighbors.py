"""Nearest training images, the test of Figs. 6 and 9 that a model does not merely remember."""

from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

__all__ = ["nearest_images"]


def nearest_images(
    images: Float[Array, "count height width channels"],
    batches: Iterable[tuple[Float[Array, "batch height width channels"], np.ndarray]],
) -> Float[np.ndarray, "count height width channels"]:
    """For each image, the one of all batches at the least Euclidean distance over pixels.

    Args:
      images: what to find neighbors of.
      batches: `(candidates, weight)`; candidates of weight zero are left out.

    Returns:
      The nearest candidate of each image.
    """

    @jax.jit
    def nearest_of(candidates, weight):
        # |a - b|^2 = |a|^2 - 2 a.b + |b|^2, of which |a|^2 changes no order
        flat = candidates.reshape(len(candidates), -1)
        distances = jnp.sum(flat**2, -1) - 2 * images.reshape(len(images), -1) @ flat.T
        distances = jnp.where(weight > 0, distances, jnp.inf)
        return jnp.min(distances, -1), candidates[jnp.argmin(distances, -1)]

    best = np.full(len(images), np.inf)
    found = np.zeros(images.shape, np.float32)
    for candidates, weight in batches:
        distances, nearest = map(np.asarray, nearest_of(candidates, weight))
        closer = distances < best
        best[closer], found[closer] = distances[closer], nearest[closer]
    return found
