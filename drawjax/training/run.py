"""A run's folder: its config, its lock, its checkpoints, its metrics.

```
WORKDIR/config.json      what was asked for
WORKDIR/metrics.jsonl    one line an entry: step, split, values
WORKDIR/tensorboard/     the same as TensorBoard events
WORKDIR/checkpoints/N/   state after N steps and the position in the data, the newest few
WORKDIR/best/N/          averaged parameters with the lowest validation loss
```
"""

import dataclasses
import fcntl
import json
import logging
import math
import os
import pathlib
import re
import time
from typing import Any

from drawjax.config.train import TrainConfig
from drawjax.training import hosts
from drawjax.training.errors import RunError
from drawjax.training.step import TrainState

__all__ = ["Run", "RunError", "flatten"]

_log = logging.getLogger(__name__)

# Fields that change no parameter until the learning rate begins to fall.
_UNTIL_DECAY = {"train.steps", "train.decay_fraction"}


class Run:
    """Opens, or makes, a run's folder, and holds its lock until closed (or the process ends).

    Args:
      workdir: the folder.
      config: a (nested) frozen dataclass; written to config.json, or compared with what is there.
        `train.steps` and `train.decay_fraction` may differ from before as long as the learning
        rate has not begun to fall, by the old values or the new.
      keep: how many checkpoints to keep.

    Raises:
      RunError: if another process holds the folder, it belongs to a run of another config, or it
        cannot be written.
    """

    def __init__(self, workdir: str | os.PathLike, config: Any, *, keep: int = 3):
        # Orbax takes a second to import, which `--help` need not wait for.
        from drawjax.training.checkpoints import Checkpoints

        self.workdir = pathlib.Path(workdir).absolute()
        self._lock: int | None = None
        self._opened: list[Any] = []
        self._seconds, self._opened_at = 0.0, time.monotonic()
        fields = flatten(config)
        hosts.check_same(fields)
        _check_path(self.workdir)
        try:
            hosts.on_first(lambda: self._take(fields, config))
            self._states = Checkpoints(self.workdir / "checkpoints", keep=keep)
            self._opened.append(self._states)
            self._best = Checkpoints(self.workdir / "best", keep=1)
            self._opened.append(self._best)
            self._lowest = self._lowest_loss()
        except OSError as error:
            self._release()
            raise RunError(f"{self.workdir} cannot be written: {error.strerror}") from error
        except BaseException:
            self._release()
            raise

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Gives the folder free."""
        try:
            for checkpoints in self._opened:
                checkpoints.close()
        finally:
            self._opened = []
            self._release()

    def save(self, state: TrainState, iterator_state: dict[str, Any]) -> None:
        """Saves a state, the data's iterator state and the seconds so far.

        Raises:
          RunError: if the disk is full or the folder cannot be written; older checkpoints stay.
        """
        progress = {"iterator_state": iterator_state, "seconds": self.seconds}
        self._states.save(int(state.step), state, progress)

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

    @property
    def seconds(self) -> float:
        """How long the run has taken, over all sittings."""
        return self._seconds + time.monotonic() - self._opened_at

    def newest(self) -> pathlib.Path | None:
        """The folder of the newest checkpoint, or None."""
        steps = self._states.steps()
        return self._states.path(steps[0]) if steps else None

    def steps(self) -> list[int]:
        """The steps of which there is a checkpoint, the newest first."""
        return self._states.steps()

    def restore(
        self, like: TrainState, *, step: int | None = None
    ) -> tuple[TrainState, dict[str, Any]] | None:
        """The newest checkpoint that can be read, or None if there is none at all.

        Newer ones that cannot be read are renamed to `N.broken`, and a warning names them.

        Args:
          like: a state of the same structure; gives shapes, types and shardings.
          step: leave those of later steps alone.

        Raises:
          RunError: if there are checkpoints and none can be read; they stay as they are.
        """
        failures: dict[int, RunError] = {}
        for candidate in self._states.steps():
            if step is not None and candidate > step:
                continue
            try:
                restored = self._states.restore(candidate, like)
            except RunError as error:
                failures[candidate] = error
                continue
            for broken, error in failures.items():
                aside = self._states.quarantine(broken)
                _log.warning("%s; quarantined as %s", error, aside.name)
            state, progress = restored
            self._seconds, self._opened_at = progress["seconds"], time.monotonic()
            return state, progress["iterator_state"]
        if failures:
            # Not a reason to begin anew over what may be of another version of the program.
            raise RunError(f"no checkpoint can be read: {next(iter(failures.values()))}")
        return None

    def restore_best(self, like: Any) -> tuple[Any, dict[str, float]]:
        """The best averaged parameters and their validation metrics.

        Raises:
          RunError: if there is no such checkpoint, or it cannot be read.
        """
        if not self._best.steps():
            raise RunError(f"{self.workdir} holds no evaluated checkpoint yet")
        return self._best.restore(self._best.steps()[0], like)

    def _lowest_loss(self) -> float:
        """The loss of the best checkpoint, the newest of its kind; a torn one is quarantined."""
        for step in self._best.steps():
            try:
                return self._best.values(step)["loss"]
            except RunError as error:
                aside = self._best.quarantine(step)
                _log.warning("%s; quarantined as %s", error, aside.name)
        return math.inf

    def _take(self, fields: dict[str, Any], config: Any) -> None:
        """Locks the folder and writes the config, if it is free and of the same run."""
        path = self.workdir / "config.json"
        foreign = self.workdir.exists() and any(self.workdir.iterdir())
        if foreign and not path.exists() and not (self.workdir / ".lock").exists():
            raise RunError(f"{self.workdir} holds files that are not a run's; name another folder")
        self.workdir.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(self.workdir / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunError(f"{self.workdir} is in use by another process") from None
        if path.exists():
            try:
                old = json.loads(path.read_text())
            except ValueError as error:
                raise RunError(f"{path} cannot be read: {error}") from error
            _check_same(old, fields, config, self.workdir)
        _write(path, json.dumps(fields, indent=2) + "\n")

    def _release(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _check_path(workdir: pathlib.Path) -> None:
    """Refuses paths that Orbax would save to, and could not read from again."""
    text = str(workdir)
    if any(part.endswith(":") for part in workdir.parts):
        raise RunError(f"{workdir} looks like a URL; name a local (or mounted) folder")
    if re.search(r"\[.*\]|\\", text) or not text.isprintable():
        raise RunError(
            f"{text!r}: checkpoints cannot be read from a path with [], a backslash or characters "
            "that are not printable; name another folder"
        )


def flatten(config: Any) -> dict[str, Any]:
    """The fields of a nested dataclass as one level, `{"train.steps": 100, ...}`."""
    return _flatten(dataclasses.asdict(config))


def _flatten(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for name, value in config.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = list(value) if isinstance(value, tuple) else value
    return flat


def _defaults(config: Any, prefix: str = "") -> dict[str, Any]:
    """What the fields of a config are unless given, for runs older than a field."""
    defaults = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            defaults |= _defaults(value, f"{prefix}{field.name}.")
        elif field.default is not dataclasses.MISSING:
            value = field.default
            defaults[prefix + field.name] = list(value) if isinstance(value, tuple) else value
    return defaults


def _harmless(config: Any, prefix: str = "") -> set[str]:
    """The fields of a nested config that change no parameter (`config.harmless`)."""
    names = set()
    for field in dataclasses.fields(config):
        value, name = getattr(config, field.name), prefix + field.name
        if dataclasses.is_dataclass(value):
            names |= _harmless(value, f"{name}.")
        elif field.metadata.get("harmless"):
            names.add(name)
    return names


def _check_same(
    old: dict[str, Any], new: dict[str, Any], config: Any, workdir: pathlib.Path
) -> None:
    old = {name: _defaults(config).get(name) for name in new.keys() - old.keys()} | old
    free = _harmless(config)
    differ = {
        name: (old[name], new.get(name))
        for name in sorted(old)
        if old[name] != new.get(name) and name not in free
    }
    train = getattr(config, "train", None)
    listed = ", ".join(f"{name}: {a} there, {b} now" for name, (a, b) in differ.items())
    if differ and isinstance(train, TrainConfig) and set(differ) <= _UNTIL_DECAY:
        before = {name.removeprefix("train."): a for name, (a, _) in differ.items()}
        _check_decay(train, dataclasses.replace(train, **before), listed, workdir)
    elif differ:
        raise RunError(f"{workdir} holds a run of another config ({listed}); name another folder")


def _check_decay(new: TrainConfig, old: TrainConfig, listed: str, workdir: pathlib.Path) -> None:
    """Nothing depends on when the decay is to begin before it does; a run past it is fixed."""
    names = [path.name for path in (workdir / "checkpoints").glob("*")]
    taken = max((int(name) for name in names if name.isdigit()), default=0)
    limit = min(new.fixed_from, old.fixed_from)
    if taken > limit:
        raise RunError(
            f"{workdir} has taken {taken} steps, and from step {limit} on the learning rate "
            f"depends on what cannot change any more ({listed}); name another folder"
        )


def _write(path: pathlib.Path, text: str) -> None:
    """Writes a small file so that a reader sees the old text or the new, never a part."""
    draft = path.with_name(path.name + ".tmp")
    draft.write_text(text)
    draft.replace(path)
