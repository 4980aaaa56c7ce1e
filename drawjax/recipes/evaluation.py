"""How every evaluation goes over a set: image by image, whatever the batch size.

All that is random about image i (binarization, partner, place, noise) comes from a key that is a
function of the evaluation's key and i alone.
"""

import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from drawjax import data
from drawjax.kept import Kept
from drawjax.progress import track

__all__ = ["over_images", "standard_error"]


def over_images(
    function: Callable[[Any, jax.Array], Mapping[str, jax.Array]],
    source: data.Source,
    key: jax.Array,
    *,
    batch_size: int,
    count: int | None = None,
    what: str = "evaluating",
    keep: Kept | None = None,
) -> dict[str, np.ndarray]:
    """Calls a function on batches of images and joins what it gives for each image.

    Args:
      function: `(batch, keys) -> {name: [batch, ...]}`; a batch as `data.eval_batches` yields it,
        and a PRNG key for each of its images.
      source: the images.
      key: PRNG key; image i gets `fold_in(key, i)`.
      batch_size: images a call.
      count: how many images, the first ones; None: all.
      what: what the progress bar says.
      keep: where values are kept after each batch, so that an evaluation that was stopped goes on
        from there, and one of more images takes those that are known.

    Returns:
      By name an array `[count, ...]`.
    """
    count = len(source) if count is None else min(count, len(source))
    size = min(batch_size, count)
    known = {} if keep is None else keep.read()
    done = min((len(values) for values in known.values()), default=0) // size * size
    columns = {name: [values[:done]] for name, values in known.items()}
    batches = data.eval_batches(source, batch_size=size)
    batches = itertools.islice(batches, done // size, math.ceil(count / size))
    for batch, weight in track(batches, what, max(0, count - done), each=size):
        values = function(batch, data.image_keys(key, batch["index"]))
        for name, value in values.items():
            columns.setdefault(name, []).append(np.asarray(value)[weight > 0])
        if keep is not None:
            keep.write({name: np.concatenate(parts) for name, parts in columns.items()})
    return {name: np.concatenate(parts)[:count] for name, parts in columns.items()}


def standard_error(values: np.ndarray) -> float:
    """Of the mean."""
    return float(values.std(ddof=1) / math.sqrt(len(values)))
