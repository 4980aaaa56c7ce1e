"""The loop and what it needs: state, steps, checkpoints, metrics. Knows nothing of DRAW."""

from drawjax.training.config import TrainConfig
from drawjax.training.errors import Diverged, Interrupted, RunError
from drawjax.training.loop import train, train_together
from drawjax.training.run import Run
from drawjax.training.step import TrainState
from drawjax.training.task import Task

__all__ = [
    "Diverged",
    "Interrupted",
    "Run",
    "RunError",
    "Task",
    "TrainConfig",
    "TrainState",
    "train",
    "train_together",
]
