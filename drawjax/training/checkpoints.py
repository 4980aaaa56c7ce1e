"""Checkpoints `FOLDER/STEP`, each an array tree and a JSON tree, checked when they are read."""

import logging
import pathlib
import re
import shutil
import sys
import zlib
from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np
import optax
import orbax.checkpoint as ocp
from etils import epath

from drawjax.files import read_back
from drawjax.training import hosts
from drawjax.training.errors import RunError

_log = logging.getLogger(__name__)

PyTree = Any

_CALLED = {"opt_state": "optimizer", "params": "model", "ema_params": "model"}

_DELETED = ".deleted"  # the end of the name of a checkpoint whose deletion has begun


def steps(folder: pathlib.Path) -> list[int]:
    """The steps of the finished checkpoints in a folder, the newest first."""
    # Orbax renames a checkpoint to its name when all of it is written. Twice, since a scan may miss
    # both one that is deleted meanwhile and the newer one in its place.
    finished = "*/_CHECKPOINT_METADATA"
    names = [path.parent.name for path in [*folder.glob(finished)] or folder.glob(finished)]
    return sorted((int(n) for n in names if n.isdecimal() and n == str(int(n))), reverse=True)


def read(path: pathlib.Path, like: PyTree) -> tuple[PyTree, dict[str, Any]]:
    """Reads one checkpoint.

    Args:
      path: its folder.
      like: arrays, or their shapes, of the same structure; a leaf without a sharding is read onto
        the first device.

    Returns:
      The array tree and the JSON tree.

    Raises:
      RunError: if it is torn, damaged, or of another structure. With several processes, on all of
        them if on one.
    """
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    abstract = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(
            leaf.shape, leaf.dtype, sharding=getattr(leaf, "sharding", None) or here
        ),
        like,
    )

    def everything() -> tuple[PyTree, dict[str, Any]]:
        metadata = ocp.PyTreeCheckpointHandler().metadata(epath.Path(path) / "arrays")
        wanted = jax.eval_shape(optax.tree.unwrap_random_key_data, like)
        if differ := difference(metadata.tree, wanted):
            top = re.split(r"[. ]", differ)[0]
            raise ValueError(f"it is of another {_CALLED.get(top, top)}: {differ}")
        arrays = ocp.args.StandardRestore(abstract)
        found = _restore(path, arrays=arrays, described=ocp.args.JsonRestore())
        described = found["described"]
        # Checkpoints of older versions have no such number.
        if described.get("crc32") not in (None, checksum(found["arrays"])):
            raise ValueError("checksum mismatch: the checkpoint is corrupt")
        return found["arrays"], described["values"]

    return _on_all(path, everything)


def read_values(path: pathlib.Path) -> dict[str, Any]:
    """Reads the JSON tree of a checkpoint alone; errors as `read`."""
    found = _on_all(path, lambda: _restore(path, described=ocp.args.JsonRestore()))
    return found["described"]["values"]


def difference(there: PyTree, here: PyTree) -> str | None:
    """The first array by name of two trees that one of them lacks or has in another shape.

    `encoder.kernel is [3, 4] there, missing here`; None if there is no such array.
    """
    saved, wanted = (
        {
            jax.tree_util.keystr(path, simple=True, separator="."): list(leaf.shape)
            for path, leaf in jax.tree.leaves_with_path(tree)
        }
        for tree in (there, here)
    )
    for name in sorted(saved.keys() | wanted.keys()):
        if saved.get(name) != wanted.get(name):
            return (
                f"{name} is {saved.get(name, 'missing')} there, {wanted.get(name, 'missing')} here"
            )
    return None


class Checkpoints:
    """Writes the checkpoints of a folder, and keeps the newest; nobody else does meanwhile.

    The folder is made if need be. What an interrupted save left there is removed. Where `keep` is
    None, all stay until they are deleted.
    """

    def __init__(self, folder: pathlib.Path, *, keep: int | None):
        self.folder, self._keep = folder, keep
        hosts.on_first(self._clean)

    def save(self, step: int, arrays: PyTree, values: dict[str, Any]) -> None:
        """Saves one, unless there is one of this step.

        Raises:
          RunError: if it cannot be written; older checkpoints stay.
        """
        if step in steps(self.folder):
            return
        path = self.folder / str(step)
        hosts.on_first(lambda: path.exists() and _set_aside(path, f"{path} is no checkpoint"))
        described = {
            "crc32": checksum(arrays),
            "values": read_back(values),  # with no NaN in it
        }
        # What a save that fails leaves behind in TensorStore goes on to raise where nobody catches.
        before, sys.unraisablehook = sys.unraisablehook, lambda left: None
        try:
            items = ocp.args.Composite(
                arrays=ocp.args.StandardSave(arrays), described=ocp.args.JsonSave(described)
            )
            with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as checkpointer:
                checkpointer.save(path, args=items)
        except Exception as error:  # OSError, ValueError or others, as TensorStore has it
            raise RunError(
                f"cannot save a checkpoint in {self.folder}; older ones are intact: "
                f"{_reason(error)}"
            ) from error
        sys.unraisablehook = before
        self.delete_old()

    def quarantine(self, step: int, why: str) -> None:
        """Renames one, so that it is no checkpoint any more, and says why."""
        hosts.on_first(lambda: _set_aside(self.folder / str(step), why))

    def delete(self, steps: Iterable[int]) -> None:
        """Deletes the checkpoints of these steps."""
        hosts.on_first(lambda: self._delete(steps))

    def delete_old(self) -> None:
        """Deletes all but the newest ones, as many as are kept."""
        if self._keep is not None:
            hosts.on_first(lambda: self._delete(steps(self.folder)[self._keep :]))

    def _clean(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        for pattern in ("*.orbax-checkpoint-tmp*", f"*{_DELETED}"):
            for left in self.folder.glob(pattern):
                shutil.rmtree(left)

    def _delete(self, steps: Iterable[int]) -> None:
        for step in steps:
            # Under another name first: one that is half deleted is no checkpoint.
            path = self.folder / str(step)
            shutil.rmtree(path.rename(path.with_name(path.name + _DELETED)))


def _set_aside(path: pathlib.Path, why: str) -> None:
    aside, number = path.with_name(f"{path.name}.broken"), 1
    while aside.exists():
        number += 1
        aside = path.with_name(f"{path.name}.broken{number}")
    path.rename(aside)
    _log.warning("%s; quarantined as %s", why, aside.name)


def _restore(path: pathlib.Path, **items: Any) -> Any:
    with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as checkpointer:
        return checkpointer.restore(path, args=ocp.args.Composite(**items))


def _on_all(path: pathlib.Path, read: Callable[[], Any]) -> Any:
    """What `read` gives, if it can be read on every process."""
    found, failure = None, None
    try:
        found = read()
    except Exception as error:  # whatever a torn file makes Orbax and TensorStore raise
        failure = error
    if not hosts.all_agree(failure is None):
        reason = _reason(failure) if failure is not None else "another process cannot read it"
        raise RunError(f"checkpoint {path} cannot be read: {reason}") from failure
    return found


def checksum(tree: PyTree) -> int:
    """CRC-32 of all arrays, the same on any devices."""
    value = 0
    for leaf in jax.tree.leaves(optax.tree.unwrap_random_key_data(tree)):
        value = zlib.crc32(np.asarray(leaf).tobytes(), value)
    return value


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
