"""Reading a patch through a window and writing one: Eq. 27 and 29."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from drawjax.attention.filters import (
    Filters,
    filter_grid,
    separable_filters,
    turned_filters,
    widened,
)
from drawjax.attention.window import (
    ArrayLike,
    PatchSize,
    Window,
    as_arrays,
    height_and_width,
    rows_and_columns,
)


def read(
    image: Shaped[ArrayLike, "*#batch height width channels"],
    window: Window,
    patch_size: PatchSize,
    *,
    filters: Filters = "gaussian",
) -> Float[Array, "*batch rows columns channels"]:
    """Cuts an N x N patch out of an image: gamma F_Y x F_X^T, one image of Eq. 27.

    Args:
      image: `[*batch, height, width, channels]`; all channels are read by the same filters.
      window: fields `[*batch]`. The batch shapes of image and window broadcast, so one image can
        be read by many windows and the reverse; images `[batch, 1, height, width, channels]`
        and upright windows `[batch, boxes]` repeat no image in memory.
      patch_size: N, or `(rows, columns)`.
      filters: "gaussian", "bilinear" or "triangle", as for `filterbanks`.

    Returns:
      The patch, `[*batch, N, N, channels]`; its first axis runs down the image, or down the grid
      of a rotated window.

    Raises:
      ValueError: if the image has fewer than three axes, the batch shapes do not broadcast, a
        size is not positive, the filters have no such name, or a rotated or sheared window has
        triangle filters, or Gaussian ones and a `variance_y`.
    """
    grid = rows_and_columns(patch_size)
    image, window = checked("image", image, "[..., height, width, channels]", window)
    if not window.upright:
        return _read_turned(image, window, grid, filters)
    *_, height, width, _ = image.shape
    rows, columns = separable_filters(window, (height, width), grid, filters)
    rows, columns, intensity = aligned(image.ndim, rows, columns, window.intensity)
    return intensity * through_columns(image, rows, columns)


def read_scales(
    image: Shaped[ArrayLike, "*#batch height width channels"],
    window: Window,
    patch_size: PatchSize,
    num_scales: int,
    *,
    filters: Filters = "gaussian",
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
      filters: "gaussian", "bilinear" or "triangle", as for `filterbanks`.

    Returns:
      The patches, `[*batch, scales, N, N, channels]`, the finest first.

    Raises:
      ValueError: if `num_scales` is not positive, or as `read`.
    """
    if num_scales < 1 or num_scales != int(num_scales):
        raise ValueError(f"num_scales must be at least 1 and whole, got {num_scales}")
    image, window = checked("image", image, "[..., height, width, channels]", window)
    window = _scaled(window, num_scales)
    return read(image[..., None, :, :, :], window, patch_size, filters=filters)


def write(
    patch: Shaped[ArrayLike, "*#batch rows columns channels"],
    window: Window,
    image_shape: tuple[int, int],
    *,
    filters: Filters = "gaussian",
) -> Float[Array, "*batch height width channels"]:
    """Lays an N x N patch on an empty image: F_Y^T w F_X / gamma, Eq. 29.

    Args:
      patch: `[*batch, N, N, channels]`, or of other rows than columns.
      window: fields `[*batch]`; batch shapes broadcast with the patch's.
      image_shape: `(height, width)` of the image in pixels.
      filters: "gaussian", "bilinear" or "triangle", as for `filterbanks`.

    Returns:
      The image, `[*batch, height, width, channels]`, zero where the window does not reach. The
      numbers of the patch are shared out among its pixels: `paste` keeps their brightness.

    Raises:
      ValueError: if the patch has fewer than three axes, the batch shapes do not broadcast, a size
        is not positive, or filters and window do not go together, as for `read`.
    """
    image_shape = height_and_width(image_shape)
    patch, window = checked("patch", patch, "[..., N, N, channels]", window)
    patch = jnp.expand_dims(patch, range(max(window.center_x.ndim + 3 - patch.ndim, 0)))
    *batch, size_y, size_x, channels = patch.shape
    if not window.upright:
        down, across = turned_filters(window, image_shape, (size_y, size_x), filters)
        down, across, intensity = aligned(patch.ndim, down, across, window.intensity)
        pixels = patch / intensity
        pixels = pixels.reshape(*pixels.shape[:-3], size_y * size_x, 1, channels)
        lines = across[..., None] * pixels
    else:
        down, columns = separable_filters(window, image_shape, (size_y, size_x), filters)
        down, columns, intensity = aligned(patch.ndim, down, columns, window.intensity)
        patch = jnp.swapaxes(patch / intensity, -2, -1)
        *batch, size_y, channels, _ = patch.shape
        lines = _product(patch.reshape(*batch, size_y * channels, size_x), columns)
        lines = lines.reshape(*lines.shape[:-2], size_y, channels, image_shape[1])
        lines = jnp.swapaxes(lines, -2, -1)
    height, width = image_shape
    image = _product(_transposed(down), lines.reshape(*lines.shape[:-2], width * channels))
    return image.reshape(*image.shape[:-2], height, width, channels)


def _read_turned(
    image: jax.Array, window: Window, grid: tuple[int, int], filters: Filters
) -> jax.Array:
    *_, height, width, _ = image.shape
    if filters == "bilinear":  # four pixels per filter, far fewer than its row and column
        y, x = filter_grid(widened(window), grid)
        y, x, intensity = aligned(image.ndim, y, x, window.intensity)
        return intensity * _sampled(image, y, x).astype(jnp.result_type(image, window.intensity))
    down, across = turned_filters(window, (height, width), grid, filters)
    down, across, intensity = aligned(image.ndim, down, across, window.intensity)
    return intensity * through_grid(image, down, across, grid)


def _sampled(image: jax.Array, y: jax.Array, x: jax.Array) -> jax.Array:
    """Bilinear samples, zero off the image: what bilinear filters read."""
    height, width = image.shape[-3:-1]
    # Indices of far places would not fit their type.
    y, x = jnp.clip(y, -1, height + 2) - 1, jnp.clip(x, -1, width + 2) - 1

    def one(image: jax.Array, y: jax.Array, x: jax.Array) -> jax.Array:
        def channel(plane: jax.Array) -> jax.Array:
            return jax.scipy.ndimage.map_coordinates(plane, [y, x], order=1)

        return jax.vmap(channel, in_axes=-1, out_axes=-1)(image)

    image = image.astype(jnp.promote_types(image.dtype, y.dtype))
    image = jnp.expand_dims(image, range(max(y.ndim + 1 - image.ndim, 0)))
    # Where only the places have a batch, this repeats no image.
    return jnp.vectorize(one, signature="(h,w,c),(n,m),(n,m)->(n,m,c)")(image, y, x)


def through_columns(
    image: Float[Array, "*#batch height width channels"],
    rows: Float[Array, "*#batch rows height"],
    columns: Float[Array, "*#batch columns width"],
) -> Float[Array, "*batch rows columns channels"]:
    """What two banks of filters read."""
    # One product of matrices down the height, whatever the channels.
    *batch, height, width, channels = image.shape
    lines = _product(rows, image.reshape(*batch, height, width * channels))
    *batch, count, _ = lines.shape
    lines = jnp.swapaxes(lines.reshape(*batch, count, width, channels), -2, -1)
    patch = _product(lines.reshape(*batch, count * channels, width), _transposed(columns))
    patch = patch.reshape(*patch.shape[:-2], count, channels, patch.shape[-1])
    return jnp.swapaxes(patch, -2, -1)


def through_grid(
    image: Float[Array, "*#batch height width channels"],
    down: Float[Array, "*#batch filters height"],
    across: Float[Array, "*#batch filters width"],
    grid: tuple[int, int],
) -> Float[Array, "*batch rows columns channels"]:
    """What a grid of filters reads, each of its own place in both directions."""
    *batch, height, width, channels = image.shape
    lines = _product(down, image.reshape(*batch, height, width * channels))
    lines = lines.reshape(*lines.shape[:-1], width, channels)
    # Each filter has columns of its own: no product of matrices, a sum over the width.
    pixels = jnp.sum(lines * across[..., None], axis=-2)
    return pixels.reshape(*pixels.shape[:-2], *grid, channels)


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
        shear=None if window.shear is None else window.shear * factors,
    )


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


def aligned(
    ndim: int, rows: jax.Array, columns: jax.Array, intensity: ArrayLike
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Filters and intensity with the batch axes of an image of `ndim` axes, or more."""
    more = range(max(ndim - 3 - intensity.ndim, 0))
    rows, columns = jnp.expand_dims(rows, more), jnp.expand_dims(columns, more)
    return rows, columns, jnp.expand_dims(intensity, more)[..., None, None, None]


def checked(
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
    if jnp.issubdtype(pixels.dtype, jnp.complexfloating):
        raise ValueError(f"{name} must hold real numbers, got {pixels.dtype}")
    if not jnp.issubdtype(pixels.dtype, jnp.floating):
        pixels = pixels.astype(jnp.float32)  # integers and booleans
    return pixels, window
