"""Steps recomputed in the backward pass, block by block: the option `remat` of `scan`."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def scan_in_blocks(scan: Callable[[Any, Any], Any], state: Any, xs: Any) -> tuple[Any, Any]:
    """Runs `scan(state, xs)` over blocks of about sqrt(T) steps, and what remains at the end.

    The states between the blocks are stored, and the steps of one block at a time.
    """
    (steps,) = {leaf.shape[0] for leaf in jax.tree.leaves(xs)}
    block = max(1, round(math.sqrt(steps)))
    whole = steps - steps % block
    run = jax.checkpoint(scan)
    blocks = jax.tree.map(lambda leaf: leaf[:whole].reshape(-1, block, *leaf.shape[1:]), xs)
    state, ys = jax.lax.scan(run, state, blocks)
    ys = jax.tree.map(lambda leaf: leaf.reshape(whole, *leaf.shape[2:]), ys)
    if whole == steps:
        return state, ys
    state, rest = run(state, jax.tree.map(lambda leaf: leaf[whole:], xs))
    return state, jax.tree.map(lambda a, b: jnp.concatenate([a, b]), ys, rest)
