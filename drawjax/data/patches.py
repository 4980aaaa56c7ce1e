"""Small images put on a larger black one, for sets that are made on the device. For inside jit."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Shaped

__all__ = ["add_patches", "cut_patches", "random_corners"]


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
    return jax.lax.scatter_add(
        canvas,
        jnp.pad(corners, ((0, 0), (0, 1))),  # channel 0
        patches.astype(canvas.dtype),
        jax.lax.ScatterDimensionNumbers(
            update_window_dims=(1, 2, 3),
            inserted_window_dims=(),
            scatter_dims_to_operand_dims=(0, 1, 2),
        ),
        mode="promise_in_bounds",
    )


def cut_patches(
    images: Shaped[Array, "images height width channels"],
    which: Int[Array, " pieces"],
    corners: Int[Array, "pieces 2"],
    size: int,
) -> Shaped[Array, "pieces size size channels"]:
    """Cuts square patches out of images.

    Args:
      images: what to cut from.
      which: the image of each patch.
      corners: row and column, from 0, of each patch's top left pixel in it. Patches have to lie
        inside the image, which is not checked.
      size: side of a patch in pixels.
    """
    return jax.lax.gather(
        images,
        jnp.concatenate([which[:, None], jnp.pad(corners, ((0, 0), (0, 1)))], axis=-1),
        jax.lax.GatherDimensionNumbers(
            offset_dims=(1, 2, 3), collapsed_slice_dims=(0,), start_index_map=(0, 1, 2, 3)
        ),
        slice_sizes=(1, size, size, images.shape[-1]),
        mode="promise_in_bounds",
    )


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
