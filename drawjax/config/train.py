"""How long, how fast and how carefully to train."""

import dataclasses
import math
from typing import Any

__all__ = ["TrainConfig", "harmless"]


def harmless(default: Any) -> Any:
    """A config's field that changes no parameter, so that a run may go on with another value."""
    return dataclasses.field(default=default, metadata={"harmless": True})


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Adam with warm-up, a constant rate, and a linear decay to zero at the end.

    Until the decay begins nothing depends on how many steps are to come, so a run may be given
    more of them.
    """

    steps: int = 150_000
    """Training steps in all."""
    batch_size: int = 100
    """Images a step, over all devices and hosts together."""
    learning_rate: float = 1e-3
    """Adam's rate after warm-up."""
    warmup_steps: int = 200
    """Steps over which the rate grows from zero."""
    decay_fraction: float = 0.3
    """Share of the steps, at the end, over which the rate falls linearly to zero."""
    clip_norm: float = 5.0
    """Largest global norm of the gradient; a longer one is scaled down to it."""
    weight_decay: float = 0.0
    """Decoupled weight decay (AdamW), times the learning rate a step."""
    ema_decay: float = 0.9995
    """Decay a step of the moving average of the parameters, which is what is evaluated."""
    seed: int = 0
    """Seeds initial parameters, noise and the order of the data."""
    log_every: int = harmless(100)
    """Steps between two lines of metrics."""
    eval_every: int = harmless(2_000)
    """Steps between two evaluations on the validation split."""
    checkpoint_every: int = harmless(1_000)
    """Steps between two checkpoints."""
    keep_checkpoints: int = harmless(3)
    """How many of the newest checkpoints are kept, beside the best."""
    max_skipped: int = harmless(20)
    """Stop after so many steps in a row without a finite loss and gradient."""

    def __post_init__(self):
        for name in (
            "steps", "batch_size", "log_every", "eval_every", "checkpoint_every",
            "keep_checkpoints", "max_skipped",
        ):  # fmt: skip
            if getattr(self, name) < 1:
                raise ValueError(f"train.{name} must be at least 1, got {getattr(self, name)}")
        for name in ("learning_rate", "clip_norm"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(
                    f"train.{name} must be positive and finite, got {getattr(self, name)}"
                )
        for name in ("warmup_steps", "weight_decay", "seed"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"train.{name} must not be negative, got {getattr(self, name)}")
        for name in ("decay_fraction", "ema_decay"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"train.{name} must lie in [0, 1], got {getattr(self, name)}")

        if self.seed >= 2**31:
            raise ValueError(f"train.seed must be less than 2^31, got {self.seed}")

    @property
    def decay_steps(self) -> int:
        """How many steps at the end have a falling rate."""
        return round(self.decay_fraction * self.steps)

    @property
    def fixed_from(self) -> int:
        """The step from which on the number of steps to come matters; until then it may change."""
        return self.steps - self.decay_steps
