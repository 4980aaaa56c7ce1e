"""What an attention window reads and writes back, by `drawjax.attention`, for the explorer.

Axes: `height`, `width` and `channels` of the image, `N` filters a side.
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from drawjax import attention
from drawjax.attention import Window
from drawjax.explore.images import MAX_SIDE

__all__ = ["MAX_PATCH", "Glimpse", "check", "glimpse"]

MAX_PATCH = 32  # filters a side


class Glimpse(NamedTuple):
    """A window and what goes through it."""

    window: Window  # scalar fields
    means_y: Float[Array, " N"]  # where the filters lie down the height, pixels from 1
    means_x: Float[Array, " N"]  # and along the width
    patch: Float[Array, "N N channels"]  # `read`
    written: Float[Array, "height width channels"]  # `write` of that patch


def glimpse(
    pixels: UInt8[np.ndarray, "height width channels"], logits: Sequence[float], patch_size: int
) -> Glimpse:
    """Reads a patch through the window of five numbers and writes it back through the same.

    Args:
      pixels: the image; 255 is 1.
      logits: as for `attention.window_from_logits`.
      patch_size: N.

    Raises:
      ValueError: as `check`.
    """
    check(pixels.shape, logits, patch_size)
    return _compiled(pixels.shape, patch_size)(pixels, jnp.asarray(logits, jnp.float32))


def check(shape: tuple[int, ...], logits: Sequence[float], patch_size: int) -> None:
    """Refuses what the page never asks for.

    Raises:
      ValueError: if the image is too large or no image, there are not five finite numbers, or the
        patch size is not in 1..`MAX_PATCH`.
    """
    if len(shape) != 3 or not all(1 <= side <= MAX_SIDE for side in shape[:2]):
        raise ValueError(f"image must be [height, width, channels], at most {MAX_SIDE} a side")
    if shape[2] not in (1, 3):
        raise ValueError(f"image must have 1 or 3 channels, got {shape[2]}")
    if len(logits) != 5 or not np.isfinite(logits).all():
        raise ValueError(f"logits must be 5 finite numbers, got {list(logits)}")
    if not 1 <= patch_size <= MAX_PATCH:
        raise ValueError(f"patch_size must be in 1..{MAX_PATCH}, got {patch_size}")


# Bounded: dropped images come in any shape, and each shape and N is a program of its own.
@functools.lru_cache(maxsize=128)
def _compiled(shape: tuple[int, int, int], patch_size: int) -> Callable[..., Glimpse]:
    def run(pixels: jax.Array, logits: jax.Array) -> Glimpse:
        image = pixels.astype(jnp.float32) / 255
        window = attention.window_from_logits(logits, shape[:2], patch_size)
        patch = attention.read(image, window, patch_size)
        written = attention.write(patch, window, shape[:2])
        return Glimpse(window, *attention.filter_means(window, patch_size), patch, written)

    return jax.jit(run)
