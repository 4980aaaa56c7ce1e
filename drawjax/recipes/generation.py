"""Generation: DRAW trained on images, evaluated, and made to draw (Sec. 4.2-4.5)."""

import dataclasses
import functools
import json
import logging
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from drawjax import data, draw, modules
from drawjax.data import ImageSet
from drawjax.recipes import pictures
from drawjax.recipes.bounds import bits_per_dimension, importance_weighted
from drawjax.recipes.evaluation import evaluation_batches, evaluation_key, standard_error
from drawjax.recipes.together import loader, only, run_together
from drawjax.recipes.work import RecipeConfig, Work
from drawjax.training import Diverged, Run, mesh

__all__ = ["Generation", "GenerationConfig", "View", "run", "run_points"]

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class GenerationConfig(RecipeConfig):
    """A run of a generation experiment."""

    model: modules.DrawConfig = dataclasses.field(default_factory=modules.DrawConfig)
    eval_batch_size: int = 200
    """Images a batch in evaluation."""
    importance_samples: int = 0
    """K of the importance-weighted bound on the test set; 0 leaves it out."""
    importance_images: int | None = None
    """On how many test images it is estimated, the first ones; None: all of them."""
    samples: int = 100
    """How many images to generate for the figures."""

    def __post_init__(self):
        for name in ("eval_batch_size", "samples"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.importance_images is not None and self.importance_images < 2:
            raise ValueError(f"importance_images must be at least 2, got {self.importance_images}")
        if self.importance_samples < 0:
            raise ValueError(f"importance_samples must not be negative: {self.importance_samples}")


@dataclasses.dataclass(frozen=True)
class View:
    """How a batch of a set becomes what the model sees; differs between experiments."""

    image_shape: tuple[int, int, int]  #: (height, width, channels)
    images: Callable[[dict[str, Any], jax.Array, bool], jax.Array]
    """(batch, key, training) -> `[batch, height, width, channels]` in [0, 1]; inside jit."""


def plain_view(config: GenerationConfig, images: ImageSet) -> View:
    """The set's own images, binarized as the config says."""

    def see(batch: dict[str, Any], key: jax.Array, training: bool) -> jax.Array:
        del training
        return data.binarize(data.to_unit(batch["image"]), config.data.binarization, key)

    return View(images.image_shape, see)


@dataclasses.dataclass(frozen=True)
class Generation(Work[GenerationConfig, modules.Draw]):
    """A generating model bound to its data."""

    view: View

    def model(self, key: jax.Array) -> modules.Draw:
        """DRAW with fresh parameters."""
        return modules.Draw(self.config.model, self.view.image_shape, key=key)

    def mean_loss(
        self, params: Any, batch: dict[str, Any], key: jax.Array, constants: Any
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Eq. 12, and its parts."""
        del constants
        parts = jax.tree.map(jnp.mean, self._losses(params, batch, key, training=True))
        return parts["reconstruction"] + parts["latent"], parts

    def show(self, folder: pathlib.Path, params: Any) -> None:
        """Brings a run's report up to date; with parameters its pictures too (validation)."""
        pictures.show(self, folder, params)

    def evaluate(self, params: Any, source: data.Source) -> dict[str, float]:
        """The negative bound (Eq. 12) on every image of a source, one sample of z an image.

        The noise, and the binarization if it is dynamic, are drawn by a fixed key.

        Args:
          params: the model's parameters.
          source: the images.

        Returns:
          Means over images in nats: `loss` (with `standard_error`), its parts `reconstruction` and
          `latent`, and the number of `images`.
        """
        columns: dict[str, list[np.ndarray]] = {}
        for batch, weight, key in evaluation_batches(
            source, len(source), self.config.eval_batch_size, "evaluating"
        ):
            values = self._jitted(params, batch, key)
            for name, value in values.items():
                columns.setdefault(name, []).append(np.asarray(value)[weight > 0])
        parts = {name: np.concatenate(column).astype(float) for name, column in columns.items()}
        parts = {"loss": parts["reconstruction"] + parts["latent"], **parts}
        result: dict[str, float] = {"images": len(parts["loss"])}
        for name, values in parts.items():
            result[name] = float(values.mean())
        result["standard_error"] = standard_error(parts["loss"])
        return result

    def sample(self, params: Any, count: int, key: jax.Array) -> draw.Trace:
        """`count` images from the prior, Eq. 13-16, with every step of the drawing."""
        model = self.config.model
        return self._generate(
            params, jax.random.normal(key, (model.num_glimpses, count, model.latent_size))
        )

    def reconstruct(self, params: Any, images: jax.Array) -> draw.Trace:
        """Images drawn again from their posterior's means, with every step of the drawing."""
        return self._reconstruct(params, images)

    def seen(self, source: data.Source) -> Any:
        """Yields `(images, weight)` of a source in order, as the model sees them untrained on."""
        size = min(1_000, len(source))
        for number, (batch, weight) in enumerate(data.eval_batches(source, batch_size=size)):
            yield self._see(batch, evaluation_key(number)), weight

    def _losses(
        self, params: Any, batch: Any, key: jax.Array, *, training: bool
    ) -> dict[str, jax.Array]:
        """L^x and L^z of each image in nats, `[batch]`."""
        image_key, noise_key = jax.random.split(key)
        images = self.view.images(batch, image_key, training)
        model = self.config.model
        noise = jax.random.normal(
            noise_key, (model.num_glimpses, images.shape[0], model.latent_size)
        )
        reconstruction, latent = draw.loss(
            self.networks(params), images, noise, remat=model.remat, clip_ratio=model.clip_ratio
        )
        return {"reconstruction": reconstruction, "latent": latent}

    @functools.cached_property
    def _see(self) -> Any:
        return jax.jit(lambda batch, key: self.view.images(batch, key, False))

    @functools.cached_property
    def _generate(self) -> Any:
        return jax.jit(lambda params, noise: draw.generate(self.networks(params), noise))

    @functools.cached_property
    def _reconstruct(self) -> Any:
        return jax.jit(
            lambda params, images: draw.reconstruct(
                self.networks(params), images, self.config.model.num_glimpses
            )
        )

    @functools.cached_property
    def _jitted(self) -> Any:
        return jax.jit(functools.partial(self._losses, training=False))


def run(
    config: GenerationConfig,
    default_set: str,
    view: Callable[[GenerationConfig, ImageSet], View] = plain_view,
) -> dict[str, Any]:
    """Trains, or goes on training, then evaluates on the test set and draws the figures.

    Args:
      config: what to do, and where.
      default_set: the experiment's own set, used where `config.data.name` is None.
      view: how the set's records become what the model sees.

    Returns:
      What it wrote to `results.json`.

    Raises:
      Diverged: if the loss was not finite for too long.
    """
    return only(run_points([config], default_set, view))


def run_points(
    configs: Sequence[GenerationConfig],
    default_set: str,
    view: Callable[[GenerationConfig, ImageSet], View] = plain_view,
) -> list[dict[str, Any] | Diverged]:
    """As `run`, for points of a sweep that can be trained together."""
    load = loader(default_set)

    def bind(config: GenerationConfig) -> Generation:
        images = load(config.data)
        return Generation(config, images, view(config, images))

    return run_together(configs, bind, _finish)


def _finish(
    work: Generation, folder: Run, best: Any, validation: dict[str, float], seconds: float
) -> dict[str, Any]:
    """Evaluates and draws, into the run's folder."""
    config, images = work.config, work.images
    started = time.monotonic()
    results: dict[str, Any] = {}
    if config.mode != "draw":
        _log.info("evaluating on %d test images", len(images.test))
        results = {
            "data": images.name,
            "binarization": config.data.binarization,
            "notes": list(images.notes),
            "validation": validation,
            "test": work.evaluate(best, images.test),
            "parameters": modules.parameter_count(best),
            "image_shape": list(work.view.image_shape),
            "seconds": round(seconds + time.monotonic() - started, 1),
            "device": mesh.devices(),
        }
        if config.importance_samples:
            results["test"] |= importance_weighted(
                work, best, images.test, config.importance_samples, config.importance_images
            )
        if config.data.binarization == "none":
            results["discretized"] = bits_per_dimension(work, best)
        text = json.dumps(results, indent=2)
        (folder.workdir / "results.json").write_text(text + "\n")
        _log.info("%s", _summary(results["test"]))
    pictures.draw_figures(work, best, folder.workdir)
    _log.info("done: %s", folder.workdir)
    return results


def _summary(test: dict[str, float]) -> str:
    line = (
        f"test: {test['loss']:.2f} +- {test['standard_error']:.2f} nats (reconstruction "
        f"{test['reconstruction']:.2f}, latent {test['latent']:.2f}) on {test['images']:,} images"
    )
    if "importance_weighted" in test:
        weighted, gain = (
            f"{test[name]:.2f} +- {test[f'{name}_standard_error']:.2f}"
            for name in ("importance_weighted", "importance_gain")
        )
        line += (
            f"; with {test['importance_samples']:,} samples {weighted} on "
            f"{test['importance_images']:,} images, {gain} less than with one"
        )
    return line
