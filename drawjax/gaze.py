"""Where a model looks: scanpaths, coverage, and policies to compare a learned one with.

A policy says where to look next, `policy(state) -> Window`, and is run by
`drawjax.ram.classify(model, images, policy=policy)`. Those below that take a policy move its
windows and leave their size and filters alone, so that what is compared is the place:

>>> policy = gaze.inhibit(gaze.random(gaze.learned(model), keys), radius=10.0)

Axes: `T` glimpses or steps, `batch` images, `height`, `width`. Centers are the paper's: 1 is the
center of the first pixel.
"""

import csv
import dataclasses
import io
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from drawjax import attention, ram
from drawjax.attention import PatchSize, Window
from drawjax.attention.window import as_arrays
from drawjax.draw import check_keys
from drawjax.files import to_json, write_atomically
from drawjax.ram import Policy, State

__all__ = [
    "coverage",
    "grid",
    "inhibit",
    "learned",
    "middle",
    "random",
    "replay",
    "salient",
    "save_scanpath",
    "scanpath",
    "sensitivity",
]


def scanpath(windows: Window, patch_size: PatchSize) -> dict[str, np.ndarray]:
    """The windows of an output as the columns of a table, a row per image and step.

    Args:
      windows: fields `[T, batch]`: the `read_windows` or `write_windows` of a `DrawOutput`, the
        `windows` of a `RamOutput`.
      patch_size: N of the windows, or `(rows, columns)`.

    Returns:
      Columns `[batch * T]`, image by image: `image` from 0, `time` from 1, the window's center `x`
      and `y` and its extent `width` and `height`, in pixels from the image's upper left corner. A
      rotated window has the extent of the upright box around it.

    Raises:
      ValueError: if the fields are not `[T, batch]`, or as `attention.box_of_window`.
    """
    boxes = np.asarray(attention.box_of_window(windows, patch_size))
    if boxes.ndim != 3:
        raise ValueError(f"windows must have fields [T, batch], got {list(boxes.shape[:-1])}")
    steps, batch, _ = boxes.shape
    left, top, right, bottom = boxes.swapaxes(0, 1).reshape(-1, 4).T
    return {
        "image": np.repeat(np.arange(batch), steps),
        "time": np.tile(np.arange(1, steps + 1), batch),
        "x": (left + right) / 2,
        "y": (top + bottom) / 2,
        "width": right - left,
        "height": bottom - top,
    }


def save_scanpath(path: str | pathlib.Path, windows: Window, patch_size: PatchSize) -> None:
    """Writes a `scanpath`: as CSV, or as JSON, a list of an object a row, by the path's suffix.

    Raises:
      ValueError: if the suffix is another, or as `scanpath`.
    """
    path = pathlib.Path(path).expanduser()
    columns = {name: column.tolist() for name, column in scanpath(windows, patch_size).items()}
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    if path.suffix == ".json":
        write_atomically(path, to_json(rows) + "\n")
    elif path.suffix == ".csv":
        text = io.StringIO()
        writer = csv.DictWriter(text, list(columns), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_atomically(path, text.getvalue())
    else:
        raise ValueError(f"a scanpath is written to .csv or .json, got {path.name}")


def coverage(
    windows: Window, patch_size: PatchSize, image_shape: tuple[int, int]
) -> Float[Array, "*batch height width"]:
    """How much of each pixel was seen, or drawn on, by at least one window.

    Args:
      windows: fields `[T, *batch]`.
      patch_size: N of the windows, or `(rows, columns)`.
      image_shape: `(height, width)` of the image in pixels.

    Returns:
      The largest `attention.mask` of the windows at each pixel, between 0 and 1.
    """
    return jnp.max(attention.mask(windows, patch_size, image_shape)[..., 0], axis=0, initial=0)


def learned(model: ram.Model) -> Policy:
    """The model's own policy."""
    return lambda state: model.read(state.images, state.hidden)[1]


def replay(windows: Window) -> Policy:
    """Given windows one after the other, fields `[T]` or `[T, batch]`; the last one stays.

    Raises:
      ValueError: if the windows have no axis T.
    """
    windows = as_arrays(windows)
    if not windows.center_x.ndim:
        raise ValueError("windows must have fields [T] or [T, batch], got a single window")
    return lambda state: jax.tree.map(lambda field: field[state.glimpse], windows)


def middle(policy: Policy) -> Policy:
    """Moves windows to the middle of the image."""
    return grid(policy, 1, 1)


def random(policy: Policy, keys: Array) -> Policy:
    """Moves windows anywhere in the image, by a PRNG key per image, `[batch]`."""

    def moved(state: State) -> Window:
        each = check_keys(keys, len(state.images))
        folded = jax.vmap(jax.random.fold_in, (0, None))(each, state.glimpse)
        dtype = state.images.dtype
        draws = jax.vmap(lambda key: jax.random.uniform(key, (2,), dtype))(folded)
        height, width = state.images.shape[1:3]
        return _moved(policy(state), 0.5 + width * draws[:, 0], 0.5 + height * draws[:, 1])

    return moved


def grid(policy: Policy, rows: int, columns: int) -> Policy:
    """Moves windows to the middle of one cell of the image after the other, row by row.

    After the last cell comes the first again.

    Raises:
      ValueError: if rows or columns are not whole numbers of at least one.
    """
    for name, count in (("rows", rows), ("columns", columns)):
        if not isinstance(count, int | np.integer) or count < 1:
            raise ValueError(f"{name} must be a whole number, at least 1, got {count}")

    def moved(state: State) -> Window:
        (height, width), t = state.images.shape[1:3], state.glimpse
        column, row = (n.astype(state.images.dtype) for n in (t % columns, t // columns % rows))
        x, y = (column + 0.5) / columns, (row + 0.5) / rows
        return _moved(policy(state), 0.5 + width * x, 0.5 + height * y)

    return moved


def salient(
    policy: Policy,
    saliency: Callable[[State], Float[Array, "batch height width"]],
    radius: float = 0.0,
) -> Policy:
    """Moves windows to the most salient pixel, the first of several in reading order.

    Pixels less than `radius` from an earlier center count only where there are no others.

    Raises:
      ValueError: if the radius is negative or NaN.
    """
    _check_radius(radius)
    return lambda state: _moved(policy(state), *_best(state, saliency(state), radius))


def sensitivity(model: ram.Model, policy: Policy) -> Callable[[State], jax.Array]:
    """A saliency: how strongly each pixel sways the error that the model expects to make.

    That error is the entropy of its classes after a glimpse by the policy's window; the map
    `[batch, height, width]` is the length of its gradient over a pixel's channels, in nats.
    """

    def saliency(state: State) -> jax.Array:
        window = policy(state)

        def expected_error(images: jax.Array) -> jax.Array:
            patch, _ = model.read(images, state.hidden, window)
            _, hidden = model.recur(state.carry, patch)
            logits = jax.nn.log_softmax(model.logits(hidden, images))
            possible = jnp.maximum(logits, -1e4)  # a class that is not has minus infinity
            return -jnp.sum(jnp.exp(logits) * possible)

        return jnp.linalg.norm(jax.grad(expected_error)(state.images), axis=-1)

    return saliency


def inhibit(policy: Policy, radius: float) -> Policy:
    """Inhibition of return: no window is centered less than `radius` pixels from an earlier one.

    One that would be is moved to the nearest pixel that is not, the first of several in reading
    order; where there is none it stays, on the nearest pixel.

    Raises:
      ValueError: if the radius is negative or NaN.
    """
    _check_radius(radius)

    def moved(state: State) -> Window:
        window = policy(state)
        centers = window.center_x, window.center_y
        x, y = (jnp.broadcast_to(center, len(state.images))[:, None, None] for center in centers)
        columns, rows = _pixels(state)
        free_x, free_y = _best(state, -((columns - x) ** 2) - (rows - y) ** 2, radius)
        returns = _taken(state, x, y, radius)[:, 0, 0]
        return _moved(
            window,
            jnp.where(returns, free_x, window.center_x),
            jnp.where(returns, free_y, window.center_y),
        )

    return moved


def _moved(window: Window, x: jax.Array, y: jax.Array) -> Window:
    return dataclasses.replace(window, center_x=x, center_y=y)


def _best(state: State, values: jax.Array, radius: float) -> tuple[jax.Array, jax.Array]:
    """The place of the largest of values `[batch, height, width]`: x and y, each `[batch]`."""
    columns, rows = _pixels(state)
    taken = _taken(state, columns, rows, radius)
    taken &= ~jnp.all(taken, axis=(1, 2), keepdims=True)  # where all are, none count as taken
    best = jnp.argmax(jnp.where(taken, -jnp.inf, values).reshape(len(values), -1), axis=1)
    width = values.shape[2]
    return columns[0, best % width], rows[best // width, 0]


def _check_radius(radius: Any) -> None:
    if not isinstance(radius, jax.core.Tracer) and not radius >= 0:
        raise ValueError(f"radius must be at least 0, got {radius}")


def _pixels(state: State) -> tuple[jax.Array, jax.Array]:
    """The pixels' centers: x, `[1, width]`, and y, `[height, 1]`."""
    height, width = (
        jnp.arange(1, size + 1, dtype=state.images.dtype) for size in state.images.shape[1:3]
    )
    return width[None, :], height[:, None]


def _taken(state: State, x: jax.Array, y: jax.Array, radius: float) -> jax.Array:
    """Whether places are less than `radius` from an earlier center, `[batch, height, width]`."""
    earlier_x, earlier_y = jnp.moveaxis(state.centers, -1, 0)[..., None, None]
    # False where a center is NaN: that glimpse is still to come.
    return jnp.any((x - earlier_x) ** 2 + (y - earlier_y) ** 2 < radius**2, axis=0)
