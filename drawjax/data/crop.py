"""Crops that shift an image a little each time it is seen, as Goodfellow et al. (2013) train."""

import jax
from jaxtyping import Array, Shaped

from drawjax.data.patches import random_corners

__all__ = ["center_crop", "random_crop"]


def random_crop(
    key: jax.Array, image: Shaped[Array, "height width channels"], *, size: int
) -> Shaped[Array, "size size channels"]:
    """Cuts a square out of an image at a random place. For inside jit; `jax.vmap` it over a batch.

    Args:
      key: PRNG key, consumed.
      image: of any dtype, no smaller than the crop.
      size: side of the crop in pixels.
    """
    (corner,) = random_corners(key, 1, image.shape[:2], (size, size))
    return jax.lax.dynamic_slice(image, (*corner, 0), (size, size, image.shape[-1]))


def center_crop(
    image: Shaped[Array, "*batch height width channels"], *, size: int
) -> Shaped[Array, "*batch size size channels"]:
    """Cuts the middle out of images, half a pixel up and left if need be."""
    top, left = ((side - size) // 2 for side in image.shape[-3:-1])
    return image[..., top : top + size, left : left + size, :]
