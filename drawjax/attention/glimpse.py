"""Reading a patch through a window and writing one: Eq. 27 and 29."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from drawjax.attention.filters import rotated_filters, separable_filters
from drawjax.attention.window import (
    ArrayLike,
    PatchSize,
    Window,
    as_arrays,
    height_and_width,
    rows_and_columns,
)

__all__ = ["read", "read_scales", "write"]


def read(
    image: Shaped[ArrayLike, "*#batch height width channels"],
    window: Window,
    patch_size: PatchSize,
) -> Float[Array, "*batch rows columns channels"]:
    """Cuts an N x N patch out of an image: gamma F_Y x F_X^T, one image of Eq. 27.

    Args:
      image: `[*batch, height, width, channels]`; all channels are read by the same filters.
      window: fields `[*batch]`. The batch shapes of image and window broadcast, so one image can
        be read by many windows and the reverse.
      patch_size: N, or `(rows, columns)`.

    Returns:
      The patch, `[*batch, N, N, channels]`; its first axis runs down the image, or down the grid
      of a rotated window.

    Raises:
      ValueError: if the image has fewer than three axes, the batch shapes do not broadcast, a
        size is not positive, or a rotated window has a `variance_y`.
    """
    grid = rows_and_columns(patch_size)
    image, window = _checked("image", image, "[..., height, width, channels]", window)
    if window.rotation is not None:
        return _read_rotated(image, window, grid)
    *batch, height, width, channels = image.shape
    rows, columns = separable_filters(window, (height, width), grid)
    rows, columns, intensity = _aligned(image.ndim, rows, columns, window.intensity)
    # One product of matrices down the height, whatever the channels.
    lines = _product(rows, image.reshape(*batch, height, width * channels))
    return intensity * _across(lines.reshape(*lines.shape[:-1], width, channels), columns)


def read_scales(
    image: Shaped[ArrayLike, "*#batch height width channels"],
    window: Window,
    patch_size: PatchSize,
    num_scales: int,
) -> Float[Array, "*batch scales rows columns channels"]:
    """Cuts patches of several scales out of an image, all around one center.

    Patch k is `read` by the window with stride and standard deviation 2^k times as large: the
    retina of the RAM (Mnih et al., "Recurrent Models of Visual Attention", 2014). One call is
    cheaper than a `read` a scale, since the rows of all are read at once.

    Args:
      image: as for `read`.
      window: of the finest scale, fields `[*batch]`.
      patch_size: N, or `(rows, columns)`.
      num_scales: how many, at least 1.

    Returns:
      The patches, `[*batch, scales, N, N, channels]`, the finest first.

    Raises:
      ValueError: if `num_scales` is not positive, or as `read`.
    """
    if num_scales < 1:
        raise ValueError(f"num_scales must be at least 1, got {num_scales}")
    grid = rows_and_columns(patch_size)
    image, window = _checked("image", image, "[..., height, width, channels]", window)
    window = _scaled(window, num_scales)
    if window.rotation is not None:
        return _read_rotated(image[..., None, :, :, :], window, grid)
    *batch, height, width, channels = image.shape
    rows, columns = separable_filters(window, (height, width), grid)
    rows, columns, intensity = _aligned(image.ndim + 1, rows, columns, window.intensity)
    every = rows.reshape(*rows.shape[:-3], num_scales * rows.shape[-2], height)
    lines = _product(every, image.reshape(*batch, height, width * channels))
    lines = lines.reshape(*lines.shape[:-2], num_scales, rows.shape[-2], width, channels)
    return intensity * _across(lines, columns)


def write(
    patch: Shaped[ArrayLike, "*#batch rows columns channels"],
    window: Window,
    image_shape: tuple[int, int],
) -> Float[Array, "*batch height width channels"]:
    """Lays an N x N patch on an empty image: F_Y^T w F_X / gamma, Eq. 29.

    Args:
      patch: `[*batch, N, N, channels]`, or of other rows than columns.
      window: fields `[*batch]`; batch shapes broadcast with the patch's.
      image_shape: `(height, width)` of the image in pixels.

    Returns:
      The image, `[*batch, height, width, channels]`, zero where the window does not reach.

    Raises:
      ValueError: if the patch has fewer than three axes, the batch shapes do not broadcast, a size
        is not positive, or a rotated window has a `variance_y`.
    """
    image_shape = height_and_width(image_shape)
    patch, window = _checked("patch", patch, "[..., N, N, channels]", window)
    *batch, size_y, size_x, channels = patch.shape
    if window.rotation is not None:
        down, across = rotated_filters(window, image_shape, (size_y, size_x))
        down, across, intensity = _aligned(patch.ndim, down, across, window.intensity)
        pixels = (patch / intensity).reshape(*patch.shape[:-3], -1, 1, channels)
        lines = across[..., None] * pixels
    else:
        down, columns = separable_filters(window, image_shape, (size_y, size_x))
        down, columns, intensity = _aligned(patch.ndim, down, columns, window.intensity)
        patch = jnp.swapaxes(patch / intensity, -2, -1)
        *batch, size_y, channels, _ = patch.shape
        lines = _product(patch.reshape(*batch, size_y * channels, size_x), columns)
        lines = jnp.swapaxes(lines.reshape(*lines.shape[:-2], size_y, channels, -1), -2, -1)
    image = _product(_transposed(down), lines.reshape(*lines.shape[:-2], -1))
    return image.reshape(*image.shape[:-1], image_shape[1], channels)


def _read_rotated(image: jax.Array, window: Window, grid: tuple[int, int]) -> jax.Array:
    *batch, height, width, channels = image.shape
    down, across = rotated_filters(window, (height, width), grid)
    down, across, intensity = _aligned(image.ndim, down, across, window.intensity)
    lines = _product(down, image.reshape(*batch, height, width * channels))
    lines = lines.reshape(*lines.shape[:-1], width, channels)
    # Each filter has columns of its own: no product of matrices, a sum over the width.
    pixels = jnp.sum(lines * across[..., None], axis=-2)
    return intensity * pixels.reshape(*pixels.shape[:-2], *grid, channels)


def _scaled(window: Window, num_scales: int) -> Window:
    """Windows of one center, each twice as wide as the one before, along a new last axis."""
    factors = 2.0 ** jnp.arange(num_scales, dtype=window.stride.dtype)
    factors = jnp.expand_dims(factors, range(window.stride.ndim))
    window = jax.tree.map(lambda field: field[..., None] * jnp.ones_like(factors), window)
    return dataclasses.replace(
        window,
        stride=window.stride * factors,
        variance=window.variance * factors**2,
        stride_y=None if window.stride_y is None else window.stride_y * factors,
        variance_y=None if window.variance_y is None else window.variance_y * factors**2,
    )


def _across(
    lines: Float[Array, "*#batch rows width channels"],
    columns: Float[Array, "*#batch columns width"],
) -> Float[Array, "*batch rows columns channels"]:
    """A patch from an image whose rows have been read: its columns by their filters."""
    *batch, rows, width, channels = lines.shape
    lines = jnp.swapaxes(lines, -2, -1).reshape(*batch, rows * channels, width)
    patch = _product(lines, _transposed(columns))
    patch = patch.reshape(*patch.shape[:-2], rows, channels, patch.shape[-1])
    return jnp.swapaxes(patch, -2, -1)


@jax.custom_jvp
def _product(a: jax.Array, b: jax.Array) -> jax.Array:
    """Multiplies matrices."""
    return a @ b


@_product.defjvp
def _product_jvp(primals, tangents):
    (a, b), (to_a, to_b) = primals, tangents
    # The gradient of b then is a product that turns nothing.
    change = jnp.einsum("...ij,...ik->...jk", _transposed(a), to_b)
    return a @ b, to_a @ b + change


def _transposed(matrix: jax.Array) -> jax.Array:
    """The transpose, made apart from the product that it enters.

    XLA's CPU backend has no kernel for a product that turns its left side.
    """
    return jax.lax.optimization_barrier(jnp.swapaxes(matrix, -2, -1))


def _aligned(
    ndim: int, rows: jax.Array, columns: jax.Array, intensity: ArrayLike
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Filters and intensity with the batch axes of an image of `ndim` axes, or more."""
    more = range(max(ndim - 3 - intensity.ndim, 0))
    rows, columns = jnp.expand_dims(rows, more), jnp.expand_dims(columns, more)
    return rows, columns, jnp.expand_dims(intensity, more)[..., None, None, None]


def _checked(
    name: str, pixels: ArrayLike, expected: str, window: Window
) -> tuple[jax.Array, Window]:
    """An image or patch as floats, and its window as arrays, if their batch shapes broadcast."""
    pixels, window = jnp.asarray(pixels), as_arrays(window)
    if pixels.ndim < 3:
        raise ValueError(f"{name} must have shape {expected}, got {list(pixels.shape)}")
    batch, windows = pixels.shape[:-3], window.center_x.shape
    try:
        jnp.broadcast_shapes(batch, windows)
    except ValueError:
        raise ValueError(
            f"the batch shape of the {name} and of the window must broadcast, "
            f"got {list(batch)} and {list(windows)}"
        ) from None
    if not jnp.issubdtype(pixels.dtype, jnp.floating):
        pixels = pixels.astype(jnp.float32)  # integers and booleans
    return pixels, window
