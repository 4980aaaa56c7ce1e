"""A run's folder: one writer, which locks and records, and readers, which change no byte.

```
WORKDIR/config.json      what was asked for
WORKDIR/run.json         what else is the same whenever the run goes on: its model, its data
WORKDIR/metrics.jsonl    one line an entry: step, split, values
WORKDIR/tensorboard/     the same as TensorBoard events
WORKDIR/checkpoints/N/   state after N steps and the position in the data, the newest few
WORKDIR/best/N/          averaged parameters with the lowest validation loss
```
"""

import dataclasses
import fcntl
import logging
import math
import os
import pathlib
import re
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from drawjax.config import PRNG, TrainConfig, flatten, leaves
from drawjax.files import read_back, read_json, remove_drafts, to_json, write_atomically
from drawjax.training import checkpoints, hosts
from drawjax.training.checkpoints import Checkpoints
from drawjax.training.errors import RunError
from drawjax.training.step import TrainState

_log = logging.getLogger(__name__)

# Fields that change no parameter until the learning rate begins to fall.
_UNTIL_DECAY = {"train.steps", "train.decay_fraction"}


def read_config(workdir: str | os.PathLike) -> dict[str, Any]:
    """The flat config that a run was started with, `{"train.steps": 100, ...}`.

    Raises:
      RunError: if there is no run, or its config cannot be read.
    """
    path = pathlib.Path(workdir) / "config.json"
    if not path.exists():
        raise RunError(f"{workdir} holds no run: there is no {path.name}")
    fields = _read_json(path)
    if not any(name.startswith("train.") for name in fields):
        names = ", ".join(sorted(fields)[:3]) or "nothing"
        raise RunError(f"{workdir} holds no run: {path.name} has {names} and no train.steps")
    return fields


def read_record(workdir: str | os.PathLike) -> dict[str, Any]:
    """What a run's folder records of its model and its data.

    Raises:
      RunError: if it cannot be read.
    """
    path = pathlib.Path(workdir) / "run.json"
    if path.exists():
        return _read_json(path)
    # Version 0.1 had two of these facts elsewhere, and no others.
    found = {}
    for name, fact in (("config.json", "model_class"), ("data.json", "image_shape")):
        older = path.with_name(name)
        if older.exists():
            found |= {k: value for k, value in _read_json(older).items() if k == fact}
    return found


def has_best(workdir: str | os.PathLike) -> bool:
    """Whether a run's folder holds an evaluated checkpoint."""
    return has_checkpoints(workdir, "best")


def has_checkpoints(workdir: str | os.PathLike, kind: str = "checkpoints") -> bool:
    """Whether a run's folder holds a checkpoint to go on from."""
    return bool(checkpoints.steps(pathlib.Path(workdir) / kind))


def read_best(workdir: str | os.PathLike, like: Any) -> tuple[Any, dict[str, float]]:
    """The averaged parameters with the lowest validation loss, and their metrics.

    Args:
      workdir: the run's folder; the run may be in training.
      like: arrays, or their shapes, of the same structure.

    Raises:
      RunError: if there is no evaluated checkpoint, or it cannot be read.
    """
    while True:
        path = _best(workdir)
        try:
            return checkpoints.read(path, like)
        except RunError:
            # A run that trains may have replaced it by a better one while it was read.
            if int(path.name) in checkpoints.steps(path.parent):
                raise


def best_metrics(workdir: str | os.PathLike) -> dict[str, float]:
    """What validation gave for the parameters that `read_best` reads; errors as there."""
    return checkpoints.read_values(_best(workdir))


def _best(workdir: str | os.PathLike) -> pathlib.Path:
    folder = pathlib.Path(workdir).absolute() / "best"
    if not (steps := checkpoints.steps(folder)):
        raise RunError(f"{workdir} holds no evaluated checkpoint yet")
    return folder / str(steps[0])


class RunWriter:
    """Opens, or makes, a run's folder, and holds its lock until closed (or the process ends).

    Args:
      workdir: the folder.
      config: a (nested) frozen dataclass; written to config.json, or compared with what is there.
        `train.steps` and `train.decay_fraction` may differ from before as long as the learning
        rate has not begun to fall, by the old values or the new.
      record: flat facts that a run keeps for life, such as the model's class and a digest of the
        data; written to run.json, or compared with what is there. Those that an older run lacks
        are added.
      free: dotted names of fields that change no parameter of this run, beside the harmless ones.
      keep: how many checkpoints to keep.

    Raises:
      RunError: if another process holds the folder, it belongs to a run of another config or
        record, or it cannot be written.
    """

    def __init__(
        self,
        workdir: str | os.PathLike,
        config: Any,
        *,
        record: Mapping[str, Any] | None = None,
        free: Collection[str] = (),
        keep: int = 3,
    ):
        self.workdir = pathlib.Path(workdir).absolute()
        self._lock: int | None = None
        fields = flatten(config)
        facts = read_back({**(record or {}), "prng": PRNG})
        hosts.check_same(fields | facts)
        try:
            hosts.on_first(lambda: self._take(fields, config, facts, set(free)))
            self._states = Checkpoints(self.workdir / "checkpoints", keep=keep)
            self._best = Checkpoints(self.workdir / "best", keep=None)
            self._delete_beaten()
            self._lowest = self._lowest_loss()
            self._seconds, self._opened_at = self._seconds_before(), time.monotonic()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "RunWriter":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Releases the folder."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def save(self, state: TrainState, progress: Mapping[str, Any]) -> None:
        """Saves a state, and beside it what JSON can hold of how far the run is.

        Raises:
          RunError: if the disk is full or the folder cannot be written; older checkpoints stay.
        """
        self._states.save(int(state.step), state, {**progress, "seconds": self.seconds})
        self._delete_beaten()

    def save_best(self, step: int, ema_params: Any, metrics: dict[str, float]) -> None:
        """Saves averaged parameters; only those with the lowest `metrics["loss"]` are kept.

        Raises:
          RunError: as `save`.
        """
        if not math.isfinite(metrics["loss"]):
            _log.warning("step %d: the validation loss is %s", step, metrics["loss"])
            return
        if metrics["loss"] < self._lowest:
            self._best.save(step, ema_params, metrics)
            self._lowest = metrics["loss"]
            self._delete_beaten()

    def go_on_from(self, step: int) -> None:
        """Deletes the checkpoints that the run, which has read that of this step, does not need.

        Later ones, since it takes those steps anew, and by another schedule perhaps (a point of a
        sweep may have checkpoints that the others lack); and older ones than it keeps.
        """
        for kept in (self._best, self._states):
            kept.delete([later for later in checkpoints.steps(kept.folder) if later > step])
        self._states.delete_old()
        self._lowest = self._lowest_loss()

    @property
    def seconds(self) -> float:
        """How long the run has taken, all sessions together."""
        return self._seconds + time.monotonic() - self._opened_at

    def newest(self) -> pathlib.Path | None:
        """The folder of the newest checkpoint, or None."""
        steps = self.steps()
        return self._states.folder / str(steps[0]) if steps else None

    def steps(self) -> list[int]:
        """The steps of which there is a checkpoint, the newest first."""
        return checkpoints.steps(self._states.folder)

    def check_fresh(self, checkpoint_every: int) -> None:
        """Raises RunError if the run, which has no checkpoint, has taken steps that had one."""
        best = max(checkpoints.steps(self._best.folder), default=0)
        finished = best and (self.workdir / "results.json").exists()
        if best > checkpoint_every or finished:
            raise RunError(
                f"{self.workdir} holds its best parameters, of step {best}, and no checkpoint to "
                "go on from; --mode evaluate takes them, and another folder begins anew"
            )

    def _seconds_before(self) -> float:
        """How long the run had taken at its newest checkpoint."""
        try:
            newest = self.newest()
            return checkpoints.read_values(newest)["seconds"] if newest else 0.0
        except RunError:  # `restore` goes back to an older one
            return 0.0

    def _delete_beaten(self) -> None:
        """Deletes all but the best, and the best that the run would have if it was stopped now."""
        taken, best = max(self.steps(), default=0), checkpoints.steps(self._best.folder)
        kept = {*best[:1], *[step for step in best if step <= taken][:1]}
        self._best.delete(set(best) - kept)

    def _lowest_loss(self) -> float:
        """The loss of the best checkpoint, the newest of its kind; a torn one is quarantined."""
        for step in checkpoints.steps(self._best.folder):
            try:
                return checkpoints.read_values(self._best.folder / str(step))["loss"]
            except RunError as error:
                self._best.quarantine(step, str(error))
        return math.inf

    def _take(
        self, fields: dict[str, Any], config: Any, facts: dict[str, Any], free: set[str]
    ) -> None:
        """Locks the folder and writes what it is of, if it is free and of the same run."""
        folder, text = self.workdir, str(self.workdir)
        # Orbax would save to such paths, and could not read from them again.
        url = any(part.endswith(":") for part in folder.parts)
        if url or re.search(r"\[.*\]|\\", text) or not text.isprintable():
            raise RunError(
                f"{text!r}: checkpoints cannot be read from a path like a URL's or with [], a "
                "backslash or characters that are not printable; name another folder"
            )
        names = {path.name for path in folder.glob("*")}
        if names and not names & {"config.json", ".lock"}:
            raise RunError(f"{folder} holds files that are not a run's; name another folder")
        config_path = folder / "config.json"
        if config_path.exists():  # of another program: nothing is to be left in its folder
            read_config(folder)
        folder.mkdir(parents=True, exist_ok=True)
        lock = folder / ".lock"
        try:
            self._lock = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)  # as the umask has it
        except PermissionError:  # another member of the group made it; NFS alone wants it writable
            self._lock = os.open(lock, os.O_RDONLY)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunError(f"{folder} is in use by another process") from None
        remove_drafts(folder)
        record = read_record(folder)
        if config_path.exists():
            _check_same(folder, record, read_config(folder), fields, config, facts, free)
        elif checkpoints.steps(folder / "checkpoints") or checkpoints.steps(folder / "best"):
            raise RunError(f"{folder} holds checkpoints, and no config.json that says of what")
        write_atomically(config_path, to_json(fields, indent=2) + "\n")
        write_atomically(folder / "run.json", to_json(facts | record, indent=2) + "\n")


def restore(runs: Sequence[RunWriter], like: TrainState) -> list[tuple[TrainState, dict[str, Any]]]:
    """Reads the newest checkpoint that all runs of a sweep have and that can be read.

    Newer ones that cannot be read are renamed to `N.broken`, and a warning names them.

    Args:
      runs: the runs; or a single one.
      like: a state of the same structure; gives shapes, types and shardings.

    Returns:
      The state and the progress of each run; empty if there is no checkpoint.

    Raises:
      RunError: if there are checkpoints and none can be read, or none that all runs have; they stay
        as they are.
    """
    torn: list[tuple[RunWriter, int, RunError]] = []
    for step in sorted(set.intersection(*(set(run.steps()) for run in runs)), reverse=True):
        found = []
        for run in runs:
            try:
                found.append(checkpoints.read(run._states.folder / str(step), like))
            except RunError as error:
                torn.append((run, step, error))
        if len(found) == len(runs):
            for run, broken, error in torn:
                run._states.quarantine(broken, str(error))
            for run, (_, progress) in zip(runs, found, strict=True):
                run._seconds, run._opened_at = progress.pop("seconds"), time.monotonic()
            return found
    # No reason to begin anew, over what is there.
    if torn:
        raise RunError(f"no checkpoint can be read: {torn[0][-1]}")
    if any(run.steps() for run in runs):
        names = " and ".join(run.workdir.name for run in runs)
        raise RunError(f"{names} have no checkpoint in common: train them with --sweep-parallel 1")
    return []


def _read_json(path: pathlib.Path) -> dict[str, Any]:
    try:
        return read_json(path)
    except (OSError, ValueError) as error:
        raise RunError(str(error)) from error


def _check_same(
    folder: pathlib.Path,
    record: dict[str, Any],
    before: dict[str, Any],
    fields: dict[str, Any],
    config: Any,
    facts: dict[str, Any],
    free: set[str],
) -> None:
    """Raises RunError if a folder's run had other fields, or another of these facts in its record.

    Nothing depends on when the decay is to begin before it does; a run past it is fixed.
    """
    defaults = flatten(type(config)())  # of fields that the run is older than
    old = {name: defaults.get(name) for name in fields} | before
    new = dict.fromkeys(old) | fields
    old |= {name: record.get(name, fact) for name, fact in facts.items()}
    new |= facts
    free = free | {name for name, _, field in leaves(config) if field.metadata.get("harmless")}
    differ = [name for name in sorted(old) if old[name] != new[name] and name not in free]
    if not differ:
        return
    listed = ", ".join(f"{name}: {old[name]} there, {new[name]} now" for name in differ)
    what = f"holds another run ({listed})"
    train = getattr(config, "train", None)
    if isinstance(train, TrainConfig) and _UNTIL_DECAY.issuperset(differ):
        then = dataclasses.replace(
            train, **{name.removeprefix("train."): old[name] for name in differ}
        )
        limit = min(train.fixed_from, then.fixed_from)
        taken = max(checkpoints.steps(folder / "checkpoints"), default=0)
        if taken <= limit:
            return
        what = (
            f"has taken {taken} steps, and from step {limit} on the learning rate depends on what "
            f"cannot change any more ({listed})"
        )
    raise RunError(f"{folder} {what}; name another folder")
