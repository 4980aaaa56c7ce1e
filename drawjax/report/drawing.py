"""Drawing sequences as data for the report's player."""

import base64
import io
import json
import pathlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from PIL import Image

from drawjax import figures
from drawjax.attention import PatchSize, Window

__all__ = ["save_drawing"]


def save_drawing(
    path: str | pathlib.Path,
    frames: Float[np.ndarray, "T count height width channels"],
    *,
    title: str,
    description: str,
    write: tuple[Window, PatchSize] | None = None,
    read: tuple[Window, PatchSize] | None = None,
    kl: Sequence[float] | None = None,
    beside: Float[np.ndarray, "count height width channels"] | None = None,
) -> None:
    """Writes what the report's player needs of drawing sequences, as JSON.

    Args:
      path: JSON file to write; the report takes all `*.drawing.json` of a folder.
      frames: values in [0, 1].
      title: a line above the player.
      description: for those who do not see the picture.
      write: write windows, fields `[T, count]`, and their N; None without.
      read: read windows alike.
      kl: nats of each step, mean over images.
      beside: still images, shown to the left of each drawing: what is redrawn.
    """
    steps, count, height, width, _ = frames.shape
    drawing = {
        "title": title,
        "description": description,
        "steps": steps,
        "count": count,
        "height": height,
        "width": width,
        "sprite": _sprite(frames),
        "beside": None if beside is None else _sprite(beside[None]),
        "write": _outlines(write),
        "read": _outlines(read),
        "kl": None if kl is None else [float(value) for value in kl],
    }
    path = pathlib.Path(path)
    draft = path.with_suffix(".tmp")  # who reads meanwhile sees the old or the new one
    draft.write_text(json.dumps(drawing))
    draft.replace(path)


def _sprite(frames: np.ndarray) -> str:
    """One PNG of all frames, as an address: a column an image, a row a step."""
    steps, count, height, width, channels = frames.shape
    pixels = np.clip(np.round(255 * np.nan_to_num(frames)), 0, 255).astype(np.uint8)
    sheet = pixels.transpose(0, 2, 1, 3, 4).reshape(steps * height, count * width, channels)
    buffer = io.BytesIO()
    Image.fromarray(sheet[..., 0] if channels == 1 else sheet).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _outlines(windows: tuple[Window, PatchSize] | None) -> list[list[list[float]]] | None:
    """Corners of `figures.outlines`, flat: `[T][count][8]`."""
    if windows is None or windows[0] is None:
        return None
    corners, _ = figures.outlines(*windows)
    return np.round(corners.reshape(*corners.shape[:2], 8), 2).tolist()
