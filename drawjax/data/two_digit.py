"""MNIST with two digits (Sec. 4.3 of Gregor et al. 2015), made on the device by key."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from drawjax.data.placing import add_patches, check_digits, random_corners

__all__ = ["two_digits"]


def two_digits(
    key: jax.Array,
    first: UInt8[Array, "batch rows columns channels"],
    second: UInt8[Array, "batch rows columns channels"],
    *,
    size: int = 60,
) -> Float[Array, "batch size size channels"]:
    """Puts two digits on black, each at a place of its own; intensities are added and clipped.

    Both places are uniform over those that hold the whole digit, and independent: digits may
    overlap, as in the paper.

    Args:
      key: PRNG key, consumed.
      first: one digit an image.
      second: the other digit of each image, of the same shape.
      size: side of the images that come out, in pixels.

    Returns:
      Intensities in [0, 1], float32.

    Raises:
      ValueError: if the digits are not bytes of one shape `[batch, height, width, channels]`, or
        larger than `size`.
    """
    check_digits("first", first, size)
    check_digits("second", second, size)
    if first.shape != second.shape:
        raise ValueError(
            f"first and second must have one shape, got {list(first.shape)} and "
            f"{list(second.shape)}"
        )
    batch, height, width, channels = first.shape
    corners = random_corners(key, (batch, 2), (size, size), (height, width))
    digits = jnp.stack([first, second], axis=1)
    canvas = add_patches(jnp.zeros((batch, size, size, channels), jnp.int32), digits, corners)
    return jnp.minimum(canvas, 255).astype(jnp.float32) / 255
