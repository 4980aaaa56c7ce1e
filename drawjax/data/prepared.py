"""Prepared TFDS sets, read without TensorFlow.

Sets up to a gibibyte of pixels are decoded once (`drawjax.data.cache`) and held in memory; larger
ones are read record by record.
"""

import contextlib
import dataclasses
import functools
import glob
import hashlib
import io
import os
import pathlib
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tqdm
from PIL import Image

from drawjax.config import DataConfig, data_dir
from drawjax.data.cache import cached
from drawjax.data.pipeline import ArraySource, Batch, DataNotFoundError, ImageSet, Source
from drawjax.pictures import plain

_IN_MEMORY = 2**30  # bytes of decoded pixels
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # PIL's, by channels
# Records of the whole official sets, to tell when only a part was prepared.
_OFFICIAL_TRAIN = {
    "mnist": 60_000,
    "binarized_mnist": 50_000,
    "cifar10": 50_000,
    "svhn_numbers": 231_053,
}


def pixels(image: Image.Image, size: int | None) -> np.ndarray:
    """An image's bytes `[height, width, channels]`; PIL's bilinear filter averages in shrinking."""
    if size is not None and image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    array = np.asarray(image)
    return array[..., None] if array.ndim == 2 else array


def prepared(name: str, config: DataConfig) -> ImageSet:
    """Opens a prepared set by its TFDS name, as `load` does, which says what it may raise."""
    folder = _find(name, config)
    import tensorflow_datasets as tfds  # slow to import, and not needed for the bundled digits

    with _reading(folder):
        builder: Any = tfds.builder_from_directory(str(folder))
        info, features = builder.info, dict(builder.info.features.items())
    if info.file_format.value != "array_record":
        raise DataNotFoundError(
            f"{name} in {folder} is in the {info.file_format.value} format, and only array_record "
            f"is read without TensorFlow; {_command(name, 'ANOTHER_FOLDER')} "
            "prepares it beside."
        )
    channels = _channels(name, features, config.size)
    label = features.get("label")
    labeled = label is not None and label.shape == () and np.issubdtype(label.np_dtype, np.integer)
    # Images are decoded here, not by TFDS, whose ways depend on the packages that are installed.
    encoded = [key for key in features if isinstance(features[key], tfds.features.Image)]
    decoders = dict.fromkeys(encoded, tfds.decode.SkipDecoding())
    with _reading(folder):
        records = {split: builder.as_data_source(split, decoders=decoders) for split in info.splits}
    counts = {split: len(records[split]) for split in records if len(records[split])}
    ranges, rules = split_ranges(name, counts)
    notes = list((info.metadata or {}).get("notes", ()))  # of builders of our own
    official = _OFFICIAL_TRAIN.get(info.name, counts["train"])
    if counts["train"] != official:
        notes.append(
            f"{name} is prepared in part: {counts['train']:,} of {official:,} training images."
        )
    # Stored as 0 and 1, to which resizing rounds.
    unit = 255 if info.name == "binarized_mnist" else 1
    parts: dict[str, Source] = {
        part: _Records(records[of[0]], folder, *of, config.size, channels, unit, labeled)
        for part, of in ranges.items()
    }
    image_shape = parts["test"].__getitems__([0])["image"].shape[1:]
    if sum(map(len, parts.values())) * np.prod(image_shape) <= _IN_MEMORY:
        decode = functools.partial(_in_memory, name)
        parts = {
            part: cached(source, folder, (*ranges[part], config.size), decode)
            for part, source in parts.items()
        }
    return ImageSet(name, **parts, image_shape=image_shape, notes=(*notes, *rules))


def _channels(name: str, features: Mapping[str, Any], size: int | None) -> int:
    """How many channels a set's images have; its features are those of images that can be read."""
    image = features.get("image")
    shape, dtype = (image.shape, np.dtype(image.np_dtype)) if image else ((), None)
    if dtype != np.uint8 or len(shape) != 3 or shape[-1] not in _MODES:
        raise ValueError(
            f"{name} must have images of bytes, [height, width, channels] with "
            f"{', '.join(map(str, _MODES))} channels; its features are {features}"
        )
    if size is None and None in shape:
        raise ValueError(f"the images of {name} differ in size; give --data.size")
    return shape[-1]


def split_ranges(
    name: str, counts: Mapping[str, int]
) -> tuple[dict[str, tuple[str, int, int]], list[str]]:
    """Split, start and stop of our training, validation and test set, and the rules as notes."""
    whole = left = counts.get("train", 0)
    held_out = max(1, min(5_000, whole // 10))
    ranges, rules = {split: (split, 0, count) for split, count in counts.items()}, []
    if "test" not in ranges and "validation" in ranges:
        ranges["test"] = ranges.pop("validation")
        rules.append(f"Test: the validation split of {name}, which has no test split.")
    for split in ("test", "validation"):
        if split not in ranges:
            where = "" if left == whole else " that are left"
            left -= held_out
            ranges[split] = "train", left, left + held_out
            rules.append(
                f"{split.capitalize()}: the last {held_out:,} training images of {name}{where}."
            )
    if left < 1:
        raise ValueError(
            f"{name} has the splits {dict(counts)}, which is too little to train, validate and test"
        )
    ranges["train"] = "train", 0, left
    used = ("train", "validation", "test")
    if others := [f"{split} ({count:,})" for split, count in counts.items() if split not in used]:
        rules.append(f"{name}: images of other splits are not used: {', '.join(others)}.")
    return {split: ranges[split] for split in used}, rules


@contextlib.contextmanager
def _reading(folder: pathlib.Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # of any kind, whatever TFDS, array_record and Pillow stumble over
        reason = str(error).strip().splitlines() or [""]
        raise ValueError(
            f"the set in {folder} cannot be read ({type(error).__name__}: {reason[0]}); "
            "if it is damaged, remove that folder and prepare the set again"
        ) from error


@dataclasses.dataclass(frozen=True, eq=False)
class _Records:
    """Records of a prepared TFDS set, decoded as they are read."""

    records: Any  #: a TFDS data source that leaves images encoded
    folder: pathlib.Path  #: where they are
    split: str
    start: int
    stop: int
    size: int | None
    channels: int
    unit: int  #: what a stored 1 stands for
    labeled: bool

    def __len__(self) -> int:
        return self.stop - self.start

    def _read(self, indices: Sequence[int] | np.ndarray) -> tuple[list[bytes], np.ndarray]:
        """Images as they are stored, and labels."""
        with _reading(self.folder):
            records = self.records.__getitems__([self.start + int(i) for i in indices])
        labels = [record["label"] if self.labeled else -1 for record in records]
        return [record["image"] for record in records], np.asarray(labels, np.int32)

    def __getitems__(self, indices: Sequence[int] | np.ndarray) -> Batch:
        images, labels = self._read(indices)
        with _reading(self.folder):
            return {"image": np.stack([self._decode(image) for image in images]), "label": labels}

    @property
    def labels(self) -> np.ndarray:
        """Read without decoding an image."""
        if not self.labeled:
            return np.full(len(self), -1, np.int32)
        return np.concatenate([self._read(part)[1] for part in _thousands(len(self))])

    def digest(self) -> str:
        """Of the split's files and of what is read of them; decoding all images would take long."""
        digest = hashlib.sha256(repr((self.start, self.stop, self.size, self.channels)).encode())
        for path in sorted(self.folder.glob(f"*-{self.split}.array_record*")):
            digest.update(_file_digest(path, path.stat().st_mtime_ns))
        return digest.hexdigest()

    def _decode(self, data: bytes) -> np.ndarray:
        image = Image.open(io.BytesIO(data))
        mode = _MODES[self.channels]
        image = image if image.mode == mode else image.convert(mode)
        array = pixels(plain(image) if mode == "RGBA" else image, self.size)
        return array if self.unit == 1 else array * np.uint8(self.unit)


@functools.cache  # a file may hold several parts
def _file_digest(path: pathlib.Path, modified: int) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _thousands(count: int) -> list[np.ndarray]:
    """Indices 0..count in parts small enough to be read at once."""
    return np.array_split(np.arange(count), count // 1000 + 1)


def _in_memory(name: str, part: Source) -> ArraySource:
    bar = tqdm.tqdm(
        _thousands(len(part)), desc=f"reading {name}", unit=" thousand", leave=False, disable=None
    )
    chunks = [part.__getitems__(indices) for indices in bar]
    images = np.concatenate([chunk["image"] for chunk in chunks])
    return ArraySource(images, np.concatenate([chunk["label"] for chunk in chunks]))


def _find(name: str, config: DataConfig) -> pathlib.Path:
    """The newest prepared version of a set, given as `name`, `name/config` or `name:version`."""
    if os.path.isabs(name) or ".." in name.split("/"):
        raise ValueError(f"data.name is a set's name, and data.dir its folder's parent; got {name}")
    try:
        folder = data_dir(config.dir)
    except ValueError as error:
        raise DataNotFoundError(f"{name} is not prepared: {error}.") from None
    versions = [
        path
        for path in versions_in(folder / name.replace(":", "/"))
        if not path.name.startswith("incomplete.")  # TFDS is writing it, or was stopped
    ]
    kinds = sorted({str(version.parent.relative_to(folder)) for version in versions})
    if len(kinds) > 1:
        raise ValueError(f"{name} is prepared as {', '.join(kinds)}; name one of them")
    if versions:
        return max(
            versions,
            key=lambda path: [int(n) if n.isdigit() else -1 for n in path.name.split(".")],
        )
    raise DataNotFoundError(
        f"{name} is not prepared in {folder}; {_command(name, config.dir)} prepares it."
    )


def versions_in(folder: pathlib.Path) -> list[pathlib.Path]:
    """The folders of prepared sets below a folder, behind links too."""
    pattern = os.path.join(glob.escape(str(folder)), "**", "features.json")
    return [pathlib.Path(path).parent for path in glob.glob(pattern, recursive=True)]


def _command(name: str, folder: str | None) -> str:
    where = f" --data-dir {shlex.quote(folder)}" if folder else ""
    return f"`python -m drawjax.data.prepare {name}{where}`"
