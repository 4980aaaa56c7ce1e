"""What the recipes share: the config of a run, and a model bound to its data."""

import abc
import dataclasses
import functools
import pathlib
from collections.abc import Callable
from typing import Any, Generic, Literal, TypeVar

import jax

from drawjax import data, modules
from drawjax.data import DataConfig, ImageSet
from drawjax.training import Task, TrainConfig
from drawjax.training.task import BatchIterator

__all__ = ["RecipeConfig", "Work"]


@dataclasses.dataclass(frozen=True)
class RecipeConfig:
    """A run of a recipe, which adds its model."""

    workdir: str = "runs/experiment"
    """The run's folder; a run that was interrupted goes on from there."""
    mode: Literal["train", "evaluate", "draw"] = "train"
    """train: train (or go on), evaluate, draw. evaluate, draw: do so from the best checkpoint of a
    run; what says how it was trained is then read from its folder."""
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    init_from: str | None = None
    """A pretrained model's name, or a run's folder, whose parameters training starts from; None:
    fresh ones. evaluate, draw: those of workdir's run, or, if there is none, these."""


Config = TypeVar("Config", bound=RecipeConfig)
Model = TypeVar("Model", bound=modules.Draw | modules.Ram)


@dataclasses.dataclass(frozen=True)
class Work(abc.ABC, Generic[Config, Model]):
    """A model bound to its data: all that training, evaluating and drawing need."""

    config: Config
    images: ImageSet
    start: Callable[[], Any] | None = dataclasses.field(default=None, kw_only=True)
    """Gives the parameters that training starts from; None: `init` does."""

    @abc.abstractmethod
    def model(self, key: jax.Array) -> Model:
        """The model with fresh parameters."""

    @abc.abstractmethod
    def mean_loss(
        self, params: Any, batch: dict[str, Any], key: jax.Array, constants: Any
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """A training batch's loss, and scalars to log."""

    @abc.abstractmethod
    def evaluate(self, params: Any, source: data.Source) -> dict[str, float]:
        """Means over a source's images, `loss` among them, by a fixed key."""

    @abc.abstractmethod
    def show(self, folder: pathlib.Path, params: Any) -> None:
        """Brings a run's report up to date; with parameters its pictures too."""

    @functools.cached_property
    def graph(self) -> Any:
        """The model's structure, without its parameters."""
        return modules.split(self.model(jax.random.key(0)))[0]

    def init(self, key: jax.Array) -> Any:
        """Fresh parameters."""
        return modules.split(self.model(key))[1]

    def networks(self, params: Any) -> Model:
        """The model with parameters in it."""
        return modules.merge(self.graph, params)

    def batches(self, seed: int) -> BatchIterator:
        """Training batches; with several processes, this process's share of each."""
        return data.train_batches(
            self.images.train,
            batch_size=self.config.train.batch_size,
            seed=seed,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )

    def constants(self) -> Any:
        """Arrays that stay on the device, for `mean_loss`."""
        return ()

    def task(self) -> Task:
        """The task of training the model, for `drawjax.training.train`."""
        return Task(
            init=self.init,
            start=self.start,
            loss=self.mean_loss,
            batches=self.batches,
            evaluate=lambda params: self.evaluate(params, self.images.validation),
            show=self.show,
            constants=self.constants(),
        )
