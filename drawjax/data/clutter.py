"""Cluttered Translated MNIST (Mnih et al. 2014), made on the device by key. For inside jit.

A whole digit lies at a random place among pieces of other digits, which say nothing of its class.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from drawjax.data.placing import add_patches, check_digits, cut_patches, random_corners

__all__ = ["cluttered"]

_MOST_PIECES = 127  # with the target, as many as 16 bits can add up


def cluttered(
    key: jax.Array,
    pool: UInt8[Array, "digits rows columns channels"],
    targets: UInt8[Array, "batch rows columns channels"],
    *,
    size: int = 100,
    pieces: int = 8,
    piece_size: int = 8,
) -> Float[Array, "batch size size channels"]:
    """Puts each target among pieces of digits of the pool.

    As the generator of Mnih et al. (2014) does: each piece is cut at a random place out of a
    random digit and put at a random place, then the whole target is; intensities add up and are
    clipped. All draws are uniform and independent, and every piece and target lies wholly inside.

    Args:
      key: PRNG key, consumed.
      pool: the digits to cut pieces from. For a test set, take the training digits or the test
        digits, but not both.
      targets: the digit of each image.
      size: side of the images that come out, in pixels.
      pieces: pieces an image.
      piece_size: side of a piece in pixels.

    Returns:
      Intensities in [0, 1], float32.

    Raises:
      ValueError: if the digits are not bytes `[n, height, width, channels]`, the pool is empty, or
        something is larger than what it has to fit into.
    """
    check_digits("pool", pool, size)
    check_digits("targets", targets, size)
    digit = pool.shape[1:3]
    if pool.shape[0] == 0 or pool.shape[3] != targets.shape[3]:
        raise ValueError(
            "the pool must have digits, with as many channels as the targets; got "
            f"{list(pool.shape)} and {list(targets.shape)}"
        )
    if not 0 <= pieces <= _MOST_PIECES or not 1 <= piece_size <= min(digit):
        raise ValueError(
            f"pieces must be from 0 to {_MOST_PIECES} and piece_size from 1 to {min(digit)}, "
            f"got {pieces} and {piece_size}"
        )
    batch, side, piece = len(targets), (size, size), (piece_size, piece_size)
    which_key, cut_key, put_key, target_key = jax.random.split(key, 4)
    which = jax.random.randint(which_key, (batch, pieces), 0, len(pool))
    cut = random_corners(cut_key, (batch, pieces), digit, piece)
    put = random_corners(put_key, (batch, pieces), side, piece)
    target_at = random_corners(target_key, (batch, 1), side, targets.shape[1:3])

    scraps = cut_patches(jnp.asarray(pool), which, cut, piece_size)
    canvas = jnp.zeros((batch, *side, targets.shape[3]), jnp.int16)
    canvas = add_patches(canvas, scraps, put)
    canvas = add_patches(canvas, jnp.asarray(targets)[:, None], target_at)
    return jnp.minimum(canvas, 255).astype(jnp.float32) / 255
