"""A run of an experiment: what to do, where, and the flags of data, model and training."""

import dataclasses
from typing import Any, Literal

import tyro

from drawjax.config.data import ClutterDataConfig, DataConfig, GenerationDataConfig
from drawjax.config.models import DrawConfig, RamConfig
from drawjax.config.train import TrainConfig, harmless

__all__ = ["ClassificationConfig", "GenerationConfig", "RecipeConfig"]


@dataclasses.dataclass(frozen=True)
class RecipeConfig:
    """A run of a recipe, which adds its model."""

    workdir: str = harmless("runs/experiment")
    """The run's folder; a run that was interrupted goes on from there."""
    mode: Literal["train", "evaluate", "draw"] = harmless("train")
    """train: train (or go on), evaluate, draw. evaluate, draw: do so again from the best checkpoint
    of a run; its folder says how it was trained, and flags cannot say otherwise."""
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    model: Any = None
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    init_from: str | None = None
    """A pretrained model's name or folder, or a run's folder, whose parameters training starts
    from; None: fresh ones. evaluate, draw: those of workdir's run, or, if there is none, these."""
    model_class: tyro.conf.Suppress[str] = ""
    """Name of the model's class; set by `drawjax.train`."""


@dataclasses.dataclass(frozen=True)
class GenerationConfig(RecipeConfig):
    """A run of a generation experiment."""

    data: GenerationDataConfig = dataclasses.field(default_factory=GenerationDataConfig)
    model: DrawConfig = dataclasses.field(default_factory=DrawConfig)
    eval_batch_size: int = harmless(200)
    """Images a batch in evaluation; changes no figure beyond rounding."""
    importance_samples: int = harmless(0)
    """K of the importance-weighted bound on the test set; 0 leaves it out."""
    importance_images: int | None = harmless(None)
    """On how many test images it is estimated, the first ones; None: all of them."""
    samples: int = harmless(100)
    """How many images to generate for the figures."""

    def __post_init__(self):
        for name in ("eval_batch_size", "samples"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.importance_images is not None and self.importance_images < 2:
            raise ValueError(f"importance_images must be at least 2, got {self.importance_images}")
        if self.importance_samples < 0:
            raise ValueError(f"importance_samples must not be negative: {self.importance_samples}")
        if self.importance_images is not None and not self.importance_samples:
            raise ValueError("importance_images needs importance_samples, how many for each image")
        _check_likelihood(self.model, self.data.binarization)


def _check_likelihood(model: Any, binarization: str) -> None:
    likelihood = getattr(model, "likelihood", None)
    if likelihood == "bernoulli" and binarization == "none":
        raise ValueError(
            "model.likelihood bernoulli is of zeros and ones: give data.binarization static, "
            "dynamic or threshold, or a likelihood intensities, discretized_logistic or gaussian"
        )
    if likelihood not in (None, "bernoulli") and binarization != "none":
        raise ValueError(f"model.likelihood {likelihood} needs data.binarization none")


@dataclasses.dataclass(frozen=True)
class ClassificationConfig(RecipeConfig):
    """A run of the cluttered-digit experiment."""

    data: ClutterDataConfig = dataclasses.field(default_factory=ClutterDataConfig)
    model: RamConfig = dataclasses.field(default_factory=RamConfig)
    eval_batch_size: int = harmless(500)
    """Images a batch in evaluation; changes no figure beyond rounding."""

    def __post_init__(self):
        if self.eval_batch_size < 1:
            raise ValueError(f"eval_batch_size must be at least 1, got {self.eval_batch_size}")
