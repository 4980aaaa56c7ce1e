"""Pictures of results: grids, drawing sequences with their windows, animations, curves.

Images are arrays in [0, 1], channel-last. Every function writes one file, and raises ValueError if
there is nothing to show. A window that is not finite, as after a diverged step, is not drawn.
"""

import math
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float
from PIL import Image, ImageDraw

from drawjax import attention
from drawjax.attention import Window

__all__ = [
    "outlines",
    "save_animation",
    "save_curves",
    "save_glimpses",
    "save_grid",
    "save_pairs",
    "save_sequence",
    "save_zooms",
]

_RED, _GREEN = (230, 30, 30), (40, 200, 60)
_GROUND = (90, 90, 90)
_GAP = 2  # pixels between the cells of a grid, before scaling


def outlines(
    windows: Window, patch_size: attention.PatchSize
) -> tuple[Float[np.ndarray, "*batch 4 2"], Float[np.ndarray, "*batch"]]:
    """What a picture shows of windows, in pixels from the image's upper left corner.

    Args:
      windows: fields `[*batch]`, rotated or not.
      patch_size: N of the windows, or `(rows, columns)`.

    Returns:
      x and y of the four outermost filters, clockwise from the upper left one, and the filters'
      standard deviation (of filters that are not round, the geometric mean of both). All are NaN
      where a field of the window is not finite.
    """
    finite = np.all([np.isfinite(field) for field in jax.tree.leaves(windows)], axis=0)
    y, x = (np.asarray(means) - 0.5 for means in attention.filter_grid(windows, patch_size))
    rows, columns = (0, 0, -1, -1), (0, -1, -1, 0)
    corners = np.stack([x[..., rows, columns], y[..., rows, columns]], axis=-1)
    variance_x, variance_y = (np.asarray(variance) for variance in windows.variances)
    return (
        np.where(finite[..., None, None], corners, math.nan),
        np.where(finite, np.sqrt(np.sqrt(variance_x * variance_y)), math.nan),
    )


def save_grid(
    path: str | pathlib.Path,
    images: Float[np.ndarray, "count height width channels"],
    *,
    columns: int | None = None,
    beside: Float[np.ndarray, "rows height width channels"] | None = None,
    scale: int | None = None,
) -> None:
    """Writes images in rows.

    Args:
      path: PNG to write.
      images: values in [0, 1].
      columns: images to a row; default: as square as can be.
      beside: one more image for each row, set apart at its end (Fig. 6: nearest neighbors).
      scale: screen pixels an image pixel; default: chosen by the image's size.
    """
    _check_shown("images", images, 1)
    count = len(images)
    columns = columns or math.ceil(math.sqrt(count))
    scale = scale or _scale(images.shape[1:3])
    cells = [_cell(image, None, _RED, scale) for image in images]
    rows = [cells[i : i + columns] for i in range(0, count, columns)]
    if beside is not None:
        gap = Image.new("RGB", (cells[0].width // 4, cells[0].height), _GROUND)
        for row, image in zip(rows, beside, strict=True):
            row += [gap, _cell(image, None, _RED, scale)]
    _tile(rows).save(path)


def save_pairs(
    path: str | pathlib.Path,
    images: Float[np.ndarray, "count height width channels"],
    others: Float[np.ndarray, "count height width channels"],
    *,
    columns: int = 5,
) -> None:
    """Writes each image beside its other: test images and what a model makes of them.

    Args:
      path: PNG to write.
      images: values in [0, 1].
      others: alike; shown to the right of the image at the same place.
      columns: pairs to a row.
    """
    _check_shown("images", images, 1)
    scale = _scale(images.shape[1:3])
    pairs = [
        _tile([[_cell(image, None, _RED, scale) for image in pair]])
        for pair in zip(images, others, strict=True)
    ]
    _tile([pairs[i : i + columns] for i in range(0, len(pairs), columns)]).save(path)


def save_sequence(
    path: str | pathlib.Path,
    frames: Float[np.ndarray, "T rows height width channels"],
    windows: Window | None,
    *,
    columns: int = 11,
    patch_size: attention.PatchSize | None = None,
    color: tuple[int, int, int] = _RED,
    scale: int | None = None,
) -> None:
    """Writes drawing sequences as in Figs. 1 and 7: a row an image, time to the right.

    Args:
      path: PNG to write.
      frames: the image at every step.
      windows: fields `[T, rows]`: each frame's window as a line through its outermost
        filters, as wide as the filters' standard deviation, a pixel at most. None draws none.
      columns: how many steps to show, spread evenly; the last is always there.
      patch_size: N of the windows, or `(rows, columns)`.
      color: of the line.
      scale: screen pixels an image pixel; default: chosen by the image's size.
    """
    _check_shown("frames", frames, 2)
    steps, rows = frames.shape[:2]
    shown = sorted({round(i) for i in np.linspace(0, steps - 1, min(columns, steps))})
    scale = scale or _scale(frames.shape[2:4])
    outline = _outlines(windows, patch_size)
    _tile(
        [
            [_cell(frames[t, row], outline(t, row), color, scale) for t in shown]
            for row in range(rows)
        ]
    ).save(path)


def save_glimpses(
    path: str | pathlib.Path,
    images: Float[np.ndarray, "rows height width channels"],
    windows: Window,
    patches: Float[np.ndarray, "T rows N N channels"],
    *,
    titles: Sequence[str] | None = None,
) -> None:
    """Writes what was looked at, as in Fig. 5: a row an image, time to the right.

    Each step shows the image with its window as a green rectangle, whose line width shows the
    filters' standard deviation, and beside it the patch that was read.

    Args:
      path: PNG to write.
      images: values in [0, 1].
      windows: fields `[T, rows]`.
      patches: what was read, without the intensity, values in [0, 1].
      titles: a line of text above each row.
    """
    _check_shown("patches", patches, 2)
    steps, rows, *size, _ = patches.shape
    scale = max(1, round(150 / max(images.shape[1:3])))
    outline = _outlines(windows, tuple(size))
    page = []
    for row in range(rows):
        cells = []
        for t in range(steps):
            frame = _cell(images[row], outline(t, row), _GREEN, scale)
            patch = _cell(patches[t, row], None, _GREEN, max(1, frame.height // (2 * max(size))))
            column = Image.new("RGB", (patch.width, frame.height), _GROUND)
            column.paste(patch, (0, (frame.height - patch.height) // 2))
            cells += [frame, column]
        if titles is not None:
            page.append([_text(titles[row], sum(cell.width + _GAP for cell in cells))])
        page.append(cells)
    _tile(page).save(path)


def save_zooms(
    path: str | pathlib.Path,
    image: Float[np.ndarray, "height width channels"],
    windows: Window,
    patches: Float[np.ndarray, "rows N N channels"],
    rebuilt: Float[np.ndarray, "rows height width channels"],
) -> None:
    """Writes one image read by several windows, as in Figs. 3 and 4.

    A row a window: the image with the centers of the N x N filters, their standard deviation as
    circles and the window as a green rectangle; the patch; the image written back from it.

    Args:
      path: PNG to write.
      image: values in [0, 1].
      windows: fields `[rows]`.
      patches: what was read.
      rebuilt: what was written back.
    """
    _check_shown("patches", patches, 1)
    _, *size, _ = patches.shape
    scale = max(1, round(300 / max(image.shape[:2])))
    outline = _outlines(windows, tuple(size))
    y, x = (np.asarray(a) - 0.5 for a in attention.filter_grid(windows, tuple(size)))
    radius_x, radius_y = (np.sqrt(variance) for variance in windows.variances)
    page = []
    for row in range(len(patches)):
        shown = outline(row)
        frame = _cell(image, shown, _GREEN, scale)
        pen = ImageDraw.Draw(frame)
        for point in np.stack([x[row], y[row]], axis=-1).reshape(-1, 2) if shown else ():
            reach = np.array([radius_x[row], radius_y[row]])
            pen.ellipse([*(scale * (point - reach)), *(scale * (point + reach))], outline=_RED)
        patch = _cell(patches[row], None, _GREEN, max(1, frame.height // max(size)))
        column = Image.new("RGB", (patch.width, frame.height), _GROUND)
        column.paste(patch, (0, (frame.height - patch.height) // 2))
        page.append([frame, column, _cell(rebuilt[row], None, _GREEN, scale)])
    _tile(page).save(path)


def save_animation(
    path: str | pathlib.Path,
    frames: Float[np.ndarray, "T count height width channels"],
    windows: Window | None,
    *,
    columns: int | None = None,
    patch_size: attention.PatchSize | None = None,
    milliseconds: int = 100,
    scale: int | None = None,
) -> None:
    """Writes an animated GIF of drawings side by side, which rests on the last step.

    Windows are thin lines here, so that the digit under them can be seen, and gone at the end.
    """
    _check_shown("frames", frames, 2)
    steps, count = frames.shape[:2]
    columns = columns or math.ceil(math.sqrt(count))
    scale = scale or _scale(frames.shape[2:4])
    outline = _outlines(windows, patch_size)
    pages = []
    for t in range(steps):
        cells = [_cell(frames[t, i], outline(t, i), _RED, scale, thin=True) for i in range(count)]
        pages.append(_tile([cells[i : i + columns] for i in range(0, count, columns)]))
    pages.append(  # without windows, to look at
        _tile(
            [
                [_cell(frames[-1, j], None, _RED, scale) for j in range(i, min(i + columns, count))]
                for i in range(0, count, columns)
            ]
        )
    )
    durations = [milliseconds] * steps + [2_000]
    pages[0].save(path, save_all=True, append_images=pages[1:], duration=durations, loop=0)


def save_curves(
    path: str | pathlib.Path,
    entries: Sequence[dict[str, Any]],
    names: Sequence[str] = ("loss", "reconstruction", "latent"),
    unit: str = "nats per image",
) -> None:
    """Plots metrics over training steps, training thin and validation with dots (Fig. 11).

    A panel each, without the first tenth of the steps, which would flatten the rest.

    Args:
      path: picture to write; its suffix is the format.
      entries: of `metrics.jsonl`, as `drawjax.training.metrics.read_metrics` gives them.
      names: which of their values to plot.
      unit: of the values.
    """
    begin = 0.1 * max((entry["step"] for entry in entries), default=0)
    ratios = [2, *[1] * (len(names) - 1)]
    from matplotlib.figure import Figure  # half a second, which drawing a model can do without

    figure = Figure(figsize=(7, 1.8 * sum(ratios)), layout="constrained")
    panels = figure.subplots(len(names), sharex=True, squeeze=False, height_ratios=ratios)[:, 0]
    for axes, name, color in zip(panels, names, ("C3", "C0", "C2"), strict=False):
        for split, style in (("train", "-"), ("validation", "o-")):
            points = [
                (entry["step"], entry[name])
                for entry in entries
                if entry["split"] == split and name in entry and entry["step"] >= begin
            ]
            if points:
                axes.plot(
                    *zip(*points, strict=True), style, color=color, markersize=4, linewidth=1,
                    label="training" if split == "train" else split,
                    alpha=0.6 if split == "train" else 1.0,
                )  # fmt: skip
        if axes.lines:
            axes.legend(fontsize="small")
        axes.set_ylabel(f"{name},\n{unit}")
    panels[-1].set_xlabel("training steps")
    figure.savefig(path, dpi=120)


def _check_shown(name: str, array: np.ndarray, axes: int) -> None:
    if 0 in array.shape[:axes]:
        raise ValueError(f"{name} must not be empty, got {list(array.shape)}")


_Outline = tuple[list[tuple[float, float]], float]  # corners and standard deviation


def _outlines(
    windows: Window | None, patch_size: attention.PatchSize | None
) -> Callable[..., _Outline | None]:
    """The outline at an index; None: nothing to draw there."""
    if windows is None or patch_size is None:
        return lambda *index: None
    corners, deviations = outlines(windows, patch_size)

    def at(*index: int) -> _Outline | None:
        if not math.isfinite(deviations[index]):
            return None
        return [(float(x), float(y)) for x, y in corners[index]], float(deviations[index])

    return at


def _cell(
    image: np.ndarray,
    outline: _Outline | None,
    color: tuple[int, int, int],
    scale: int,
    *,
    thin: bool = False,
) -> Image.Image:
    """One image, enlarged, with a window as wide as its filters, up to a pixel, or `thin`."""
    pixels = np.clip(np.round(255 * np.nan_to_num(image)), 0, 255).astype(np.uint8)
    if pixels.shape[-1] == 1:
        pixels = np.repeat(pixels, 3, axis=-1)
    height, width = pixels.shape[:2]
    cell = Image.fromarray(pixels).resize((width * scale, height * scale), Image.Resampling.NEAREST)
    if outline is None:
        return cell
    corners, deviation = outline
    corners = [tuple(min(max(scale * side, -1e4), 1e4) for side in corner) for corner in corners]
    line = 1 if thin else int(np.clip(round(deviation * scale), 1, scale))
    ImageDraw.Draw(cell).polygon(corners, outline=color, width=line)
    return cell


def _tile(rows: Sequence[Sequence[Image.Image]]) -> Image.Image:
    """Puts cells in rows; those of a row share a height."""
    width = max(sum(cell.width + _GAP for cell in row) for row in rows)
    height = sum(row[0].height + _GAP for row in rows)
    page = Image.new("RGB", (width + _GAP, height + _GAP), _GROUND)
    top = _GAP
    for row in rows:
        left = _GAP
        for cell in row:
            page.paste(cell, (left, top))
            left += cell.width + _GAP
        top += row[0].height + _GAP
    return page


def _text(line: str, width: int) -> Image.Image:
    page = Image.new("RGB", (width, 16), _GROUND)
    ImageDraw.Draw(page).text((4, 2), line, fill=(255, 255, 255))
    return page


def _scale(shape: tuple[int, int]) -> int:
    return max(1, round(84 / max(shape)))
