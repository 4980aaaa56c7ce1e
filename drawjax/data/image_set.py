"""What an image set is: which one was asked for, its records, its three splits."""

import dataclasses
import os
import pathlib
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from drawjax.data.binarize import Binarization

__all__ = [
    "ArraySource",
    "Batch",
    "DataConfig",
    "DataNotFoundError",
    "ImageSet",
    "Source",
    "data_dir",
]

Batch = dict[str, np.ndarray]  # "image" uint8 [n, height, width, channels], "label" int32 [n]


class DataNotFoundError(FileNotFoundError):
    """A set was asked for that is not prepared where it was looked for."""


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Which images, and in what form."""

    name: str | None = None
    """TFDS name of a prepared image set, e.g. fashion_mnist; None: the experiment's own."""
    dir: str | None = None
    """Folder of prepared sets; None: $TFDS_DATA_DIR, else TFDS's own, ~/tensorflow_datasets."""
    binarization: Binarization = "static"
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

    images: np.ndarray  #: uint8 [n, height, width, channels]
    labels: np.ndarray  #: int32 [n]; -1 where there is none

    def __len__(self) -> int:
        return len(self.images)

    def __getitems__(self, indices: Sequence[int] | np.ndarray) -> Batch:
        return {"image": self.images[indices], "label": self.labels[indices]}


@dataclasses.dataclass(frozen=True)
class ImageSet:
    """A set of images in three splits."""

    name: str  #: the set really used
    train: Source
    validation: Source
    test: Source
    image_shape: tuple[int, int, int]  #: (height, width, channels)
    notes: tuple[str, ...]  #: what a reader of a result must know of the data


def data_dir(config: DataConfig) -> pathlib.Path:
    """The folder in which prepared sets are looked for."""
    folder = config.dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    return pathlib.Path(folder).expanduser()
