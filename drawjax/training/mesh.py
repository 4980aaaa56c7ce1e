"""Devices: the batch is spread over them, everything else is on each of them."""

from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

__all__ = ["make", "replicate", "shard_batch"]


def make(batch_size: int) -> Mesh:
    """All devices of all processes, in one axis called `data`.

    Raises:
      ValueError: if the batch does not divide over them.
    """
    count = jax.device_count()
    if batch_size % count:
        raise ValueError(f"batch size must divide over the {count} devices, got {batch_size}")
    return jax.make_mesh((count,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))


def replicate(mesh: Mesh, tree: Any) -> Any:
    """Puts a copy of every array on each device."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def shard_batch(mesh: Mesh, batch: Any) -> Any:
    """Spreads this process's share of a batch over its devices, along the first axis."""
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    return jax.tree.map(
        lambda leaf: jax.make_array_from_process_local_data(sharding, leaf), batch
    )
