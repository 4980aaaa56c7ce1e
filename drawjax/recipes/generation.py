"""Generation: DRAW trained on images, evaluated, and made to draw (Sec. 4.2-4.5)."""

import dataclasses
import functools
import math
import pathlib
from collections.abc import Iterator
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from drawjax import data, draw
from drawjax.config import GenerationConfig
from drawjax.progress import track
from drawjax.recipes import bounds, pictures
from drawjax.recipes.evaluation import over_images, standard_error
from drawjax.recipes.neighbors import nearest_images
from drawjax.recipes.recipe import Recipe

__all__ = ["Generation"]

_REDRAWN = 100  # images whose KL by step is averaged


@dataclasses.dataclass(frozen=True)
class Generation(Recipe[GenerationConfig]):
    """A generating model on its data."""

    def loss(
        self, params: Any, batch: data.Batch, key: jax.Array, pool: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Eq. 12 in nats, and its parts."""
        keys = jax.random.split(key, len(batch["image"]))
        reconstruction, latent = self._loss(params, batch, keys, pool, training=True)
        metrics = {"reconstruction": jnp.mean(reconstruction), "latent": jnp.mean(latent)}
        return metrics["reconstruction"] + metrics["latent"], metrics

    def evaluate(self, params: Any, source: data.Source) -> dict[str, float]:
        """The negative bound (Eq. 12) on every image of a source, one sample of z an image.

        Args:
          params: the model's parameters.
          source: the images.

        Returns:
          Means over images in nats: `loss` (with `standard_error`), its parts `reconstruction` and
          `latent`, and the number of `images`.
        """
        pool = self.pool(source)
        values = over_images(
            lambda batch, keys: self._losses(params, batch, keys, pool),
            source,
            self.evaluation_key,
            batch_size=self.config.eval_batch_size,
        )
        parts = {name: value.astype(float) for name, value in values.items()}
        parts = {"loss": parts["reconstruction"] + parts["latent"], **parts}
        result: dict[str, float] = {name: float(values.mean()) for name, values in parts.items()}
        return result | {
            "standard_error": standard_error(parts["loss"]),
            "images": len(parts["loss"]),
        }

    def test(self, params: Any, done: dict[str, Any]) -> dict[str, Any]:
        """The bounds on the test set; `importance_weighted` only if the config asks for it."""
        config, source = self.config, self.images.test
        results = {"test": dict(done.get("test", {})) or self.evaluate(params, source)}
        asked = {
            "importance_samples": config.importance_samples,
            "importance_images": min(config.importance_images or len(source), len(source)),
        }
        if config.importance_samples and any(
            results["test"].get(name) != value for name, value in asked.items()
        ):
            results["test"] |= bounds.importance_weighted(
                self.bound(params), functools.partial(self._inputs, pool=self.pool(source)), source,
                self.evaluation_key, num_samples=config.importance_samples,
                count=asked["importance_images"], folder=pathlib.Path(config.workdir),
            )  # fmt: skip
        likelihood = getattr(config.model, "likelihood", None)
        if likelihood == "discretized_logistic":
            bits = 1 / (math.prod(self.image_shape) * math.log(2))
            results["test"] |= {
                "bits_per_dimension": bits * results["test"]["loss"],
                "bits_per_dimension_standard_error": bits * results["test"]["standard_error"],
            }
        elif config.data.binarization == "none":
            results["discretized"] = done.get("discretized") or self._bits_per_dimension(params)
        return results

    def summary(self, results: dict[str, Any]) -> str:
        """A line that says how good the model is."""
        test = results["test"]
        line = (
            f"test: {test['loss']:.2f} +- {test['standard_error']:.2f} nats (reconstruction "
            f"{test['reconstruction']:.2f}, latent {test['latent']:.2f}) on {test['images']:,} "
            "images"
        )
        if "bits_per_dimension" in test:
            bits, error = test["bits_per_dimension"], test["bits_per_dimension_standard_error"]
            line += f"; {bits:.3f} +- {error:.3f} bits per dimension"
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

    def draw(self, params: Any, folder: pathlib.Path, *, final: bool) -> None:
        """Writes samples and drawings, finally with nearest neighbors (see `pictures`)."""
        model, config = self.bound(params), self.config
        write_size = config.model.write_size
        shape = (model.num_glimpses, config.samples, model.latent_size)
        prior = self._generate(params, jax.random.normal(self.figures_key, shape))
        split = "test" if final else "validation"
        source = self.images.test if final else self.images.validation
        images = self.first_images(source, _REDRAWN)
        redrawn = self._reconstruct(params, images)
        pictures.save_drawings(
            folder, model, prior, images, redrawn,
            split=split, read_size=config.model.read_size, write_size=write_size,
        )  # fmt: skip
        columns = math.isqrt(config.samples)
        beside = None
        if final:
            pictures.save_finally(folder, model, prior, images, redrawn, write_size=write_size)
            edge = prior.images[columns - 1 : columns**2 : columns]
            beside = nearest_images(edge, self._seen(self.images.train))
        pictures.save_samples(folder, prior, columns, beside)

    def first_images(self, source: data.Source, count: int) -> jax.Array:
        """The first images of a source as evaluation sees them, `[count, ...]`."""
        count = min(count, len(source))
        batch, _ = next(data.eval_batches(source, batch_size=count))
        return self._see(
            batch, data.image_keys(self.evaluation_key, batch["index"]), self.pool(source)
        )

    def _inputs(
        self, batch: data.Batch, keys: jax.Array, pool: jax.Array, *, training: bool = False
    ) -> tuple[jax.Array, jax.Array]:
        """What the model sees of a batch, and a key for each image's noise, from a key an image."""
        pairs = jax.vmap(jax.random.split)(keys)
        images = data.preprocess(
            self.config.data, batch["image"], pairs[:, 0], pool, training=training
        )
        return images, pairs[:, 1]

    def _loss(
        self, params: Any, batch: Any, keys: jax.Array, pool: jax.Array, *, training: bool
    ) -> tuple[jax.Array, jax.Array]:
        """L^x and L^z of each image in nats, `[batch]`."""
        images, noise_keys = self._inputs(batch, keys, pool, training=training)
        model, options = self.bound(params), self.config.model
        return draw.loss(
            model, images, bounds.noise(model, noise_keys),
            remat=options.remat, clip_ratio=options.clip_ratio,
        )  # fmt: skip

    def _seen(self, source: data.Source) -> Iterator[tuple[jax.Array, np.ndarray]]:
        """Yields `(images, weight)` of all of a source, as evaluation sees them."""
        size = min(1_000, len(source))
        batches = data.eval_batches(source, batch_size=size)
        for batch, weight in track(batches, "finding nearest images", len(source), each=size):
            keys = data.image_keys(self.evaluation_key, batch["index"])
            yield self._see(batch, keys, self.pool(source)), weight

    def _bits_per_dimension(self, params: Any) -> dict[str, Any]:
        @jax.jit
        def means(batch, keys, pool):
            images, noise_keys = self._inputs(batch, keys, pool)
            model = self.bound(params)
            output = draw.infer(model, images, bounds.noise(model, noise_keys))
            return images, output.images, jnp.sum(cast(jax.Array, output.kl), axis=0)

        def on(source: data.Source) -> Any:
            return functools.partial(means, pool=self.pool(source))

        train, test = self.images.train, self.images.test
        size, key = self.config.eval_batch_size, self.evaluation_key
        scales = bounds.best_scales(on(train), train, key, self.image_shape[2], batch_size=size)
        return bounds.bits_per_dimension(on(test), test, key, scales, batch_size=size)

    @functools.cached_property
    def _losses(self) -> Any:
        @jax.jit
        def losses(params, batch, keys, pool):
            parts = self._loss(params, batch, keys, pool, training=False)
            return dict(zip(("reconstruction", "latent"), parts, strict=True))

        return losses

    @functools.cached_property
    def _see(self) -> Any:
        return jax.jit(lambda batch, keys, pool: self._inputs(batch, keys, pool)[0])

    @functools.cached_property
    def _generate(self) -> Any:
        return jax.jit(lambda params, noise: draw.generate(self.bound(params), noise))

    @functools.cached_property
    def _reconstruct(self) -> Any:
        return jax.jit(lambda params, images: draw.reconstruct(self.bound(params), images))
