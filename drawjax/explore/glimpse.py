"""What an attention window reads and writes back, by `drawjax.attention`, for the explorer.

Axes: `height`, `width` and `channels` of the image, `N` filters per side.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from drawjax import attention
from drawjax.explore.images import MAX_SIDE

MAX_PATCH = 32  # filters per side


def glimpse(
    pixels: UInt8[np.ndarray, "height width channels"], logits: Sequence[float], patch_size: int
) -> Float[Array, " numbers"]:
    """Reads a patch through the window of five numbers and writes it back through the same.

    Returns:
      One after the other: center x and y, stride, variance and intensity of the window; where the
      filters lie down the height, N numbers in pixels from 1, and along the width; the patch and
      what is written back, row by row.
    """
    if max(pixels.shape) > MAX_SIDE or patch_size > MAX_PATCH:
        raise ValueError(
            f"at most {MAX_SIDE} pixels and {MAX_PATCH} filters per side, got {pixels.shape} and "
            f"{patch_size}"
        )
    return _numbers(pixels, jnp.asarray(logits, jnp.float32), patch_size)


@functools.partial(jax.jit, static_argnames="patch_size")
def _numbers(pixels: jax.Array, logits: jax.Array, patch_size: int) -> jax.Array:
    image, (height, width, _) = pixels.astype(jnp.float32) / 255, pixels.shape
    window = attention.window_from_logits(logits, (height, width), patch_size)
    patch = attention.read(image, window, patch_size)
    written = attention.write(patch, window, (height, width))
    numbers = [window.center_x, window.center_y, window.stride, window.variance]
    means = attention.filter_means(window, patch_size)
    fields = [*numbers, window.intensity, *means, patch, written]
    return jnp.concatenate([jnp.ravel(field) for field in fields])
