"""Gradients of single images, scaled before all are summed: the option `clip_ratio` of `scan`."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp


def clipped(
    ratio: float, inputs: list[jax.Array], pullback: Any, cotangents: Any, only_images: bool
) -> tuple[Any, Any, Any, Any]:
    """What `pullback` gives for the cotangents, with each image's part scaled so none is too long.

    Args:
      ratio: the longest part, in medians of the batch.
      inputs: those of each product, `[T, images, ..., inputs]`.
      pullback: of the cotangents of (state, ys), those of (probes, closed-over, state, xs).
      cotangents: of the last state and ys.
      only_images: whether nothing that the body closes over sums over images.
    """
    gradients, closed, state, xs = pullback(cotangents)
    factors = _factors(ratio, inputs, gradients)
    if only_images:
        return _scaled(gradients, factors, 1), closed, _scaled(state, factors, 0), xs
    # In a sum over images their parts cannot be told apart any more: scaled before it is made.
    to_state, to_ys = cotangents
    return pullback((_scaled(to_state, factors, 0), _scaled(to_ys, factors, 1)))


def _factors(
    ratio: float, inputs: Sequence[jax.Array], gradients: Sequence[jax.Array]
) -> jax.Array:
    """What to scale each image's gradient by, `[images]`, so that none is too long."""

    def squares(values: jax.Array) -> jax.Array:  # [T, images, ...]
        return jnp.sum(jnp.square(values.astype(jnp.float32)), axis=-1)

    lengths = jnp.sqrt(
        sum(
            jnp.sum(squares(x) * squares(dy), axis=(0, *range(2, x.ndim - 1)))
            for x, dy in zip(inputs, gradients, strict=True)
        )
    )
    lengths = jnp.atleast_1d(lengths)  # without a product it is a plain zero
    # The median of images with a gradient: those without, as masked ones, could make it zero.
    count = jnp.sum(lengths > 0)
    ordered = jnp.sort(jnp.where(lengths > 0, lengths, jnp.inf))
    limit = ratio * (ordered[(count - 1) // 2] + ordered[count // 2]) / 2
    return jnp.where(lengths > limit, limit / jnp.where(lengths > limit, lengths, 1), 1)


def _scaled(tree: Any, factors: jax.Array, axis: int) -> Any:
    def scaled(values: Any) -> Any:
        if values.dtype == jax.dtypes.float0:  # of integers
            return values
        shape = [1] * values.ndim
        shape[axis] = -1
        return values * factors.reshape(shape).astype(values.dtype)

    return jax.tree.map(scaled, tree)
