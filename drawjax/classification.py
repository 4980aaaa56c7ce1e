"""Classification by glimpses: the Differentiable RAM on cluttered digits (Sec. 4.1)."""

import functools
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from drawjax import data, figures, modules, ram
from drawjax.config import ClassificationConfig
from drawjax.experiment import Experiment, compiled
from drawjax.files import read_metrics

__all__ = ["Classification"]

_SHOWN = 6  # images whose glimpses are drawn


class Classification(Experiment[ClassificationConfig]):
    """A classifying model on its data; every training image is made anew, none seen twice."""

    default_model = modules.Ram

    def __init__(
        self, config: ClassificationConfig, images: data.ImageSet, *rest: Any, **more: Any
    ):
        super().__init__(config, images, *rest, **more)
        data.check_labels(images, config.model.num_classes)

    def loss(
        self,
        params: Any,
        batch: data.Batch,
        key: jax.Array,
        constants: data.Batch,
        step: jax.Array,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The cross-entropy in nats, and the error in percent; the step is for subclasses."""
        keys = jax.random.split(key, len(batch["image"]))
        images = self._see(batch, keys, constants, training=True)
        cross_entropy, wrong = ram.loss(self.bound(params), images, batch["label"])
        return jnp.mean(cross_entropy), {"error": 100 * jnp.mean(wrong)}

    def evaluate(self, params: Any, source: data.Source) -> dict[str, float]:
        """Error in percent over a source's digits, each in one fixed clutter of its own split.

        Returns:
          `error` in percent with its `standard_error`, the mean cross-entropy `loss` in nats, and
          the number of `images`.
        """
        return _after_the_last(self._values(params, source))

    def test(self, params: Any, done: dict[str, Any]) -> dict[str, Any]:
        """The error on the test set, also after each glimpse."""
        if "test" in done:
            return {"test": done["test"]}
        values = self._values(params, self.images.test)
        error, standard_error = _percent(values["wrong"])
        by_glimpse = {
            "error_by_glimpse": error.tolist(),
            "error_by_glimpse_standard_error": standard_error.tolist(),
        }
        return {"test": _after_the_last(values) | by_glimpse}

    def summary(self, results: dict[str, Any]) -> str:
        """A line that says how good the model is."""
        test = results["test"]
        return (
            f"test error: {test['error']:.2f} +- {test['standard_error']:.2f} % of "
            f"{test['images']:,} images"
        )

    def draw(self, params: Any, folder: pathlib.Path, *, final: bool) -> None:
        """Writes glimpses.png (Fig. 5), and finally loss.png."""
        source, split = self.images.validation, "validation"
        if final:
            source, split = self.images.test, "test"
            figures.save_curves(folder / "loss.png", read_metrics(folder), names=("loss",))
        images, labels, output = jax.tree.map(np.asarray, self.look(params, source))
        named = np.argmax(output.logits, axis=-1)
        finest = output.patches[..., : images.shape[-1]]
        figures.save_glimpses(
            folder / "glimpses.png",
            images,
            output.windows,
            finest / output.windows.intensity[..., None, None, None],
            titles=[f"{label}, named {name}" for label, name in zip(labels, named, strict=True)],
        )
        figures.save_drawing(
            folder / "glimpses.drawing.json",
            np.broadcast_to(images, (len(output.patches), *images.shape)),
            title=f"Where the model looks at {split} images",
            description=f"{len(images)} {split} images, and the window of each glimpse on them.",
            read=(output.windows, self.config.model.read_size),
        )

    def look(
        self, params: Any, source: data.Source, count: int = _SHOWN
    ) -> tuple[jax.Array, np.ndarray, ram.RamOutput]:
        """The first images of a source in their clutter, their labels, and what is seen of them."""
        batch, keys, pool = self.first(source, count)
        images, output = self._outputs(params, batch, keys, pool)
        return images, batch["label"], output

    def _values(self, params: Any, source: data.Source) -> dict[str, np.ndarray]:
        """Each image's cross-entropy, `loss`, and if it is misclassified after each glimpse."""
        return self.over_images(functools.partial(self._losses, params), source)

    def _see(self, batch: Any, keys: jax.Array, pool: data.Batch, *, training: bool) -> jax.Array:
        return data.preprocess(self.config.data, batch["image"], keys, pool, training=training)

    @compiled
    def _outputs(self, params: Any, batch: data.Batch, keys: jax.Array, pool: data.Batch) -> Any:
        images = self._see(batch, keys, pool, training=False)
        return images, ram.classify(self.bound(params), images)

    @compiled
    def _losses(self, params: Any, batch: data.Batch, keys: jax.Array, pool: data.Batch) -> Any:
        images, labels = self._see(batch, keys, pool, training=False), batch["label"]
        output = ram.classify(self.bound(params), images)
        loss = optax.softmax_cross_entropy_with_integer_labels(output.logits, labels)
        wrong = jnp.argmax(output.glimpse_logits, axis=-1) != labels  # [T, batch]
        return {"loss": loss, "wrong": wrong.T}


def _after_the_last(values: dict[str, np.ndarray]) -> dict[str, float]:
    error, standard_error = _percent(values["wrong"][:, -1])
    return {
        "loss": float(values["loss"].mean()),
        "error": float(error),
        "standard_error": float(standard_error),
        "images": len(values["loss"]),
    }


def _percent(wrong: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Errors in percent over images, the first axis, and their standard errors."""
    error = wrong.mean(axis=0)
    return 100 * error, 100 * np.sqrt(error * (1 - error) / len(wrong))
