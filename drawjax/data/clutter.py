"""Cluttered Translated MNIST (Mnih et al. 2014), made on the device by key. For inside jit.

A whole digit lies at a random place among pieces of other digits, which say nothing of its class.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from drawjax.data.patches import add_patches, cut_patches, random_corners

__all__ = ["cluttered"]


def cluttered(
    key: jax.Array,
    target: UInt8[Array, "rows columns channels"],
    pool: UInt8[Array, "digits rows columns channels"],
    *,
    size: int = 100,
    pieces: int = 8,
    piece_size: int = 8,
) -> Float[Array, "size size channels"]:
    """Puts a digit among pieces of digits of the pool. For inside jit; `jax.vmap` it over a batch.

    As the generator of Mnih et al. (2014) does: each piece is cut at a random place out of a
    random digit and put at a random place, then the whole target is; intensities add up and are
    clipped. All draws are uniform and independent, and every piece and target lies wholly inside.

    Args:
      key: PRNG key, consumed.
      target: the digit.
      pool: the digits to cut pieces from. For a test set, take the training digits or the test
        digits, but not both.
      size: side of the image that comes out, in pixels.
      pieces: pieces an image, at most 127.
      piece_size: side of a piece in pixels.

    Returns:
      Intensities in [0, 1], float32.
    """
    which_key, cut_key, put_key, target_key = jax.random.split(key, 4)
    side, piece, digit = (size, size), (piece_size, piece_size), target.shape[:2]
    canvas = jnp.zeros((*side, target.shape[-1]), jnp.int16)
    if pieces:
        which = jax.random.randint(which_key, (pieces,), 0, len(pool))
        cut = random_corners(cut_key, pieces, digit, piece)
        scraps = cut_patches(pool, which, cut, piece_size)
        canvas = add_patches(canvas, scraps, random_corners(put_key, pieces, side, piece))
    canvas = add_patches(canvas, target[None], random_corners(target_key, 1, side, digit))
    return jnp.minimum(canvas, 255).astype(jnp.float32) / 255
