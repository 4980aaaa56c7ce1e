"""Checkpoints of one kind in one folder: written in the background, checked when read."""

import json
import logging
import pathlib
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from drawjax.training import hosts
from drawjax.training.errors import RunError

__all__ = ["Checkpoints", "fingerprint"]

PyTree = Any

_log = logging.getLogger(__name__)


class Checkpoints:
    """The checkpoints `FOLDER/STEP`, each an array tree and a JSON tree.

    Args:
      folder: where they lie; made if need be. What an interrupted save left there is removed.
        With a cost, one whose values are torn is renamed to `STEP.broken`, and a warning names it.
      keep: how many are kept.
      arrays: what the array tree is called.
      values: what the JSON tree is called.
      cost: what orders them by the JSON tree, the lowest being kept; None keeps the newest.
    """

    _saving: ClassVar["Checkpoints | None"] = None  # the last to save, of all in this process

    def __init__(
        self,
        folder: pathlib.Path,
        *,
        keep: int,
        arrays: str,
        values: str,
        cost: Callable[[dict[str, Any]], float] | None = None,
    ):
        self.folder = folder
        self._arrays, self._values, self._cost = arrays, values, cost
        if cost is not None:
            hosts.on_first(self._quarantine_torn)
        self._manager = ocp.CheckpointManager(
            folder,
            options=ocp.CheckpointManagerOptions(
                max_to_keep=keep,
                best_fn=cost,
                best_mode="min",
                # What a kill in the middle of a deletion leaves has none, and is to go.
                keep_checkpoints_without_metrics=cost is None,
                create=True,
                cleanup_tmp_directories=True,
            ),
        )

    def steps(self) -> list[int]:
        """The steps there are, the newest first; those being written among them."""
        return sorted(self._manager.all_steps(), reverse=True)

    def best(self) -> int | None:
        """The step of the lowest cost."""
        return self._manager.best_step()

    def path(self, step: int) -> pathlib.Path:
        """The folder of one."""
        return self.folder / str(step)

    def save(self, step: int, arrays: PyTree, values: dict[str, Any]) -> None:
        """Saves in the background; the arrays may be given away as soon as this returns.

        Raises:
          RunError: if this or the save before it failed; older checkpoints stay.
        """
        if step in self._manager.all_steps():
            return
        self._take_turns()
        items = {
            self._arrays: ocp.args.StandardSave(arrays),
            self._values: ocp.args.JsonSave(values),
            "fingerprint": ocp.args.JsonSave({self._arrays: int(_jitted_fingerprint(arrays))}),
        }
        self._guard(
            lambda: self._manager.save(
                step,
                args=ocp.args.Composite(**items),
                metrics=values if self._cost is not None else None,
            )
        )

    def restore(self, step: int, like: PyTree) -> tuple[PyTree, dict[str, Any]]:
        """Reads one.

        Args:
          step: which.
          like: arrays, or shapes with shardings, of the same structure.

        Returns:
          The array tree and the JSON tree.

        Raises:
          RunError: if it is torn, damaged, or of another structure. With several processes, on all
            of them if on one.
        """
        here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        abstract = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(
                leaf.shape, leaf.dtype, sharding=getattr(leaf, "sharding", None) or here
            ),
            like,
        )
        wanted = {
            self._arrays: ocp.args.StandardRestore(abstract),
            self._values: ocp.args.JsonRestore(),
        }
        # Those of drawjax 0.1's first days have none.
        checked = (self.path(step) / "fingerprint").exists()
        if checked:
            wanted["fingerprint"] = ocp.args.JsonRestore()
        arrays: PyTree = None
        values: dict[str, Any] = {}
        failure: Exception | None = None
        try:
            found = self._manager.restore(step, args=ocp.args.Composite(**wanted))
            arrays, values = found[self._arrays], found[self._values]
            if checked and int(_jitted_fingerprint(arrays)) != found["fingerprint"][self._arrays]:
                raise ValueError("checksum mismatch: the checkpoint is corrupt")
        except Exception as error:  # whatever a torn file makes Orbax and TensorStore raise
            failure = error
        if not hosts.all_agree(failure is None):
            reason = _reason(failure) if failure is not None else "another process cannot read it"
            raise RunError(f"checkpoint {self.path(step)} cannot be read: {reason}") from failure
        return arrays, values

    def quarantine(self, step: int) -> pathlib.Path:
        """Renames one, so that it is no checkpoint any more; returns its new path."""
        aside = self._aside(step)
        hosts.on_first(lambda: self.path(step).rename(aside))
        self._manager.reload()
        return aside

    def check(self) -> None:
        """Raises RunError if a save in the background has failed."""
        self._guard(self._manager.check_for_errors)

    def wait(self) -> None:
        """Waits until everything is on the disk.

        Raises:
          RunError: if a save failed.
        """
        self._guard(self._manager.wait_until_finished)

    def close(self) -> None:
        """Waits, and ends the threads behind it."""
        if Checkpoints._saving is self:
            Checkpoints._saving = None
        self._guard(self._manager.close)

    def _aside(self, step: int) -> pathlib.Path:
        """A free name for one that is broken."""
        aside = self.folder / f"{step}.broken"
        number = 1
        while aside.exists():
            number += 1
            aside = self.folder / f"{step}.broken{number}"
        return aside

    def _quarantine_torn(self) -> None:
        # Orbax reads the costs of all before it opens any, and gives up at the first torn one.
        for path in self.folder.glob("*/metrics/metrics"):
            name = path.parent.parent.name
            if not name.isdigit():
                continue
            try:
                json.loads(path.read_text())
            except ValueError as error:
                aside = self._aside(int(name))
                self.path(int(name)).rename(aside)
                _log.warning("checkpoint %s cannot be read: %s; quarantined as %s",
                             self.path(int(name)), error, aside.name)  # fmt: skip

    def _take_turns(self) -> None:
        # Processes meet in barriers of Orbax, which have the same names for every manager: two
        # that save at once would wait for each other for ever.
        before, Checkpoints._saving = Checkpoints._saving, self
        if jax.process_count() > 1 and before is not None and before is not self:
            before.wait()

    def _guard(self, action: Callable[[], object]) -> None:
        try:
            action()
        except Exception as error:  # OSError, ValueError or others, as TensorStore has it
            raise RunError(
                f"a checkpoint could not be saved in {self.folder}, those before it are whole: "
                f"{_reason(error)}"
            ) from error


def fingerprint(tree: PyTree) -> jax.Array:
    """A number of 32 bits that changes with any one element; the same on any devices.

    The sum of all elements' bits, each times an odd number of its place, modulo 2^32.
    """
    total = jnp.zeros((), jnp.uint32)
    for number, leaf in enumerate(jax.tree.leaves(tree)):
        bits = _bits(jnp.asarray(leaf))
        place = jnp.zeros(bits.shape, jnp.uint32)
        for axis in range(bits.ndim):
            along = jax.lax.broadcasted_iota(jnp.uint32, bits.shape, axis)
            place = place * bits.shape[axis] + along
        odd = 2 * place + 1
        total += jnp.sum(bits * odd, dtype=jnp.uint32) * jnp.uint32(2 * number + 1)
    return total


_jitted_fingerprint = jax.jit(fingerprint)


def _bits(leaf: jax.Array) -> jax.Array:
    if leaf.dtype == jnp.bool_:
        return leaf.astype(jnp.uint32)
    whole = jnp.dtype(f"uint{8 * min(leaf.dtype.itemsize, 4)}")
    return jax.lax.bitcast_convert_type(leaf, whole).astype(jnp.uint32)


def _reason(error: BaseException) -> str:
    """The part of an error's text that a person can use, in one line."""
    texts: list[str] = []
    cause: BaseException | None = error
    while cause is not None:
        texts.append(str(cause).strip() or repr(cause))
        cause = cause.__cause__ or cause.__context__
    for known in ("No space left on device", "Disk quota exceeded", "File too large"):
        if any(known in text for text in texts):
            return known
    return texts[0].partition(" See full TensorStore details")[0].splitlines()[0][:200]
