"""What an image set is: its records, its three splits."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

__all__ = [
    "ArraySource",
    "Batch",
    "DataNotFoundError",
    "ImageSet",
    "Source",
]

Batch = dict[str, Any]
"""`image` uint8 `[n, height, width, channels]`, `label` int32 `[n]` (-1 where there is none)."""


class DataNotFoundError(FileNotFoundError):
    """A set was asked for that is not prepared where it was looked for."""


@runtime_checkable
class Source(Protocol):
    """Random access to records, many at a time."""

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


@dataclasses.dataclass(frozen=True)
class ImageSet:
    """A set of images in three splits."""

    name: str  #: the set really used
    train: Source
    validation: Source
    test: Source
    image_shape: tuple[int, int, int]  #: (height, width, channels)
    notes: tuple[str, ...]  #: what a reader of a result must know of the data
