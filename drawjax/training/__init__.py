"""The loop and what it needs: state, steps, checkpoints, metrics. Knows nothing of DRAW."""

from drawjax.config import TrainConfig
from drawjax.training.errors import Diverged, Interrupted, RunError
from drawjax.training.loop import train_points
from drawjax.training.run import RunWriter, has_best, read_best, read_config, read_record, restore
from drawjax.training.step import Streams, TrainState, streams
from drawjax.training.task import Task

__all__ = [
    "Diverged",
    "Interrupted",
    "RunError",
    "RunWriter",
    "Streams",
    "Task",
    "TrainConfig",
    "TrainState",
    "has_best",
    "read_best",
    "read_config",
    "read_record",
    "restore",
    "streams",
    "train_points",
]
