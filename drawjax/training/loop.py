"""The training loop: batches, steps, metrics, checkpoints, until done or told to stop."""

import dataclasses
import functools
import logging
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from drawjax.config import TrainConfig
from drawjax.training import hosts
from drawjax.training.errors import Diverged, Interrupted, RunError
from drawjax.training.hosts import Interrupts
from drawjax.training.metrics import Means, MetricWriter, Progress, as_text
from drawjax.training.run import RunWriter, has_best, restore
from drawjax.training.step import Program, TrainState, check_metrics
from drawjax.training.task import BatchIterator, Task

_log = logging.getLogger(__name__)

_SHOW_EVERY = 10.0  # seconds, unless there are new parameters to show


def train_points(
    task: Task,
    configs: Sequence[TrainConfig],
    runs: Sequence[RunWriter],
    *,
    show: Callable[[pathlib.Path, Any], None] | None = None,
) -> list[TrainState | Diverged]:
    """Trains one run, or points of a sweep side by side in one program, each into its own folder.

    Each goes on from its newest checkpoint: a run that was interrupted, however often, ends with
    the same bits as one that was not. Points of a sweep end as each would alone, but for rounding.
    One that diverges, after `max_skipped` skipped steps in a row, does not stop the others.

    Args:
      task: what to train.
      configs: how; they differ only in the fields of `step.Hyperparams` other than `steps`.
      runs: where to, one a config.
      show: `show(folder, params)` puts pictures and reports into a run's folder; called on the
        first process alone, with averaged parameters after a validation, with None some seconds
        later.

    Returns:
      For each config the state after the last step, or why there is none.

    Raises:
      Interrupted: after a signal (see `hosts.Interrupts`), once all are saved.
      RunError: if a run cannot be continued or saved.
    """
    return _Loop(task, configs, runs, show).run()


@dataclasses.dataclass
class _Point:
    """One run of those that are trained side by side."""

    run: RunWriter
    writer: MetricWriter
    means: Means
    diverged: Diverged | None = None
    shown: float = -_SHOW_EVERY


class _Loop:
    """The state of a training loop, and what it does every so many steps."""

    def __init__(
        self,
        task: Task,
        configs: Sequence[TrainConfig],
        runs: Sequence[RunWriter],
        show: Callable[[pathlib.Path, Any], None] | None,
    ):
        self._task, self._shown_by = task, show
        self._config = config = configs[0]  # what steers the loop is the same in all of them
        self._program = Program(task, configs)
        self._seeds = [config.seed for config in configs]
        # Points of one seed share their batches.
        self._iterators: dict[int, BatchIterator] = {
            seed: task.batches(seed) for seed in dict.fromkeys(self._seeds)
        }
        self._state, self._start, means = self._restored(runs)
        self._points = [
            _Point(run, MetricWriter(run.workdir, self._start), mean)
            for run, mean in zip(runs, means, strict=True)
        ]
        for point, in_row in zip(self._points, np.ravel(self._state.skipped_in_row), strict=True):
            self._check(point, self._start, in_row)
        self._progress = Progress(config.steps, self._start, config.batch_size * len(configs))
        self._pending: list[dict[str, jax.Array]] = []
        self._interrupts = Interrupts()

    def run(self) -> list[TrainState | Diverged]:
        config = self._config
        try:
            with self._interrupts:
                if self._start:
                    _log.info("going on from step %d", self._start)
                    self._validate(self._start, missing=True)
                for step in range(self._start + 1, config.steps + 1):
                    batches = {seed: next(its) for seed, its in self._iterators.items()}
                    self._state, metrics = self._program.step(
                        self._state, [batches[seed] for seed in self._seeds]
                    )
                    self._pending.append(metrics)
                    self._progress.advance()
                    stop = self._interrupts.stop_after(step)
                    last = step == config.steps
                    if last or step % config.log_every == 0:
                        self._log(step)
                    if step == self._start + 1:  # a page to follow, before there is much on it
                        for point in self._points:
                            self._show(point)
                    if not stop:
                        self._validate(step)
                        stop = self._interrupts.stopping
                    saving = last or stop or step % config.checkpoint_every == 0
                    if saving:
                        self._fetch(step)
                    # A checkpoint would take the place of the last good one.
                    if all(point.diverged for point in self._points):
                        break
                    if saving:
                        self._save(step)
                    if stop:
                        break
                if self._interrupts.stopping:
                    raise Interrupted(self._interrupts.signum)
        finally:
            self._progress.close()
            for point in self._points:
                point.writer.close()
        return [
            point.diverged or self._program.take(self._state, number)
            for number, point in enumerate(self._points)
        ]

    def _restored(self, runs: Sequence[RunWriter]) -> tuple[TrainState, int, list[Means]]:
        """The state at the newest checkpoint that all points have, or the initial one."""
        found = restore(runs, self._program.abstract)
        if not found:
            for run in runs:
                run.check_fresh(self._config.checkpoint_every)
        for run in runs:
            run.go_on_from(int(found[0][0].step) if found else 0)
        if not found:
            return self._program.initial(), 0, [Means() for _ in runs]
        states, progress = zip(*found, strict=True)
        step = int(states[0].step)
        if step > self._config.steps:
            raise RunError(
                f"{runs[0].workdir} has already taken {step} steps, more than {self._config.steps}"
            )
        for seed, saved in zip(self._seeds, progress, strict=True):
            self._iterators[seed].set_state(saved["iterator_state"])
        # Checkpoints of version 0.1 hold no sums.
        means = [Means.of(p["means"]) if "means" in p else Means() for p in progress]
        return self._program.put(states), step, means

    def _fetch(self, step: int) -> None:
        """Adds up the scalars of the steps since the last call, and sees which points diverged."""
        if not self._pending:
            return
        fetched, self._pending = jax.device_get(self._pending), []
        for number, point in enumerate(self._points):
            for taken, row in enumerate(fetched, start=step - len(fetched) + 1):
                values = {name: np.ravel(value)[number] for name, value in row.items()}
                in_row = values.pop("skipped_in_row")
                point.means.add(values, skipped=bool(in_row))
                self._check(point, taken, in_row)

    def _check(self, point: _Point, step: int, in_row: int) -> None:
        """Notes that a point has diverged, after so many skipped steps in a row."""
        if point.diverged or in_row < self._config.max_skipped:
            return
        said = (
            f"no finite loss or gradient in {self._config.max_skipped} steps in a row, the last of "
            f"them step {step} (batch {step - 1})"
        )
        if len(self._points) == 1:  # else those that go on take its checkpoints with them
            newest = point.run.newest()
            said += (
                f"; the last good checkpoint is {newest}" if newest else "; there is no checkpoint"
            )
        point.diverged = Diverged(said)
        if len(self._points) > 1:
            _log.warning("%s: %s", point.run.workdir, said)

    def _log(self, step: int) -> None:
        """Writes the means over the steps since the last row."""
        self._fetch(step)
        rows = [(point, point.means.take()) for point in self._points if not point.diverged]
        if not rows:
            return
        for point, values in rows:
            if skipped := values.get("skipped"):
                of = self._of(point)
                _log.warning("%s%d of the steps up to %d were skipped", of, skipped, step)
        rate = self._progress.show(
            step,
            {name: float(np.mean([row.get(name, 0) for _, row in rows])) for name in rows[0][1]},
        )
        for point, values in rows:
            point.writer.write(step, "train", {**values, "images_per_second": rate})
            if time.monotonic() - point.shown >= _SHOW_EVERY:
                self._show(point)

    def _validate(self, step: int, *, missing: bool = False) -> None:
        """Validates the averaged parameters if it is time to; with `missing`, if not yet done."""
        if step % self._config.eval_every and step != self._config.steps:
            return
        for number, point in enumerate(self._points):
            known = point.writer.has(step, "validation")
            if point.diverged or (missing and known and has_best(point.run.workdir)):
                continue
            average = self._program.take(self._state, number).ema_params
            # Placed anew, as a checkpoint's are too: one compiled program serves both.
            params = jax.device_put(jax.device_get(average))
            validate = functools.partial(self._task.validate, params)
            with self._progress.resting():
                values = self._interrupts.unless_stopped(validate)
            if values is None:  # it is made up for when the run goes on
                return
            if not values:
                continue
            if "loss" not in values:
                raise ValueError("validation must give a loss, by which the best are chosen")
            check_metrics(values, taken=("step", "split"))
            values = {name: np.asarray(value).item() for name, value in values.items()}
            # First, since a step of which a validation is written is not validated again.
            point.run.save_best(step, average, values)
            if not known:
                point.writer.write(step, "validation", values)
            _log.info("%sstep %d: validation %s", self._of(point), step, as_text(values))
            self._show(point, params)

    def _of(self, point: _Point) -> str:
        """Says in a log which of several points a line is of."""
        return f"{point.run.workdir.name}: " if len(self._points) > 1 else ""

    def _show(self, point: _Point, params: Any = None) -> None:
        """Has it shown how far the run is; what that takes does not count as training."""
        if self._shown_by is None or not hosts.is_first():
            return
        show = functools.partial(self._shown_by, point.run.workdir, params)
        with self._progress.resting():
            try:
                self._interrupts.unless_stopped(show)
            except Exception as error:  # no picture is worth a run
                _log.warning("the report is not up to date: %s", error)
        point.shown = time.monotonic()

    def _save(self, step: int) -> None:
        for number, point in enumerate(self._points):
            progress = {
                "iterator_state": self._iterators[self._seeds[number]].get_state(),
                "means": dataclasses.asdict(point.means),
            }
            point.run.save(self._program.take(self._state, number), progress)
