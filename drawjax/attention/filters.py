"""The banks of filters of a window: Gaussian ones, Eq. 19-20 and 25-26, and triangles."""

import functools
from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

from drawjax.attention.window import (
    ArrayLike,
    PatchSize,
    Window,
    as_arrays,
    as_coordinates,
    height_and_width,
    rows_and_columns,
)

Filters = Literal["gaussian", "bilinear", "triangle"]

_MIN_VARIANCE, _MAX_VARIANCE = 2.0e-9, 2.4e17  # exp of the limits of a window's logits
_FARTHEST = 1.0e12  # pixels; keeps an infinite center or stride from turning into inf - inf


def filter_means(
    window: Window, patch_size: PatchSize
) -> tuple[Float[Array, "*batch rows"], Float[Array, "*batch columns"]]:
    """Where the filters of a window lie, mu_Y and mu_X of Eq. 19-20, in pixels.

    Args:
      window: fields `[*batch]`, upright.
      patch_size: N, filters per side, or `(rows, columns)`.

    Returns:
      The centers down the height and along the width, each `[*batch, N]`, limited to 1e12 pixels.

    Raises:
      ValueError: if a size is not positive, or the window is rotated or sheared.
    """
    return _means(_upright(as_arrays(window)), rows_and_columns(patch_size))


def filter_grid(
    window: Window, patch_size: PatchSize
) -> tuple[Float[Array, "*batch rows columns"], Float[Array, "*batch rows columns"]]:
    """Where each filter of a window lies, upright or not, in pixels.

    Args:
      window: fields `[*batch]`.
      patch_size: N, filters per side, or `(rows, columns)`.

    Returns:
      `(y, x)`, the position of filter (row, column) down the height and along the width.

    Raises:
      ValueError: if a size is not positive.
    """
    return _grid(as_arrays(window), rows_and_columns(patch_size))


def filterbanks(
    window: Window,
    image_shape: tuple[int, int],
    patch_size: PatchSize,
    *,
    filters: Filters = "gaussian",
) -> tuple[Float[Array, "*batch rows height"], Float[Array, "*batch columns width"]]:
    """The two banks of N one-dimensional filters of a window, Eq. 19-20 and 25-26.

    Args:
      window: fields `[*batch]`, upright.
      image_shape: `(height, width)` of the image in pixels.
      patch_size: N, filters per side, or `(rows, columns)`.
      filters: "gaussian", the paper's. The others leave the variance out of account. "bilinear":
        a triangle that falls to zero one pixel from its center, so that a filter reads between
        its two nearest pixels, with zeros around the image, as PyTorch's `grid_sample` does.
        "triangle": one that falls to zero a stride from its center, and at least a pixel, of sum
        one for a center on a pixel and zero for one off the image: the weights of
        `jax.image.scale_and_translate`, linear and anti-aliased.

    Returns:
      `(rows, columns)`: F_Y `[*batch, N, height]` and F_X `[*batch, N, width]`. Every filter
      (last axis) is non-negative, and every Gaussian one sums to one. The dtype is the window's.
      Filters are computed in at least float32; a window's own fields keep the rounding of their
      type, a pixel in bfloat16 beyond 128.

    Raises:
      ValueError: if a size is not positive, the filters have no such name, the window's fields
        differ in shape, or it is rotated or sheared: its filters then do not separate into rows
        and columns.
    """
    shape, grid = height_and_width(image_shape), rows_and_columns(patch_size)
    return separable_filters(_upright(as_arrays(window)), shape, grid, filters)


# Below, what public functions have checked is trusted: windows of arrays, sizes as two integers.


def separable_filters(
    window: Window, image_shape: tuple[int, int], grid: tuple[int, int], filters: Filters
) -> tuple[Float[Array, "*batch rows height"], Float[Array, "*batch columns width"]]:
    """`filterbanks` of a checked window that is upright.

    Raises:
      ValueError: if the filters have no such name.
    """
    dtype = window.center_x.dtype
    window = widened(window)
    means_y, means_x = _means(window, grid)
    (stride_x, stride_y), (variance_x, variance_y) = window.strides, window.variances
    rows = _bank(filters, means_y, stride_y, variance_y, image_shape[0])
    columns = _bank(filters, means_x, stride_x, variance_x, image_shape[1])
    return rows.astype(dtype), columns.astype(dtype)


def turned_filters(
    window: Window, image_shape: tuple[int, int], grid: tuple[int, int], filters: Filters
) -> tuple[Float[Array, "*batch filters height"], Float[Array, "*batch filters width"]]:
    """What each of the rows x columns filters of a rotated or sheared window takes down and across.

    A round Gaussian is the product of one along y and one along x wherever it lies, so that only
    the grid has to be turned; so is a bilinear filter.

    Raises:
      ValueError: if the filters are not round, or have no such name.
    """
    if filters == "triangle":
        raise ValueError("a rotated or sheared window has no triangle filters: take gaussian ones")
    if filters == "gaussian" and window.variance_y is not None:
        raise ValueError("a rotated window has round filters: variance_y must be None")
    dtype = window.center_x.dtype
    window = widened(window)
    y, x = (m.reshape(*m.shape[:-2], grid[0] * grid[1]) for m in _grid(window, grid))
    down = _bank(filters, y, window.stride, window.variance, image_shape[0])
    across = _bank(filters, x, window.stride, window.variance, image_shape[1])
    return down.astype(dtype), across.astype(dtype)


def _bank(
    filters: Filters, means: jax.Array, stride: ArrayLike, variance: ArrayLike, size: int
) -> jax.Array:
    """Filters of one kind over pixels 1..size, `[*batch, N, size]`."""
    if filters == "gaussian":
        return gaussian_filters(means, variance, size)
    if filters not in get_args(Filters):
        raise ValueError(f"filters must be gaussian, bilinear or triangle, got {filters!r}")
    pixels = jnp.arange(1, size + 1, dtype=means.dtype)
    distances = jnp.abs(jnp.expand_dims(pixels, range(means.ndim)) - means[..., None])
    if filters == "bilinear":
        return jnp.maximum(1 - distances, 0)
    width = jnp.maximum(jnp.abs(limited(stride)), 1)[..., None, None]
    weights = jnp.maximum(1 - distances / width, 0)
    inside = ((means >= 0.5) & (means <= size + 0.5))[..., None]
    # Half a pixel off the image's first or last one, a filter still reaches that pixel.
    total = jnp.where(inside, jnp.sum(weights, axis=-1, keepdims=True), 1)
    return jnp.where(inside, weights / total, 0)


def _means(window: Window, grid: tuple[int, int]) -> tuple[jax.Array, jax.Array]:
    stride_x, stride_y = window.strides
    means_y = limited(window.center_y[..., None] + _offsets(stride_y, grid[0]))
    means_x = limited(window.center_x[..., None] + _offsets(stride_x, grid[1]))
    return means_y, means_x


def _grid(window: Window, grid: tuple[int, int]) -> tuple[jax.Array, jax.Array]:
    (along_x, along_y), (down_x, down_y) = grid_steps(window)

    def places(center: ArrayLike, along: jax.Array, down: jax.Array) -> jax.Array:
        rows, columns = (
            _offsets(down, grid[0])[..., :, None],
            _offsets(along, grid[1])[..., None, :],
        )
        return limited(center[..., None, None] + columns + rows)

    return places(window.center_y, along_y, down_y), places(window.center_x, along_x, down_x)


def grid_steps(window: Window) -> tuple[tuple[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]:
    """From a filter of a checked window to the next, in x and y: along a row, and down a column."""
    stride_x, stride_y = map(limited, window.strides)
    shear = jnp.zeros_like(stride_x) if window.shear is None else limited(window.shear)
    if window.rotation is None:
        return (stride_x, jnp.zeros_like(stride_x)), (shear, stride_y)
    sine, cosine = jnp.sin(window.rotation), jnp.cos(window.rotation)
    return (
        (cosine * stride_x, sine * stride_x),
        (cosine * shear - sine * stride_y, sine * shear + cosine * stride_y),
    )


def _upright(window: Window) -> Window:
    if not window.upright:
        raise ValueError(
            "a rotated or sheared window has no filters of rows and of columns: see filter_grid"
        )
    return window


def widened(window: Window) -> Window:
    """A checked window in float32 at least, which can hold pixel coordinates."""
    return jax.tree.map(as_coordinates, window)


def _offsets(stride: ArrayLike, size: int) -> jax.Array:
    """Distances of the filters from the center, `[*batch, size]`."""
    offsets = jnp.arange(1, size + 1, dtype=stride.dtype) - size / 2 - 0.5
    # An infinite stride would make 0 * inf of an odd grid's middle filter.
    stride = limited(stride)[..., None]
    return jnp.expand_dims(offsets, range(stride.ndim - 1)) * stride


def limited(means: ArrayLike) -> jax.Array:
    """Pixels, or a stride, that are finite."""
    return jnp.clip(means, -_FARTHEST, _FARTHEST)


def bounded_variance(variance: ArrayLike) -> jax.Array:
    """A variance within the limits of a window's logits."""
    return jnp.clip(variance, _MIN_VARIANCE, _MAX_VARIANCE)


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def gaussian_filters(
    means: Float[Array, "*batch N"], variance: Float[Array, "*batch"], size: int
) -> Float[Array, "*batch N {size}"]:
    """Gaussian filters over pixels 1..size, each summing to one."""
    offsets, mirrored, variance = _exponents(means, variance, size)
    # Eq. 25-26 with exponents relative to the pixel nearest to the mean, where they are largest:
    # (a - mu)^2 - (m - mu)^2 = (a - m)(a + m - 2 mu). The nearest pixel's weight is then exactly
    # one, so the sum is never zero, and no digits are lost for a mean far off the image.
    weights = jnp.exp(offsets * mirrored * (-0.5 / variance))
    return weights * (1 / jnp.sum(weights, axis=-1, keepdims=True))


@gaussian_filters.defjvp
def _gaussian_filters_jvp(size, primals, tangents):
    # The derivative from the value, so that no exponential is computed twice. That of a softmax
    # sums to zero over the pixels: the terms may be taken from the nearest pixel, as above.
    means, variance = primals
    weights = checkpoint_name(gaussian_filters(means, variance, size), "filters")
    offsets, mirrored, bounded = _exponents(means, variance, size)
    inside = (variance >= _MIN_VARIANCE) & (variance <= _MAX_VARIANCE)
    to_mean = (1 / bounded) * tangents[0][..., None]
    to_variance = (0.5 / bounded**2) * jnp.where(inside, tangents[1], 0)[..., None, None]
    change = weights * (offsets * (to_mean + mirrored * to_variance))
    return weights, change - weights * jnp.sum(change, axis=-1, keepdims=True)


def _exponents(
    means: jax.Array, variance: jax.Array, size: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The factors a - m and a + m - 2 mu, `[*batch, N, size]`, and the limited variance."""
    means = means[..., None]
    nearest = jnp.clip(jnp.round(means), 1, size)
    pixels = jnp.arange(1, size + 1, dtype=means.dtype)
    pixels = jnp.expand_dims(pixels, range(means.ndim - 1))
    return (
        pixels - nearest,
        pixels + nearest - 2 * means,
        bounded_variance(variance)[..., None, None],
    )
