"""How a trained model is measured on a set: image by image, whatever the batch size.

All that is random about image i (binarization, partner, place, noise) comes from a key that is a
function of the evaluation's key and i alone.
"""

import dataclasses
import hashlib
import itertools
import logging
import math
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
import tqdm

from drawjax import data, draw, modules
from drawjax.data.cache import CachedArrays

__all__ = [
    "importance_weighted",
    "over_images",
    "standard_error",
]

_log = logging.getLogger(__name__)

_IMAGES = 20  # a batch of the importance-weighted bound: a bar over fewer still moves
# Images times samples that are drawn at once; on a CPU what stays in its cache.
_ROWS, _ROWS_ON_CPU = 1_000, 500


def over_images(
    function: Callable[[Any, jax.Array], Mapping[str, jax.Array]],
    source: data.Source,
    key: jax.Array,
    *,
    batch_size: int,
    count: int | None = None,
    what: str = "evaluating",
    cache: CachedArrays | None = None,
) -> dict[str, np.ndarray]:
    """Calls a function on batches of images and joins what it gives for each image.

    Args:
      function: `(batch, keys) -> {name: [batch, ...]}`; a batch as `data.eval_batches` yields it,
        and a PRNG key for each of its images.
      source: the images.
      key: PRNG key; image i gets `fold_in(key, i)`.
      batch_size: images per call.
      count: how many images, the first ones; None: all.
      what: what the progress bar says.
      cache: where values are kept after each batch, so that an evaluation that was stopped goes
        on from there, and one of more images takes those that are known.

    Returns:
      By name an array `[count, ...]`.
    """
    count = len(source) if count is None else min(count, len(source))
    size = min(batch_size, count)
    known = {} if cache is None else cache.read()
    done = min((len(values) for values in known.values()), default=0) // size * size
    columns = {name: [values[:done]] for name, values in known.items()}
    batches = data.eval_batches(source, batch_size=size)
    batches = itertools.islice(batches, done // size, math.ceil(count / size))
    bar = tqdm.tqdm(desc=what, total=count, initial=done, unit=" images", leave=False, disable=None)
    with bar:
        for batch, weight in batches:
            values = function(batch, data.image_keys(key, batch["index"]))
            for name, value in values.items():
                columns.setdefault(name, []).append(np.asarray(value)[weight > 0])
            if cache is not None:
                cache.write({name: np.concatenate(parts) for name, parts in columns.items()})
            bar.update(size)
    return {name: np.concatenate(parts)[:count] for name, parts in columns.items()}


def standard_error(values: np.ndarray) -> float | None:
    """Of the mean; None for a single value, which tells nothing of it."""
    return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else None


def importance_weighted(
    model: draw.Model,
    inputs: Callable[[Any, jax.Array], tuple[jax.Array, jax.Array | None, jax.Array]],
    source: data.Source,
    key: jax.Array,
    *,
    num_samples: int,
    count: int,
    folder: pathlib.Path | None = None,
) -> dict[str, float | None]:
    """The K-sample bound of Burda et al. (2016) on the first images of a source.

    Args:
      model: the generating model.
      inputs: `(batch, keys) -> (images, condition or None, noise keys)`, what the model sees.
      source: the images.
      key: PRNG key of the evaluation.
      num_samples: K.
      count: how many images.
      folder: where the values of images that are done are kept, as importance.npz: an evaluation
        that was stopped goes on, and one of more images begins after them. None: nowhere.

    Returns:
      In nats per image, with standard errors: minus the bound, `importance_weighted`, and by how
      much it is tighter than the bound of Eq. 12 by the same samples, `importance_gain`, which few
      images tell well. Also `importance_samples` and `importance_images`.
    """
    graph, params = modules.split(model)
    rows = _ROWS_ON_CPU if jax.default_backend() == "cpu" else _ROWS
    size = min(_IMAGES * jax.local_device_count(), count)
    sharding = _over_devices(size)

    @jax.jit
    def losses(params, batch, keys):
        images, condition, noise_keys = inputs(batch, keys)
        weighted, plain = draw.importance_weighted_bound(
            modules.merge(graph, params), images, noise_keys,
            num_samples=num_samples,
            chunk=max(1, rows * sharding.num_devices // len(images)), condition=condition,
        )  # fmt: skip
        return {"weighted": -weighted, "gain": weighted - plain}

    cache = None
    if folder is not None:
        # What the model sees of the first batch tells the data and its form.
        batch, _ = next(data.eval_batches(source, batch_size=min(_IMAGES, len(source))))
        seen, condition, _ = inputs(batch, data.image_keys(key, batch["index"]))
        parts = params, jax.random.key_data(key), num_samples, len(source), seen, condition
        sizes = getattr(model, "config", None)
        if not dataclasses.is_dataclass(sizes):  # whose text may differ from process to process
            sizes = None
        structure = model.num_glimpses, sizes, seen.shape, seen.dtype
        digest = hashlib.sha256(repr(structure).encode())
        for array in jax.tree.leaves(parts):
            digest.update(np.asarray(array).tobytes())
        cache = CachedArrays(folder / "importance.npz", digest.hexdigest())
    _log.info("evaluating %s images by %s samples each", f"{count:,}", f"{num_samples:,}")
    values = over_images(
        lambda batch, keys: losses(params, *jax.device_put((batch, keys), sharding)), source, key,
        batch_size=size, count=count, what="evaluating by importance", cache=cache,
    )  # fmt: skip
    weighted, gain = values["weighted"].astype(float), values["gain"].astype(float)
    return {
        "importance_weighted": float(weighted.mean()),
        "importance_weighted_standard_error": standard_error(weighted),
        "importance_gain": float(gain.mean()),
        "importance_gain_standard_error": standard_error(gain),
        "importance_samples": num_samples,
        "importance_images": len(weighted),
    }


def _over_devices(batch_size: int) -> jax.sharding.NamedSharding:
    """Spreads a batch over the devices of this process, as far as it divides."""
    count = math.gcd(batch_size, jax.local_device_count())
    mesh = jax.make_mesh(
        (count,), ("data",), (jax.sharding.AxisType.Auto,), devices=jax.local_devices()[:count]
    )
    return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
