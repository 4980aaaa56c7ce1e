"""What a run folder shows of a generating model: pictures of arrays, players for its report."""

import pathlib
from typing import Any

import jax
import numpy as np

from drawjax import figures, report
from drawjax.draw import DrawOutput, Model
from drawjax.training.metrics import read_metrics

__all__ = ["save_drawings", "save_finally", "save_samples"]

_ROWS = 8  # drawing sequences that are shown
_PAIRS = 25  # images beside their reconstruction


def save_drawings(
    folder: pathlib.Path,
    model: Model,
    prior: DrawOutput,
    images: jax.Array,
    redrawn: DrawOutput,
    *,
    split: str,
    read_size: int | None,
    write_size: int | None,
) -> None:
    """Writes a report's players: images drawn from the prior, and images of a split redrawn."""
    frames = _frames(model, prior)
    report.save_drawing(
        folder / "prior.drawing.json",
        frames,
        title="Drawn from the prior",
        description=f"{frames.shape[1]} images drawn from noise in {len(frames)} steps.",
        write=_with_size(prior.write_windows, write_size),
    )
    frames = _frames(model, redrawn)
    report.save_drawing(
        folder / f"{split}.drawing.json",
        frames,
        title=f"{split.capitalize()} images redrawn",
        description=f"{frames.shape[1]} {split} images, and beside each how it is redrawn in "
        f"{len(frames)} steps.",
        beside=np.asarray(images)[:_ROWS],
        write=_with_size(redrawn.write_windows, write_size),
        read=_with_size(redrawn.read_windows, read_size),
        kl=np.asarray(redrawn.kl).mean(axis=1).tolist(),
    )


def save_finally(
    folder: pathlib.Path,
    model: Model,
    prior: DrawOutput,
    images: jax.Array,
    redrawn: DrawOutput,
    *,
    write_size: int | None,
) -> None:
    """Writes the pictures of a finished run.

    drawing.png, drawing.gif: how the first samples were drawn (Figs. 1, 7). reconstructions.png:
    test images, and to the right of each what the model makes of it. loss.png: the curves.
    """
    frames, windows = _frames(model, prior), _first(prior.write_windows)
    figures.save_sequence(folder / "drawing.png", frames, windows, patch_size=write_size)
    figures.save_animation(folder / "drawing.gif", frames, windows, patch_size=write_size)
    figures.save_pairs(
        folder / "reconstructions.png",
        np.asarray(images)[:_PAIRS],
        np.asarray(redrawn.images)[:_PAIRS],
    )
    (folder / "validation.drawing.json").unlink(missing_ok=True)
    figures.save_curves(folder / "loss.png", read_metrics(folder))


def save_samples(
    folder: pathlib.Path, prior: DrawOutput, columns: int, beside: np.ndarray | None
) -> None:
    """Writes samples.png; its last column is the training image nearest to the sample beside it."""
    images = np.asarray(prior.images)[: columns**2]
    figures.save_grid(folder / "samples.png", images, columns=columns, beside=beside)


def _frames(model: Model, output: DrawOutput) -> np.ndarray:
    """The drawings that are shown, `[T, rows, height, width, channels]` in [0, 1]."""
    return np.asarray(model.likelihood(output.canvases[:, :_ROWS]).mean)


def _first(windows: Any) -> Any:
    return jax.tree.map(lambda field: np.asarray(field[:, :_ROWS]), windows)


def _with_size(windows: Any, size: int | None) -> tuple[Any, int] | None:
    return None if size is None or windows is None else (_first(windows), size)
