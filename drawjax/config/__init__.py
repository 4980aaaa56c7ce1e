"""What a run is: frozen dataclasses, from which flags are made. Imports neither JAX nor Flax."""

from drawjax.config.data import ClutterDataConfig, DataConfig, GenerationDataConfig
from drawjax.config.models import DrawConfig, RamConfig
from drawjax.config.recipes import ClassificationConfig, GenerationConfig, RecipeConfig
from drawjax.config.train import TrainConfig

__all__ = [
    "ClassificationConfig",
    "ClutterDataConfig",
    "DataConfig",
    "DrawConfig",
    "GenerationConfig",
    "GenerationDataConfig",
    "RamConfig",
    "RecipeConfig",
    "TrainConfig",
]
