"""Pictures of a generating model and the report with them: some in training, all at the end."""

import math
import pathlib
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from drawjax import data, figures, report
from drawjax.progress import announced, track
from drawjax.recipes.neighbors import nearest_images
from drawjax.training.metrics import read_metrics

if TYPE_CHECKING:
    from drawjax.recipes.generation import Generation

__all__ = ["draw_figures", "show"]

_ROWS = 8  # drawing sequences that are shown
_REDRAWN = 100  # images whose KL by step is averaged


def show(work: "Generation", folder: pathlib.Path, params: Any) -> None:
    """Brings a run's report up to date while it trains.

    With parameters, after an evaluation, also samples.png and the drawings; those of images are
    from the validation split.
    """
    if params is not None:
        frames, _ = _from_prior(work, params, folder)
        columns = math.isqrt(work.config.samples)
        figures.save_grid(folder / "samples.png", frames[-1][: columns**2], columns=columns)
        _redrawn(work, params, folder, "validation", work.images.validation)
    report.write_report([folder])


def draw_figures(work: "Generation", params: Any, folder: pathlib.Path) -> None:
    """Writes the pictures of a run.

    samples.png: images from the prior; the last column is the training image nearest to the
    sample beside it (Fig. 6). drawing.png, drawing.gif: how the first of them were drawn (Figs. 1,
    7). reconstructions.png: test images above what the model makes of them. loss.png: the curves.
    report.html: all of it, with the drawings as a player.
    """
    columns, size = math.isqrt(work.config.samples), work.config.model.write_size
    with announced("drawing figures"):
        frames, windows = _from_prior(work, params, folder)
        shown = frames[:, :_ROWS]
        figures.save_sequence(folder / "drawing.png", shown, windows, patch_size=size)
        figures.save_animation(folder / "drawing.gif", shown, windows, patch_size=size)
        images, means = _redrawn(work, params, folder, "test", work.images.test)
        figures.save_grid(
            folder / "reconstructions.png",
            np.concatenate([images[:columns], means[:columns]]),
            columns=min(columns, len(means)),
        )
        (folder / "validation.drawing.json").unlink(missing_ok=True)
        figures.save_curves(folder / "loss.png", read_metrics(folder))
    train = work.images.train
    edge = frames[-1][columns - 1 : columns**2 : columns]
    candidates = track(
        work.seen(train), "looking for nearest training images", len(train), each=1_000
    )
    figures.save_grid(
        folder / "samples.png",
        frames[-1][: columns**2],
        columns=columns,
        beside=nearest_images(jnp.asarray(edge), candidates),
    )
    report.write_report([folder])


def _from_prior(work: "Generation", params: Any, folder: pathlib.Path) -> tuple[np.ndarray, Any]:
    """All canvases `[T, samples, height, width, channels]`, and the first few's windows."""
    trace = work.sample(params, work.config.samples, jax.random.key(work.config.train.seed))
    frames = np.asarray(jax.nn.sigmoid(trace.canvases))
    shown = frames[:, :_ROWS]
    windows = _first(trace.write_windows, shown.shape[1])
    report.save_drawing(
        folder / "prior.drawing.json",
        shown,
        title="Drawn from the prior",
        description=f"{shown.shape[1]} images drawn from noise in {len(shown)} steps.",
        write=_with_size(windows, work.config.model.write_size),
    )
    return frames, windows


def _redrawn(
    work: "Generation", params: Any, folder: pathlib.Path, split: str, source: data.Source
) -> tuple[np.ndarray, np.ndarray]:
    """Images of a split and what the model makes of them, `[count, height, width, channels]`."""
    images = next(iter(work.seen(source)))[0][: min(_REDRAWN, len(source))]
    trace = work.reconstruct(params, images)
    shown = np.asarray(jax.nn.sigmoid(trace.canvases[:, :_ROWS]))
    count, model = shown.shape[1], work.config.model
    report.save_drawing(
        folder / f"{split}.drawing.json",
        shown,
        title=f"{split.capitalize()} images redrawn",
        description=f"{count} {split} images redrawn in {len(shown)} steps.",
        write=_with_size(_first(trace.write_windows, count), model.write_size),
        read=_with_size(_first(trace.read_windows, count), model.read_size),
        kl=np.asarray(trace.kl).mean(axis=1).tolist(),
    )
    return np.asarray(images), np.asarray(jax.nn.sigmoid(trace.canvases[-1]))


def _first(windows: Any, count: int) -> Any:
    return jax.tree.map(lambda field: np.asarray(field[:, :count]), windows)


def _with_size(windows: Any, size: int | None) -> tuple[Any, int] | None:
    return None if size is None else (windows, size)
