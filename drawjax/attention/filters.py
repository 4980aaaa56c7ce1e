"""The banks of Gaussian filters of a window: Eq. 19-20 and 25-26."""

import functools

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

from drawjax.attention.window import (
    ArrayLike,
    PatchSize,
    Window,
    as_arrays,
    height_and_width,
    rows_and_columns,
)

__all__ = [
    "filter_grid",
    "filter_means",
    "filterbanks",
    "rotated_filters",
    "separable_filters",
]

_MIN_VARIANCE, _MAX_VARIANCE = 2.0e-9, 2.4e17  # exp of the limits of a window's logits
_FARTHEST = 1.0e12  # pixels; keeps an infinite center or stride from turning into inf - inf


def filter_means(
    window: Window, patch_size: PatchSize
) -> tuple[Float[Array, "*batch rows"], Float[Array, "*batch columns"]]:
    """Where the filters of a window lie, mu_Y and mu_X of Eq. 19-20, in pixels.

    Args:
      window: fields `[*batch]`, not rotated.
      patch_size: N, filters a side, or `(rows, columns)`.

    Returns:
      The centers down the height and along the width, each `[*batch, N]`, limited to 1e12 pixels.

    Raises:
      ValueError: if a size is not positive, or the window is rotated.
    """
    return _means(_upright(as_arrays(window)), rows_and_columns(patch_size))


def filter_grid(
    window: Window, patch_size: PatchSize
) -> tuple[Float[Array, "*batch rows columns"], Float[Array, "*batch rows columns"]]:
    """Where each filter of a window lies, rotated or not, in pixels.

    Args:
      window: fields `[*batch]`.
      patch_size: N, filters a side, or `(rows, columns)`.

    Returns:
      `(y, x)`, the position of filter (row, column) down the height and along the width.

    Raises:
      ValueError: if a size is not positive.
    """
    return _grid(as_arrays(window), rows_and_columns(patch_size))


def filterbanks(
    window: Window, image_shape: tuple[int, int], patch_size: PatchSize
) -> tuple[Float[Array, "*batch rows height"], Float[Array, "*batch columns width"]]:
    """The two banks of N one-dimensional Gaussian filters of a window, Eq. 19-20 and 25-26.

    Args:
      window: fields `[*batch]`, not rotated.
      image_shape: `(height, width)` of the image in pixels.
      patch_size: N, filters a side, or `(rows, columns)`.

    Returns:
      `(rows, columns)`: F_Y `[*batch, N, height]` and F_X `[*batch, N, width]`. Every filter
      (last axis) is non-negative and sums to one. The dtype is the window's; narrower floats are
      computed in float32, since they cannot hold pixel coordinates.

    Raises:
      ValueError: if a size is not positive, the window's fields differ in shape, or it is rotated:
        its filters then do not separate into rows and columns.
    """
    return separable_filters(
        _upright(as_arrays(window)), height_and_width(image_shape), rows_and_columns(patch_size)
    )


# Below, what public functions have checked is trusted: windows of arrays, sizes as two integers.


def separable_filters(
    window: Window, image_shape: tuple[int, int], grid: tuple[int, int]
) -> tuple[Float[Array, "*batch rows height"], Float[Array, "*batch columns width"]]:
    """`filterbanks` of a checked window that is not rotated."""
    dtype = window.center_x.dtype
    window = _widened(window)
    means_y, means_x = _means(window, grid)
    variance_x, variance_y = window.variances
    rows = _filters(means_y, variance_y, image_shape[0])
    columns = _filters(means_x, variance_x, image_shape[1])
    return rows.astype(dtype), columns.astype(dtype)


def rotated_filters(
    window: Window, image_shape: tuple[int, int], grid: tuple[int, int]
) -> tuple[Float[Array, "*batch filters height"], Float[Array, "*batch filters width"]]:
    """What each of the rows x columns filters of a rotated window takes down and across.

    A round Gaussian is the product of one along y and one along x wherever it lies, so that only
    the grid has to be turned.

    Raises:
      ValueError: if the filters are not round.
    """
    if window.variance_y is not None:
        raise ValueError("a rotated window has round filters: variance_y must be None")
    dtype = window.center_x.dtype
    window = _widened(window)
    y, x = (means.reshape(*means.shape[:-2], -1) for means in _grid(window, grid))
    down = _filters(y, window.variance, image_shape[0])
    across = _filters(x, window.variance, image_shape[1])
    return down.astype(dtype), across.astype(dtype)


def _means(window: Window, grid: tuple[int, int]) -> tuple[jax.Array, jax.Array]:
    stride_x, stride_y = window.strides
    means_y = _limited(window.center_y[..., None] + _offsets(stride_y, grid[0]))
    means_x = _limited(window.center_x[..., None] + _offsets(stride_x, grid[1]))
    return means_y, means_x


def _grid(window: Window, grid: tuple[int, int]) -> tuple[jax.Array, jax.Array]:
    stride_x, stride_y = window.strides
    down = _offsets(stride_y, grid[0])[..., :, None]
    across = _offsets(stride_x, grid[1])[..., None, :]
    if window.rotation is None:
        sine, cosine = jnp.zeros_like(window.stride), jnp.ones_like(window.stride)
    else:
        sine, cosine = jnp.sin(window.rotation), jnp.cos(window.rotation)
    sine, cosine = sine[..., None, None], cosine[..., None, None]
    y = window.center_y[..., None, None] + (sine * across + cosine * down)
    x = window.center_x[..., None, None] + (cosine * across - sine * down)
    return _limited(y), _limited(x)


def _upright(window: Window) -> Window:
    if window.rotation is not None:
        raise ValueError("a rotated window has no filters of rows and of columns: see filter_grid")
    return window


def _widened(window: Window) -> Window:
    dtype = jnp.promote_types(window.center_x.dtype, "float32")
    return jax.tree.map(lambda field: field.astype(dtype), window)


def _offsets(stride: ArrayLike, size: int) -> jax.Array:
    """Distances of the filters from the center, `[*batch, size]`."""
    offsets = jnp.arange(1, size + 1, dtype=stride.dtype) - size / 2 - 0.5
    # An infinite stride would make 0 * inf of an odd grid's middle filter.
    stride = _limited(stride)[..., None]
    return jnp.expand_dims(offsets, range(stride.ndim - 1)) * stride


def _limited(means: ArrayLike) -> jax.Array:
    return jnp.clip(means, -_FARTHEST, _FARTHEST)


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def _filters(
    means: Float[Array, "*batch N"], variance: Float[Array, "*batch"], size: int
) -> Float[Array, "*batch N {size}"]:
    """Gaussian filters over pixels 1..size, each summing to one."""
    offsets, mirrored, variance = _exponents(means, variance, size)
    # Eq. 25-26 with exponents relative to the pixel nearest to the mean, where they are largest:
    # (a - mu)^2 - (m - mu)^2 = (a - m)(a + m - 2 mu). The nearest pixel's weight is then exactly
    # one, so the sum is never zero, and no digits are lost for a mean far off the image.
    weights = jnp.exp(offsets * mirrored * (-0.5 / variance))
    return weights * (1 / jnp.sum(weights, axis=-1, keepdims=True))


@_filters.defjvp
def _filters_jvp(size, primals, tangents):
    # The derivative from the value, so that no exponential is computed twice. That of a softmax
    # sums to zero over the pixels: the terms may be taken from the nearest pixel, as above.
    means, variance = primals
    weights = checkpoint_name(_filters(means, variance, size), "filters")
    offsets, mirrored, limited = _exponents(means, variance, size)
    inside = (variance >= _MIN_VARIANCE) & (variance <= _MAX_VARIANCE)
    to_mean = (1 / limited) * tangents[0][..., None]
    to_variance = (0.5 / limited**2) * jnp.where(inside, tangents[1], 0)[..., None, None]
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
    limited = jnp.clip(variance, _MIN_VARIANCE, _MAX_VARIANCE)[..., None, None]
    return pixels - nearest, pixels + nearest - 2 * means, limited
