"""Classification by glimpses: the Differentiable RAM on cluttered digits (Sec. 4.1)."""

import dataclasses
import functools
import json
import logging
import pathlib
import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from drawjax import data, figures, modules, ram, report
from drawjax.data import DataConfig
from drawjax.data.clutter import cluttered
from drawjax.progress import announced
from drawjax.recipes.evaluation import evaluation_batches, evaluation_key
from drawjax.recipes.together import loader, only, run_together
from drawjax.recipes.work import RecipeConfig, Work
from drawjax.training import Diverged, Run, mesh
from drawjax.training.metrics import read_metrics

__all__ = ["Classification", "ClassificationConfig", "run", "run_points"]

_log = logging.getLogger(__name__)

_EVALUATION_BATCH = 500  # images with one key between them; part of what fixes the test set


@dataclasses.dataclass(frozen=True)
class ClassificationConfig(RecipeConfig):
    """A run of the cluttered-digit experiment."""

    data: DataConfig = dataclasses.field(default_factory=lambda: DataConfig(binarization="none"))
    model: modules.RamConfig = dataclasses.field(default_factory=modules.RamConfig)
    size: int = 100
    """Side of the cluttered image in pixels."""
    pieces: int = 8
    """Pieces of other digits in an image, 8x8 pixels each."""


@dataclasses.dataclass(frozen=True)
class Classification(Work[ClassificationConfig, modules.Ram]):
    """A classifying model bound to its data; every training image is made anew, none seen twice."""

    def model(self, key: jax.Array) -> modules.Ram:
        """The Differentiable RAM with fresh parameters."""
        shape = (self.config.size, self.config.size, self.images.image_shape[2])
        return modules.Ram(self.config.model, shape, key=key)

    def mean_loss(
        self, params: Any, batch: dict[str, Any], key: jax.Array, constants: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The cross-entropy in nats, and the error in percent."""
        cross_entropy, wrong = map(jnp.mean, self._losses(params, batch, key, constants))
        return cross_entropy, {"error": 100 * wrong}

    def constants(self) -> jax.Array:
        """The digits that pieces are cut from."""
        return _pool(self.images.train)

    def clutter(self, batch: dict[str, Any], key: jax.Array, pool: jax.Array) -> jax.Array:
        """The cluttered images of a batch of digits, `[batch, size, size, 1]`; inside jit."""
        return cluttered(
            key, pool, batch["image"], size=self.config.size, pieces=self.config.pieces
        )

    def evaluate(self, params: Any, source: data.Source) -> dict[str, float]:
        """Error in percent over a source's digits, each in one fixed clutter of its own split.

        Returns:
          `error` in percent with its `standard_error`, the mean cross-entropy `loss` in nats, and
          the number of `images`.
        """
        pool, count = _pool(source), len(source)
        losses, wrongs = [], []
        for batch, weight, key in evaluation_batches(
            source, count, _EVALUATION_BATCH, "evaluating"
        ):
            values = self._jitted(params, batch, key, pool)
            loss, wrong = (np.asarray(value)[weight > 0] for value in values)
            losses.append(loss)
            wrongs.append(wrong)
        error = float(np.concatenate(wrongs).mean())
        return {
            "loss": float(np.concatenate(losses).mean()),
            "error": 100 * error,
            "standard_error": 100 * float(np.sqrt(error * (1 - error) / count)),
            "images": count,
        }

    def show(self, folder: pathlib.Path, params: Any) -> None:
        """Brings a run's report up to date; with parameters also its glimpses (validation)."""
        if params is not None:
            _save_glimpses(self, params, folder, self.images.validation, "validation")
        report.write_report([folder])

    def look(
        self, params: Any, count: int, source: data.Source
    ) -> tuple[jax.Array, np.ndarray, ram.Glimpses]:
        """The first images of a source in their clutter, their labels, and the glimpses taken."""
        size = min(_EVALUATION_BATCH, len(source))
        batch, _ = next(data.eval_batches(source, batch_size=size))
        images = self.clutter(batch, evaluation_key(0), _pool(source))[:count]
        glimpses = self._glimpses(params, images)
        return images, batch["label"][:count], glimpses

    @functools.cached_property
    def _glimpses(self) -> Any:
        return jax.jit(
            lambda params, images: ram.classify(
                self.networks(params), images, self.config.model.num_glimpses
            )
        )

    def _losses(
        self, params: Any, batch: dict[str, Any], key: jax.Array, pool: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Each image's cross-entropy, and whether it is named wrongly."""
        images = self.clutter(batch, key, pool)
        glimpses = ram.classify(self.networks(params), images, self.config.model.num_glimpses)
        return ram.loss(glimpses.logits, batch["label"])

    @functools.cached_property
    def _jitted(self) -> Any:
        return jax.jit(self._losses)


def run(config: ClassificationConfig, default_set: str) -> dict[str, Any]:
    """Trains, or goes on training, then evaluates on the test set and draws the figures.

    Returns:
      What it wrote to `results.json`.

    Raises:
      Diverged: if the loss was not finite for too long.
    """
    return only(run_points([config], default_set))


def run_points(
    configs: Sequence[ClassificationConfig], default_set: str
) -> list[dict[str, Any] | Diverged]:
    """As `run`, for points of a sweep that can be trained together."""
    load = loader(default_set)
    return run_together(configs, lambda config: Classification(config, load(config.data)), _finish)


def _finish(
    work: Classification, folder: Run, best: Any, validation: dict[str, float], seconds: float
) -> dict[str, Any]:
    """Evaluates and draws, into the run's folder."""
    images = work.images
    started = time.monotonic()
    results: dict[str, Any] = {}
    if work.config.mode != "draw":
        results = {
            "data": images.name,
            "notes": list(images.notes),
            "validation": validation,
            "test": work.evaluate(best, images.test),
            "parameters": modules.parameter_count(best),
            "image_shape": [work.config.size, work.config.size, images.image_shape[2]],
            "seconds": round(seconds + time.monotonic() - started, 1),
            "device": mesh.devices(),
        }
        text = json.dumps(results, indent=2)
        (folder.workdir / "results.json").write_text(text + "\n")
        test = results["test"]
        _log.info("test error: %.2f +- %.2f %% of %d images",
                  test["error"], test["standard_error"], test["images"])  # fmt: skip
    draw_figures(work, best, folder.workdir)
    _log.info("done: %s", folder.workdir)
    return results


def draw_figures(work: Classification, params: Any, folder: pathlib.Path) -> None:
    """Writes glimpses.png (Fig. 5) and loss.png."""
    with announced("drawing figures"):
        _save_glimpses(work, params, folder, work.images.test, "test")
        figures.save_curves(folder / "loss.png", read_metrics(folder), names=("loss",))
        report.write_report([folder])


def _save_glimpses(
    work: Classification, params: Any, folder: pathlib.Path, source: data.Source, split: str
) -> None:
    """Writes glimpses.png, and the same for the report's player."""
    images, labels, glimpses = jax.tree.map(np.asarray, work.look(params, 6, source))
    named = np.argmax(glimpses.logits, axis=-1)
    figures.save_glimpses(
        folder / "glimpses.png",
        images,
        glimpses.windows,
        glimpses.patches / glimpses.windows.intensity[..., None, None, None],
        titles=[f"{label}, named {name}" for label, name in zip(labels, named, strict=True)],
    )
    report.save_drawing(
        folder / "glimpses.drawing.json",
        np.broadcast_to(images, (len(glimpses.patches), *images.shape)),
        title=f"Where the model looks at {split} images",
        description=f"{len(images)} {split} images, and the window of each glimpse on them.",
        read=(glimpses.windows, work.config.model.read_size),
    )


def _pool(source: data.Source) -> jax.Array:
    """All digits of a source, which the pieces are cut from; `[n, 28, 28, 1]` uint8."""
    if not isinstance(source, data.ArraySource):
        raise ValueError("pieces are cut from digits held in memory, and this set is too large")
    return jnp.asarray(source.images)
