"""Small images put on larger black ones, for sets that are made on the device. For inside jit."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Shaped

__all__ = ["add_patches", "check_digits", "cut_patches", "random_corners"]


def add_patches(
    canvas: Int[Array, "batch height width channels"],
    patches: Shaped[Array, "batch pieces rows columns channels"],
    corners: Int[Array, "batch pieces 2"],
) -> Int[Array, "batch height width channels"]:
    """Adds patches to an image each, where they overlap one on top of the other.

    The sums are of integers, so they come out the same in whatever order a device takes them.

    Args:
      canvas: integer intensities, wide enough for the sums.
      patches: what to add to each image of the batch.
      corners: row and column, from 0, of each patch's top left pixel. Patches have to lie inside
        the canvas, which is not checked.

    Returns:
      The canvas with the patches added, not clipped.
    """
    # One scatter over all patches of all images: on a GPU, a loop over patches would cost more in
    # launches than in work.
    return jax.lax.scatter_add(
        canvas,
        _starts(jnp.arange(len(canvas))[:, None], corners),
        patches.astype(canvas.dtype),
        jax.lax.ScatterDimensionNumbers(
            update_window_dims=(2, 3, 4),
            inserted_window_dims=(0,),
            scatter_dims_to_operand_dims=(0, 1, 2),
        ),
        mode="promise_in_bounds",
    )


def cut_patches(
    images: Shaped[Array, "images height width channels"],
    which: Int[Array, "batch pieces"],
    corners: Int[Array, "batch pieces 2"],
    size: int,
) -> Shaped[Array, "batch pieces size size channels"]:
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
        _starts(which, corners),
        jax.lax.GatherDimensionNumbers(
            offset_dims=(2, 3, 4), collapsed_slice_dims=(0,), start_index_map=(0, 1, 2)
        ),
        slice_sizes=(1, size, size, images.shape[-1]),
        mode="promise_in_bounds",
    )


def _starts(which: jax.Array, corners: jax.Array) -> jax.Array:
    """Image, row and column of each patch, `[batch, pieces, 3]`."""
    which = jnp.broadcast_to(which, corners.shape[:-1])
    return jnp.concatenate([which[..., None], corners], axis=-1)


def random_corners(
    key: jax.Array, shape: tuple[int, ...], inside: Sequence[int], patch: Sequence[int]
) -> Int[Array, "*shape 2"]:
    """Draws corners uniformly from all at which a patch lies wholly inside an image.

    Args:
      key: PRNG key, consumed.
      shape: how many corners.
      inside: height and width of the image.
      patch: height and width of the patch.

    Returns:
      Row and column of the top left pixel, from 0.
    """
    limits = jnp.asarray(inside) - jnp.asarray(patch) + 1
    return jax.random.randint(key, (*shape, 2), 0, limits)


def check_digits(name: str, digits: jax.Array, size: int) -> None:
    """Raises ValueError unless `digits` are bytes `[n, height, width, channels]` within `size`."""
    if digits.ndim != 4 or digits.dtype != jnp.uint8:
        raise ValueError(
            f"{name} must be uint8 [n, height, width, channels], "
            f"got {digits.dtype} {list(digits.shape)}"
        )
    if max(digits.shape[1:3]) > size:
        raise ValueError(
            f"{name} of {digits.shape[1]}x{digits.shape[2]} pixels do not fit into size {size}"
        )
