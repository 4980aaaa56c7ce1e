"""Metrics to a JSON-lines file, to TensorBoard, and to the person who waits."""

import contextlib
import dataclasses
import logging
import math
import pathlib
import time
from collections.abc import Iterator, Mapping
from typing import Any

import tqdm

from drawjax.files import not_null, read_metrics, to_json, write_atomically
from drawjax.training import hosts
from drawjax.training.errors import RunError

__all__ = ["Means", "MetricWriter", "Progress", "as_text"]

_log = logging.getLogger(__name__)


@dataclasses.dataclass
class Means:
    """Means of scalars over the steps since the last row of metrics, without the skipped ones.

    A checkpoint holds the sums, and each is taken in the order of the steps: the row of a run that
    was interrupted is the one of a run that was not, bit for bit.
    """

    steps: int = 0
    skipped: int = 0
    sums: dict[str, float] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(cls, saved: Mapping[str, Any]) -> "Means":
        """What `dataclasses.asdict` gave, come through JSON."""
        return cls(saved["steps"], saved["skipped"], not_null(saved["sums"]))

    def add(self, values: Mapping[str, Any], *, skipped: bool) -> None:
        """Counts one step, and adds its scalars if it was not skipped."""
        self.steps, self.skipped = self.steps + 1, self.skipped + skipped
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + (0.0 if skipped else float(value))

    def take(self) -> dict[str, float]:
        """The means, NaN where every step was skipped, and how many were; begins anew."""
        good = self.steps - self.skipped
        means = {name: total / good if good else math.nan for name, total in self.sums.items()}
        if self.skipped:
            means["skipped"] = float(self.skipped)
        self.steps, self.skipped, self.sums = 0, 0, {}
        return means


class MetricWriter:
    """Appends entries to `metrics.jsonl` and TensorBoard events under `tensorboard/`.

    With several processes the first alone writes.

    Args:
      workdir: the run's folder.
      step: the step the run goes on from; entries of later steps, which an interrupted run left
        behind, are taken out.
    """

    def __init__(self, workdir: pathlib.Path, step: int):
        self._path = workdir / "metrics.jsonl"
        kept = [entry for entry in read_metrics(workdir) if entry["step"] <= step]
        self._written = {(entry["step"], entry["split"]) for entry in kept}
        hosts.on_first(lambda: self._open(kept, step))

    def _open(self, kept: list[dict[str, Any]], step: int) -> None:
        # It imports PyTorch where there is one, which `--help` need not wait for.
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto import event_pb2

        write_atomically(self._path, "".join(to_json(entry) + "\n" for entry in kept))
        # Not through its SummaryWriter: that writes in a thread, which a full disk ends, and then
        # waits for it forever.
        folder = self._path.with_name("tensorboard")
        folder.mkdir(exist_ok=True)
        self._events = EventsWriter(str(folder / "events"))
        self._messages: Any = event_pb2
        start = self._messages.SessionLog(status=self._messages.SessionLog.START)
        self._event(step + 1, session_log=start)

    def has(self, step: int, split: str) -> bool:
        """Whether there is such an entry."""
        return (step, split) in self._written

    def write(self, step: int, split: str, values: Mapping[str, float]) -> None:
        """Adds one entry, e.g. `write(100, "train", {"loss": 95.2})`.

        Raises:
          RunError: if it cannot be written, the disk being full for instance.
        """
        self._written.add((step, split))
        if not hosts.is_first():
            return
        from tensorboardX.summary import scalar

        try:
            with self._path.open("a") as file:
                file.write(to_json({"step": step, "split": split, **values}) + "\n")
            for name, value in values.items():
                self._event(step, summary=scalar(f"{split}/{name}", value))
            self._events.flush()
        except OSError as error:
            raise RunError(f"{self._path} cannot be written: {error.strerror}") from error

    def close(self) -> None:
        """Closes TensorBoard's file."""
        if hosts.is_first():
            with contextlib.suppress(OSError):  # said by `write` before, if the disk is full
                self._events.close()

    def _event(self, step: int, **what: Any) -> None:
        self._events.write_event(self._messages.Event(wall_time=time.time(), step=step, **what))


def as_text(values: Mapping[str, float]) -> str:
    """Metrics in a line; large ones to the unit, as losses of large images are."""
    return ", ".join(
        f"{name} {value:,.0f}" if 1e4 <= abs(value) < 1e7 else f"{name} {value:.4g}"
        for name, value in values.items()
    )


class Progress:
    """A bar on a terminal, plain log lines elsewhere.

    Args:
      total: steps in all.
      done: steps done before.
      batch_size: images per step.
    """

    def __init__(self, total: int, done: int, batch_size: int):
        self._total, self._batch_size = total, batch_size
        self._last, self._since = done, time.monotonic()
        self._bar = tqdm.tqdm(
            total=total, initial=done, unit="step", dynamic_ncols=True,
            disable=None if hosts.is_first() else True,
        )  # fmt: skip

    def advance(self) -> None:
        """Counts one step."""
        self._bar.update()

    def show(self, step: int, values: Mapping[str, float]) -> float:
        """Shows means since the last call, all of them; returns images per second."""
        now = time.monotonic()
        rate = (step - self._last) * self._batch_size / max(now - self._since, 1e-9)
        self._last, self._since = step, now
        values = {"loss": values["loss"], **values}
        listed = as_text(values)
        self._bar.set_postfix_str(f"{listed}, {rate:,.0f} images/s")
        if self._bar.disable:
            left = (self._total - step) * self._batch_size / max(rate, 1e-9)
            _log.info(
                "step %d of %d: %s, %.0f images/s, %s left",
                step, self._total, listed, rate, tqdm.tqdm.format_interval(left),
            )  # fmt: skip
        return rate

    @contextlib.contextmanager
    def resting(self) -> Iterator[None]:
        """Leaves the time inside, spent on something else, out of the rate."""
        began = time.monotonic()
        yield
        self._since += time.monotonic() - began

    def close(self) -> None:
        """Ends the bar."""
        self._bar.close()
