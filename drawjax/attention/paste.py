"""Pasting a patch where a window lies, as bright as it is, and the mask of what the window covers.

A cell is what one filter has for itself, a stride wide and high; a window spans N x N cells.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from drawjax.attention.filters import bounded_variance, gaussian_filters, limited, widened
from drawjax.attention.glimpse import aligned, checked, through_columns, through_grid
from drawjax.attention.window import (
    ArrayLike,
    PatchSize,
    Window,
    as_arrays,
    height_and_width,
    rows_and_columns,
)

_SMALLEST = 1e-6  # pixels of a stride, and cells of a standard deviation: guards divisions


def mask(
    window: Window, patch_size: PatchSize, image_shape: tuple[int, int]
) -> Float[Array, "*batch height width 1"]:
    """How much of each pixel a window covers: its box, blurred by its filters.

    One inside of the box and zero outside, with the edges of a Gaussian's integral between, whose
    standard deviation is the filters'. A patch of ones, written through filters half a stride wide
    and times the area of a cell, is close to this mask, but it ripples and accumulates at the
    image's edges. Every field but the intensity is differentiable.

    Args:
      window: fields `[*batch]`. Rotated or sheared, its variances are along the axes of its grid.
      patch_size: N, filters per side, or `(rows, columns)`.
      image_shape: `(height, width)` of the image in pixels.

    Returns:
      The mask, `[*batch, height, width, 1]`, between 0 and 1.

    Raises:
      ValueError: if a size is not positive, or the window's fields differ in shape.
    """
    grid, shape = rows_and_columns(patch_size), height_and_width(image_shape)
    return _mask(as_arrays(window), grid, shape)


def paste(
    patch: Shaped[ArrayLike, "*#batch rows columns channels"],
    window: Window,
    image_shape: tuple[int, int],
) -> Float[Array, "*batch height width channels"]:
    """Lays a patch on an empty image as bright as it is: a `write` divided by its own weights.

    Each pixel is the mean of the patch's numbers, weighted by how far their Gaussian filters reach
    it, times the `mask`. So `(1 - mask(...)) * image + paste(...)` puts the patch over an image.

    Args:
      patch: `[*batch, N, N, channels]`, or of other rows than columns.
      window: fields `[*batch]`; batch shapes broadcast with the patch's. Rotated or sheared, its
        variances are along the axes of its grid.
      image_shape: `(height, width)` of the image in pixels.

    Returns:
      The image, `[*batch, height, width, channels]`: that of a patch of ones is the mask. It is
      divided by the window's intensity, as in `write`.

    Raises:
      ValueError: if the patch has fewer than three axes, the batch shapes do not broadcast, or a
        size is not positive.
    """
    shape = height_and_width(image_shape)
    patch, window = checked("patch", patch, "[..., N, N, channels]", window)
    grid = (patch.shape[-3], patch.shape[-2])
    wide = widened(window)
    # The pixels read the patch, as filters read an image: by their distance in cells.
    down, across = (
        gaussian_filters(
            cells + (size + 1) / 2, bounded_variance(variance) / _apart(stride) ** 2, size
        ).astype(window.center_x.dtype)
        for cells, size, variance, stride in zip(
            _cells(wide, shape), grid, wide.variances[::-1], wide.strides[::-1], strict=True
        )
    )
    covered = _mask(window, grid, shape)
    covered = jnp.expand_dims(covered, range(max(patch.ndim - covered.ndim, 0)))
    down, across, intensity = aligned(patch.ndim, down, across, window.intensity)
    if window.upright:
        return through_columns(patch, down, across) * (covered / intensity)
    return through_grid(patch, down, across, shape) * (covered / intensity)


def _mask(window: Window, grid: tuple[int, int], shape: tuple[int, int]) -> jax.Array:
    dtype, window = window.center_x.dtype, widened(window)
    stride_x, stride_y = map(_apart, window.strides)
    deviation_x, deviation_y = (jnp.sqrt(bounded_variance(v)) for v in window.variances)
    if window.shear is not None:  # sides that lean are as sharp across, and so wider along a row
        deviation_x = deviation_x * jnp.sqrt(1 + (limited(window.shear) / stride_y) ** 2)
    down, across = (
        _between(cells, size, deviation / jnp.abs(stride))
        for cells, size, deviation, stride in zip(
            _cells(window, shape), grid, (deviation_y, deviation_x), (stride_y, stride_x),
            strict=True,
        )
    )  # fmt: skip
    if window.upright:
        down, across = down[..., :, None], across[..., None, :]
    return (down * across).reshape(*window.center_x.shape, *shape, 1).astype(dtype)


def _between(cells: jax.Array, size: int, deviation: jax.Array) -> jax.Array:
    """One within half a size of the middle and zero beyond, blurred by a Gaussian."""
    sharpness = 1 / jnp.maximum(deviation, _SMALLEST)[..., None]
    cdf = jax.scipy.stats.norm.cdf
    inside = cdf((cells + size / 2) * sharpness) - cdf((cells - size / 2) * sharpness)
    return jnp.clip(inside, 0, 1)  # a rounding may leave it


def _cells(window: Window, shape: tuple[int, int]) -> tuple[jax.Array, jax.Array]:
    """How many cells the pixels are off a window's center, down its grid and along its rows.

    `[*batch, height]` and `[*batch, width]` where it is upright, else both `[*batch, pixels]`.
    """
    y, x = (jnp.arange(1, size + 1, dtype=window.stride.dtype) for size in shape)
    if not window.upright:
        y, x = (pixels.reshape(-1) for pixels in jnp.meshgrid(y, x, indexing="ij"))
    y, x = (
        jnp.expand_dims(pixels, range(center.ndim)) - limited(center)[..., None]
        for pixels, center in ((y, window.center_y), (x, window.center_x))
    )
    if window.rotation is not None:
        sine, cosine = jnp.sin(window.rotation)[..., None], jnp.cos(window.rotation)[..., None]
        y, x = cosine * y - sine * x, sine * y + cosine * x
    stride_x, stride_y = (_apart(stride)[..., None] for stride in window.strides)
    down = limited(y / stride_y)
    if window.shear is not None:
        x = x - limited(window.shear)[..., None] * down
    return down, limited(x / stride_x)


def _apart(stride: jax.Array) -> jax.Array:
    """A stride by which one can divide."""
    return jnp.where(jnp.abs(stride) < _SMALLEST, _SMALLEST, limited(stride))
