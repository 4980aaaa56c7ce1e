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


def test_several_steps_a_turn_change_nothing(x64, monkeypatch):
    inputs = _toy_inputs(jnp.float64, 3)  # 5 steps
    hoisted, _ = _toy(("a", "b"), inputs[0])

    def traced():
        return jax.make_jaxpr(jax.grad(hoisted))(*inputs)

    def gradient():
        return jax.grad(hoisted, argnums=(0, 1, 2, 3))(*inputs)

    one_a_turn, expected = traced(), gradient()
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert "unroll=8" in str(traced()) and "unroll=8" not in str(one_a_turn)
    chex.assert_trees_all_close(gradient(), expected, rtol=1e-10, atol=1e-12)


def _one_step(ratio, weights, state, cotangents):
    def body(linear, state, x):
        del x
        return state, linear("a", state)

    def total(weights, state):
        _, ys = hoist.scan(body, weights, state, jnp.zeros((1, 1)), clip_ratio=ratio)
        return jnp.sum(cotangents * ys[0])

    return jax.grad(total, argnums=(0, 1))(weights, state)


@pytest.mark.parametrize("ratio", [0.5, 2.0, 1e9])
def test_a_long_gradient_of_one_image_is_scaled_to_the_limit(x64, ratio):
    rng = np.random.default_rng(0)
    x, dy = rng.normal(size=(5, 3)), rng.normal(size=(5, 4))
    dy[2] *= 100
    kernel = rng.normal(size=(3, 4))
    weights = {"a": (jnp.asarray(kernel), jnp.zeros(4))}
    to_weights, to_state = _one_step(ratio, weights, jnp.asarray(x), jnp.asarray(dy))
    lengths = np.linalg.norm(x, axis=1) * np.linalg.norm(dy, axis=1)  # of each dW = x dy^T
    factors = np.minimum(1, ratio * np.median(lengths) / lengths)
    assert (factors < 1).sum() == {0.5: 4, 2.0: 1, 1e9: 0}[ratio]
    clipped = factors[:, None] * dy
    np.testing.assert_allclose(to_weights["a"][0], x.T @ clipped, rtol=1e-6)
    np.testing.assert_allclose(to_weights["a"][1], clipped.sum(axis=0), rtol=1e-6)
    np.testing.assert_allclose(to_state, clipped @ kernel.T, rtol=1e-6)


def test_images_without_a_gradient_are_no_nan():
    weights = {"a": (jnp.ones((3, 4)), jnp.zeros(4))}
    gradient = _one_step(2.0, weights, jnp.ones((5, 3)), jnp.zeros((5, 4)))
    chex.assert_trees_all_equal(gradient, jax.tree.map(jnp.zeros_like, gradient))


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
