"""The loop and what it needs: state, steps, checkpoints, metrics. Knows nothing of DRAW."""

from drawjax.training.config import TrainConfig
from drawjax.training.loop import Diverged, Interrupted, train
from drawjax.training.run import Run, RunError
from drawjax.training.step import TrainState
from drawjax.training.task import Task

__all__ = ["Diverged", "Interrupted", "Run", "RunError", "Task", "TrainConfig", "TrainState", "train"]
