"""An experiment: a model on its data, as `drawjax.training` and `drawjax.runner` need it."""

import abc
import functools
import pathlib
import types
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import jax
import numpy as np
import optax

from drawjax import data, modules
from drawjax.config import ExperimentConfig
from drawjax.evaluation import over_images
from drawjax.training import Task, streams
from drawjax.training.task import BatchIterator

__all__ = ["Experiment", "compiled"]

Config = TypeVar("Config", bound=ExperimentConfig)


def compiled(method: Callable[..., Any]) -> Any:
    """A method of arrays that is compiled, anew for each instance."""
    return functools.cached_property(lambda self: jax.jit(types.MethodType(method, self)))


class Experiment(Task, Generic[Config]):
    """A model on its data. Parameters travel beside it as a pytree of arrays.

    Args:
      config: what to do.
      images: the image set.
      model: makes the model: `model(config.model, image_shape, key=key)`; None: the experiment's
        `default_model`.
      optimizer: takes the place of gradient clipping, AdamW and its schedule; None: as
        `config.train` says.

    Raises:
      ValueError: if there is no such model of such images.
    """

    default_model: Callable[..., Any]

    def __init__(
        self,
        config: Config,
        images: data.ImageSet,
        model: Callable[..., Any] | None = None,
        *,
        optimizer: optax.GradientTransformation | None = None,
    ):
        self.config, self.images, self.optimizer = config, images, optimizer
        self.model = model or self.default_model
        self.image_shape = data.seen_shape(config.data, images)
        """`(height, width, channels)` of what the model sees."""
        self._graph, self.abstract_params = modules.abstract(
            self.model, config.model, self.image_shape
        )
        # Keyed by the source: evaluation takes partners and pieces from the source's own images.
        self.pool = functools.cache(functools.partial(data.pool, config.data))
        self.constants = self.pool(images.train)

    @abc.abstractmethod
    def evaluate(self, params: Any, source: data.Source) -> dict[str, float]:
        """Means over a source's images, `loss` among them, which chooses the best checkpoint."""

    @abc.abstractmethod
    def test(self, params: Any, done: dict[str, Any]) -> dict[str, Any]:
        """What results.json says of the test set; what is `done` already is not done again."""

    @abc.abstractmethod
    def summary(self, results: dict[str, Any]) -> str:
        """A line that says how good the model is."""

    @abc.abstractmethod
    def draw(self, params: Any, folder: pathlib.Path, *, final: bool) -> None:
        """Writes pictures into a run's folder: of the validation split, or finally of the test."""

    def init(self, key: jax.Array) -> Any:
        """Fresh parameters."""
        return modules.split(self.model(self.config.model, self.image_shape, key=key))[1]

    def bound(self, params: Any) -> Any:
        """The model with parameters in it."""
        return modules.merge(self._graph, params)

    def batches(self, seed: int) -> BatchIterator:
        """Training batches; with several processes, this process's share of each."""
        return data.train_batches(
            self.images.train,
            batch_size=self.config.train.batch_size,
            seed=seed,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )

    def first(self, source: data.Source, count: int) -> tuple[data.Batch, jax.Array, data.Batch]:
        """The first images of a source: a batch, the keys they are evaluated by, and the pool."""
        batch, _ = next(data.eval_batches(source, batch_size=min(count, len(source))))
        return batch, data.image_keys(self.evaluation_key, batch["index"]), self.pool(source)

    def over_images(
        self, function: Callable[..., Any], source: data.Source, **how: Any
    ) -> dict[str, np.ndarray]:
        """What `function(batch, keys, pool)` gives for each image; as `evaluation.over_images`."""
        pool = self.pool(source)
        return over_images(
            lambda batch, keys: function(batch, keys, pool),
            source,
            self.evaluation_key,
            batch_size=self.config.eval_batch_size,
            **how,
        )

    def validate(self, params: Any) -> dict[str, float]:
        """`evaluate` on the validation split."""
        return self.evaluate(params, self.images.validation)

    @property
    def evaluation_key(self) -> jax.Array:
        """What evaluation draws by: the same for runs of any seed, so that they can be compared."""
        return streams(0).evaluation

    @property
    def figures_key(self) -> jax.Array:
        """What samples in figures are drawn by."""
        return streams(self.config.train.seed).figures
