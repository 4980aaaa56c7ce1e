"""MNIST with two digits (Sec. 4.3 of Gregor et al. 2015), made on the device by key."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from drawjax.data.patches import add_patches, random_corners

__all__ = ["pair"]


def pair(
    key: jax.Array,
    image: UInt8[Array, "rows columns channels"],
    pool: UInt8[Array, "images rows columns channels"],
    *,
    size: int = 60,
) -> Float[Array, "size size channels"]:
    """Puts an image and another on black, each at a random place; intensities add and are clipped.

    Both places are uniform over those that hold the whole image, and independent: the two may
    overlap, as in the paper. For inside jit; `jax.vmap` it over a batch.

    Args:
      key: PRNG key, consumed.
      image: the first of the two.
      pool: the images of which the second is one, each as likely as the others.
      size: side of the image that comes out, in pixels.

    Returns:
      Intensities in [0, 1], float32.
    """
    other_key, place_key = jax.random.split(key)
    other = pool[jax.random.randint(other_key, (), 0, len(pool))]
    corners = random_corners(place_key, 2, (size, size), image.shape[:2])
    canvas = jnp.zeros((size, size, image.shape[-1]), jnp.int32)
    canvas = add_patches(canvas, jnp.stack([image, other]), corners)
    return jnp.minimum(canvas, 255).astype(jnp.float32) / 255
