"""What `jax.shard_map` asks of a loop: a state that varies over devices from the first step on."""

from typing import Any

import jax
import jax.numpy as jnp

__all__ = ["vary_like"]


def vary_like(tree: Any, like: Any) -> Any:
    """`tree`, varying over the axes of `jax.shard_map` over which arrays of `like` vary.

    A loop's state keeps its type, and so has to vary from the start if what goes into it does.
    Outside of `shard_map` nothing is done.
    """
    if not jax.sharding.get_abstract_mesh().manual_axes:
        return tree
    # The sum of no elements: a zero that varies as they do, and that costs nothing.
    empty = [_numbers(leaf).ravel()[:0] for leaf in jax.tree.leaves(like)]
    zero = sum(jnp.sum(leaf.astype("int32")) for leaf in empty)
    return jax.tree.map(lambda leaf: leaf + jnp.asarray(zero, leaf.dtype), tree)


def _numbers(leaf: jax.Array) -> jax.Array:
    is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return jax.random.key_data(leaf) if is_key else leaf
