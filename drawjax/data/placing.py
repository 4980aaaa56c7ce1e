"""Images made of images on the device, by key: crops, pairs, clutter.

Random crops shift an image a little each time it is seen, as Goodfellow et al. (2013) train. A pair
is the two-digit MNIST of Sec. 4.3 (Gregor et al. 2015). Clutter is Cluttered Translated MNIST
(Mnih et al. 2014): a whole digit lies among pieces of other digits, which say nothing of its class.

All functions are for inside jit.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Shaped, UInt8

__all__ = [
    "PIECE_SIZE", "add_patches", "center_crop", "cluttered", "pair", "partner", "random_corners",
    "random_crop",
]  # fmt: skip

PIECE_SIZE = 8  # of clutter, pixels per side


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
    _, place_key = jax.random.split(key)
    other = pool[partner(key, len(pool))]
    corners = random_corners(place_key, 2, (size, size), image.shape[:2])
    canvas = jnp.zeros((size, size, image.shape[-1]), jnp.int32)
    canvas = add_patches(canvas, jnp.stack([image, other]), corners)
    return jnp.minimum(canvas, 255).astype(jnp.float32) / 255


def partner(key: jax.Array, count: int) -> Int[Array, ""]:
    """Which image of a pool of so many `pair` takes for the second, by the same key."""
    other_key, _ = jax.random.split(key)
    return jax.random.randint(other_key, (), 0, count)


def cluttered(
    key: jax.Array,
    target: UInt8[Array, "rows columns channels"],
    pool: UInt8[Array, "digits rows columns channels"],
    *,
    size: int = 100,
    pieces: int = 8,
    piece_size: int = PIECE_SIZE,
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
      pieces: pieces per image, at most 127.
      piece_size: side of a piece in pixels.

    Returns:
      Intensities in [0, 1], float32.
    """
    which_key, cut_key, put_key, target_key = jax.random.split(key, 4)
    side, piece, digit = (size, size), (piece_size, piece_size), target.shape[:2]
    canvas = jnp.zeros((*side, target.shape[-1]), jnp.int16)
    if pieces:
        which = jax.random.randint(which_key, (pieces,), 0, len(pool))
        rows, columns = _pixels(random_corners(cut_key, pieces, digit, piece), *piece)
        scraps = pool.at[which[:, None, None], rows, columns].get(mode="promise_in_bounds")
        canvas = add_patches(canvas, scraps, random_corners(put_key, pieces, side, piece))
    canvas = add_patches(canvas, target[None], random_corners(target_key, 1, side, digit))
    return jnp.minimum(canvas, 255).astype(jnp.float32) / 255


def add_patches(
    canvas: Int[Array, "height width channels"],
    patches: Shaped[Array, "pieces rows columns channels"],
    corners: Int[Array, "pieces 2"],
) -> Int[Array, "height width channels"]:
    """Adds patches to an image, where they overlap one on top of the other.

    The sums are of integers, so they come out the same in whatever order a device takes them.

    Args:
      canvas: integer intensities, wide enough for the sums.
      patches: what to add.
      corners: row and column, from 0, of each patch's top left pixel. Patches have to lie inside
        the canvas, which is not checked.

    Returns:
      The canvas with the patches added, not clipped.
    """
    # One scatter over all patches: on a GPU, a loop over them would cost more in launches than in
    # work.
    rows, columns = _pixels(corners, *patches.shape[1:3])
    return canvas.at[rows, columns].add(patches.astype(canvas.dtype), mode="promise_in_bounds")


def _pixels(corners: jax.Array, height: int, width: int) -> tuple[jax.Array, jax.Array]:
    """Rows `[pieces, height, 1]` and columns `[pieces, 1, width]` of patches in an image."""
    top, left = corners.T[:, :, None, None]
    return top + jnp.arange(height)[None, :, None], left + jnp.arange(width)[None, None]


def random_corners(
    key: jax.Array, count: int, inside: Sequence[int], patch: Sequence[int]
) -> Int[Array, "count 2"]:
    """Draws corners uniformly from all at which a patch lies wholly inside an image.

    Args:
      key: PRNG key, consumed.
      count: how many corners.
      inside: height and width of the image.
      patch: height and width of the patch.

    Returns:
      Row and column of the top left pixel, from 0.
    """
    limits = jnp.asarray(inside) - jnp.asarray(patch) + 1
    return jax.random.randint(key, (count, 2), 0, limits[None])
