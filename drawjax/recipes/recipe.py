"""A model on its data: what training, evaluating and drawing need of either."""

import abc
import dataclasses
import functools
import pathlib
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import jax

from drawjax import data, modules
from drawjax.config import RecipeConfig
from drawjax.data import ImageSet
from drawjax.training import Task, streams
from drawjax.training.task import BatchIterator

__all__ = ["Recipe"]

Config = TypeVar("Config", bound=RecipeConfig)


@dataclasses.dataclass(frozen=True)
class Recipe(abc.ABC, Generic[Config]):
    """A model on its data. Parameters travel beside it as a pytree of arrays."""

    config: Config
    images: ImageSet
    model: Callable[..., Any]
    """Makes the model: `model(config.model, image_shape, key=key)`."""

    @abc.abstractmethod
    def loss(
        self, params: Any, batch: data.Batch, key: jax.Array, pool: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """A training batch's mean loss, and scalars to log: one more metric is one line here."""

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

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """`(height, width, channels)` of what the model sees."""
        return data.seen_shape(self.config.data, self.images)

    @functools.cached_property
    def _abstract(self) -> tuple[Any, Any]:
        return modules.abstract(self.model, self.config.model, self.image_shape)

    @property
    def abstract_params(self) -> Any:
        """The shapes of the model's parameters."""
        return self._abstract[1]

    def check(self) -> None:
        """Raises ValueError if there is no such model of such images."""
        _ = self._abstract

    def init(self, key: jax.Array) -> Any:
        """Fresh parameters."""
        return modules.split(self.model(self.config.model, self.image_shape, key=key))[1]

    def bound(self, params: Any) -> Any:
        """The model with parameters in it."""
        return modules.merge(self._abstract[0], params)

    def batches(self, seed: int) -> BatchIterator:
        """Training batches; with several processes, this process's share of each."""
        return data.train_batches(
            self.images.train,
            batch_size=self.config.train.batch_size,
            seed=seed,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )

    def pool(self, source: data.Source) -> jax.Array:
        """The images of a source that partners and pieces are taken from; empty if none are."""
        return self._pools(source)

    @functools.cached_property
    def _pools(self) -> Callable[[data.Source], jax.Array]:
        return functools.cache(functools.partial(data.pool, self.config.data))

    @property
    def evaluation_key(self) -> jax.Array:
        """What evaluation draws by: the same for runs of any seed, so that they can be compared."""
        return streams(0).evaluation

    @property
    def figures_key(self) -> jax.Array:
        """What samples in figures are drawn by."""
        return streams(self.config.train.seed).figures

    def task(self, *, init_params: Any, optimizer: Any) -> Task:
        """What `drawjax.training` needs to train the model."""
        return _Training(self, init_params, optimizer)


class _Training(Task):
    """A recipe as a task."""

    def __init__(self, recipe: Recipe, init_params: Any, optimizer: Any):
        self._recipe = recipe
        self.init_params, self.optimizer = init_params, optimizer
        self.constants = recipe.pool(recipe.images.train)

    def init(self, key: jax.Array) -> Any:
        return self._recipe.init(key)

    def loss(self, params: Any, batch: Any, key: jax.Array, constants: Any) -> Any:
        return self._recipe.loss(params, batch, key, constants)

    def batches(self, seed: int) -> BatchIterator:
        return self._recipe.batches(seed)

    def validate(self, params: Any) -> dict[str, float]:
        return self._recipe.evaluate(params, self._recipe.images.validation)
