"""Generation: DRAW trained on images, evaluated, and made to draw (Sec. 4.2-4.5)."""

import functools
import math
import pathlib
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from drawjax import data, draw, evaluation, figures, modules, objective
from drawjax.config import GenerationConfig
from drawjax.experiment import Experiment, compiled
from drawjax.files import not_null, read_metrics

__all__ = ["Generation", "noise"]

_REDRAWN = 100  # images whose KL by step is averaged
_ROWS = 8  # drawing sequences that are shown
_PAIRS = 25  # images beside their reconstruction


class Generation(Experiment[GenerationConfig]):
    """A generating model on its data."""

    default_model = modules.Draw

    def __init__(self, config: GenerationConfig, images: data.ImageSet, *rest: Any, **more: Any):
        super().__init__(config, images, *rest, **more)
        self._classes: int | None = getattr(config.model, "num_classes", None)
        if getattr(config.model, "condition_size", None) is not None:
            raise ValueError(
                "a set brings classes (model.num_classes) and no model.condition_size features; "
                "train with those by drawjax.draw.loss"
            )
        if self._classes is not None:
            data.check_labels(images, self._classes)

    def loss(
        self,
        params: Any,
        batch: data.Batch,
        key: jax.Array,
        constants: data.Batch,
        step: jax.Array,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Eq. 12 in nats, and its parts; the step is for subclasses."""
        keys = jax.random.split(key, len(batch["image"]))
        reconstruction, latent = self._loss(params, batch, keys, constants, training=True)
        metrics = {"reconstruction": jnp.mean(reconstruction), "latent": jnp.mean(latent)}
        return metrics["reconstruction"] + metrics["latent"], metrics

    def inputs(
        self, batch: data.Batch, keys: jax.Array, pool: data.Batch, *, training: bool = False
    ) -> tuple[jax.Array, jax.Array | None, jax.Array]:
        """What `loss` and evaluation make of a batch.

        Args:
          batch: as the source has it: bytes.
          keys: PRNG keys of the images, `[batch]`.
          pool: the source's images from which partners and pieces are taken; `loss` has those of
            training in its `constants`.
          training: whether a crop is at a random place; elsewhere it is in the middle.

        Returns:
          The images that the model sees, `[batch, height, width, channels]` in [0, 1]; the features
          that they are drawn by, of a model of classes; and a key for the noise of each (`noise`).
        """
        pairs = jax.vmap(jax.random.split)(keys)
        images = data.preprocess(
            self.config.data, batch["image"], pairs[:, 0], pool, training=training
        )
        condition = None
        if self._classes is not None:
            labels = data.seen_labels(self.config.data, batch["label"], pairs[:, 0], pool)
            condition = draw.class_features(labels, self._classes)
        return images, condition, pairs[:, 1]

    def evaluate(self, params: Any, source: data.Source) -> dict[str, Any]:
        """The negative bound (Eq. 12) on every image of a source, one sample of z per image.

        Args:
          params: the model's parameters.
          source: the images.

        Returns:
          Means over images in nats: `loss` (with `standard_error`, unless of a single image), its
          parts `reconstruction` and `latent`, and the number of `images`.
        """
        means = _means(self._parts(params, source))
        return {name: value for name, value in means.items() if value is not None}

    def test(self, params: Any, done: dict[str, Any]) -> dict[str, Any]:
        """The bounds on the test set; `importance_weighted` only if the config asks for it."""
        config, source = self.config, self.images.test
        known = done.get("test", {})  # where null is what was not finite, or no standard error
        errors = {name: known[name] for name in known if name.endswith("standard_error")}
        test = not_null(known) | errors
        if not test:
            parts = self._parts(params, source)
            test = _means(parts)
            if config.data.pair_size is None:  # an image of two has two classes
                test |= _by_class(parts["loss"], source.labels)
        asked = {
            "importance_samples": config.importance_samples,
            "importance_images": min(config.importance_images or len(source), len(source)),
        }
        if config.importance_samples and any(
            test.get(name) != value for name, value in asked.items()
        ):
            test |= evaluation.importance_weighted(
                self.bound(params), functools.partial(self.inputs, pool=self.pool(source)), source,
                self.evaluation_key, num_samples=config.importance_samples,
                count=asked["importance_images"], folder=pathlib.Path(config.workdir),
            )  # fmt: skip
        results = {"test": test}
        likelihood = getattr(config.model, "likelihood", None)
        if likelihood == "discretized_logistic":
            nats_a_bit = math.prod(self.image_shape) * math.log(2)
            error = test["standard_error"]
            test |= {
                "bits_per_dimension": test["loss"] / nats_a_bit,
                "bits_per_dimension_standard_error": error and error / nats_a_bit,
            }
        elif config.data.binarization == "none":
            results["discretized"] = done.get("discretized") or self._bits_per_dimension(params)
        return results

    def summary(self, results: dict[str, Any]) -> str:
        """A line that says how good the model is."""
        test = results["test"]

        def shown(name: str, error: str, digits: int = 2) -> str:
            spread = "" if test[error] is None else f" +- {test[error]:.{digits}f}"
            return f"{test[name]:.{digits}f}{spread}"

        line = (
            f"test: {shown('loss', 'standard_error')} nats (reconstruction "
            f"{test['reconstruction']:.2f}, latent {test['latent']:.2f}) on {test['images']:,} "
            "images"
        )
        if "bits_per_dimension" in test:
            bits = shown("bits_per_dimension", "bits_per_dimension_standard_error", 3)
            line += f"; {bits} bits per dimension"
        if "importance_weighted" in test:
            weighted, gain = (
                shown(name, f"{name}_standard_error")
                for name in ("importance_weighted", "importance_gain")
            )
            line += (
                f"; with {test['importance_samples']:,} samples {weighted} on "
                f"{test['importance_images']:,} images, {gain} less than with one"
            )
        return line

    def draw(self, params: Any, folder: pathlib.Path, *, final: bool) -> None:
        """Writes what the report shows, and finally the pictures of a finished run.

        samples.png: images from the prior, of a model of classes a row of each; finally its last
        column is the training image nearest to the sample beside it, and its label. drawing.png,
        drawing.gif: how the first were drawn (Figs. 1, 7). reconstructions.png: test images, and to
        the right of each what the model makes of it. loss.png: the curves.
        """
        model, config = self.bound(params), self.config
        read_size, write_size = config.model.read_size, config.model.write_size
        shape = (model.num_glimpses, config.samples, model.latent_size)
        columns, every, features = math.isqrt(config.samples), 1, None
        if self._classes is not None:
            labels, columns = figures.class_rows(config.samples, self._classes)
            features = self._features(labels)
            every = columns if config.samples >= self._classes else 1  # the next class
        prior = self._generate(params, jax.random.normal(self.figures_key, shape), features)
        split = "test" if final else "validation"
        images, condition = self.first_images(getattr(self.images, split), _REDRAWN)
        redrawn = self._reconstruct(params, images, condition)

        shown = slice(0, every * _ROWS, every)
        frames = _frames(model, prior, shown)
        windows = None if write_size is None else _picked(prior.write_windows, shown)
        figures.save_drawing(
            folder / "prior.drawing.json",
            frames,
            title="Drawn from the prior",
            description=f"{frames.shape[1]} images drawn from noise in {len(frames)} steps.",
            write=_with_size(windows, write_size),
        )
        first = slice(0, _ROWS)
        again = _frames(model, redrawn, first)
        figures.save_drawing(
            folder / f"{split}.drawing.json",
            again,
            title=f"{split.capitalize()} images redrawn",
            description=f"{again.shape[1]} {split} images, and beside each how it is redrawn in "
            f"{len(again)} steps.",
            beside=np.asarray(images)[first],
            write=_with_size(_picked(redrawn.write_windows, first), write_size),
            read=_with_size(_picked(redrawn.read_windows, first), read_size),
            kl=None if redrawn.kl is None else np.asarray(redrawn.kl).mean(axis=1).tolist(),
        )
        samples = np.asarray(prior.images)
        nearest = labels = None
        if final:
            figures.save_sequence(folder / "drawing.png", frames, windows, patch_size=write_size)
            figures.save_animation(folder / "drawing.gif", frames, windows, patch_size=write_size)
            figures.save_pairs(
                folder / "reconstructions.png",
                np.asarray(images)[:_PAIRS],
                np.asarray(redrawn.images)[:_PAIRS],
            )
            (folder / "validation.drawing.json").unlink(missing_ok=True)
            ends = np.append(np.arange(columns, len(samples), columns), len(samples)) - 1
            nearest, classes = self.nearest(samples[ends], self.images.train)
            if classes.min() >= 0 and config.data.pair_size is None:  # else of one of the two only
                labels = [str(label) for label in classes]
        figures.save_grid(
            folder / "samples.png", samples, columns=columns, beside=nearest, labels=labels
        )
        if final:
            figures.save_curves(folder / "loss.png", read_metrics(folder))

    def _parts(self, params: Any, source: data.Source) -> dict[str, np.ndarray]:
        """The loss of each image of a source in nats, and its parts."""
        values = self.over_images(functools.partial(self._losses, params), source)
        parts = {name: value.astype(float) for name, value in values.items()}
        return {"loss": parts["reconstruction"] + parts["latent"], **parts}

    def first_images(self, source: data.Source, count: int) -> tuple[jax.Array, jax.Array | None]:
        """The first images of a source as evaluation sees them, and what they are drawn by."""
        return self._compiled_inputs(*self.first(source, count))

    def _features(self, labels: np.ndarray) -> jax.Array:
        """What samples of some classes are drawn by; pairs, by theirs and the next one."""
        classes = cast(int, self._classes)
        if self.config.data.pair_size is not None:
            labels = np.stack([labels, (labels + 1) % classes], axis=1)
        return draw.class_features(labels, classes)

    def _loss(
        self, params: Any, batch: Any, keys: jax.Array, pool: data.Batch, *, training: bool
    ) -> tuple[jax.Array, jax.Array]:
        """L^x and L^z of each image in nats, `[batch]`."""
        images, condition, noise_keys = self.inputs(batch, keys, pool, training=training)
        model, options = self.bound(params), self.config.model
        return draw.loss(
            model, images, noise(model, noise_keys),
            remat=options.remat, clip_ratio=options.clip_ratio, condition=condition,
        )  # fmt: skip

    def nearest(self, images: np.ndarray, source: data.Source) -> tuple[np.ndarray, np.ndarray]:
        """For each image the one of a source at the least distance over pixels, and its label.

        The test of Figs. 6 and 9 that a model does not merely remember.
        """
        flat = images.reshape(len(images), -1)

        @jax.jit
        def distances(batch, keys, pool):
            # |a - b|^2 = |a|^2 - 2 a.b + |b|^2, of which |a|^2 changes no order
            seen = self.inputs(batch, keys, pool)[0].reshape(len(keys), -1)
            return {"distance": jnp.sum(seen**2, -1, keepdims=True) - 2 * seen @ flat.T}

        found = self.over_images(distances, source, what="finding nearest images")["distance"]
        index = found.argmin(axis=0)
        batch, keys = source.__getitems__(index), data.image_keys(self.evaluation_key, index)
        return np.asarray(self._compiled_inputs(batch, keys, self.pool(source))[0]), batch["label"]

    def _bits_per_dimension(self, params: Any) -> dict[str, Any]:
        """A bound on the test set in bits per dimension, for images of 256 levels.

        The model's means get a discretized logistic emission, each channel with the scale, of a
        grid, that suits 2,000 training images best.
        """
        grid = jnp.linspace(-6.0, -0.5, 56)

        @jax.jit
        def means(batch, keys, pool):
            images, condition, noise_keys = self.inputs(batch, keys, pool)
            model = self.bound(params)
            output = draw.infer(model, images, noise(model, noise_keys), condition=condition)
            return images, output.images, jnp.sum(cast(jax.Array, output.kl), axis=0)

        @jax.jit
        def emissions(images, its_means):  # [batch, grid, channels]
            def of(log_scale):
                one = jax.vmap(objective.discretized_logistic_loss, in_axes=(-1, -1, None))
                return one(its_means[..., None, :], images[..., None, :], log_scale[None])

            return jnp.moveaxis(jax.lax.map(of, grid), -1, 0)

        def fit(*inputs):
            return {"emission": emissions(*means(*inputs)[:2])}

        fitted = self.over_images(fit, self.images.train, count=2_000, what="fitting scales")
        scales = np.exp(np.asarray(grid)[np.argmin(fitted["emission"].sum(axis=0), axis=0)])

        def measure(*inputs):
            images, its_means, kl = means(*inputs)
            loss = kl + objective.discretized_logistic_loss(its_means, images, jnp.log(scales))
            return {"bits": loss / (math.prod(images.shape[1:]) * math.log(2))}

        what = "evaluating bits per dimension"
        bits = self.over_images(measure, self.images.test, what=what)["bits"]
        return {
            "bits_per_dimension": float(bits.mean()),
            "standard_error": evaluation.standard_error(bits),
            "scales": [float(scale) for scale in scales],
        }

    @compiled
    def _losses(self, params: Any, batch: data.Batch, keys: jax.Array, pool: data.Batch) -> Any:
        parts = self._loss(params, batch, keys, pool, training=False)
        return dict(zip(("reconstruction", "latent"), parts, strict=True))

    @compiled
    def _compiled_inputs(self, batch: data.Batch, keys: jax.Array, pool: data.Batch) -> Any:
        return self.inputs(batch, keys, pool)[:2]

    @compiled
    def _generate(self, params: Any, noise: jax.Array, condition: Any) -> Any:
        return draw.generate(self.bound(params), noise, condition=condition)

    @compiled
    def _reconstruct(self, params: Any, images: jax.Array, condition: Any) -> Any:
        return draw.reconstruct(self.bound(params), images, condition=condition)


def noise(model: draw.Model, keys: jax.Array) -> jax.Array:
    """The noise of one sample of z for each image, `[T, batch, Z]`, from a key per image.

    It is the first of the samples of `drawjax.evaluation.importance_weighted`.
    """
    shape = (model.num_glimpses, model.latent_size)
    return jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, 0), shape), out_axes=1)(
        keys
    )


def _means(parts: dict[str, np.ndarray]) -> dict[str, Any]:
    return {name: float(values.mean()) for name, values in parts.items()} | {
        "standard_error": evaluation.standard_error(parts["loss"]),
        "images": len(parts["loss"]),
    }


def _by_class(losses: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """The mean loss of each class, if the images have one."""
    classes = {str(label): float(losses[labels == label].mean()) for label in np.unique(labels)}
    return {} if "-1" in classes else {"loss_by_class": classes}


def _frames(model: draw.Model, output: draw.DrawOutput, rows: slice) -> np.ndarray:
    """The drawings that are shown, `[T, rows, height, width, channels]` in [0, 1]."""
    return np.asarray(model.likelihood(output.canvases[:, rows]).mean)


def _picked(windows: Any, rows: slice) -> Any:
    return jax.tree.map(lambda field: np.asarray(field[:, rows]), windows)


def _with_size(windows: Any, size: int | None) -> tuple[Any, int] | None:
    return None if size is None or windows is None else (windows, size)
