"""Checkpoints of one kind in one folder, checked when they are read."""

import pathlib
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from drawjax.training import hosts
from drawjax.training.errors import RunError

__all__ = ["Checkpoints", "fingerprint"]

PyTree = Any


class Checkpoints:
    """The checkpoints `FOLDER/STEP`, each an array tree and a JSON tree.

    Args:
      folder: where they are; made if need be. What an interrupted save left there is removed.
      keep: how many of the newest are kept.
    """

    def __init__(self, folder: pathlib.Path, *, keep: int):
        self.folder = folder
        self._manager = ocp.CheckpointManager(
            folder,
            options=ocp.CheckpointManagerOptions(
                max_to_keep=keep,
                create=True,
                cleanup_tmp_directories=True,
                enable_async_checkpointing=False,
            ),
        )

    def steps(self) -> list[int]:
        """The steps there are, the newest first."""
        return sorted(self._manager.all_steps(), reverse=True)

    def path(self, step: int) -> pathlib.Path:
        """The folder of one."""
        return self.folder / str(step)

    def save(self, step: int, arrays: PyTree, values: dict[str, Any]) -> None:
        """Saves one, unless there is one of this step.

        Raises:
          RunError: if it cannot be written; older checkpoints stay.
        """
        if step in self._manager.all_steps():
            return
        described = {"fingerprint": int(_jitted_fingerprint(arrays)), "values": values}
        # What a save that fails leaves behind in TensorStore goes on to raise where nobody catches.
        before, sys.unraisablehook = sys.unraisablehook, lambda left: None
        try:
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    arrays=ocp.args.StandardSave(arrays), described=ocp.args.JsonSave(described)
                ),
            )
        except Exception as error:  # OSError, ValueError or others, as TensorStore has it
            raise RunError(
                f"cannot save a checkpoint in {self.folder}; older ones are intact: "
                f"{_reason(error)}"
            ) from error
        sys.unraisablehook = before

    def restore(self, step: int, like: PyTree) -> tuple[PyTree, dict[str, Any]]:
        """Reads one.

        Args:
          step: which.
          like: arrays, or their shapes, of the same structure; a leaf without a sharding is read
            onto the first device.

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

        def read() -> tuple[PyTree, dict[str, Any]]:
            described = self._described(step)
            found = self._manager.restore(
                step, args=ocp.args.Composite(arrays=ocp.args.StandardRestore(abstract))
            )
            if int(_jitted_fingerprint(found["arrays"])) != described["fingerprint"]:
                raise ValueError("checksum mismatch: the checkpoint is corrupt")
            return found["arrays"], described["values"]

        return self._read(step, read)

    def values(self, step: int) -> dict[str, Any]:
        """Reads the JSON tree of one alone.

        Raises:
          RunError: as `restore`.
        """
        return self._read(step, lambda: self._described(step)["values"])

    def quarantine(self, step: int) -> pathlib.Path:
        """Renames one, so that it is no checkpoint any more; returns its new path."""
        aside = self.folder / f"{step}.broken"
        number = 1
        while aside.exists():
            number += 1
            aside = self.folder / f"{step}.broken{number}"
        hosts.on_first(lambda: self.path(step).rename(aside))
        self._manager.reload()
        return aside

    def close(self) -> None:
        """Ends the threads behind it."""
        self._manager.close()

    def _described(self, step: int) -> dict[str, Any]:
        wanted = ocp.args.Composite(described=ocp.args.JsonRestore())
        return self._manager.restore(step, args=wanted)["described"]

    def _read(self, step: int, read: Callable[[], Any]) -> Any:
        """What `read` gives, if it can be read on every process."""
        found, failure = None, None
        try:
            found = read()
        except Exception as error:  # whatever a torn file makes Orbax and TensorStore raise
            failure = error
        if not hosts.all_agree(failure is None):
            reason = _reason(failure) if failure is not None else "another process cannot read it"
            raise RunError(f"checkpoint {self.path(step)} cannot be read: {reason}") from failure
        return found


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
