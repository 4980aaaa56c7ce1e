"""What loops of models ask for: products by `dense`, and first states for `jax.shard_map`.

`scan` may answer the products in its own way.
"""

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import get_opaque_trace_state
from jaxtyping import Array, Float

_Answer = Callable[[jax.Array, jax.Array, jax.Array, Any], jax.Array]

_answer: contextvars.ContextVar[_Answer | None] = contextvars.ContextVar("answer", default=None)


def dense(
    inputs: Float[Array, "*batch inputs"],
    kernel: Float[Array, "inputs outputs"],
    bias: Float[Array, " outputs"],
    *,
    dtype: Any = None,
) -> Float[Array, "*batch outputs"]:
    """A linear map with a bias, whose weight gradient `scan` takes out of its loop.

    Args:
      inputs: `[*batch, inputs]`.
      kernel: `[inputs, outputs]`.
      bias: `[outputs]`.
      dtype: the type in which inputs and kernel enter the product, e.g. bfloat16; None: as they
        are. Sums, outputs and weight gradients have the wider type of the two, float32 at least.

    Raises:
      ValueError: if the shapes do not go together.
    """
    if kernel.ndim != 2 or inputs.ndim < 1 or inputs.shape[-1] != kernel.shape[0]:
        raise ValueError(
            f"inputs [..., inputs] and kernel [inputs, outputs] do not go together, got "
            f"{list(inputs.shape)} and {list(kernel.shape)}"
        )
    return (_answer.get() or plain)(inputs, kernel, bias, dtype)


def product(inputs: jax.Array, kernel: jax.Array, dtype: Any = None) -> jax.Array:
    """Multiplies inputs and kernel, both cast to `dtype`, summing in float32 or wider.

    Args:
      inputs: `[*batch, inputs]`.
      kernel: `[inputs, outputs]`.
      dtype: the type in which both enter; None leaves them as they are.

    Returns:
      `[*batch, outputs]`, in the wider type of the two before the cast, at least float32.
    """
    common = common_type(inputs, kernel)
    result = np.promote_types(common, np.float32)
    entering = dtype or common
    return jnp.matmul(
        inputs.astype(entering), kernel.astype(entering), preferred_element_type=result
    )


def common_type(inputs: jax.Array, kernel: jax.Array) -> Any:
    """The wider type of the two, meant here even where a program refuses to mix types."""
    with jax.numpy_dtype_promotion("standard"):
        return jnp.result_type(inputs, kernel)


def plain(inputs: jax.Array, kernel: jax.Array, bias: jax.Array, dtype: Any) -> jax.Array:
    """What `dense` is outside of our loop: a product and a sum, which JAX differentiates."""
    outputs = product(inputs, kernel, dtype)
    return outputs + jnp.expand_dims(bias, range(outputs.ndim - 1))


@contextlib.contextmanager
def answered_by(function: _Answer) -> Iterator[None]:
    """While in it, `dense` calls made at this level of tracing go to `function`."""
    level = get_opaque_trace_state(convention="nnx")

    def at_this_level(inputs, kernel, bias, dtype):
        if get_opaque_trace_state(convention="nnx") != level:
            return plain(inputs, kernel, bias, dtype)
        return function(inputs, kernel, bias, dtype)

    token = _answer.set(at_this_level)
    try:
        yield
    finally:
        _answer.reset(token)


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
