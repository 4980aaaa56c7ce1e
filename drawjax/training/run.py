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
import os
import pathlib
from typing import Any

import jax
import orbax.checkpoint as ocp

from drawjax.training.step import TrainState

__all__ = ["Run", "RunError"]

_log = logging.getLogger(__name__)

# Fields that steer what is written when, and change no parameter.
_FREE = {
    "workdir", "mode", "eval_batch_size", "importance_samples", "samples", "train.log_every", "train.eval_every", "train.checkpoint_every",
    "train.keep_checkpoints", "train.max_skipped", "data.dir",
}  # fmt: skip


class RunError(RuntimeError):
    """A run's folder cannot be used as asked; the message is for the user, one line."""


class Run:
    """Opens, or makes, a run's folder, and holds its lock until closed (or the process ends).

    Args:
      workdir: the folder.
      config: a (nested) frozen dataclass; written to config.json, or compared with what is there.
      keep: how many checkpoints to keep.

    Raises:
      RunError: if another process holds the folder, or it belongs to a run of another config.
    """

    def __init__(self, workdir: str | os.PathLike, config: Any, *, keep: int = 3):
        self.workdir = pathlib.Path(workdir).absolute()
        fields = _flatten(dataclasses.asdict(config))
        path = self.workdir / "config.json"
        if path.exists():
            _check_same(json.loads(path.read_text()), fields, self.workdir)
        elif self.workdir.exists() and any(self.workdir.iterdir()):
            if not (self.workdir / ".lock").exists():
                raise RunError(f"{self.workdir} holds files that are not a run's; name another")
        self.workdir.mkdir(parents=True, exist_ok=True)
        self._lock = self._take_lock()
        _write(path, json.dumps(fields, indent=2) + "\n")
        options = {"create": True, "cleanup_tmp_directories": True}
        self._checkpoints = ocp.CheckpointManager(
            self.workdir / "checkpoints",
            options=ocp.CheckpointManagerOptions(max_to_keep=keep, **options),
        )
        self._best = ocp.CheckpointManager(
            self.workdir / "best",
            options=ocp.CheckpointManagerOptions(
                max_to_keep=1, best_fn=lambda m: m["loss"], best_mode="min", **options
            ),
        )

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Waits for saves under way and gives the folder free."""
        self._checkpoints.close()
        self._best.close()
        os.close(self._lock)

    def save(self, state: TrainState, position: dict[str, Any]) -> None:
        """Saves a state and the position in the data, in the background.

        Raises:
          RunError: if the disk is full or the folder cannot be written; older checkpoints stay.
        """
        step = int(state.step)
        if step in self._checkpoints.all_steps():
            return
        try:
            self._checkpoints.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(state), position=ocp.args.JsonSave(position)
                ),
            )
        except (OSError, ValueError) as error:
            raise RunError(f"checkpoint {step} could not be saved: {error}") from error

    def save_best(self, step: int, average: Any, metrics: dict[str, float]) -> None:
        """Saves averaged parameters; only those with the lowest `metrics["loss"]` are kept."""
        if step in self._best.all_steps():
            return
        self._best.save(
            step,
            args=ocp.args.Composite(
                average=ocp.args.StandardSave(average), metrics=ocp.args.JsonSave(metrics)
            ),
            metrics=metrics,
        )

    def wait(self) -> None:
        """Waits until everything is on the disk."""
        try:
            self._checkpoints.wait_until_finished()
            self._best.wait_until_finished()
        except (OSError, ValueError) as error:
            raise RunError(f"a checkpoint could not be saved: {error}") from error

    def newest(self) -> pathlib.Path | None:
        """The folder of the newest checkpoint, or None."""
        self.wait()
        step = self._checkpoints.latest_step()
        return None if step is None else self.workdir / "checkpoints" / str(step)

    def restore(self, like: TrainState) -> tuple[TrainState, dict[str, Any]] | None:
        """The newest checkpoint that can be read, or None if there is none.

        Those that cannot be read are renamed to `N.broken`, and a warning names them.

        Args:
          like: a state of the same structure; gives shapes, types and shardings.
        """
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        for step in sorted(self._checkpoints.all_steps(), reverse=True):
            try:
                restored = self._checkpoints.restore(
                    step,
                    args=ocp.args.Composite(
                        state=ocp.args.StandardRestore(abstract), position=ocp.args.JsonRestore()
                    ),
                )
                return restored.state, restored.position
            except Exception as error:  # whatever a torn file makes Orbax and TensorStore raise
                folder = self.workdir / "checkpoints" / str(step)
                aside = folder.with_name(f"{step}.broken")
                folder.rename(aside)
                self._checkpoints.reload()
                reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
                _log.warning("checkpoint %s cannot be read, set aside as %s: %s",
                             folder, aside.name, reason[:200])  # fmt: skip
        return None

    def restore_best(self, like: Any) -> tuple[Any, dict[str, float]]:
        """The best averaged parameters and their validation metrics.

        Raises:
          RunError: if there is no such checkpoint, or it cannot be read.
        """
        step = self._best.best_step()
        if step is None:
            raise RunError(f"{self.workdir} holds no evaluated checkpoint yet")
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        try:
            restored = self._best.restore(
                step,
                args=ocp.args.Composite(
                    average=ocp.args.StandardRestore(abstract), metrics=ocp.args.JsonRestore()
                ),
            )
        except Exception as error:
            raise RunError(f"checkpoint {self.workdir / 'best' / str(step)} cannot be read") from error
        return restored.average, restored.metrics

    def _take_lock(self) -> int:
        lock = os.open(self.workdir / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise RunError(f"{self.workdir} is in use by another process") from None
        return lock


def _flatten(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for name, value in config.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = list(value) if isinstance(value, tuple) else value
    return flat


def _check_same(old: dict[str, Any], new: dict[str, Any], workdir: pathlib.Path) -> None:
    differ = {
        name: (old.get(name), new.get(name))
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name) and name not in _FREE
    }
    # Before the decay nothing depends on the number of steps; the loop checks how far it got.
    differ.pop("train.steps", None)
    if differ:
        listed = ", ".join(f"{name}: {a} there, {b} now" for name, (a, b) in differ.items())
        raise RunError(f"{workdir} holds a run of another config ({listed}); name another folder")


def _write(path: pathlib.Path, text: str) -> None:
    """Writes a small file so that a reader sees the old text or the new, never a part."""
    draft = path.with_name(path.name + ".tmp")
    draft.write_text(text)
    draft.replace(path)
