"""Devices in a grid: points of a sweep x shares of the batch."""

import math
from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from drawjax.config import TrainConfig

__all__ = ["check", "devices", "make", "put_batch", "replicated", "stacked"]


def devices() -> str:
    """How many devices of what kind all processes have together, e.g. `1 x cpu`."""
    return f"{jax.device_count()} x {jax.devices()[0].device_kind}"


def make(batch_size: int, *, points: int = 1) -> Mesh:
    """All devices of all processes, with axes `point` and `data`.

    Args:
      batch_size: images a step of one point, over all devices together.
      points: points of a sweep trained side by side; they are spread over as many devices as divide
        both, the batch over the rest.

    Raises:
      ValueError: if the batch does not divide.
    """
    count = jax.device_count()
    spread = math.gcd(points, count) if jax.process_count() == 1 else 1
    rest = count // spread
    if batch_size % rest:
        raise ValueError(
            f"train.batch_size must divide over {rest} devices, got {batch_size}; "
            f"there are {count} devices"
        )
    return jax.make_mesh(
        (spread, rest), ("point", "data"), axis_types=(jax.sharding.AxisType.Auto,) * 2
    )


def check(configs: Sequence[TrainConfig]) -> None:
    """Raises ValueError, as `make` does, if configs cannot train side by side on these devices."""
    make(configs[0].batch_size, points=len(configs))


def replicated(mesh: Mesh) -> NamedSharding:
    """A copy on each device."""
    return NamedSharding(mesh, PartitionSpec())


def stacked(mesh: Mesh) -> NamedSharding:
    """A leading axis of points spread over `point`; a copy on each device that trains the point."""
    return NamedSharding(mesh, PartitionSpec("point"))


def put_batch(mesh: Mesh, batch: Any, *, stacked: bool = False) -> Any:
    """Spreads this process's share of a batch over its devices, along the batch axis."""
    spec = PartitionSpec("point", "data") if stacked else PartitionSpec("data")
    sharding = NamedSharding(mesh, spec)
    return jax.tree.map(lambda leaf: jax.make_array_from_process_local_data(sharding, leaf), batch)
