"""Crops that shift an image a little each time it is seen, as Goodfellow et al. (2013) train."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Shaped

from drawjax.data.placing import random_corners

__all__ = ["center_crop", "random_crop"]


def random_crop(
    key: jax.Array, images: Shaped[Array, "batch height width channels"], *, size: int
) -> Shaped[Array, "batch size size channels"]:
    """Cuts a square out of each image at a random place of its own. For inside jit.

    Args:
      key: PRNG key, consumed.
      images: of any dtype.
      size: side of the crop in pixels.

    Raises:
      ValueError: if the crop is larger than the images.
    """
    _check(images.shape, size)
    corners = random_corners(key, (len(images),), images.shape[1:3], (size, size))

    def cut(image, corner):
        return jax.lax.dynamic_slice(image, (*corner, 0), (size, size, image.shape[-1]))

    return jax.vmap(cut)(jnp.asarray(images), corners)


def center_crop(
    images: Shaped[Array, "*batch height width channels"], *, size: int
) -> Shaped[Array, "*batch size size channels"]:
    """Cuts the middle out of each image, NumPy's or JAX's; half a pixel up and left if need be.

    Raises:
      ValueError: if the crop is larger than the images.
    """
    _check(images.shape, size)
    top, left = ((side - size) // 2 for side in images.shape[-3:-1])
    return images[..., top : top + size, left : left + size, :]


def _check(shape: tuple[int, ...], size: int) -> None:
    if len(shape) < 3 or not 1 <= size <= min(shape[-3:-1]):
        raise ValueError(
            "images must be [..., height, width, channels] and hold the crop, got "
            f"{list(shape)} and a crop of {size}x{size}"
        )
