"""A scan that takes the weight gradients of its matrix products out of the loop.

The gradient of a recurrent network by `jax.lax.scan` computes dW += x_t^T dy_t at every step: T
thin products, each reading and writing the whole of dW. Here the loop keeps the inputs x_t and
the cotangents dy_t, and one product over steps and batch gives dW after it. Of the forward pass
only the products' outputs and the carry are stored; what lies between products is elementwise or
small, and is computed again in the backward pass rather than read back from memory. Over several
devices the sum of dW across them happens once, not once a step. And since dy_t is still there for
each image of a batch when the loop is done, an image's gradient can be scaled before all are summed
(`clip_ratio`).

A body asks for its products by name:

>>> def body(linear, hidden, x):
...     hidden = jnp.tanh(linear("recurrent", jnp.concatenate([x, hidden], -1)))
...     return hidden, hidden
>>> hidden, ys = scan(body, {"recurrent": (kernel, bias)}, hidden, xs)

Axes: `T` steps, `*batch` any leading shape, `inputs` and `outputs` of a product.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

__all__ = ["Linear", "Weights", "keep", "product", "scan"]

Linear = Callable[[str, jax.Array], jax.Array]
"""`linear(name, x)`: x @ kernel + bias with the weights of that name, `[*batch, outputs]`."""

Weights = Mapping[str, tuple[jax.Array, jax.Array]]
"""Kernel `[inputs, outputs]` and bias `[outputs]` by name."""

_KEPT = "drawjax.hoist"

_Prepared = dict[str, tuple[jax.Array, jax.Array, jax.Array]]  # kernel, its transpose, bias


def scan(
    body: Callable[[Linear, Any, Any], tuple[Any, Any]],
    weights: Weights,
    state: Any,
    xs: Any,
    *,
    dtype: Any = None,
    clip_ratio: float | None = None,
) -> tuple[Any, Any]:
    """`jax.lax.scan` for a body whose products with `weights` are cheap to differentiate.

    The value and the gradients are those of a `lax.scan` over `body`, up to the order of sums.
    Gradients reach the weights, the state, xs and whatever the body closes over. Reverse mode
    only: `jax.jvp` and what builds on it do not pass.

    Args:
      body: `body(linear, state, x) -> (state, y)`; pure. It may call `linear` with any of the
        names, several times with one name, and must not use the kernels otherwise.
      weights: kernel and bias by name, constant over the steps. Names that the body does not use
        get a gradient of zero.
      state: what the body is first called with.
      xs: pytree of arrays with leading axis T.
      dtype: the type in which kernels and inputs enter the products, e.g. bfloat16; kernels are
        cast once, before the loop. Sums, outputs and weight gradients have the kernel's type.
      clip_ratio: scales the gradient that an image sends to weights and state down to this many
        times the median of its batch, if it is longer. Inputs of products, their outputs and the
        leaves of the state then have images as their first axis (after T). An image's length is
        sqrt(sum_t |x_t|^2 |dy_t|^2) over all products, the norm of its dW where the steps'
        parts are orthogonal. None: no limit.

    Returns:
      The last state and the stacked outputs y, as `lax.scan`.
    """
    weights = {name: (kernel, bias) for name, (kernel, bias) in weights.items()}
    types = {name: kernel.dtype for name, (kernel, _) in weights.items()}

    def prepared(weights: Weights) -> _Prepared:
        # The backward pass multiplies with the transpose. Taken once and not in the loop, it is a
        # product of rows and columns like the forward one: XLA's CPU backend has no other kernel
        # for bfloat16 and would turn to float32, at half the rate.
        casts = {name: (k.astype(dtype or k.dtype), bias) for name, (k, bias) in weights.items()}
        return {name: (kernel, kernel.T, bias) for name, (kernel, bias) in casts.items()}

    calls = _calls(body, weights, state, xs, dtype)

    def tapped(probes: list[jax.Array], weights: _Prepared, state: Any, x: Any) -> Any:
        taps = []

        def linear(name: str, inputs: jax.Array) -> jax.Array:
            outputs = _probed(inputs, *weights[name], probes[len(taps)])
            # Stored as they are, and cast at once after the loop: XLA's CPU backend spends more
            # on a cast fused with the store than the narrower store saves.
            taps.append(inputs)
            return keep(outputs)

        state, y = body(linear, state, x)
        return state, (y, taps)

    def probes(length: tuple[int, ...] = ()) -> list[jax.Array]:
        return [jnp.zeros((*length, *out.shape), out.dtype) for _, out in calls]

    # What the body closes over becomes an argument, so that gradients reach it.
    first = jax.tree.map(lambda leaf: leaf[0], xs)
    tapped, closed = jax.closure_convert(tapped, probes(), prepared(weights), state, first)

    @jax.custom_vjp
    def run(weights: Weights, closed: list, state: Any, xs: Any) -> tuple[Any, Any]:
        ready = prepared(weights)
        state, (ys, _) = jax.lax.scan(
            lambda state, x: tapped(probes(), ready, state, x, *closed), state, xs
        )
        return state, ys

    def forward(weights: Weights, closed: list, state: Any, xs: Any):
        ready = prepared(weights)

        def traced(probes: list[jax.Array], closed: list, state: Any, xs: Any):
            def step(state: Any, x_and_probes: Any) -> tuple[Any, Any]:
                x, probes = x_and_probes
                return tapped(probes, ready, state, x, *closed)

            policy = jax.checkpoint_policies.save_only_these_names(_KEPT)
            step = jax.checkpoint(step, policy=policy, prevent_cse=False)
            state, (ys, taps) = jax.lax.scan(step, state, (xs, probes), unroll=_unroll())
            return (state, ys), taps

        (length,) = {leaf.shape[0] for leaf in jax.tree.leaves(xs)}
        outputs, pullback, taps = jax.vjp(
            traced, probes((length,)), closed, state, xs, has_aux=True
        )
        return outputs, (pullback, taps, weights)

    def backward(residuals: Any, cotangents: Any):
        pullback, taps, weights = residuals
        gradients, closed, state, xs = pullback(cotangents)
        if clip_ratio is not None:
            gradients, state = _clipped(clip_ratio, taps, gradients, state)
        sums = {
            name: (jnp.zeros(kernel.shape, types[name]), jnp.zeros_like(bias))
            for name, (kernel, bias) in weights.items()
        }
        for (name, _), inputs, gradient in zip(calls, taps, gradients, strict=True):
            kernel, bias = sums[name]
            sums[name] = (
                kernel + _contract(inputs.astype(dtype or inputs.dtype), gradient, types[name]),
                bias + jnp.sum(gradient, axis=range(gradient.ndim - 1), dtype=bias.dtype),
            )
        return sums, closed, state, xs

    run.defvjp(forward, backward)
    return run(weights, closed, state, xs)


def keep(value: jax.Array) -> jax.Array:
    """Marks a value that `scan` is to store for the backward pass rather than compute again."""
    return checkpoint_name(value, _KEPT)


def product(inputs: jax.Array, kernel: jax.Array, dtype: Any = None) -> jax.Array:
    """Multiplies inputs and kernel, both cast to `dtype`, summing in float32 or wider.

    Args:
      inputs: `[*batch, inputs]`.
      kernel: `[inputs, outputs]`.
      dtype: the type in which both enter; None leaves them as they are.

    Returns:
      `[*batch, outputs]`, in the wider type of the two before the cast, at least float32.
    """
    result = jnp.promote_types(jnp.result_type(inputs, kernel), "float32")
    if dtype is not None:
        inputs, kernel = inputs.astype(dtype), kernel.astype(dtype)
    return jnp.matmul(inputs, kernel, preferred_element_type=result)


def _unroll() -> int:
    """Steps in one turn of a training loop.

    A GPU, which waits between the many small kernels of a step, trains 1.2 times as fast with eight
    and compiles twice as long; a CPU gains nothing.
    """
    return 8 if jax.default_backend() == "gpu" else 1


def _calls(
    body: Callable, weights: Weights, state: Any, xs: Any, dtype: Any
) -> list[tuple[str, jax.ShapeDtypeStruct]]:
    """The products that one step asks for: name and output, in order."""
    calls = []

    def linear(name: str, inputs: jax.Array) -> jax.Array:
        if name not in weights:
            raise ValueError(f"no weights are called {name!r}, there are {sorted(weights)}")
        kernel, bias = weights[name]
        if inputs.shape[-1] != kernel.shape[0]:
            raise ValueError(
                f"inputs of {name!r} must have shape [..., {kernel.shape[0]}], "
                f"got {list(inputs.shape)}"
            )
        outputs = product(inputs, kernel, dtype) + bias
        calls.append((name, jax.ShapeDtypeStruct(outputs.shape, outputs.dtype)))
        return outputs

    first = jax.tree.map(lambda leaf: leaf[0], xs)
    jax.eval_shape(lambda state, x: body(linear, state, x), state, first)
    return calls


@jax.custom_vjp
def _probed(
    inputs: jax.Array, kernel: jax.Array, transpose: jax.Array, bias: jax.Array, probe: jax.Array
) -> jax.Array:
    """A product whose output's cotangent arrives at `probe`, and none at kernel and bias."""
    del transpose, probe
    return product(inputs, kernel, kernel.dtype) + bias


def _probed_forward(inputs, kernel, transpose, bias, probe):
    like = jnp.zeros((0,), inputs.dtype), jnp.zeros((0,), probe.dtype)
    return _probed(inputs, kernel, transpose, bias, probe), (transpose, like)


def _probed_backward(residuals, gradient):
    transpose, (inputs, probe) = residuals
    return (
        product(gradient, transpose, transpose.dtype).astype(inputs.dtype),
        None,
        None,
        None,
        gradient.astype(probe.dtype),
    )


_probed.defvjp(_probed_forward, _probed_backward)


def _clipped(
    ratio: float, inputs: list[jax.Array], gradients: list[jax.Array], state: Any
) -> tuple[list[jax.Array], Any]:
    """The cotangents, scaled so that no image's is longer than `ratio` times the median.

    Of products, `[T, images, ...]`, and of the state, `[images, ...]`.
    """

    def squares(values: jax.Array) -> jax.Array:  # [T, images, ...]
        return jnp.sum(jnp.square(values.astype(jnp.float32)), axis=-1)

    lengths = jnp.sqrt(
        sum(
            jnp.sum(squares(x) * squares(dy), axis=(0, *range(2, x.ndim - 1)))
            for x, dy in zip(inputs, gradients, strict=True)
        )
    )
    limit = ratio * jnp.median(lengths)
    # An image without a gradient is left alone, and not 0 / 0.
    factors = jnp.where(lengths > limit, limit / jnp.where(lengths > limit, lengths, 1), 1)

    def scaled(values: jax.Array, axis: int) -> jax.Array:
        shape = [1] * values.ndim
        shape[axis] = -1
        return values * factors.reshape(shape).astype(values.dtype)

    return [scaled(dy, 1) for dy in gradients], jax.tree.map(lambda leaf: scaled(leaf, 0), state)


def _contract(inputs: jax.Array, gradient: jax.Array, result: Any) -> jax.Array:
    """Sums x^T dy over steps and batch: `[T, *batch, inputs]` and `[..., outputs]`."""
    axes = tuple(range(inputs.ndim - 1))
    return jax.lax.dot_general(
        inputs,
        gradient.astype(inputs.dtype),
        ((axes, axes), ((), ())),
        preferred_element_type=result,
    )
