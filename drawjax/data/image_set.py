"""What an image set is: its records, its three splits, and what tells it from another set."""

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

__all__ = [
    "ArraySource",
    "Batch",
    "DataNotFoundError",
    "ImageSet",
    "Source",
    "check_labels",
]

Batch = dict[str, Any]
"""`image` uint8 `[n, height, width, channels]`, `label` int32 `[n]` (-1 where there is none)."""


class DataNotFoundError(FileNotFoundError):
    """A set was asked for that is not prepared where it was looked for."""


@runtime_checkable
class Source(Protocol):
    """Random access to records, many at a time."""

    @property
    def labels(self) -> np.ndarray:
        """Class numbers, int32 `[n]`; -1 where there is none."""
        ...

    def digest(self) -> str:
        """Of the records' content, wherever they lie."""
        ...

    def __len__(self) -> int: ...

    def __getitems__(self, indices: Sequence[int] | np.ndarray) -> Batch: ...


@dataclasses.dataclass(frozen=True, eq=False)
class ArraySource:
    """Records held in memory."""

    images: np.ndarray  #: uint8 [n, height, width, channels]
    labels: np.ndarray  #: int32 [n]; -1 where there is none

    def __len__(self) -> int:
        return len(self.images)

    def __getitems__(self, indices: Sequence[int] | np.ndarray) -> Batch:
        return {"image": self.images[indices], "label": self.labels[indices]}

    def digest(self) -> str:
        """Of shape, pixels and labels; a second for some hundred megabytes."""
        digest = hashlib.sha256(repr(self.images.shape).encode())
        digest.update(np.ascontiguousarray(self.images).data)
        digest.update(np.ascontiguousarray(self.labels, "<i4").data)
        return digest.hexdigest()


@dataclasses.dataclass(frozen=True)
class ImageSet:
    """A set of images in three splits."""

    name: str  #: the set really used
    train: Source
    validation: Source
    test: Source
    image_shape: tuple[int, int, int]  #: (height, width, channels)
    notes: tuple[str, ...]  #: what a reader of a result must know of the data

    def facts(self) -> dict[str, str | int]:
        """What a run records of its data, by flat names: equal for equal sets, wherever they lie.

        `data.digest` is of images and labels, in their order and in the form in which they are
        held; of a set too large for memory it is of its files of records.
        """
        parts = {"train": self.train, "validation": self.validation, "test": self.test}
        digest = hashlib.sha256("".join(part.digest() for part in parts.values()).encode())
        counts = {f"data.{split}": len(part) for split, part in parts.items()}
        return {"data.name": self.name, **counts, "data.digest": digest.hexdigest()}


def check_labels(images: ImageSet, num_classes: int) -> None:
    """Raises ValueError unless every image has a label in `0..num_classes-1`."""
    parts = {"train": images.train, "validation": images.validation, "test": images.test}
    for split, part in parts.items():
        labels = part.labels  # read from disk, for a set that is too large for memory
        low, high = int(labels.min()), int(labels.max())
        if high == -1:
            raise ValueError(f"{images.name} has no labels for {split}, which a classifier needs")
        if low == -1:
            count = int((labels == -1).sum())
            raise ValueError(f"{images.name} has {count:,} images without a label in {split}")
        if low < 0 or high >= num_classes:
            raise ValueError(
                f"the labels of {images.name} must be 0 to {num_classes - 1}, got {low} to {high} "
                f"in {split}" + ("; subtract 1" if (low, high) == (1, num_classes) else "")
            )
