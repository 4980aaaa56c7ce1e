"""The scan, and what it does with the products of its body: see the picture in `drawjax.scan`."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name

from drawjax.scan.blocks import scan_in_blocks
from drawjax.scan.clipping import clipped
from drawjax.scan.products import answered_by, common_type, plain, product, vary_like


def scan(
    body: Callable[[Any, Any], tuple[Any, Any]],
    state: Any,
    xs: Any,
    *,
    remat: bool = False,
    clip_ratio: float | None = None,
    images: Any = None,
) -> tuple[Any, Any]:
    """`jax.lax.scan` for a body whose products by `dense` are cheap to differentiate.

    The value and the gradients are those of `jax.lax.scan`, up to the order of sums. Gradients
    reach the state, xs and whatever the body closes over. Reverse mode only: `jax.jvp` and what
    builds on it (`jax.linearize`, `jax.hessian`) raise TypeError.

    Args:
      body: `body(state, x) -> (state, y)`; pure. It is traced several times.
      state: what the body is first called with.
      xs: pytree of arrays with leading axis T, at least 1.
      remat: recompute the steps in the backward pass in blocks of about sqrt(T), which stores
        about 2 sqrt(T) steps in place of T and costs one more forward pass.
      clip_ratio: scales the gradient that an image sends to weights and state down to this many
        times the median of its batch, if it is longer; images without a gradient do not count.
        Inputs of products, their outputs and the leaves of state and y then have images as their
        first axis (after T). An image's length is `sqrt(sum_t norm(x_t)^2 norm(dy_t)^2)` over all
        products by `dense`, the norm of its dW where the steps' parts are orthogonal. None: no
        limit. With `remat`, of every block by itself; inside of `jax.shard_map`, of each device's
        images by themselves.
      images: arrays that the body closes over and that have images as their first axis; for
        `clip_ratio` alone. Where the body closes over other arrays that need a gradient, clipping
        takes a second backward pass.

    Returns:
      The last state and the stacked outputs y, as `lax.scan`.

    Raises:
      ValueError: if `clip_ratio` is not positive.
    """
    if clip_ratio is not None and not clip_ratio > 0:
        raise ValueError(f"clip_ratio must be positive, got {clip_ratio}")

    def run(state: Any, xs: Any) -> tuple[Any, Any]:
        return _scan(body, state, xs, clip_ratio, images)

    return scan_in_blocks(run, state, xs) if remat else run(state, xs)


@dataclasses.dataclass(frozen=True)
class _Call:
    """A product that one step of a body asks for."""

    inputs: jax.Array
    kernel: jax.Array
    bias: jax.Array
    dtype: Any
    output: jax.ShapeDtypeStruct


@dataclasses.dataclass(frozen=True)
class _Group:
    """Products of the same inputs, which are computed as one."""

    members: list[int]  # places of their weights among those of the body
    edges: list[int]  # where the outputs of each begin, and where the last ends
    dtype: Any
    batch: tuple[int, ...]
    result: Any  # type of the outputs


def _scan(
    body: Callable, state: Any, xs: Any, clip_ratio: float | None, images: Any
) -> tuple[Any, Any]:
    """The picture in `drawjax.scan`: `forward` is its first line, `backward` the other two.

    The body is traced twice to see which products it asks for, then once for `run`, which is the
    value alone, or for `forward`, each time with `dense` answered by the probed products.
    """
    first = jax.tree.map(lambda leaf: leaf[0], xs)
    calls = _products_of(body, state, first)
    # A product asked for twice has one gradient.
    unique = {(id(c.kernel), id(c.bias)): (c.kernel, c.bias) for c in calls if c is not None}
    # Inside of `shard_map` each device has a dW of its own, which JAX sums where this is made.
    weights = vary_like(list(unique.values()), (state, xs))
    groups, order = _grouped(calls, list(unique))

    def prepared(weights):
        # The backward pass multiplies with the transpose. Taken once and not in the loop, it is a
        # product of rows and columns like the forward one: XLA's CPU backend has no other kernel
        # for bfloat16 and would turn to float32, at half the rate.
        ready = []
        for group in groups:
            kernels, biases = zip(*(weights[place] for place in group.members), strict=True)
            kernel = jnp.concatenate(kernels, axis=1).astype(group.dtype)
            ready.append((kernel, kernel.T, jnp.concatenate(biases)))
        return ready

    # The body with probes at its products, which hands out their inputs too.
    def tapped(probes: list[jax.Array], weights: list, state: Any, x: Any) -> Any:
        taps, outputs, asked = [], [], iter(order)

        def linear(inputs, kernel, bias, dtype):
            place = next(asked)
            if place is None:
                return plain(inputs, kernel, bias, dtype)
            group, member = place
            if group == len(outputs):  # the first of its group computes all
                joint = _probed(inputs, *weights[group], probes[group])
                # Stored as they are, and cast at once after the loop: XLA's CPU backend spends
                # more on a cast fused with the store than the narrower store saves.
                taps.append(inputs)
                joint = checkpoint_name(joint, "product")
                outputs.append(jnp.split(joint, groups[group].edges[1:-1], axis=-1))
            return outputs[group][member]

        with answered_by(linear):
            state, y = body(state, x)
        return state, (y, taps)

    def probes(like: Any, length: tuple[int, ...] = ()) -> list[jax.Array]:
        zeros = [jnp.zeros((*length, *g.batch, g.edges[-1]), g.result) for g in groups]
        return vary_like(zeros, like)

    # What the body closes over becomes an argument, so that gradients reach it.
    tapped, closed = jax.closure_convert(
        tapped, probes((state, xs)), prepared(weights), state, first
    )
    batched = [any(leaf is image for image in jax.tree.leaves(images)) for leaf in closed]

    @jax.custom_vjp
    def run(weights: list, closed: list, state: Any, xs: Any) -> tuple[Any, Any]:
        ready = prepared(weights)
        state, (ys, _) = jax.lax.scan(
            lambda state, x: tapped(probes((state, x)), ready, state, x, *closed), state, xs
        )
        return state, ys

    def forward(weights: list, closed: list, state: Any, xs: Any):
        ready = prepared(weights)

        def traced(probes: list[jax.Array], closed: list, state: Any, xs: Any):
            def step(state: Any, x_and_probes: Any) -> tuple[Any, Any]:
                x, probes = x_and_probes
                return tapped(probes, ready, state, x, *closed)

            policy = jax.checkpoint_policies.save_any_names_but_these()
            step = jax.checkpoint(step, policy=policy, prevent_cse=False)
            state, (ys, taps) = jax.lax.scan(step, state, (xs, probes), unroll=_unroll())
            return (state, ys), taps

        (length,) = {leaf.shape[0] for leaf in jax.tree.leaves(xs)}
        outputs, pullback, taps = jax.vjp(
            traced, probes((state, xs), (length,)), closed, state, xs, has_aux=True
        )
        return outputs, (pullback, taps, weights)

    def backward(residuals: Any, cotangents: Any):
        pullback, taps, weights = residuals
        if clip_ratio is None:
            gradients, closed, state, xs = pullback(cotangents)
        else:
            gradients, closed, state, xs = clipped(
                clip_ratio, taps, pullback, cotangents, only_images=all(batched)
            )
        sums = _weight_gradients(groups, weights, taps, gradients)
        return sums, closed, state, xs

    run.defvjp(forward, backward)
    return run(weights, closed, state, xs)


def _products_of(body: Callable, state: Any, x: Any) -> Sequence[_Call | None]:
    """The products of one step in their order; None for those that have to stay in the loop."""

    def calls() -> list[_Call]:
        found = []

        def record(inputs, kernel, bias, dtype):
            outputs = plain(inputs, kernel, bias, dtype)
            shape = jax.ShapeDtypeStruct(outputs.shape, outputs.dtype)
            found.append(_Call(inputs, kernel, bias, dtype, shape))
            return outputs

        def step(state, x):
            with answered_by(record):
                return body(state, x)

        jax.eval_shape(step, state, x)
        return found

    # Weights from outside of the loop are the same objects in every trace of the body; those that
    # it computes are not.
    return [
        call if call.kernel is again.kernel and call.bias is again.bias else None
        for call, again in zip(calls(), calls(), strict=True)
    ]


def _grouped(
    calls: Sequence[_Call | None], keys: Sequence[tuple[int, int]]
) -> tuple[list[_Group], list[tuple[int, int] | None]]:
    """Groups of calls of the same inputs, and of each call its group and its place in it."""
    groups: dict[Any, _Group] = {}
    order: list[tuple[int, int] | None] = []
    for call in calls:
        if call is None:
            order.append(None)
            continue
        dtype = call.dtype or common_type(call.inputs, call.kernel)
        key = id(call.inputs), jnp.dtype(dtype), call.kernel.dtype, call.bias.dtype
        *batch, outputs = call.output.shape
        group = groups.setdefault(key, _Group([], [0], dtype, tuple(batch), call.output.dtype))
        order.append((list(groups).index(key), len(group.members)))
        group.members.append(keys.index((id(call.kernel), id(call.bias))))
        group.edges.append(group.edges[-1] + outputs)
    return list(groups.values()), order


def _unroll() -> int:
    """Steps in one turn of a training loop.

    A GPU, which waits between the many small kernels of a step, trains 1.2 times as fast with eight
    and compiles twice as long; a CPU gains nothing.
    """
    return 8 if jax.default_backend() == "gpu" else 1


@jax.custom_vjp
def _probed(
    inputs: jax.Array, kernel: jax.Array, transpose: jax.Array, bias: jax.Array, probe: jax.Array
) -> jax.Array:
    """A product whose output's cotangent arrives at `probe`, and none at kernel and bias."""
    del transpose, probe
    return plain(inputs, kernel, bias, kernel.dtype)


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


def _weight_gradients(
    groups: list[_Group], weights: list, taps: list[jax.Array], gradients: list[jax.Array]
) -> list[tuple[jax.Array, jax.Array]]:
    """The dW and db of each product, summed over steps and batch."""
    sums = [(jnp.zeros_like(kernel), jnp.zeros_like(bias)) for kernel, bias in weights]
    for group, inputs, gradient in zip(groups, taps, gradients, strict=True):
        axes = tuple(range(gradient.ndim - 1))  # steps and batch
        to_kernel = jax.lax.dot_general(
            inputs.astype(group.dtype),
            gradient.astype(group.dtype),
            ((axes, axes), ((), ())),
            # Summed in float32 at least, whatever the weights are cast to.
            preferred_element_type=np.promote_types(weights[group.members[0]][0].dtype, np.float32),
        )
        to_bias = jnp.sum(gradient, axis=axes)
        for place, start, stop in zip(group.members, group.edges, group.edges[1:], strict=False):
            kernel, bias = sums[place]
            sums[place] = (
                kernel + to_kernel[:, start:stop].astype(kernel.dtype),
                bias + to_bias[start:stop].astype(bias.dtype),
            )
    return sums
