"""Prepared TFDS sets, read without TensorFlow.

Sets up to a gibibyte of pixels are decoded once (`drawjax.data.cache`) and held in memory; larger
ones are read record by record.
"""

import dataclasses
import functools
import hashlib
import io
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tqdm
from PIL import Image

from drawjax.config import DataConfig, data_dir
from drawjax.data.cache import cached
from drawjax.data.pictures import plain
from drawjax.data.pipeline import (
    ArraySource,
    Batch,
    DataNotFoundError,
    ImageSet,
    Source,
)

__all__ = ["pixels", "prepared", "split_ranges"]

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

    try:
        builder: Any = tfds.builder_from_directory(str(folder))
        splits, features = builder.info.splits, builder.info.features
    except Exception as error:  # of any kind, whatever TFDS stumbles over
        raise _damaged(folder, error) from error
    _check_features(name, features, config.size)
    # Images are decoded here, not by TFDS, whose ways depend on the packages that are installed.
    encoded = [key for key in features if isinstance(features[key], tfds.features.Image)]
    decoders = dict.fromkeys(encoded, tfds.decode.SkipDecoding())
    try:
        records = {split: builder.as_data_source(split, decoders=decoders) for split in splits}
    except NotImplementedError:
        elsewhere = _command(name, DataConfig(dir="ANOTHER_FOLDER"))
        raise DataNotFoundError(
            f"{name} in {folder} is in the {builder.info.file_format.value} format, and only "
            f"array_record is read without TensorFlow; {elsewhere} prepares it beside."
        ) from None
    channels = features["image"].shape[-1]
    labeled = "label" in features and _is_whole_number(features["label"])

    def part(split: str, start: int, stop: int) -> _Records:
        return _Records(records[split], folder, split, start, stop, config.size, channels, labeled)

    notes = list((builder.info.metadata or {}).get("notes", ()))  # of builders of our own
    counts = {split: len(records[split]) for split in records if len(records[split])}
    ranges, rules = split_ranges(name, counts)
    if counts["train"] != _OFFICIAL_TRAIN.get(name, counts["train"]):
        notes.append(
            f"{name} is prepared in part: {counts['train']:,} of {_OFFICIAL_TRAIN[name]:,} "
            "training images."
        )
    notes += rules
    parts: list[Source] = [part(*its_range) for its_range in ranges]
    image_shape = parts[-1].__getitems__([0])["image"].shape[1:]
    if sum(map(len, parts)) * np.prod(image_shape) <= _IN_MEMORY:
        parts = [
            cached(part, folder, (*its_range, config.size), functools.partial(_in_memory, name))
            for part, its_range in zip(parts, ranges, strict=True)
        ]
    train, validation, test = parts
    return ImageSet(name, train, validation, test, image_shape, tuple(notes))


def _check_features(name: str, features: Mapping[str, Any], size: int | None) -> None:
    if "image" not in features:
        raise ValueError(f"{name} has the features {sorted(features)}; image is needed")
    shape, dtype = features["image"].shape, np.dtype(features["image"].np_dtype)
    if dtype != np.uint8 or len(shape) != 3 or shape[-1] not in _MODES:
        raise ValueError(
            f"the images of {name} are {dtype.name} {list(shape)}; uint8 [height, width, channels] "
            f"is needed, with {', '.join(map(str, _MODES))} channels"
        )
    if size is None and None in shape:
        raise ValueError(f"the images of {name} differ in size; give --data.size")


def _is_whole_number(feature: Any) -> bool:
    return feature.shape == () and np.issubdtype(feature.np_dtype, np.integer)


def split_ranges(
    name: str, counts: Mapping[str, int]
) -> tuple[list[tuple[str, int, int]], tuple[str, ...]]:
    """Split, start and stop of our training, validation and test set, and the rules as notes."""
    whole = left = counts.get("train", 0)
    held_out = max(1, min(5_000, whole // 10))
    rules = []

    def hold_out(what: str) -> tuple[str, int, int]:
        nonlocal left
        left -= held_out
        where = "" if left + held_out == whole else " that are left"
        rules.append(f"{what}: the last {held_out:,} training images of {name}{where}.")
        return "train", left, left + held_out

    if "test" in counts:
        test = "test", 0, counts["test"]
    elif "validation" in counts:
        test = "validation", 0, counts["validation"]
        rules.append(f"Test: the validation split of {name}, which has no test split.")
    else:
        test = hold_out("Test")
    if "test" in counts and "validation" in counts:
        validation = "validation", 0, counts["validation"]
    else:
        validation = hold_out("Validation")
    if left < 1:
        raise ValueError(
            f"{name} has the splits {dict(counts)}, which is too little to train, validate and test"
        )
    return [("train", 0, left), validation, test], tuple(rules)


def _damaged(folder: pathlib.Path, error: Exception) -> ValueError:
    reason = str(error).strip().splitlines() or [""]
    return ValueError(
        f"the set in {folder} cannot be read ({type(error).__name__}: {reason[0]}); "
        "if it is damaged, remove that folder and prepare the set again"
    )


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
    labeled: bool

    def __len__(self) -> int:
        return self.stop - self.start

    def __getitems__(self, indices: Sequence[int] | np.ndarray) -> Batch:
        try:
            records = self.records.__getitems__([self.start + int(i) for i in indices])
            images = [self._decode(record["image"]) for record in records]
        except (RuntimeError, OSError) as error:  # array_record's, PIL's
            raise _damaged(self.folder, error) from error
        labels = [record["label"] if self.labeled else -1 for record in records]
        return {"image": np.stack(images), "label": np.asarray(labels, np.int32)}

    @property
    def labels(self) -> np.ndarray:
        """Read without decoding an image."""
        if not self.labeled:
            return np.full(len(self), -1, np.int32)
        starts = range(self.start, self.stop, 1000)
        parts = [range(start, min(start + 1000, self.stop)) for start in starts]
        try:
            records = [record for part in parts for record in self.records.__getitems__(part)]
        except (RuntimeError, OSError) as error:
            raise _damaged(self.folder, error) from error
        return np.array([record["label"] for record in records], np.int32)

    def digest(self) -> str:
        """Of the split's files and of what is read of them; decoding all images would take long."""
        digest = hashlib.sha256(repr((self.start, self.stop, self.size, self.channels)).encode())
        for path in sorted(self.folder.glob(f"*-{self.split}.array_record*")):
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()

    def _decode(self, data: bytes) -> np.ndarray:
        image = Image.open(io.BytesIO(data))
        mode = _MODES[self.channels]
        image = image if image.mode == mode else image.convert(mode)
        return pixels(plain(image) if mode == "RGBA" else image, self.size)


def _in_memory(name: str, part: Source) -> ArraySource:
    starts = range(0, len(part), 1000)
    chunks = [
        part.__getitems__(range(start, min(start + 1000, len(part))))
        for start in tqdm.tqdm(
            starts, desc=f"reading {name}", unit=" thousand", leave=False, disable=None
        )
    ]
    images = np.concatenate([chunk["image"] for chunk in chunks])
    labels = np.concatenate([chunk["label"] for chunk in chunks])
    if name == "binarized_mnist":  # stored as 0 and 1, to which resizing rounds
        images = images * np.uint8(255)
    return ArraySource(images, labels)


def _find(name: str, config: DataConfig) -> pathlib.Path:
    """The newest prepared version of a set, given as `name`, `name/config` or `name:version`."""
    try:
        folder = data_dir(config)
    except ValueError as error:
        raise DataNotFoundError(f"{name} is not prepared: {error}.") from None
    versions = [
        path.parent
        for path in (folder / name.replace(":", "/")).glob("**/features.json")
        if not path.parent.name.startswith("incomplete.")  # TFDS is writing it, or was stopped
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
        f"{name} is not prepared in {folder}; {_command(name, config)} prepares it."
    )


def _command(name: str, config: DataConfig) -> str:
    where = f" --data-dir {config.dir}" if config.dir else ""
    return f"`python -m drawjax.data.prepare {name}{where}`"
