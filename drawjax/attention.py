"""The differentiable attention window of DRAW: an N x N grid of Gaussian filters.

Pure functions without parameters, Sec. 3.2-3.3 of Gregor et al., "DRAW: A Recurrent Neural
Network For Image Generation" (ICML 2015). The module imports JAX and nothing else of weight, and
serves as a glimpse operation of its own: `read` cuts an N x N patch out of an image, `write` lays
one on a canvas, and gradients reach the image, the patch and the window.

>>> window = window_from_logits(jnp.zeros(5), image_shape=(28, 28), patch_size=12)
>>> patch = read(image, window, patch_size=12)          # [28, 28, 1] -> [12, 12, 1]

Axes: `*batch` any leading shape, `height` (the paper's B) and `width` (the paper's A) of the
image, `N` filters a side, `channels`. Pixel coordinates are the paper's: 1 is the center of the
first pixel, so (A + 1) / 2 is the middle of the image.

Numerics. Whatever the window, every filter sums to one and values and gradients are finite:

* The exponents of Eq. 21 (log variance, log stride, log intensity) are limited to
  [-20, 40]. Outside, the value stays at the limit and the gradient is zero. At the lower
  limit a filter is 5e-5 pixels wide, at the upper one it is flat over any image.
* A filter far narrower than a pixel picks the nearest pixel; one far off the image picks the
  nearest edge pixel instead of vanishing.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Shaped

__all__ = [
    "Window",
    "filter_means",
    "filterbanks",
    "read",
    "read_scales",
    "window_from_logits",
    "write",
]

# exp(-20) is a filter 5e-5 pixels wide, beyond telling from a single pixel; exp(40) is flat over
# any image. Within them no product of the filter's terms overflows in float32 or bfloat16.
_MIN_LOG, _MAX_LOG = -20.0, 40.0
_MIN_VARIANCE, _MAX_VARIANCE = 2.0e-9, 2.4e17
_FARTHEST = 1.0e12  # pixels; keeps an infinite center or stride from turning into inf - inf

_Array = Array | np.ndarray  # what is taken; jax.Array is returned


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Window:
    """Where an attention window looks, and how: a pytree with one scalar a field and image.

    All fields share one shape, `[*batch]`; numbers, and arrays of no axes, are taken beside others.
    Integers count as float32. Coordinates are in pixels, 1 being the center of the first pixel.
    """

    center_x: Float[_Array, "*batch"]  #: g_X, along the width
    center_y: Float[_Array, "*batch"]  #: g_Y, along the height
    stride: Float[_Array, "*batch"]  #: delta, distance of neighboring filters
    variance: Float[_Array, "*batch"]  #: sigma^2 of each filter, in pixels^2
    intensity: Float[_Array, "*batch"]  #: gamma, scales what is read; its inverse what is written


def window_from_logits(
    logits: Float[_Array, "*batch 5"], image_shape: tuple[int, int], patch_size: int
) -> Window:
    """Turns five unbounded numbers into a window, Eq. 21-24.

    Args:
      logits: `[*batch, 5]`, in the order of Eq. 21: center x and center y in units of half the
        image (-1 and 1 lie half a pixel outside the first and last pixel's center), log variance,
        log stride in units of the widest stride that fits, log intensity.
      image_shape: `(height, width)` of the image in pixels.
      patch_size: N, filters a side. With N = 1 Eq. 24 divides by zero; the stride, which then
        moves no filter, is scaled by max(A, B) - 1.

    Returns:
      A `Window` whose fields have shape `[*batch]` and the type of the logits; float32 for integers
      and for float16, whose range is too small. Zeros give a window in the middle whose outermost
      filters lie on the first and last pixel of the longer side, with variance 1 and intensity 1.

    Raises:
      ValueError: if the last axis is not 5, or a size is not positive.
    """
    height, width = _check_image_shape(image_shape)
    _check_patch_size(patch_size)
    logits = jnp.asarray(logits)
    if logits.ndim < 1 or logits.shape[-1] != 5:
        raise ValueError(f"logits must have shape [..., 5], got {list(logits.shape)}")
    if not jnp.issubdtype(logits.dtype, jnp.floating) or logits.dtype == jnp.float16:
        logits = logits.astype(jnp.float32)
    center_x, center_y, log_variance, log_stride, log_intensity = (logits[..., i] for i in range(5))
    widest_stride = (max(width, height) - 1) / max(patch_size - 1, 1)
    return Window(
        center_x=(width + 1) / 2 * (center_x + 1),  # Eq. 22
        center_y=(height + 1) / 2 * (center_y + 1),  # Eq. 23
        stride=widest_stride * _exp(log_stride),  # Eq. 24
        variance=_exp(log_variance),
        intensity=_exp(log_intensity),
    )


def filter_means(
    window: Window, patch_size: int
) -> tuple[Float[Array, "*batch N"], Float[Array, "*batch N"]]:
    """Where the filters of a window lie, mu_Y and mu_X of Eq. 19-20, in pixels.

    Args:
      window: fields `[*batch]`.
      patch_size: N, filters a side.

    Returns:
      The centers down the height and along the width, each `[*batch, N]`, limited to 1e12 pixels.

    Raises:
      ValueError: if the size is not positive.
    """
    _check_patch_size(patch_size)
    window = _floats(window)
    dtype = window.stride.dtype
    offsets = jnp.arange(1, patch_size + 1, dtype=dtype) - patch_size / 2 - 0.5
    # An infinite stride would make 0 * inf of an odd grid's middle filter.
    stride = jnp.clip(window.stride, -_FARTHEST, _FARTHEST)[..., None]
    offsets = jnp.expand_dims(offsets, range(stride.ndim - 1)) * stride
    means_y, means_x = (
        jnp.clip(center[..., None] + offsets, -_FARTHEST, _FARTHEST)
        for center in (window.center_y, window.center_x)
    )
    return means_y, means_x


def filterbanks(
    window: Window, image_shape: tuple[int, int], patch_size: int
) -> tuple[Float[Array, "*batch N height"], Float[Array, "*batch N width"]]:
    """The two banks of N one-dimensional Gaussian filters of a window, Eq. 19-20 and 25-26.

    Args:
      window: fields `[*batch]`.
      image_shape: `(height, width)` of the image in pixels.
      patch_size: N, filters a side.

    Returns:
      `(rows, columns)`: F_Y `[*batch, N, height]` and F_X `[*batch, N, width]`. Every filter
      (last axis) is non-negative and sums to one. The dtype is the window's; narrower floats are
      computed in float32, since they cannot hold pixel coordinates.

    Raises:
      ValueError: if a size is not positive or the window's fields differ in shape.
    """
    height, width = _check_image_shape(image_shape)
    _check_patch_size(patch_size)
    window = _floats(window)
    dtype = window.center_x.dtype
    window = jax.tree.map(lambda field: field.astype(jnp.promote_types(dtype, "float32")), window)
    means_y, means_x = filter_means(window, patch_size)
    rows = _filters(means_y, window.variance, height)
    columns = _filters(means_x, window.variance, width)
    return rows.astype(dtype), columns.astype(dtype)


def read(
    image: Shaped[_Array, "*#batch height width channels"],
    window: Window,
    patch_size: int,
) -> Float[Array, "*batch N N channels"]:
    """Cuts an N x N patch out of an image: gamma F_Y x F_X^T, one image of Eq. 27.

    Args:
      image: `[*batch, height, width, channels]`; all channels are read by the same filters.
      window: fields `[*batch]`. The batch shapes of image and window broadcast, so one image can
        be read by many windows and the reverse.
      patch_size: N.

    Returns:
      The patch, `[*batch, N, N, channels]`; its first axis runs down the image.

    Raises:
      ValueError: if the image has fewer than three axes, the batch shapes do not broadcast, or a
        size is not positive.
    """
    image, window = _pixels(image), _floats(window)
    _check_rank("image", image, "[..., height, width, channels]")
    rows, columns = filterbanks(window, (image.shape[-3], image.shape[-2]), patch_size)
    _check_broadcast("image", image.shape[:-3], window)
    rows, columns, intensity = _aligned(image.ndim, rows, columns, window.intensity)
    *batch, height, width, channels = image.shape
    # One product of matrices down the height, whatever the channels.
    lines = _product(rows, image.reshape(*batch, height, width * channels))
    return intensity * _across(lines.reshape(*lines.shape[:-1], width, channels), columns)


def read_scales(
    image: Shaped[_Array, "*#batch height width channels"],
    window: Window,
    patch_size: int,
    num_scales: int,
) -> Float[Array, "*batch scales N N channels"]:
    """Cuts patches of several scales out of an image, all around one center.

    Patch k is `read` by the window with stride and standard deviation 2^k times as large: the
    retina of the RAM (Mnih et al., "Recurrent Models of Visual Attention", 2014). One call is
    cheaper than a `read` a scale, since the rows of all are read at once.

    Args:
      image: as for `read`.
      window: of the finest scale, fields `[*batch]`.
      patch_size: N.
      num_scales: how many, at least 1.

    Returns:
      The patches, `[*batch, scales, N, N, channels]`, the finest first.

    Raises:
      ValueError: if `num_scales` is not positive, or as `read`.
    """
    if num_scales < 1:
        raise ValueError(f"num_scales must be at least 1, got {num_scales}")
    image, window = _pixels(image), _floats(window)
    _check_rank("image", image, "[..., height, width, channels]")
    _check_broadcast("image", image.shape[:-3], window)
    window = jax.tree.map(lambda field: field[..., None], window)
    factors = 2.0 ** jnp.arange(num_scales, dtype=window.stride.dtype)
    factors = jnp.expand_dims(factors, range(window.stride.ndim - 1))
    same = jnp.ones_like(factors)
    window = Window(
        window.center_x * same,
        window.center_y * same,
        window.stride * factors,
        window.variance * factors**2,
        window.intensity * same,
    )
    rows, columns = filterbanks(window, (image.shape[-3], image.shape[-2]), patch_size)
    rows, columns, intensity = _aligned(image.ndim + 1, rows, columns, window.intensity)
    *batch, height, width, channels = image.shape
    every = rows.reshape(*rows.shape[:-3], num_scales * patch_size, height)
    lines = _product(every, image.reshape(*batch, height, width * channels))
    lines = lines.reshape(*lines.shape[:-2], num_scales, patch_size, width, channels)
    return intensity * _across(lines, columns)


def write(
    patch: Shaped[_Array, "*#batch N N channels"],
    window: Window,
    image_shape: tuple[int, int],
) -> Float[Array, "*batch height width channels"]:
    """Lays an N x N patch on an empty image: F_Y^T w F_X / gamma, Eq. 29.

    Args:
      patch: `[*batch, N, N, channels]`.
      window: fields `[*batch]`; batch shapes broadcast with the patch's.
      image_shape: `(height, width)` of the image in pixels.

    Returns:
      The image, `[*batch, height, width, channels]`, zero where the window does not reach.

    Raises:
      ValueError: if the patch is not square or has fewer than three axes, the batch shapes do not
        broadcast, or a size is not positive.
    """
    patch, window = _pixels(patch), _floats(window)
    _check_rank("patch", patch, "[..., N, N, channels]")
    if patch.shape[-3] != patch.shape[-2]:
        raise ValueError(f"patch must have shape [..., N, N, channels], got {list(patch.shape)}")
    rows, columns = filterbanks(window, image_shape, patch.shape[-3])
    _check_broadcast("patch", patch.shape[:-3], window)
    rows, columns, intensity = _aligned(patch.ndim, rows, columns, window.intensity)
    patch = jnp.swapaxes(patch / intensity, -2, -1)
    *batch, size, channels, _ = patch.shape
    lines = _product(patch.reshape(*batch, size * channels, size), columns)
    lines = jnp.swapaxes(lines.reshape(*lines.shape[:-2], size, channels, -1), -2, -1)
    image = _product(_turned(rows), lines.reshape(*lines.shape[:-2], -1))
    return image.reshape(*image.shape[:-1], image_shape[1], channels)


def _across(
    lines: Float[Array, "*#batch N width channels"], columns: Float[Array, "*#batch N width"]
) -> Float[Array, "*batch N N channels"]:
    """A patch from an image whose rows have been read: its columns by their filters."""
    *batch, size, width, channels = lines.shape
    lines = jnp.swapaxes(lines, -2, -1).reshape(*batch, size * channels, width)
    patch = _product(lines, _turned(columns))
    patch = patch.reshape(*patch.shape[:-2], size, channels, size)
    return jnp.swapaxes(patch, -2, -1)


@jax.custom_jvp
def _product(a: jax.Array, b: jax.Array) -> jax.Array:
    """Multiplies matrices."""
    return a @ b


@_product.defjvp
def _product_jvp(primals, tangents):
    (a, b), (to_a, to_b) = primals, tangents
    # The gradient of b then is a product that turns nothing.
    change = jnp.einsum("...ij,...ik->...jk", _turned(a), to_b)
    return a @ b, to_a @ b + change


def _turned(matrix: jax.Array) -> jax.Array:
    """The transpose, made apart from the product that it enters.

    XLA's CPU backend has no kernel for a product that turns its left side.
    """
    return jax.lax.optimization_barrier(jnp.swapaxes(matrix, -2, -1))


def _aligned(
    ndim: int, rows: jax.Array, columns: jax.Array, intensity: _Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Filters and intensity with the batch axes of an image of `ndim` axes, or more."""
    more = range(max(ndim - 3 - intensity.ndim, 0))
    rows, columns = jnp.expand_dims(rows, more), jnp.expand_dims(columns, more)
    return rows, columns, jnp.expand_dims(intensity, more)[..., None, None, None]


def _exp(logits: jax.Array) -> jax.Array:
    # Limited before exp, not after: the gradient of a limit on inf would be 0 * inf.
    return jnp.exp(jnp.clip(logits, _MIN_LOG, _MAX_LOG))


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


def _check_image_shape(image_shape: tuple[int, int]) -> tuple[int, int]:
    if len(image_shape) != 2 or min(image_shape) < 1:
        raise ValueError(f"image_shape must be (height, width), both positive, got {image_shape}")
    return image_shape


def _check_patch_size(patch_size: int) -> None:
    if patch_size < 1:
        raise ValueError(f"patch_size must be at least 1, got {patch_size}")


def _check_rank(name: str, array: jax.Array, expected: str) -> None:
    if array.ndim < 3:
        raise ValueError(f"{name} must have shape {expected}, got {list(array.shape)}")


def _pixels(image: _Array) -> jax.Array:
    """An image or patch as floats; integers and booleans count as float32."""
    image = jnp.asarray(image)
    return image if jnp.issubdtype(image.dtype, jnp.floating) else image.astype(jnp.float32)


def _floats(window: Window) -> Window:
    """A window whose fields are arrays of one float type and one shape."""
    fields = {f.name: jnp.asarray(getattr(window, f.name)) for f in dataclasses.fields(window)}
    shapes = {name: field.shape for name, field in fields.items() if field.ndim}
    if len(set(shapes.values())) > 1:
        raise ValueError(f"the fields of a window must share one shape, got {shapes}")
    dtype = jnp.result_type(*fields.values())
    if not jnp.issubdtype(dtype, jnp.floating):
        dtype = jnp.dtype("float32")
    shape = next(iter(shapes.values()), ())
    return Window(**{n: jnp.broadcast_to(f.astype(dtype), shape) for n, f in fields.items()})


def _check_broadcast(name: str, batch: tuple[int, ...], window: Window) -> None:
    try:
        jnp.broadcast_shapes(batch, window.center_x.shape)
    except ValueError:
        raise ValueError(
            f"the batch shape of the {name} and of the window must broadcast, "
            f"got {list(batch)} and {list(window.center_x.shape)}"
        ) from None
