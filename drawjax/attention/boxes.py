"""Windows from boxes and affine maps, and the boxes that windows span."""

from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from drawjax.attention.filters import grid_steps
from drawjax.attention.window import (
    ArrayLike,
    PatchSize,
    Window,
    as_arrays,
    as_coordinates,
    height_and_width,
    rounded_to,
    rows_and_columns,
)

Coordinates = Literal["pixels", "normalized", "paper"]


def window_from_box(
    box: Shaped[ArrayLike, "*batch 4"],
    patch_size: PatchSize,
    *,
    coordinates: Coordinates = "pixels",
    image_shape: tuple[int, int] | None = None,
) -> Window:
    """The window whose filters share out a box evenly, one in the middle of each of its cells.

    The standard deviation of the filters is half a stride along each axis, which leaves no gaps.

    Args:
      box: `[*batch, 4]`: left, top, right, bottom ("XYXY").
      patch_size: N, filters per side, or `(rows, columns)`.
      coordinates: of the box. "pixels": the image's edges are 0 and its width, and 0 and its
        height, as in COCO and torchvision; "normalized": they are 0 and 1; "paper": 1 is the center
        of the first pixel, so that the edges are 0.5 and A + 0.5.
      image_shape: `(height, width)` of the image, for normalized boxes.

    Returns:
      A `Window` whose fields have shape `[*batch]` and the type of the box (float32 for integers
      and float16), with intensity 1. A box whose right side is left of its left one is read
      mirrored; one without extent is read at one point.

    Raises:
      ValueError: if the last axis is not 4, a size is not positive, or `image_shape` is missing.
    """
    rows, columns = rows_and_columns(patch_size)
    box = jnp.asarray(box)
    if box.ndim < 1 or box.shape[-1] != 4:
        raise ValueError(f"box must have shape [..., 4], got {list(box.shape)}")
    dtype, box = box.dtype, as_coordinates(box)
    left, top, right, bottom = (box[..., i] for i in range(4))
    (unit_x, unit_y), first = _units(coordinates, image_shape)
    stride, stride_y = (right - left) * (unit_x / columns), (bottom - top) * (unit_y / rows)
    window = Window(
        center_x=(left + right) * (unit_x / 2) + (0.5 - first),
        center_y=(top + bottom) * (unit_y / 2) + (0.5 - first),
        stride=stride,
        variance=jnp.square(stride / 2),
        intensity=jnp.ones_like(stride),
        stride_y=stride_y,
        variance_y=jnp.square(stride_y / 2),
    )
    return rounded_to(dtype, window)


def window_from_affine(
    theta: Shaped[ArrayLike, "*batch 2 3"],
    patch_size: PatchSize,
    image_shape: tuple[int, int],
    *,
    align_corners: bool = False,
) -> Window:
    """The window of an affine map: the grid of a spatial transformer (Jaderberg et al. 2015).

    Its filters lie where `torch.nn.functional.affine_grid` puts samples.

    Args:
      theta: `[*batch, 2, 3]`, from x, y and 1 of the patch to x and y of the image, each between
        -1 and 1. The identity spans the image.
      patch_size: N, filters per side, or `(rows, columns)`.
      image_shape: `(height, width)` of the image in pixels.
      align_corners: whether -1 and 1 are the centers of the outermost pixels, of patch and image,
        and not their edges.

    Returns:
      A `Window` whose fields have shape `[*batch]`, rotated and sheared, with intensity 1. Its
      filters are round; their standard deviation is half the side of a square as large as one
      cell of the grid.

    Raises:
      ValueError: if the last axes are not 2 and 3, or a size is not positive.
    """
    rows, columns = rows_and_columns(patch_size)
    height, width = height_and_width(image_shape)
    theta = jnp.asarray(theta)
    if theta.ndim < 2 or theta.shape[-2:] != (2, 3):
        raise ValueError(f"theta must have shape [..., 2, 3], got {list(theta.shape)}")
    dtype, theta = theta.dtype, as_coordinates(theta)
    less = 1 if align_corners else 0
    # Pixels from one filter to the next, along a row of the grid and down a column.
    along_x, down_x, along_y, down_y = (
        theta[..., i, j] * ((size - less) / max(filters - less, 1))
        for i, size in enumerate((width, height))
        for j, filters in enumerate((columns, rows))
    )
    # A grid without width has no angle: it is taken as upright, so that its gradient is finite.
    flat = (along_x == 0) & (along_y == 0)
    some_x = jnp.where(flat, 1, along_x)
    length = jnp.hypot(some_x, along_y)
    cosine, sine = some_x / length, along_y / length
    stride, stride_y = jnp.where(flat, along_x, length), cosine * down_y - sine * down_x
    window = Window(
        center_x=theta[..., 0, 2] * ((width - less) / 2) + (width + 1) / 2,
        center_y=theta[..., 1, 2] * ((height - less) / 2) + (height + 1) / 2,
        stride=stride,
        variance=jnp.abs(stride * stride_y) / 4,
        intensity=jnp.ones_like(stride),
        stride_y=stride_y,
        rotation=jnp.arctan2(along_y, some_x),
        shear=cosine * down_x + sine * down_y,
    )
    return rounded_to(dtype, window)


def box_of_window(
    window: Window,
    patch_size: PatchSize,
    *,
    coordinates: Coordinates = "pixels",
    image_shape: tuple[int, int] | None = None,
) -> Float[Array, "*batch 4"]:
    """The box that a window spans, N strides wide: the way back from `window_from_box`.

    Its sides are differentiable in the window, so a window can be trained toward a box.

    Args:
      window: fields `[*batch]`. Of a rotated or sheared one, the upright box around it is meant.
      patch_size: N, filters per side, or `(rows, columns)`.
      coordinates: of the box, as for `window_from_box`.
      image_shape: `(height, width)` of the image, for normalized boxes.

    Returns:
      `[*batch, 4]`: left, top, right, bottom.

    Raises:
      ValueError: if a size is not positive, or `image_shape` is missing.
    """
    rows, columns = rows_and_columns(patch_size)
    window = as_arrays(window)
    stride_x, stride_y = window.strides
    half_x, half_y = columns / 2 * stride_x, rows / 2 * stride_y
    if not window.upright:
        along, down = grid_steps(window)
        half_x, half_y = (
            columns / 2 * jnp.abs(a) + rows / 2 * jnp.abs(d)
            for a, d in zip(along, down, strict=True)
        )
    (unit_x, unit_y), first = _units(coordinates, image_shape)
    x, y = window.center_x - (0.5 - first), window.center_y - (0.5 - first)
    lows, highs = (x - half_x, y - half_y), (x + half_x, y + half_y)
    sides = (*lows, *highs)
    return jnp.stack(
        [side / unit for side, unit in zip(sides, (unit_x, unit_y) * 2, strict=True)], axis=-1
    )


def _units(
    coordinates: Coordinates, image_shape: tuple[int, int] | None
) -> tuple[tuple[float, float], float]:
    """Pixels a unit along x and y, and where the first pixel's left edge is, in pixels."""
    if coordinates == "normalized":
        if image_shape is None:
            raise ValueError("normalized boxes need image_shape=(height, width)")
        height, width = height_and_width(image_shape)
        return (float(width), float(height)), 0.0
    if coordinates not in ("pixels", "paper"):
        raise ValueError(f"coordinates must be pixels, normalized or paper, got {coordinates!r}")
    return (1.0, 1.0), 0.5 if coordinates == "paper" else 0.0
