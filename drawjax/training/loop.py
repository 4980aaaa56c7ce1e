"""The training loop: batches to devices, steps, metrics, checkpoints, until done or told to stop."""

import functools
import logging
import signal
import types
from typing import Any

import jax
import numpy as np

from drawjax.training import mesh
from drawjax.training.config import TrainConfig
from drawjax.training.metrics import MetricWriter, Progress
from drawjax.training.run import Run, RunError
from drawjax.training.step import Numbers, TrainState, initial_state, train_step
from drawjax.training.task import Task

__all__ = ["Diverged", "Interrupted", "train"]

_log = logging.getLogger(__name__)


class Diverged(RuntimeError):
    """Too many steps in a row had no finite loss and gradient."""


class Interrupted(Exception):
    """A signal asked the run to stop; its state is saved."""

    def __init__(self, signum: int):
        super().__init__(f"stopped by {signal.Signals(signum).name}; the run is saved")
        self.signum = signum


def train(task: Task, config: TrainConfig, run: Run) -> TrainState:
    """Trains until `config.steps`, going on from the run's newest checkpoint.

    A run that was interrupted, however often, ends with the same bits as one that was not.

    Args:
      task: what to train.
      config: how.
      run: where to; its lock is held by the caller.

    Returns:
      The state after the last step.

    Raises:
      Diverged: after `config.max_skipped` skipped steps in a row.
      Interrupted: after SIGTERM or SIGINT, once the state is saved.
      RunError: if the run cannot be continued or saved.
    """
    devices = mesh.make(config.batch_size)
    numbers = Numbers.of(config)
    state = mesh.replicate(devices, jax.jit(functools.partial(initial_state, task))(numbers))
    constants = mesh.replicate(devices, task.constants)
    batches = task.batches(config.seed)
    restored = run.restore(state)
    if restored is not None:
        state, position = restored
        batches.set_state(position)
    start = int(state.step)
    if start > config.steps:
        raise RunError(f"{run.workdir} has already taken {start} steps, more than {config.steps}")
    if start:
        _log.info("going on from step %d", start)

    step_fn = jax.jit(functools.partial(train_step, task), donate_argnums=0)
    writer = MetricWriter(run.workdir, start)
    progress = Progress(config.steps, start, config.batch_size)
    pending: list[dict[str, jax.Array]] = []
    with _Signals() as signals:
        try:
            for step in range(start + 1, config.steps + 1):
                batch = mesh.shard_batch(devices, next(batches))
                state, metrics = step_fn(state, batch, numbers, constants)
                pending.append(metrics)
                progress.advance()
                last = step == config.steps
                if last or step % config.log_every == 0:
                    values = _collect(pending, step, config.max_skipped, run)
                    values["images_per_second"] = progress.show(step, values)
                    writer.write(step, "train", values)
                    pending = []
                if task.evaluate is not None and (last or step % config.eval_every == 0):
                    values = task.evaluate(state.average)
                    writer.write(step, "validation", values)
                    run.save_best(step, state.average, values)
                    _log.info("step %d: validation %s", step, _format(values))
                    progress.pause()
                if last or step % config.checkpoint_every == 0 or signals.received:
                    run.save(state, batches.get_state())
                if signals.received:
                    run.wait()
                    raise Interrupted(signals.received)
            run.wait()
        finally:
            progress.close()
            writer.close()
    return state


def _collect(
    pending: list[dict[str, jax.Array]], step: int, max_skipped: int, run: Run
) -> dict[str, float]:
    """Means over the steps since the last call; raises if too many were skipped in a row."""
    fetched = jax.device_get(pending)
    in_row = [int(metrics.pop("skipped_in_row")) for metrics in fetched]
    if max(in_row) >= max_skipped:
        bad = step - len(in_row) + 1 + int(np.argmax(np.asarray(in_row) >= max_skipped))
        raise Diverged(
            f"no finite loss or gradient in {max_skipped} steps in a row, the last of them step "
            f"{bad} (batch {bad - 1}); the last good checkpoint is {run.newest()}"
        )
    good = [metrics for metrics, count in zip(fetched, in_row, strict=True) if not count]
    values = {
        name: float(np.mean([metrics[name] for metrics in good or fetched])) for name in fetched[0]
    }
    if len(good) < len(fetched):
        _log.warning("%d steps up to %d were skipped", len(fetched) - len(good), step)
        values["skipped"] = float(len(fetched) - len(good))
    return values


def _format(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in values.items())


class _Signals:
    """Notes SIGTERM and SIGINT instead of dying of them; a second SIGINT is not held back."""

    def __init__(self):
        self.received = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "_Signals":
        for signum in (signal.SIGTERM, signal.SIGINT):
            try:
                self._before[signum] = signal.signal(signum, self._note)
            except ValueError:  # not in the main thread, where signals cannot be handled
                break
        return self

    def _note(self, signum: int, frame: types.FrameType | None) -> None:
        if self.received:
            signal.signal(signum, self._before[signum])
        self.received = signum
        _log.warning("%s: saving, then stopping", signal.Signals(signum).name)

    def __exit__(self, *exception: object) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)
