"""Generation: DRAW trained on images, evaluated, and made to draw (Sec. 4.2-4.5)."""

import dataclasses
import functools
import json
import logging
import math
import pathlib
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from drawjax import data, draw, figures, modules
from drawjax.data import DataConfig
from drawjax.training import Run, Task, TrainConfig, train
from drawjax.training.metrics import read_metrics

__all__ = ["GenerationConfig", "build", "evaluate", "run", "sample"]

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class GenerationConfig:
    """A run of a generation experiment."""

    workdir: str = "runs/generation"
    """The run's folder; a run that was interrupted goes on from there."""
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    model: modules.DrawConfig = dataclasses.field(default_factory=modules.DrawConfig)
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    eval_batch_size: int = 200
    """Images a batch in evaluation."""
    importance_samples: int = 0
    """K of the importance-weighted bound on the test set after training; 0 leaves it out."""
    samples: int = 100
    """How many images to generate for the figures."""


def run(config: GenerationConfig, default_set: str) -> dict[str, Any]:
    """Trains, or goes on training, then evaluates on the test set and draws the figures.

    Returns:
      What it wrote to `results.json`.
    """
    images = data.load(config.data, default_set)
    for note in images.notes:
        _log.info("%s", note)
    started = time.monotonic()
    with Run(config.workdir, config, keep=config.train.keep_checkpoints) as folder:
        graph, task = build(config, images)
        state = train(task, config.train, folder)
        results = {
            "data": images.name,
            "binarisation": config.data.binarisation,
            "notes": list(images.notes),
            "steps": int(state.step),
            "skipped_steps": int(state.skipped),
            "test": evaluate(
                config, graph, state.average, images.test, config.importance_samples
            ),
            "parameters": modules.parameter_count(state.params),
            "seconds": round(time.monotonic() - started, 1),
            "device": jax.devices()[0].device_kind,
        }
        draw_figures(config, graph, state.average, images, folder.workdir)
        (folder.workdir / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    test = results["test"]
    _log.info(
        "test: %.2f +- %.2f nats (reconstruction %.2f, latent %.2f) on %d images; see %s",
        test["loss"], test["standard_error"], test["reconstruction"], test["latent"],
        test["images"], folder.workdir,
    )  # fmt: skip
    return results


def build(config: GenerationConfig, images: data.ImageSet) -> tuple[Any, Task]:
    """The model's structure, and the task of training it on a set."""
    model = functools.partial(modules.Draw, config.model, images.image_shape)
    graph, _ = modules.split(model(key=jax.random.key(0)))

    def loss(params, batch, key, constants):
        del constants
        return _losses(config, graph, params, batch, key)

    def mean_loss(params, batch, key, constants):
        parts = {name: jnp.mean(value) for name, value in loss(params, batch, key, constants).items()}
        return parts["reconstruction"] + parts["latent"], parts

    task = Task(
        init=lambda key: modules.split(model(key=key))[1],
        loss=mean_loss,
        batches=lambda seed: data.train_batches(
            images.train,
            batch_size=config.train.batch_size,
            seed=seed,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        ),
        evaluate=lambda params: evaluate(config, graph, params, images.validation),
    )
    return graph, task


def _losses(
    config: GenerationConfig, graph: Any, params: Any, batch: Any, key: jax.Array
) -> dict[str, jax.Array]:
    """L^x and L^z of each image, `[batch]`, in nats."""
    image_key, noise_key = jax.random.split(key)
    images = data.binarise(data.to_unit(batch["image"]), config.data.binarisation, image_key)
    model = config.model
    noise = jax.random.normal(noise_key, (model.steps, images.shape[0], model.latents))
    networks = modules.merge(graph, params)
    reconstruction, latent = draw.loss(networks, images, noise, remat=model.remat)
    return {"reconstruction": reconstruction, "latent": latent}


@functools.lru_cache(maxsize=4)
def _evaluators(config: GenerationConfig, graph: Any, num_samples: int) -> Any:
    """The jitted losses of a batch; one compilation a config."""

    def losses(params, batch, key):
        values = _losses(config, graph, params, batch, key)
        if num_samples:
            image_key, noise_key = jax.random.split(key)
            images = data.binarise(
                data.to_unit(batch["image"]), config.data.binarisation, image_key
            )
            values["importance_weighted"] = -draw.importance_weighted_bound(
                modules.merge(graph, params), images, noise_key,
                steps=config.model.steps, latents=config.model.latents, num_samples=num_samples,
                chunk=max(1, 1_000 // len(images)),
            )  # fmt: skip
        return values

    return jax.jit(losses)


def evaluate(
    config: GenerationConfig,
    graph: Any,
    params: Any,
    source: data.Source,
    num_samples: int = 0,
) -> dict[str, float]:
    """The negative bound (Eq. 12) on every image of a source, one sample of z an image.

    The noise, and the binarisation if it is dynamic, are drawn by a fixed key.

    Args:
      config: the run's.
      graph: the model's structure.
      params: its parameters.
      source: the images.
      num_samples: K of the importance-weighted bound; 0 leaves it out.

    Returns:
      Means over images in nats: `loss` (with `standard_error`), its parts `reconstruction` and
      `latent`, `bits_per_dimension` of `loss` as it stands, the number of `images`, and with
      `num_samples` also `importance_weighted` and `importance_weighted_standard_error`.
    """
    size = min(config.eval_batch_size, len(source))
    losses = _evaluators(config, graph, num_samples)
    key = jax.random.key(20150211)
    columns: dict[str, list[np.ndarray]] = {}
    for number, (batch, weight) in enumerate(data.eval_batches(source, batch_size=size)):
        values = losses(params, batch, jax.random.fold_in(key, number))
        for name, value in values.items():
            columns.setdefault(name, []).append(np.asarray(value)[weight > 0])
    parts = {name: np.concatenate(column).astype(np.float64) for name, column in columns.items()}
    total = parts["reconstruction"] + parts["latent"]

    def standard_error(values: np.ndarray) -> float:
        return float(values.std(ddof=1) / math.sqrt(len(values)))

    result = {
        "loss": float(total.mean()),
        "standard_error": standard_error(total),
        **{name: float(values.mean()) for name, values in parts.items()},
        "images": len(total),
    }
    if num_samples:
        result["importance_samples"] = num_samples
        result["importance_weighted_standard_error"] = standard_error(parts["importance_weighted"])
    return result


def sample(
    config: GenerationConfig, graph: Any, params: Any, count: int, key: jax.Array
) -> draw.Trace:
    """`count` images drawn from the prior, Eq. 13-16, with every step of the drawing."""
    noise = jax.random.normal(key, (config.model.steps, count, config.model.latents))
    return jax.jit(lambda params, noise: draw.generate(modules.merge(graph, params), noise))(
        params, noise
    )


def draw_figures(
    config: GenerationConfig, graph: Any, params: Any, images: data.ImageSet, folder: pathlib.Path
) -> None:
    """Writes samples.png, drawing.png, drawing.gif, reconstructions.png and loss.png."""
    trace = sample(config, graph, params, config.samples, jax.random.key(config.train.seed))
    means = np.asarray(jax.nn.sigmoid(trace.canvases))
    figures.save_grid(folder / "samples.png", means[-1])
    rows = min(8, config.samples)
    windows = _first(trace.write_windows, rows)
    size = config.model.write_size
    figures.save_sequence(folder / "drawing.png", means[:, :rows], windows, patch_size=size)
    figures.save_animation(folder / "drawing.gif", means[:, :rows], windows, patch_size=size)
    figures.save_curves(folder / "loss.png", read_metrics(folder))


def _first(windows: Any, count: int) -> Any:
    return jax.tree.map(lambda field: np.asarray(field[:, :count]), windows)
