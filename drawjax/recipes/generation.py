"""Generation: DRAW trained on images, evaluated, and made to draw (Sec. 4.2-4.5)."""

import dataclasses
import functools
import itertools
import json
import logging
import math
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal, cast

import jax
import jax.numpy as jnp
import numpy as np

from drawjax import data, draw, modules, objective
from drawjax.data import DataConfig, ImageSet
from drawjax.progress import track
from drawjax.recipes import pictures
from drawjax.recipes.together import run_together
from drawjax.training import Diverged, Run, Task, TrainConfig, mesh

__all__ = ["Generation", "GenerationConfig", "View", "run", "run_points"]

_log = logging.getLogger(__name__)

# The noise of every evaluation, and the binarisation if it is dynamic, come from this key.
_EVALUATION_SEED = 20150211


@dataclasses.dataclass(frozen=True)
class GenerationConfig:
    """A run of a generation experiment."""

    workdir: str = "runs/generation"
    """The run's folder; a run that was interrupted goes on from there."""
    mode: Literal["train", "evaluate", "draw"] = "train"
    """train: train (or go on), evaluate, draw. evaluate, draw: do so from the best checkpoint of a
    run; what says how it was trained is then read from its folder."""
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    model: modules.DrawConfig = dataclasses.field(default_factory=modules.DrawConfig)
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    eval_batch_size: int = 200
    """Images a batch in evaluation."""
    importance_samples: int = 0
    """K of the importance-weighted bound on the test set; 0 leaves it out."""
    samples: int = 100
    """How many images to generate for the figures."""
    start_from: str | None = None
    """A pretrained model's name, or a run's folder, whose parameters training starts from; None:
    fresh ones. evaluate, draw: those of workdir's run, or, if there is none, these."""

    def __post_init__(self):
        for name in ("eval_batch_size", "samples"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.importance_samples < 0:
            raise ValueError(f"importance_samples must not be negative: {self.importance_samples}")


@dataclasses.dataclass(frozen=True)
class View:
    """How a batch of a set becomes what the model sees; differs between experiments."""

    image_shape: tuple[int, int, int]  # (height, width, channels)
    images: Callable[[dict[str, Any], jax.Array, bool], jax.Array]
    """(batch, key, training) -> `[batch, height, width, channels]` in [0, 1]; inside jit."""


def plain_view(config: GenerationConfig, images: ImageSet) -> View:
    """The set's own images, binarised as the config says."""

    def see(batch: dict[str, Any], key: jax.Array, training: bool) -> jax.Array:
        del training
        return data.binarise(data.to_unit(batch["image"]), config.data.binarisation, key)

    return View(images.image_shape, see)


@dataclasses.dataclass(frozen=True)
class Generation:
    """A model bound to its data: all that training, evaluating and drawing need."""

    config: GenerationConfig
    images: ImageSet
    view: View
    start: Callable[[], Any] | None = None
    """Gives the parameters that training starts from; None: `init` does."""

    @functools.cached_property
    def graph(self) -> Any:
        """The model's structure, without its parameters."""
        return modules.split(self._model(jax.random.key(0)))[0]

    def init(self, key: jax.Array) -> Any:
        """Fresh parameters."""
        return modules.split(self._model(key))[1]

    def networks(self, params: Any) -> modules.Draw:
        """The model with parameters in it."""
        return modules.merge(self.graph, params)

    def task(self) -> Task:
        """The task of training the model, for `drawjax.training.train`."""

        def mean_loss(params, batch, key, constants):
            del constants
            parts = jax.tree.map(jnp.mean, self._losses(params, batch, key, training=True))
            return parts["reconstruction"] + parts["latent"], parts

        return Task(
            init=self.init,
            start=self.start,
            loss=mean_loss,
            batches=lambda seed: data.train_batches(
                self.images.train,
                batch_size=self.config.train.batch_size,
                seed=seed,
                process_index=jax.process_index(),
                process_count=jax.process_count(),
            ),
            evaluate=lambda params: self.evaluate(params, self.images.validation),
            show=functools.partial(pictures.show, self),
        )

    def evaluate(
        self, params: Any, source: data.Source, importance_samples: int = 0
    ) -> dict[str, float]:
        """The negative bound (Eq. 12) on every image of a source, one sample of z an image.

        The noise, and the binarisation if it is dynamic, are drawn by a fixed key.

        Args:
          params: the model's parameters.
          source: the images.
          importance_samples: K of the importance-weighted bound; 0 leaves it out.

        Returns:
          Means over images in nats: `loss` (with `standard_error`), its parts `reconstruction` and
          `latent`, the number of `images`, and with `importance_samples` also minus the K-sample
          bound, `importance_weighted`, with its standard error.
        """
        size = min(self.config.eval_batch_size, len(source))
        losses = self._weighted_losses(importance_samples) if importance_samples else self._jitted
        key = jax.random.key(_EVALUATION_SEED)
        columns: dict[str, list[np.ndarray]] = {}
        batches = track(
            data.eval_batches(source, batch_size=size), "evaluating", len(source), each=size
        )
        for number, (batch, weight) in enumerate(batches):
            values = losses(params, batch, jax.random.fold_in(key, number))
            for name, value in values.items():
                columns.setdefault(name, []).append(np.asarray(value)[weight > 0])
        parts = {name: np.concatenate(column).astype(float) for name, column in columns.items()}
        parts = {"loss": parts["reconstruction"] + parts["latent"], **parts}
        result: dict[str, float] = {"images": len(parts["loss"])}
        for name, values in parts.items():
            result[name] = float(values.mean())
        result["standard_error"] = _standard_error(parts["loss"])
        if importance_samples:
            result["importance_samples"] = importance_samples
            result["importance_weighted_standard_error"] = _standard_error(
                parts["importance_weighted"]
            )
        return result

    def bits_per_dimension(self, params: Any) -> dict[str, Any]:
        """A bound on the test set in bits per dimension, for images of 256 levels.

        The model's means get a discretised logistic emission whose scale, one number a channel, is
        the best of a grid on 2,000 training images.

        Returns:
          `bits_per_dimension`, its `standard_error`, and the `scales` chosen.
        """
        grid = jnp.linspace(-6.0, -0.5, 56)

        @jax.jit
        def losses(params, batch, key, log_scales):  # [S, channels] -> emission [S, batch], KL
            image_key, noise_key = jax.random.split(key)
            images = self.view.images(batch, image_key, False)
            model = self.config.model
            noise = jax.random.normal(noise_key, (model.steps, len(images), model.latents))
            trace = draw.infer(self.networks(params), images, noise)
            means = jax.nn.sigmoid(trace.canvases[-1])

            def emission(log_scale):
                one = jax.vmap(objective.discretised_logistic_loss, in_axes=(-1, -1, 0))
                return one(means[..., None, :], images[..., None, :], log_scale[:, None])

            return jax.lax.map(emission, log_scales), jnp.sum(cast(jax.Array, trace.kl), axis=0)

        def total(source, count, log_scales):  # sums over images: [S, channels, count], [count]
            size = min(self.config.eval_batch_size, count)
            emissions, kls = [], []
            batches = itertools.islice(
                data.eval_batches(source, batch_size=size), math.ceil(count / size)
            )
            what = "evaluating bits per dimension"
            for number, (batch, weight) in enumerate(track(batches, what, count, each=size)):
                key = jax.random.fold_in(jax.random.key(_EVALUATION_SEED), number)
                emission, kl = losses(params, batch, key, log_scales)
                emissions.append(np.asarray(emission)[..., weight > 0])
                kls.append(np.asarray(kl)[weight > 0])
            return np.concatenate(emissions, axis=-1), np.concatenate(kls)

        channels = self.view.image_shape[2]
        train = self.images.train
        fit, _ = total(train, min(2_000, len(train)), jnp.tile(grid[:, None], (1, channels)))
        best = grid[np.argmin(fit.sum(axis=-1), axis=0)]
        emission, kl = total(self.images.test, len(self.images.test), best[None])
        bits = (emission[0].sum(axis=0) + kl) / (math.prod(self.view.image_shape) * math.log(2))
        return {
            "bits_per_dimension": float(bits.mean()),
            "standard_error": _standard_error(bits),
            "scales": [float(scale) for scale in np.exp(best)],
        }

    def sample(self, params: Any, count: int, key: jax.Array) -> draw.Trace:
        """`count` images from the prior, Eq. 13-16, with every step of the drawing."""
        model = self.config.model
        return self._generate(params, jax.random.normal(key, (model.steps, count, model.latents)))

    def reconstruct(self, params: Any, images: jax.Array) -> draw.Trace:
        """Images drawn again from their posterior's means, with every step of the drawing."""
        return self._reconstruct(params, images)

    def seen(self, source: data.Source) -> Any:
        """Yields `(images, weight)` of a source in order, as the model sees them untrained on."""
        size = min(1_000, len(source))
        key = jax.random.key(_EVALUATION_SEED)
        for number, (batch, weight) in enumerate(data.eval_batches(source, batch_size=size)):
            yield self._see(batch, jax.random.fold_in(key, number)), weight

    def _model(self, key: jax.Array) -> modules.Draw:
        return modules.Draw(self.config.model, self.view.image_shape, key=key)

    def _losses(
        self, params: Any, batch: Any, key: jax.Array, *, training: bool
    ) -> dict[str, jax.Array]:
        """L^x and L^z of each image in nats, `[batch]`."""
        image_key, noise_key = jax.random.split(key)
        images = self.view.images(batch, image_key, training)
        model = self.config.model
        noise = jax.random.normal(noise_key, (model.steps, images.shape[0], model.latents))
        reconstruction, latent = draw.loss(self.networks(params), images, noise, remat=model.remat)
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
                self.networks(params), images, self.config.model.steps
            )
        )

    @functools.cached_property
    def _jitted(self) -> Any:
        return jax.jit(functools.partial(self._losses, training=False))

    def _weighted_losses(self, num_samples: int) -> Any:
        def losses(params, batch, key):
            image_key, noise_key = jax.random.split(key)
            images = self.view.images(batch, image_key, False)
            bound = draw.importance_weighted_bound(
                self.networks(params), images, noise_key, steps=self.config.model.steps,
                latents=self.config.model.latents, num_samples=num_samples,
                chunk=max(1, 1_000 // len(images)),
            )  # fmt: skip
            return {
                **self._losses(params, batch, key, training=False),
                "importance_weighted": -bound,
            }

        return jax.jit(losses)


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
    (outcome,) = run_points([config], default_set, view)
    if isinstance(outcome, Diverged):
        raise outcome
    return outcome


def run_points(
    configs: Sequence[GenerationConfig],
    default_set: str,
    view: Callable[[GenerationConfig, ImageSet], View] = plain_view,
) -> list[dict[str, Any] | Diverged]:
    """As `run`, for points of a sweep that can be trained together."""

    @functools.cache
    def load(config: DataConfig) -> ImageSet:
        images = data.load(config, default_set)
        for note in images.notes:
            _log.info("%s", note)
        return images

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
            "binarisation": config.data.binarisation,
            "notes": list(images.notes),
            "validation": validation,
            "test": work.evaluate(best, images.test, config.importance_samples),
            "parameters": modules.parameter_count(best),
            "image_shape": list(work.view.image_shape),
            "seconds": round(seconds + time.monotonic() - started, 1),
            "device": mesh.devices(),
        }
        if config.data.binarisation == "none":
            results["discretised"] = work.bits_per_dimension(best)
        text = json.dumps(results, indent=2)
        (folder.workdir / "results.json").write_text(text + "\n")
        _log.info("%s", _summary(results["test"]))
    pictures.draw_figures(work, best, folder.workdir)
    _log.info("done: %s", folder.workdir)
    return results


def _standard_error(values: np.ndarray) -> float:
    return float(values.std(ddof=1) / math.sqrt(len(values)))


def _summary(test: dict[str, float]) -> str:
    line = (
        f"test: {test['loss']:.2f} +- {test['standard_error']:.2f} nats (reconstruction "
        f"{test['reconstruction']:.2f}, latent {test['latent']:.2f}) on {test['images']:,} images"
    )
    if "importance_weighted" in test:
        line += (
            f"; {test['importance_weighted']:.2f} +- "
            f"{test['importance_weighted_standard_error']:.2f} with "
            f"{test['importance_samples']:,} samples"
        )
    return line
