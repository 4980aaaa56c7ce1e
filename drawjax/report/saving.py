"""Drawings that a run leaves for the player of its report."""

import base64
import io
import pathlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Shaped
from PIL import Image

from drawjax import figures
from drawjax.attention import PatchSize, Window
from drawjax.files import to_json, write_atomically


def save_drawing(
    path: str | pathlib.Path,
    frames: Shaped[np.ndarray, "T count height width channels"],
    *,
    title: str,
    description: str,
    write: tuple[Window, PatchSize] | None = None,
    read: tuple[Window, PatchSize] | None = None,
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
      ValueError: as the figures of `drawjax.figures`.
    """
    frames = figures.image_bytes("frames", frames, 5)
    still = None
    if beside is not None:
        still = _sprite(figures.image_bytes("beside", beside, 4)[None])
    steps, count, height, width, _ = frames.shape
    drawing = {
        "title": title,
        "description": description,
        "steps": steps,
        "count": count,
        "height": height,
        "width": width,
        "sprite": _sprite(frames),
        "beside": still,
        "write": _outlines(write),
        "read": _outlines(read),
        "kl": None if kl is None else [float(value) for value in kl],
    }
    write_atomically(pathlib.Path(path).expanduser(), to_json(drawing))


def _sprite(frames: np.ndarray) -> str:
    """One PNG of all frames of bytes, as a data URL: a column per image, a row per step."""
    steps, count, height, width, channels = frames.shape
    sheet = frames.transpose(0, 2, 1, 3, 4).reshape(steps * height, count * width, channels)
    buffer = io.BytesIO()
    Image.fromarray(sheet[..., 0] if channels == 1 else sheet).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _outlines(windows: tuple[Window, PatchSize] | None) -> list[list[list[float]]] | None:
    """Corners of `figures.outlines`, flat: `[T][count][8]`."""
    if windows is None:
        return None
    corners, _ = figures.outlines(*windows)
    return np.round(corners.reshape(*corners.shape[:2], 8), 2).tolist()
