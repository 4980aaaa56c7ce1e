"""Classification by glimpses: the Differentiable RAM on cluttered digits (Sec. 4.1)."""

import functools
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from drawjax import data, figures, modules, ram, report
from drawjax.config import ClassificationConfig
from drawjax.evaluation import over_images
from drawjax.experiment import Experiment
from drawjax.training.metrics import read_metrics

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
        self, params: Any, batch: data.Batch, key: jax.Array, constants: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The cross-entropy in nats, and the error in percent."""
        keys = jax.random.split(key, len(batch["image"]))
        cross_entropy, wrong = self._loss(params, batch, keys, constants, training=True)
        return jnp.mean(cross_entropy), {"error": 100 * jnp.mean(wrong)}

    def evaluate(self, params: Any, source: data.Source) -> dict[str, float]:
        """Error in percent over a source's digits, each in one fixed clutter of its own split.

        Returns:
          `error` in percent with its `standard_error`, the mean cross-entropy `loss` in nats, and
          the number of `images`.
        """
        pool = self.pool(source)
        values = over_images(
            lambda batch, keys: self._losses(params, batch, keys, pool),
            source,
            self.evaluation_key,
            batch_size=self.config.eval_batch_size,
        )
        count, error = len(values["wrong"]), float(values["wrong"].mean())
        return {
            "loss": float(values["loss"].mean()),
            "error": 100 * error,
            "standard_error": 100 * float(np.sqrt(error * (1 - error) / count)),
            "images": count,
        }

    def test(self, params: Any, done: dict[str, Any]) -> dict[str, Any]:
        """The error on the test set."""
        return {"test": done.get("test") or self.evaluate(params, self.images.test)}

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
        report.save_drawing(
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
        batch, _ = next(data.eval_batches(source, batch_size=min(count, len(source))))
        keys = data.image_keys(self.evaluation_key, batch["index"])
        images, output = self._outputs(params, batch, keys, self.pool(source))
        return images, batch["label"], output

    def _output(
        self, params: Any, batch: Any, keys: jax.Array, pool: jax.Array, *, training: bool
    ) -> tuple[jax.Array, ram.RamOutput]:
        images = data.preprocess(self.config.data, batch["image"], keys, pool, training=training)
        return images, ram.classify(self.bound(params), images)

    def _loss(
        self, params: Any, batch: Any, keys: jax.Array, pool: jax.Array, *, training: bool
    ) -> tuple[jax.Array, jax.Array]:
        """Each image's cross-entropy, and whether it is named wrongly."""
        _, output = self._output(params, batch, keys, pool, training=training)
        return ram.loss(output.logits, batch["label"])

    @functools.cached_property
    def _outputs(self) -> Any:
        return jax.jit(functools.partial(self._output, training=False))

    @functools.cached_property
    def _losses(self) -> Any:
        @jax.jit
        def losses(params, batch, keys, pool):
            parts = self._loss(params, batch, keys, pool, training=False)
            return dict(zip(("loss", "wrong"), parts, strict=True))

        return losses
