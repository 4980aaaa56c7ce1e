"""What an image set is, and batches of it through Grain: shuffled and resumable, or in order.

Grain counts batches, reads ahead, and keeps the place. A batch is made with one look into the
epoch's order and one call to its source, which for a set held in memory is one indexing operation:
Grain's own shuffling and batching goes record by record, and costs some twenty times as much.
"""

import dataclasses
import functools
import hashlib
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import grain
import numpy as np

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
    form: Any = None  #: what `load` did to it, `{"data.invert": True, ...}`; None: nothing yet

    @property
    def parts(self) -> dict[str, Source]:
        """The three sources by the name of their split."""
        return {"train": self.train, "validation": self.validation, "test": self.test}

    def facts(self) -> dict[str, str | int]:
        """What a run records of its data, by flat names: equal for equal sets, wherever they lie.

        `data.digest` is of images and labels, in their order and in the form in which they are
        held; of a set too large for memory it is of its files of records.
        """
        counts = {f"data.{split}": len(part) for split, part in self.parts.items()}
        return {"data.name": self.name, **counts, "data.digest": self._digest}

    @functools.cached_property
    def _digest(self) -> str:
        # Once for all points of a sweep, which share the set.
        digests = "".join(part.digest() for part in self.parts.values())
        return hashlib.sha256(digests.encode()).hexdigest()


def check_labels(images: ImageSet, num_classes: int) -> None:
    """Raises ValueError unless every image has a label in `0..num_classes-1`."""
    for split, part in images.parts.items():
        labels = part.labels  # read from disk, for a set that is too large for memory
        if missing := int((labels == -1).sum()):
            raise ValueError(
                f"{missing:,} images of {images.name} have no label in {split}, which the model "
                "needs"
            )
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= num_classes:
            raise ValueError(
                f"the labels of {images.name} must be 0 to {num_classes - 1}, got {low} to {high} "
                f"in {split}" + ("; subtract 1" if (low, high) == (1, num_classes) else "")
            )


def _epoch(count: int, seed: int, epoch: int) -> np.ndarray:
    """The order of the records in an epoch. Raw bits, as NumPy may change its own permutations."""
    bits = np.random.Philox(key=np.array([seed, epoch], np.uint64)).random_raw(count)
    return np.argsort(bits, kind="stable")


def check_batch_size(source: Source, batch_size: int) -> None:
    """Raises ValueError unless there is a record at least for each place of a training batch."""
    if not 1 <= batch_size <= len(source):
        raise ValueError(
            f"train.batch_size must be between 1 and the {len(source):,} training images, got "
            f"{batch_size}; give a smaller --train.batch-size"
        )


def train_batches(
    source: Source,
    *,
    batch_size: int,
    seed: int,
    process_index: int = 0,
    process_count: int = 1,
) -> grain.DatasetIterator:
    """Endless shuffled batches, the same for the same seed; every epoch has an order of its own.

    Args:
      source: where the records are.
      batch_size: records per batch, over all processes together. Batches cross the ends of epochs,
        so no record is left out.
      seed: of the order.
      process_index: which process this is; it reads its share of each batch.
      process_count: of how many.

    Returns:
      An iterator of dicts of arrays. `get_state()` is small and goes into JSON; `set_state(...)`
      goes on with exactly the batches that would have followed.

    Raises:
      ValueError: if the batch is larger than the data, does not divide over the processes, or there
        is no such process.
    """
    check_batch_size(source, batch_size)
    if batch_size % process_count or not 0 <= process_index < process_count:
        raise ValueError(
            f"batch size {batch_size} must divide over {process_count} processes, numbered from 0, "
            f"got process {process_index}"
        )
    count, share = len(source), batch_size // process_count
    # Of this iterator alone: those of a sweep's other seeds would push its orders out.
    order = functools.lru_cache(maxsize=2)(functools.partial(_epoch, count, seed % 2**64))

    def read(number: int) -> Batch:
        """This process's share of a batch, given the batch's number."""
        start = number * batch_size + process_index * share
        epochs, places = np.divmod(np.arange(start, start + share), count)
        records = [
            order(epoch)[places[epochs == epoch]] for epoch in range(epochs[0], epochs[-1] + 1)
        ]
        return source.__getitems__(np.concatenate(records))

    batches = grain.MapDataset.range(sys.maxsize).map(read)
    # From disk, where images have to be decoded, by all cores.
    threads = 1 if isinstance(source, ArraySource) else min(16, os.cpu_count() or 1)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(4, 2 * threads))
    return iter(batches.to_iter_dataset(options))


def eval_batches(source: Source, *, batch_size: int) -> Iterator[tuple[Batch, np.ndarray]]:
    """Every record once, in order.

    Args:
      source: where the records are.
      batch_size: records per batch. The last batch is filled up by repeating its last record.

    Yields:
      `(batch, weight)`: the batch has also each record's number, `index`; weight `[batch_size]`
      float32 is one for a record and zero for filling.
    """
    for start in range(0, len(source), batch_size):
        numbers = np.arange(start, start + batch_size)
        index = np.minimum(numbers, len(source) - 1)
        batch = source.__getitems__(index) | {"index": index.astype(np.int32)}
        yield batch, (numbers < len(source)).astype(np.float32)
