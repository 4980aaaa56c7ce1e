"""Where an attention window looks, from five unbounded numbers: Eq. 21-24."""

import dataclasses
import operator
from collections.abc import Sequence
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

# exp(-20) is a filter 5e-5 pixels wide, beyond telling from a single pixel; exp(40) is flat over
# any image. Within them no product of the filter's terms overflows in float32 or bfloat16.
_MIN_LOG, _MAX_LOG = -20.0, 40.0

ArrayLike = Array | np.ndarray  # what is taken; jax.Array is returned
PatchSize = int | Sequence[int]
"""N, filters per side, or `(rows, columns)` of filters."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Window:
    """Where an attention window looks, and how: a pytree with one scalar per field and image.

    All fields share one shape, `[*batch]`; numbers, and arrays of no axes, are taken beside others,
    and so are lists. Integers count as float32. Coordinates are in pixels, 1 being the center of
    the first pixel. The last four fields are not in the paper.
    """

    center_x: Float[ArrayLike, "*batch"]  #: g_X, along the width
    center_y: Float[ArrayLike, "*batch"]  #: g_Y, along the height
    stride: Float[ArrayLike, "*batch"]  #: delta, distance of neighboring filters
    variance: Float[ArrayLike, "*batch"]  #: sigma^2 of each filter, in pixels^2
    intensity: Float[ArrayLike, "*batch"]  #: gamma, a factor of what is read; writing divides by it
    #: delta along the height, `stride` then being that along the width; None: the same
    stride_y: Float[ArrayLike, "*batch"] | None = None
    #: sigma^2 along the height, `variance` then being that along the width; None: the same
    variance_y: Float[ArrayLike, "*batch"] | None = None
    #: by how many radians the grid is turned around its center, clockwise as images are shown (from
    #: the x axis to the y axis, which points down); None: not at all, and cheaper than zero
    rotation: Float[ArrayLike, "*batch"] | None = None
    #: by how many pixels each row of the grid lies farther along than the one above, before the
    #: grid is turned; None: not at all, and cheaper than zero
    shear: Float[ArrayLike, "*batch"] | None = None

    @property
    def upright(self) -> bool:
        """Whether the filters lie in rows and columns of the image."""
        return self.rotation is None and self.shear is None

    @property
    def strides(self) -> tuple[Any, Any]:
        """Along the width and along the height."""
        return self.stride, self.stride if self.stride_y is None else self.stride_y

    @property
    def variances(self) -> tuple[Any, Any]:
        """Along the width and along the height."""
        return self.variance, self.variance if self.variance_y is None else self.variance_y


def window_from_logits(
    logits: Float[ArrayLike, "*batch numbers"],
    image_shape: tuple[int, int],
    patch_size: PatchSize,
) -> Window:
    """Turns five unbounded numbers into a window, Eq. 21-24; six to eight set the other fields.

    Args:
      logits: `[*batch, 5]`, in the order of Eq. 21: center x and center y in units of half the
        image (-1 and 1 lie one pixel beyond the centers of the first and last pixels), log
        variance, log stride in units of the widest stride that fits, log intensity. With 7, log
        variance and log stride along the height follow, and the stride before is that along the
        width. With 6 or 8, the rotation in radians is the last; 8 are for bilinear filters, `paste`
        and `mask`, since Gaussian filters that are not round cannot be rotated.
      image_shape: `(height, width)` of the image in pixels.
      patch_size: N, filters per side, or `(rows, columns)`, whose widest stride is the wider of
        both (7 logits have one for each). With N = 1 Eq. 24 divides by zero; the stride, which then
        moves no filter, is scaled by max(A, B) - 1.

    Returns:
      A `Window` whose fields have shape `[*batch]` and the type of the logits; float32 for integers
      and for float16, whose range is too small. Zeros give a window in the middle whose outermost
      filters lie on the first and last pixel of the longer side, with variance 1 and intensity 1.

    Raises:
      ValueError: if the last axis is not 5 to 8, or a size is not positive.
    """
    height, width = height_and_width(image_shape)
    rows, columns = rows_and_columns(patch_size)
    logits = jnp.asarray(logits)
    if logits.ndim < 1 or logits.shape[-1] not in (5, 6, 7, 8):
        raise ValueError(f"logits must have shape [..., 5] (to 8), got {list(logits.shape)}")
    dtype, logits = logits.dtype, as_coordinates(logits)
    numbers = [logits[..., i] for i in range(logits.shape[-1])]
    center_x, center_y, log_variance, log_stride, log_intensity = numbers[:5]
    widest_x = (width - 1) / max(columns - 1, 1)
    widest_y = (height - 1) / max(rows - 1, 1)
    own_y = len(numbers) >= 7
    # A single row or column of filters, which no stride moves apart, has no widest one.
    both = [w for w, n in ((widest_x, columns), (widest_y, rows)) if n > 1]
    widest = widest_x if own_y else max(both or (widest_x, widest_y))
    window = Window(
        center_x=(width + 1) / 2 * (center_x + 1),  # Eq. 22
        center_y=(height + 1) / 2 * (center_y + 1),  # Eq. 23
        stride=widest * _exp(log_stride),  # Eq. 24
        variance=_exp(log_variance),
        intensity=_exp(log_intensity),
        variance_y=_exp(numbers[5]) if own_y else None,
        stride_y=widest_y * _exp(numbers[6]) if own_y else None,
        rotation=numbers[-1] if len(numbers) in (6, 8) else None,
    )
    return rounded_to(dtype, window)


def rows_and_columns(patch_size: PatchSize) -> tuple[int, int]:
    """Filters down and across; one number is both.

    Raises:
      ValueError: if one is no positive integer.
    """
    pair: Any = patch_size if np.ndim(patch_size) else (patch_size, patch_size)
    return _sizes(pair, f"patch_size must be N or (rows, columns), at least 1, got {patch_size}")


def height_and_width(image_shape: Sequence[int]) -> tuple[int, int]:
    """The two sizes of an image in pixels.

    Raises:
      ValueError: if they are not two positive integers.
    """
    return _sizes(
        image_shape, f"image_shape must be (height, width), both positive, got {image_shape}"
    )


def _sizes(pair: Sequence[Any], message: str) -> tuple[int, int]:
    try:
        first, second = map(_size, pair)
    except (TypeError, ValueError):
        raise ValueError(f"{message}: sizes are integers") from None
    if first < 1 or second < 1:
        raise ValueError(message)
    return first, second


def _size(size: Any) -> Any:
    # An export may leave it open. NumPy's integers are taken, 5.0 is not.
    return size if jax.export.is_symbolic_dim(size) else operator.index(size)


def as_coordinates(values: jax.Array) -> jax.Array:
    """Values in float32 at least: bfloat16 has no 301, and would round at every step."""
    wide = jnp.issubdtype(values.dtype, jnp.floating) and jnp.finfo(values.dtype).bits >= 32
    return values if wide else values.astype(jnp.float32)


def rounded_to(dtype: Any, window: Window) -> Window:
    """A window in a type; float32 for integers and for float16, which ends at 65504."""
    if not jnp.issubdtype(dtype, jnp.floating) or dtype == jnp.float16:
        dtype = jnp.float32
    return jax.tree.map(lambda field: field.astype(dtype), window)


def as_arrays(window: Window) -> Window:
    """A window whose fields are arrays of one float type and one shape, or None as before."""
    given = {f.name: getattr(window, f.name) for f in dataclasses.fields(window)}
    fields = {name: jnp.asarray(value) for name, value in given.items() if value is not None}
    shapes = {name: field.shape for name, field in fields.items() if field.ndim}
    if len(set(shapes.values())) > 1:
        raise ValueError(f"the fields of a window must share one shape, got {shapes}")
    dtype = jnp.result_type(*fields.values())
    if not jnp.issubdtype(dtype, jnp.floating):
        dtype = jnp.dtype("float32")
    shape = next(iter(shapes.values()), ())
    return Window(**{n: jnp.broadcast_to(f.astype(dtype), shape) for n, f in fields.items()})


def _exp(logits: jax.Array) -> jax.Array:
    # Limited before exp, not after: the gradient of a limit on inf would be 0 * inf.
    return jnp.exp(jnp.clip(logits, _MIN_LOG, _MAX_LOG))
