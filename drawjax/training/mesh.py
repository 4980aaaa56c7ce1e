"""Devices in a grid: points of a sweep x shares of the batch x columns of large kernels."""

import math
from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from drawjax.training.config import TrainConfig

__all__ = ["check", "devices", "make", "put_batch", "replicated", "shardings"]

_WORTH_SHARDING = 1 << 14  # elements; a smaller array is copied to every device


def devices() -> str:
    """How many devices of what kind all processes have together, e.g. `1 x cpu`."""
    return f"{jax.device_count()} x {jax.devices()[0].device_kind}"


def make(batch_size: int, *, model_parallel: int = 1, points: int = 1) -> Mesh:
    """All devices of all processes, with axes `point`, `data` and `model`.

    Args:
      batch_size: images a step of one point, over all devices together.
      model_parallel: devices that share one copy of the parameters.
      points: points of a sweep trained together; they are spread over as many devices as divide
        both, the batch over the rest.

    Raises:
      ValueError: if the model axis or the batch does not divide.
    """
    count = jax.device_count()
    if model_parallel > count:
        raise ValueError(
            f"train.model_parallel must be at most the number of devices, {count}, "
            f"got {model_parallel}"
        )
    # A model axis across hosts would have each of them read the same share of a batch.
    if jax.local_device_count() % model_parallel:
        raise ValueError(
            f"train.model_parallel must divide the {jax.local_device_count()} devices of a host, "
            f"got {model_parallel}"
        )
    rest = count // model_parallel
    spread = math.gcd(points, rest) if jax.process_count() == 1 else 1
    rest //= spread
    if batch_size % rest:
        raise ValueError(
            f"train.batch_size must divide over {rest} devices, got {batch_size}; "
            f"there are {count} devices"
        )
    return jax.make_mesh(
        (spread, rest, model_parallel),
        ("point", "data", "model"),
        axis_types=(jax.sharding.AxisType.Auto,) * 3,
    )


def check(configs: Sequence[TrainConfig]) -> None:
    """Raises ValueError, as `make` does, if configs cannot train together on these devices."""
    first = configs[0]
    make(first.batch_size, model_parallel=first.model_parallel, points=len(configs))


def replicated(mesh: Mesh) -> NamedSharding:
    """A copy on each device."""
    return NamedSharding(mesh, PartitionSpec())


def shardings(mesh: Mesh, tree: Any, *, stacked: bool = False) -> Any:
    """Where the arrays of a state lie: the last axis of large kernels over `model`.

    Args:
      mesh: the devices.
      tree: arrays, or their shapes.
      stacked: whether a leading axis counts points of a sweep, to be spread over `point`.

    Returns:
      A sharding for each leaf.
    """
    lead = ("point",) if stacked else ()

    def of(leaf: Any) -> NamedSharding:
        shape = leaf.shape[len(lead) :]
        across = mesh.shape["model"]
        large = len(shape) >= 2 and math.prod(shape) >= _WORTH_SHARDING
        if across > 1 and large and shape[-1] % across == 0:
            return NamedSharding(mesh, PartitionSpec(*lead, *(None,) * (len(shape) - 1), "model"))
        return NamedSharding(mesh, PartitionSpec(*lead))

    return jax.tree.map(of, tree)


def put_batch(mesh: Mesh, batch: Any, *, stacked: bool = False) -> Any:
    """Spreads this process's share of a batch over its devices, along the batch axis."""
    spec = PartitionSpec("point", "data") if stacked else PartitionSpec("data")
    sharding = NamedSharding(mesh, spec)
    return jax.tree.map(lambda leaf: jax.make_array_from_process_local_data(sharding, leaf), batch)
