import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from drawjax import hoist


def _toy(body_calls, weights, dtype=None):
    """Loss of a small recurrent net, by `hoist.scan` and by `lax.scan`; `gain` is closed over."""

    def body(linear, state, x):
        for name in body_calls:
            state = jnp.tanh(linear(name, state) + x)
        return state, jnp.sum(state**2, axis=-1)

    def hoisted(weights, gain, state, xs):
        state, ys = hoist.scan(
            lambda linear, state, x: body(linear, gain * state, x), weights, state, xs, dtype=dtype
        )
        return jnp.sum(state) + jnp.sum(ys)

    def plain(weights, gain, state, xs):
        def linear(name, inputs):
            kernel, bias = weights[name]
            return inputs @ kernel + bias

        state, ys = jax.lax.scan(lambda state, x: body(linear, gain * state, x), state, xs)
        return jnp.sum(state) + jnp.sum(ys)

    return hoisted, plain


def _toy_inputs(dtype, *batch):
    keys = jax.random.split(jax.random.key(0), 8)
    weights = {
        name: (jax.random.normal(keys[i], (4, 4), dtype), jax.random.normal(keys[i + 2], (4,)))
        for i, name in enumerate(("a", "b"))
    }
    state = jax.random.normal(keys[5], (*batch, 4), dtype)
    xs = jax.random.normal(keys[6], (5, *batch, 4), dtype)
    return weights, jnp.asarray(0.7, dtype), state, xs


@pytest.mark.parametrize(
    ("calls", "batch"), [(("a",), ()), (("a", "b"), (3,)), (("a", "b", "a"), (2, 3))]
)
def test_scan_equals_lax_scan(x64, calls, batch):
    inputs = _toy_inputs(jnp.float64, *batch)
    hoisted, plain = _toy(calls, inputs[0])
    actual = jax.jit(jax.value_and_grad(hoisted, argnums=(0, 1, 2, 3)))(*inputs)
    expected = jax.jit(jax.value_and_grad(plain, argnums=(0, 1, 2, 3)))(*inputs)
    chex.assert_trees_all_close(actual, expected, rtol=1e-10, atol=1e-12)


def test_weight_gradients_are_summed_in_float32():
    # 4,096 steps of bfloat16 sums would stall at 256 times a summand.
    steps = 4096
    weights = {"a": (jnp.ones((1, 1)), jnp.zeros((1,)))}

    def total(weights):
        body = lambda linear, state, x: (state, linear("a", x))  # noqa: E731
        return jnp.sum(hoist.scan(body, weights, (), jnp.ones((steps, 1)), dtype=jnp.bfloat16)[1])

    kernel, bias = jax.grad(total)(weights)["a"]
    assert kernel.dtype == bias.dtype == jnp.float32
    np.testing.assert_array_equal([kernel[0, 0], bias[0]], [steps, steps])


def test_unknown_name_and_wrong_inputs():
    weights, _, state, xs = _toy_inputs(jnp.float32, 3)
    with pytest.raises(ValueError, match=r"no weights are called 'c', there are \['a', 'b'\]"):
        hoist.scan(lambda linear, s, x: (linear("c", s), x), weights, state, xs)
    with pytest.raises(ValueError, match=r"inputs of 'a' must have shape \[..., 4\], got \[3, 8\]"):
        hoist.scan(
            lambda linear, s, x: (linear("a", jnp.concatenate([s, s], -1)), x), weights, state, xs
        )


def test_kept_values_are_not_computed_again():
    def body(linear, state, x):
        return hoist.keep(jnp.sin(state)) + x, linear("a", state)

    def total(weights, state, xs):
        return jnp.sum(hoist.scan(body, weights, state, xs)[1])

    weights, _, state, xs = _toy_inputs(jnp.float32, 3)
    jaxpr = str(jax.make_jaxpr(jax.grad(total))(weights, state, xs))
    assert jaxpr.count("name=drawjax.hoist") >= 2  # the product, and what the body keeps
