"""Image sets written as TFDS writes its own; those that are not TFDS's need no TensorFlow."""

import contextlib
import fcntl
import logging
import pathlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import tensorflow_datasets as tfds

VERSION = "1.0.0"  # of the sets that are not TFDS's
_SHOWN = 5  # files of a kind that are named

_log = logging.getLogger(__name__)


def write(builder: Any, manual_dir: str | None = None) -> str:
    """Writes a set, whole or not at all; one that is already there is left alone.

    Args:
      builder: TFDS's.
      manual_dir: where archives lie that were downloaded by hand.

    Returns:
      The folder of the set.

    Raises:
      ValueError: if it already exists, in a format that is not read without TensorFlow.
      OSError: if a download fails.
    """
    folder, form = pathlib.Path(builder.data_dir), builder.info.file_format.value
    if form != "array_record" and folder.exists():
        raise ValueError(
            f"{builder.name} is already in {folder}, in the {form} format, which is not read "
            "without TensorFlow; give another folder with --data-dir"
        )
    if folder.exists():
        _log.info(
            "%s is in %s already; remove that folder to prepare it again", builder.name, folder
        )
        return str(folder)
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    _log.info("preparing %s in %s", builder.name, folder)
    config = tfds.download.DownloadConfig(manual_dir=manual_dir)
    # Of several jobs that start at once the first writes, and the others find what it wrote.
    lock = folder.parent.parent / f".{builder.name}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    try:
        with lock.open("w") as file, contextlib.redirect_stdout(None):
            fcntl.flock(file, fcntl.LOCK_EX)  # given up when the process ends, however it does
            builder.download_and_prepare(download_config=config, file_format="array_record")
    except tfds.download.DownloadError as error:
        raise OSError(f"{builder.name} could not be downloaded: {error}") from error
    return str(folder)


class RecordsBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Builds a set of records that are generated.

    Args:
      name: of the set.
      folder: of prepared sets.
      description: what the set is.
      features: of a record, by name.
      splits: called once if the set is written, with TFDS's download manager; gives `(key, record)`
        by split.
      notes: what `drawjax.data.load` repeats of the set; may grow until all splits are generated.
    """

    VERSION = tfds.core.Version(VERSION)

    def __init__(
        self,
        name: str,
        folder: str,
        *,
        description: str,
        features: Mapping[str, Any],
        splits: Callable[[Any], Mapping[str, Iterator[tuple[str, dict[str, Any]]]]],
        notes: list[str],
    ):
        untyped: Any = self  # TFDS knows names of classes only
        untyped.name = name
        self._described = {
            "description": description,
            "features": tfds.features.FeaturesDict(features),
            "metadata": tfds.core.MetadataDict(notes=notes),
        }
        self._splits = splits
        super().__init__(data_dir=folder)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(builder=self, **self._described)

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        return dict(self._splits(dl_manager))

    def _generate_examples(self) -> Any:
        """Abstract in TFDS; the splits are generators already."""


def note(notes: list[str], text: str) -> None:
    """Tells the user, and every later reader of the set."""
    _log.warning("%s", text)
    notes.append(text)


def note_left_out(notes: list[str], source: str, files: Mapping[str, Sequence[str]]) -> None:
    """Notes how many files of a source are no part of the set, by the reason, if there are any."""
    kinds = [
        f"{len(names):,} {reason} ({', '.join(names[:_SHOWN]) + ', ...' * (len(names) > _SHOWN)})"
        for reason, names in files.items()
        if names
    ]
    if kinds:
        count = sum(map(len, files.values()))
        note(notes, f"{source}: left out {count:,}: {'; '.join(kinds)}.")
