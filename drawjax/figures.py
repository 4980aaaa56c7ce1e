"""Pictures of results: grids, drawing sequences with their windows, animations, curves.

Images are arrays in [0, 1], channel-last. Every function writes one file.
"""

import math
import pathlib
from collections.abc import Sequence
from typing import Any

import matplotlib.figure
import numpy as np
from jaxtyping import Float
from PIL import Image, ImageDraw

from drawjax.attention import Window

__all__ = ["save_animation", "save_curves", "save_grid", "save_sequence"]

_RED, _GREEN = (230, 30, 30), (40, 200, 60)
_GAP = 2  # pixels between the cells of a grid, before scaling


def save_grid(
    path: str | pathlib.Path,
    images: Float[np.ndarray, "count height width channels"],
    *,
    columns: int | None = None,
    scale: int | None = None,
) -> None:
    """Writes images in rows, `columns` to a row (default: as square as can be)."""
    count = len(images)
    columns = columns or math.ceil(math.sqrt(count))
    scale = scale or _scale(images.shape[1:3])
    cells = [_cell(image, None, _RED, scale) for image in images]
    _tile([cells[i : i + columns] for i in range(0, count, columns)]).save(path)


def save_sequence(
    path: str | pathlib.Path,
    frames: Float[np.ndarray, "T rows height width channels"],
    windows: Window | None,
    *,
    columns: int = 11,
    patch_size: int | None = None,
    colour: tuple[int, int, int] = _RED,
    scale: int | None = None,
) -> None:
    """Writes drawing sequences as in Figs. 1 and 7: a row an image, time to the right.

    Args:
      path: PNG to write.
      frames: the image at every step.
      windows: fields `[T, rows]`: each frame's window as a rectangle through its outermost
        filters, whose line width shows the filters' standard deviation. None draws none.
      columns: how many steps to show, spread evenly; the last is always there.
      patch_size: N of the windows.
      colour: of the rectangle.
      scale: screen pixels an image pixel; default: chosen by the image's size.
    """
    steps, rows = frames.shape[:2]
    shown = sorted({round(i) for i in np.linspace(0, steps - 1, min(columns, steps))})
    scale = scale or _scale(frames.shape[2:4])
    _tile(
        [
            [
                _cell(frames[t, row], _at(windows, t, row), colour, scale, patch_size)
                for t in shown
            ]
            for row in range(rows)
        ]
    ).save(path)


def save_animation(
    path: str | pathlib.Path,
    frames: Float[np.ndarray, "T count height width channels"],
    windows: Window | None,
    *,
    columns: int | None = None,
    patch_size: int | None = None,
    milliseconds: int = 100,
    scale: int | None = None,
) -> None:
    """Writes an animated GIF of drawings side by side, which rests on the last step."""
    steps, count = frames.shape[:2]
    columns = columns or math.ceil(math.sqrt(count))
    scale = scale or _scale(frames.shape[2:4])
    pages = []
    for t in range(steps):
        cells = [
            _cell(frames[t, i], _at(windows, t, i), _RED, scale, patch_size) for i in range(count)
        ]
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


def save_curves(path: str | pathlib.Path, entries: Sequence[dict[str, Any]]) -> None:
    """Plots the loss of `metrics.jsonl` entries over steps, and its two parts."""
    figure = matplotlib.figure.Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    lowest, top = math.inf, []
    for split, style in (("train", "-"), ("validation", "o-")):
        rows = [entry for entry in entries if entry["split"] == split]
        for name, colour in (("loss", "C3"), ("reconstruction", "C0"), ("latent", "C2")):
            points = [(row["step"], row[name]) for row in rows if name in row]
            if points:
                steps, values = zip(*points, strict=True)
                axes.plot(
                    steps, values, style, color=colour, label=f"{split}: {name}", markersize=4,
                    alpha=0.6 if split == "train" else 1.0, linewidth=1,
                )  # fmt: skip
                lowest = min(lowest, min(values))
                top += values[len(values) // 10 :]
    if top:  # the first steps would flatten all that follows
        axes.set_ylim(0.9 * lowest, 1.1 * max(top))
    axes.set_xlabel("training steps")
    axes.set_ylabel("nats per image")
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=120)


def _at(windows: Window | None, *index: int) -> tuple[float, float, float, float] | None:
    if windows is None:
        return None
    fields = (windows.center_x, windows.center_y, windows.stride, windows.variance)
    return tuple(float(np.asarray(field)[index]) for field in fields)


def _cell(
    image: np.ndarray,
    window: tuple[float, float, float, float] | None,
    colour: tuple[int, int, int],
    scale: int,
    patch_size: int | None = None,
) -> Image.Image:
    """One image, enlarged, with its window drawn on it."""
    pixels = np.clip(np.round(255 * image), 0, 255).astype(np.uint8)
    if pixels.shape[-1] == 1:
        pixels = np.repeat(pixels, 3, axis=-1)
    height, width = pixels.shape[:2]
    cell = Image.fromarray(pixels).resize((width * scale, height * scale), Image.Resampling.NEAREST)
    if window is None or patch_size is None:
        return cell
    center_x, center_y, stride, variance = window
    reach = (patch_size - 1) / 2 * stride
    sides = [
        (center + sign * reach - 0.5) * scale  # pixel 1's centre lies half a pixel in
        for sign in (-1, 1)
        for center in (center_x, center_y)
    ]
    sides = [min(max(side, -1e4), 1e4) for side in sides]
    line = int(np.clip(round(2 * math.sqrt(variance) * scale / 2), 1, 3 * scale))
    ImageDraw.Draw(cell).rectangle(sides, outline=colour, width=line)
    return cell


def _tile(rows: Sequence[Sequence[Image.Image]]) -> Image.Image:
    width, height = rows[0][0].size
    page = Image.new(
        "RGB",
        (
            max(map(len, rows)) * (width + _GAP) + _GAP,
            len(rows) * (height + _GAP) + _GAP,
        ),
        (90, 90, 90),
    )
    for j, row in enumerate(rows):
        for i, cell in enumerate(row):
            page.paste(cell, (_GAP + i * (width + _GAP), _GAP + j * (height + _GAP)))
    return page


def _scale(shape: tuple[int, int]) -> int:
    return max(1, round(84 / max(shape)))
