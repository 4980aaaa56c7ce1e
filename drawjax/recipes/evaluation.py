"""What every evaluation shares: a fixed key, batches with keys of their own, the standard error."""

import itertools
import math
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from drawjax import data
from drawjax.progress import track

__all__ = ["evaluation_batches", "evaluation_key", "standard_error"]


def evaluation_key(number: int) -> jax.Array:
    """The key of an evaluation's batch: its noise and all that is drawn of its images."""
    return jax.random.fold_in(jax.random.key(20150211), number)


def evaluation_batches(
    source: data.Source, count: int, size: int, what: str
) -> Iterator[tuple[Any, np.ndarray, jax.Array]]:
    """Batches with at least `count` images, their weights, and a key each; shows how far it is."""
    size = min(size, count)
    batches = itertools.islice(data.eval_batches(source, batch_size=size), math.ceil(count / size))
    for number, (batch, weight) in enumerate(track(batches, what, count, each=size)):
        yield batch, weight, evaluation_key(number)


def standard_error(values: np.ndarray) -> float:
    """Of the mean."""
    return float(values.std(ddof=1) / math.sqrt(len(values)))
