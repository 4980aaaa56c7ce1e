"""Pictures of results: grids, drawing sequences with their windows, animations, curves.

Images are channel-last, of 1 or 3 channels: floats in [0, 1] or bytes. Every function writes one
file, whole or not at all, and raises ValueError if its images are anything else or there are none.
A window that is not finite, as after a diverged step, is not drawn.
"""

import base64
import io
import itertools
import math
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Shaped
from PIL import Image, ImageDraw

from drawjax import attention
from drawjax.attention import Window
from drawjax.attention.window import as_arrays
from drawjax.files import to_json, write_atomically
from drawjax.pictures import image_bytes

__all__ = [
    "class_rows",
    "outlines",
    "save_animation",
    "save_curves",
    "save_drawing",
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
    windows = as_arrays(windows)
    finite = np.all([np.isfinite(field) for field in jax.tree.leaves(windows)], axis=0)
    y, x = (np.asarray(means) - 0.5 for means in attention.filter_grid(windows, patch_size))
    rows, columns = (0, 0, -1, -1), (0, -1, -1, 0)
    corners = np.stack([x[..., rows, columns], y[..., rows, columns]], axis=-1)
    variance_x, variance_y = (np.asarray(variance) for variance in windows.variances)
    return (
        np.where(finite[..., None, None], corners, math.nan),
        np.where(finite, np.sqrt(np.sqrt(variance_x * variance_y)), math.nan),
    )


def class_rows(count: int, classes: int) -> tuple[np.ndarray, int]:
    """The class of each sample of a grid in which every class has a row.

    Args:
      count: how many samples.
      classes: how many classes.

    Returns:
      Labels `[count]` and the grid's columns, about as many as rows where the classes leave that.
      After the last class the first comes again. Fewer samples than classes are each of another.
    """
    columns = math.ceil(math.sqrt(count))
    if count < classes:
        return np.arange(count), columns
    columns = min(columns, count // classes)
    return np.arange(count) // columns % classes, columns


def save_grid(
    path: str | pathlib.Path,
    images: Shaped[np.ndarray, "count height width channels"],
    *,
    columns: int | None = None,
    beside: Shaped[np.ndarray, "rows height width channels"] | None = None,
    labels: Sequence[str] | None = None,
    scale: int | None = None,
) -> None:
    """Writes images in rows.

    Args:
      path: PNG to write.
      images: floats in [0, 1], or bytes.
      columns: images to a row; default: as square as can be.
      beside: one more image for each row, set apart at its end (Fig. 6: nearest neighbors).
      labels: a short text after each of those.
      scale: screen pixels per image pixel; default: chosen by the image's size.
    """
    if labels is not None and beside is None:
        raise ValueError("labels are of the images beside, and there are none")
    images = image_bytes("images", images, 4)
    scale = scale or _scale(images)
    rows = _rows([_cell(image, scale) for image in images], columns)
    if beside is not None:
        others = image_bytes("beside", beside, 4)
        gap = Image.new("RGB", (rows[0][0].width // 4, rows[0][0].height), _GROUND)
        for row, image in zip(rows, others, strict=True):
            row += [gap, _cell(image, scale)]
        for row, label in zip(rows, labels or (), strict=labels is not None):
            row.append(_text(label, 8 + 7 * len(label)))
    _save(path, _tile(rows))


def save_pairs(
    path: str | pathlib.Path,
    images: Shaped[np.ndarray, "count height width channels"],
    others: Shaped[np.ndarray, "count height width channels"],
    *,
    columns: int = 5,
) -> None:
    """Writes each image beside its other: test images and what a model makes of them.

    Args:
      path: PNG to write.
      images: floats in [0, 1], or bytes.
      others: alike; shown to the right of the image at the same place.
      columns: pairs to a row.
    """
    images, others = image_bytes("images", images, 4), image_bytes("others", others, 4)
    scale = _scale(images)
    pairs = [
        _tile([[_cell(image, scale), _cell(other, scale)]])
        for image, other in zip(images, others, strict=True)
    ]
    _save(path, _tile(_rows(pairs, columns)))


def save_sequence(
    path: str | pathlib.Path,
    frames: Shaped[np.ndarray, "T rows height width channels"],
    windows: Window | None,
    *,
    columns: int = 11,
    patch_size: attention.PatchSize | None = None,
    scale: int | None = None,
) -> None:
    """Writes drawing sequences as in Figs. 1 and 7: a row per image, time to the right.

    Args:
      path: PNG to write.
      frames: the image at every step: floats in [0, 1], or bytes.
      windows: fields `[T, rows]`: each frame's window as a line through its outermost
        filters, as wide as the filters' standard deviation, a pixel at most. None draws none.
      columns: how many steps to show, spread evenly; the last is always there.
      patch_size: N of the windows, or `(rows, columns)`.
      scale: screen pixels per image pixel; default: chosen by the image's size.
    """
    frames = image_bytes("frames", frames, 5)
    steps, count = frames.shape[:2]
    shown = sorted({round(i) for i in np.linspace(steps - 1, 0, min(columns, steps))})
    scale = scale or _scale(frames)
    outline = _outlines(windows, patch_size, steps, count)
    rows = [[_cell(frames[t, row], scale, outline[t, row]) for t in shown] for row in range(count)]
    _save(path, _tile(rows))


def save_glimpses(
    path: str | pathlib.Path,
    images: Shaped[np.ndarray, "rows height width channels"],
    windows: Window,
    patches: Shaped[np.ndarray, "T rows N N channels"],
    *,
    titles: Sequence[str] | None = None,
) -> None:
    """Writes what was looked at, as in Fig. 5: a row per image, time to the right.

    Each step shows the image with its window as a green rectangle, whose line width shows the
    filters' standard deviation, and beside it the patch that was read.

    Args:
      path: PNG to write.
      images: floats in [0, 1], or bytes.
      windows: fields `[T, rows]`.
      patches: what was read, without the intensity, alike.
      titles: a line of text above each row.
    """
    images, patches = image_bytes("images", images, 4), image_bytes("patches", patches, 5)
    steps, rows, *size, _ = patches.shape
    scale = _scale(images, 150)
    outline = _outlines(windows, tuple(size), steps, rows)
    page = []
    for row in range(rows):
        cells = []
        for t in range(steps):
            frame = _cell(images[row], scale, outline[t, row], _GREEN)
            cells += [frame, _patch(patches[t, row], frame.height // 2, frame.height)]
        if titles is not None:
            page.append([_text(titles[row], sum(cell.width + _GAP for cell in cells))])
        page.append(cells)
    _save(path, _tile(page))


def save_zooms(
    path: str | pathlib.Path,
    image: Shaped[np.ndarray, "height width channels"],
    windows: Window,
    patches: Shaped[np.ndarray, "rows N N channels"],
    rebuilt: Shaped[np.ndarray, "rows height width channels"],
) -> None:
    """Writes one image read by several windows, as in Figs. 3 and 4.

    A row a window: the image with the centers of the N x N filters, their standard deviation as
    circles and the window as a green rectangle; the patch; the image written back from it.

    Args:
      path: PNG to write.
      image: floats in [0, 1], or bytes.
      windows: fields `[rows]`.
      patches: what was read, alike.
      rebuilt: what was written back, clipped to [0, 1]: where filters overlap it is brighter.
    """
    image, patches = image_bytes("image", image, 3), image_bytes("patches", patches, 4)
    rebuilt = image_bytes("rebuilt", rebuilt, 4, slack=sys.float_info.max)
    size, windows = patches.shape[1:3], as_arrays(windows)
    scale = _scale(image, 300)
    outline = _outlines(windows, size, len(patches))
    y, x = (scale * (np.asarray(means) - 0.5) for means in attention.filter_grid(windows, size))
    radius_x, radius_y = (scale * np.sqrt(variance) for variance in windows.variances)
    page = []
    for row in range(len(patches)):
        frame = _cell(image, scale, outline[row], _GREEN)
        reach = np.array([radius_x[row], radius_y[row]])
        # One far larger than the picture would not be seen as a circle, and takes Pillow minutes.
        if np.isfinite(outline[row]).all() and reach.max() < 4 * max(frame.size):
            for center in np.stack([x[row], y[row]], axis=-1).reshape(-1, 2):
                box = [*(center - reach), *(center + reach)]
                ImageDraw.Draw(frame).ellipse(box, outline=_RED)
        patch = _patch(patches[row], frame.height, frame.height)
        page.append([frame, patch, _cell(rebuilt[row], scale)])
    _save(path, _tile(page))


def save_animation(
    path: str | pathlib.Path,
    frames: Shaped[np.ndarray, "T count height width channels"],
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
    frames = image_bytes("frames", frames, 5)
    steps, count = frames.shape[:2]
    scale = scale or _scale(frames)
    outline = _outlines(windows, patch_size, steps, count)
    pages = []
    for t in range(steps):
        cells = [_cell(frames[t, i], scale, outline[t, i], thin=True) for i in range(count)]
        pages.append(_tile(_rows(cells, columns)))
    pages.append(_tile(_rows([_cell(frame, scale) for frame in frames[-1]], columns)))
    durations = [milliseconds] * steps + [2_000]
    _save(path, *pages, save_all=True, duration=durations, loop=0)


def save_drawing(
    path: str | pathlib.Path,
    frames: Shaped[np.ndarray, "T count height width channels"],
    *,
    title: str,
    description: str,
    write: tuple[Window, attention.PatchSize] | None = None,
    read: tuple[Window, attention.PatchSize] | None = None,
    kl: Sequence[float] | None = None,
    beside: Shaped[np.ndarray, "count height width channels"] | None = None,
) -> None:
    """Writes what the report's player needs of drawing sequences, as JSON.

    Args:
      path: JSON file to write; the report takes all `*.drawing.json` of a folder.
      frames: floats in [0, 1], or bytes.
      title: a line above the player.
      description: for those who do not see the picture.
      write: write windows, fields `[T, count]`, and their N; None without.
      read: read windows alike.
      kl: nats of each step, mean over images.
      beside: still images, shown to the left of each drawing: what is redrawn.

    Raises:
      ValueError: if frames, windows or still images are of other shapes or values.
    """
    frames = image_bytes("frames", frames, 5)
    steps, count, height, width, _ = frames.shape
    if kl is not None and len(kl) != steps:
        raise ValueError(f"kl must be {steps} numbers, got {len(kl)}")
    still = None
    if beside is not None:
        beside = image_bytes("beside", beside, 4)
        if beside.shape[:-1] != frames.shape[1:-1]:
            raise ValueError(
                f"beside must be {count} images of {height}x{width}, got {list(beside.shape)}"
            )
        still = _sprite(beside[None])

    def corners(windows: tuple[Window, attention.PatchSize] | None) -> Any:
        return None if windows is None else np.round(_outlines(*windows, steps, count)[..., :8], 2)

    drawing = {
        "title": title,
        "description": description,
        "steps": steps,
        "count": count,
        "height": height,
        "width": width,
        "sprite": _sprite(frames),
        "beside": still,
        "write": corners(write),
        "read": corners(read),
        "kl": None if kl is None else [float(value) for value in kl],
    }
    write_atomically(pathlib.Path(path).expanduser(), to_json(drawing))


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
      entries: of `metrics.jsonl`, as `drawjax.files.read_metrics` gives them.
      names: which of their values to plot.
      unit: of the values.
    """
    save_plot(path, lambda: _plot_curves(entries, names, unit))


def save_plot(path: str | pathlib.Path, plot: Callable[[], Any]) -> None:
    """Writes a figure of Matplotlib's, whole or not at all, whatever the user's matplotlibrc says.

    Args:
      path: picture to write; its suffix is the format.
      plot: makes the figure.
    """
    # Half a second to import, which drawing a model can do without.
    import matplotlib

    path, buffer = pathlib.Path(path).expanduser(), io.BytesIO()
    # As everywhere, whatever the user's matplotlibrc asks for (LaTeX, a style); no backend: a
    # figure made by itself is drawn by the one of its file's format.
    defaults: Any = {k: v for k, v in matplotlib.rcParamsDefault.items() if k != "backend"}
    with matplotlib.rc_context(defaults):
        plot().savefig(buffer, format=path.suffix.removeprefix(".") or "png", dpi=120)
    write_atomically(path, buffer.getvalue())


def _plot_curves(entries: Sequence[dict[str, Any]], names: Sequence[str], unit: str) -> Any:
    from matplotlib.figure import Figure

    begin = 0.1 * max((entry["step"] for entry in entries), default=0)
    ratios = [2, *[1] * (len(names) - 1)]
    figure = Figure(figsize=(7, 1.8 * sum(ratios)), layout="constrained")
    panels = figure.subplots(len(names), sharex=True, squeeze=False, height_ratios=ratios)[:, 0]
    for axes, name, color in zip(panels, names, itertools.cycle(("C3", "C0", "C2")), strict=False):
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
    return figure


def _outlines(
    windows: Window | None, patch_size: attention.PatchSize | None, *shape: int
) -> np.ndarray:
    """Corners and standard deviation, `[*shape, 9]`; NaN where there is none to draw."""
    if windows is None:
        return np.full((*shape, 9), math.nan)
    if patch_size is None:
        raise ValueError("windows need a patch_size, their N")
    corners, deviations = outlines(windows, patch_size)
    if deviations.shape != shape:
        raise ValueError(f"windows must have fields {list(shape)}, got {list(deviations.shape)}")
    return np.concatenate([corners.reshape(*shape, 8), deviations[..., None]], axis=-1)


def _cell(
    image: np.ndarray,
    scale: int,
    outline: np.ndarray | None = None,
    color: tuple[int, int, int] = _RED,
    *,
    thin: bool = False,
) -> Image.Image:
    """One image of bytes, enlarged, with a window as wide as its filters, up to a pixel."""
    height, width, channels = image.shape
    pixels = np.repeat(image, 3 // channels, axis=-1)
    cell = Image.fromarray(pixels).resize((width * scale, height * scale), Image.Resampling.NEAREST)
    if outline is not None and np.isfinite(outline).all():
        line = 1 if thin else int(np.clip(round(outline[8] * scale), 1, scale))
        corners = np.clip(outline[:8] * scale, -1e4, 1e4).tolist()
        ImageDraw.Draw(cell).polygon(corners, outline=color, width=line)
    return cell


def _patch(patch: np.ndarray, size: int, height: int) -> Image.Image:
    """A patch enlarged to at most `size`, in the middle of a column of that height."""
    cell = _cell(patch, max(1, size // max(patch.shape[:2])))
    column = Image.new("RGB", (cell.width, height), _GROUND)
    column.paste(cell, (0, (height - cell.height) // 2))
    return column


def _rows(cells: list[Image.Image], columns: int | None) -> list[list[Image.Image]]:
    """Cells in rows of so many; by default as square as can be."""
    columns = columns or math.ceil(math.sqrt(len(cells)))
    return [cells[i : i + columns] for i in range(0, len(cells), columns)]


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


def _scale(images: np.ndarray, side: int = 84) -> int:
    """The factor that makes the longer side of `[..., height, width, channels]` about `side`."""
    return max(1, round(side / max(images.shape[-3:-1])))


def _save(path: str | pathlib.Path, page: Image.Image, *more: Image.Image, **options: Any) -> None:
    """Writes a picture in the format of the path's suffix, of several pages if there are more."""
    path, buffer = pathlib.Path(path).expanduser(), io.BytesIO()
    buffer.name = path.name  # Pillow reads the format from it
    if more:
        options["append_images"] = more
    page.save(buffer, **options)
    write_atomically(path, buffer.getvalue())


def _sprite(frames: np.ndarray) -> str:
    """One PNG of all frames of bytes, as a data URL: a column per image, a row per step."""
    steps, count, height, width, channels = frames.shape
    sheet = frames.transpose(0, 2, 1, 3, 4).reshape(steps * height, count * width, channels)
    buffer = io.BytesIO()
    Image.fromarray(sheet[..., 0] if channels == 1 else sheet).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
