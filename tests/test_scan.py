import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.ad_checkpoint import checkpoint_name

from drawjax.scan import dense, scan

pytestmark = pytest.mark.usefixtures("strict")


def _toy(calls, dtype=None):
    """Loss of a small recurrent net, by `scan` and by `lax.scan`; `gain` is closed over."""

    def total(scan, linear, weights, gain, state, xs):
        def body(state, x):
            state = gain * state
            for name in calls:
                state = jnp.tanh(linear(state, *weights[name]) + x)
            return state, jnp.sum(state**2, axis=-1)

        state, ys = scan(body, state, xs)
        return jnp.sum(state) + jnp.sum(ys)

    def plain(inputs, kernel, bias):
        return inputs @ kernel + jnp.broadcast_to(bias, (*inputs.shape[:-1], len(bias)))

    def ours(inputs, kernel, bias):
        return dense(inputs, kernel, bias, dtype=dtype)

    return functools.partial(total, scan, ours), functools.partial(total, jax.lax.scan, plain)


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
    ours, plain = _toy(calls)
    actual = jax.jit(jax.value_and_grad(ours, argnums=(0, 1, 2, 3)))(*inputs)
    expected = jax.jit(jax.value_and_grad(plain, argnums=(0, 1, 2, 3)))(*inputs)
    chex.assert_trees_all_close(actual, expected, rtol=1e-10, atol=1e-12)


def test_several_steps_a_turn_change_nothing(x64, monkeypatch):
    inputs = _toy_inputs(jnp.float64, 3)  # 5 steps
    ours, _ = _toy(("a", "b"))

    def traced():
        return jax.make_jaxpr(jax.grad(ours))(*inputs)

    def gradient():
        return jax.grad(ours, argnums=(0, 1, 2, 3))(*inputs)

    one_a_turn, expected = traced(), gradient()
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert "unroll=8" in str(traced()) and "unroll=8" not in str(one_a_turn)
    chex.assert_trees_all_close(gradient(), expected, rtol=1e-10, atol=1e-12)


def _one_step(ratio, weights, state, cotangents):
    def total(weights, state):
        def body(state, x):
            del x
            return state, dense(state, *weights["a"])

        _, ys = scan(body, state, jnp.zeros((1, 1)), clip_ratio=ratio)
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


@pytest.mark.slow
def test_images_without_a_gradient_are_no_nan():
    weights = {"a": (jnp.ones((3, 4)), jnp.zeros(4))}
    gradient = _one_step(2.0, weights, jnp.ones((5, 3)), jnp.zeros((5, 4)))
    chex.assert_trees_all_equal(gradient, jax.tree.map(jnp.zeros_like, gradient))


def test_weight_gradients_are_summed_in_float32():
    # 4,096 steps of bfloat16 sums would stall at 256 times a summand.
    steps = 4096
    weights = {"a": (jnp.ones((1, 1)), jnp.zeros((1,)))}

    def total(weights):
        def body(state, x):
            return state, dense(x, *weights["a"], dtype=jnp.bfloat16)

        return jnp.sum(scan(body, (), jnp.ones((steps, 1)))[1])

    kernel, bias = jax.grad(total)(weights)["a"]
    assert kernel.dtype == bias.dtype == jnp.float32
    np.testing.assert_array_equal([kernel[0, 0], bias[0]], [steps, steps])


@pytest.mark.usefixtures("own_errors")
def test_wrong_inputs_are_named():
    with pytest.raises(ValueError, match=r"do not go together, got \[3, 8\] and \[4, 4\]"):
        dense(jnp.zeros((3, 8)), jnp.zeros((4, 4)), jnp.zeros(4))


def test_named_values_are_not_computed_again():
    def total(weights, state, xs):
        def body(state, x):
            return checkpoint_name(jnp.sin(state), "mine") + x, dense(state, *weights["a"])

        return jnp.sum(scan(body, state, xs)[1])

    weights, _, state, xs = _toy_inputs(jnp.float32, 3)
    jaxpr = str(jax.make_jaxpr(jax.grad(total))(weights, state, xs))
    assert "name=product" in jaxpr and "name=mine" in jaxpr
    assert jaxpr.count(" sin ") == 1


# How a body may ask for a product, and whether it can be taken out of the loop.


def _normalized(x, kernel, bias):
    return dense(x, kernel / jnp.sqrt(jnp.sum(kernel**2, axis=0, keepdims=True)), bias)


def _if_positive(x, kernel, bias):
    return jax.lax.cond(x.sum() > 0, lambda x: dense(x, kernel, bias), lambda x: 0 * x, x)


PRODUCTS = {
    "as it is": (dense, True),
    "inside jit": (jax.jit(dense), False),
    "inside vmap": (lambda x, k, b: jax.vmap(lambda row: dense(row, k, b))(x), False),
    "inside cond": (_if_positive, False),
    "inside checkpoint": (lambda x, k, b: jax.checkpoint(dense)(x, k, b), False),
    "weights made in the loop": (_normalized, False),
    "by hand": (lambda x, k, b: x @ k + b[None], False),
    "twice with one kernel": (lambda x, k, b: dense(dense(x, k, b), k, b), True),
    "kernel used otherwise too": (lambda x, k, b: dense(x, k, b) + 0.1 * jnp.sum(k), True),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PRODUCTS)
def test_gradients_are_right_however_a_product_is_asked_for(x64, name):
    function, outside = PRODUCTS[name]
    weights, _, state, xs = _toy_inputs(jnp.float64, 3)

    def total(scan, weights, state, xs):
        def body(state, x):
            state = jnp.tanh(function(state, *weights["a"]) + x)
            return state, state

        state, ys = scan(body, state, xs)
        return jnp.sum(state[None] * ys)

    gradient = jax.grad(total, argnums=(1, 2, 3))
    runs = [jax.jit(gradient, static_argnums=0), *([gradient] if name == "as it is" else [])]
    for run in runs:
        chex.assert_trees_all_close(
            run(scan, weights, state, xs), run(jax.lax.scan, weights, state, xs), rtol=1e-10
        )
    # Outside of the loop, the sum over steps is one product that contracts them.
    jaxpr = str(jax.make_jaxpr(gradient, static_argnums=0)(scan, weights, state, xs))
    assert ("dimension_numbers=(([0, 1], [0, 1])" in jaxpr) == outside


@pytest.mark.slow
@pytest.mark.usefixtures("promoting")
def test_integers_in_the_state_a_single_step_and_no_product_at_all(x64):
    weights, _, state, xs = _toy_inputs(jnp.float64, 3)

    def total(scan, weights, state, xs):
        def body(carry, x):
            count, state = carry
            state = jnp.tanh(dense(state, *weights["a"]) + x) / (1 + count)
            return (count + 1, state), state

        (_, state), ys = scan(body, (jnp.zeros((), jnp.int32), state), xs)
        return jnp.sum(state) + jnp.sum(ys)

    for steps in (5, 1):
        args = (weights, state, xs[:steps])
        chex.assert_trees_all_close(
            jax.grad(total, argnums=(1, 2, 3))(scan, *args),
            jax.grad(total, argnums=(1, 2, 3))(jax.lax.scan, *args),
            rtol=1e-10,
        )

    def without(scan, state, xs):
        return jnp.sum(scan(lambda s, x: (jnp.sin(s) + x, s), state, xs)[0])

    chex.assert_trees_all_close(
        jax.grad(without, argnums=(1, 2))(scan, state, xs),
        jax.grad(without, argnums=(1, 2))(jax.lax.scan, state, xs),
    )


def test_there_is_no_forward_mode():
    weights, _, state, xs = _toy_inputs(jnp.float32, 3)

    def total(state):
        return jnp.sum(scan(lambda s, x: (dense(s, *weights["a"]) + x, s), state, xs)[0])

    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(total, (state,), (state,))


def test_products_of_the_same_inputs_are_one(x64):
    rng = np.random.default_rng(0)
    kernels = [jnp.asarray(0.3 * rng.normal(size=(4, n))) for n in (3, 1, 4)]
    biases = [jnp.asarray(rng.normal(size=n)) for n in (3, 1, 4)]

    def body(linear, weights, hidden, x):
        kernels, biases = weights
        both = hidden + x
        first, again = (linear(both, kernels[0], biases[0]) for _ in range(2))
        second = linear(both, kernels[1], biases[1])
        hidden = jnp.tanh(linear(hidden, kernels[2], biases[2])) * second
        return hidden, first * again

    def loss(run, linear, weights, state, xs):
        state, ys = run(functools.partial(body, linear, weights), state, xs)
        return jnp.sum(jnp.sin(ys)) + jnp.sum(state)

    def plain(inputs, kernel, bias):
        return inputs @ kernel + bias[None]

    inputs = (kernels, biases), jnp.ones((2, 4)), jnp.asarray(rng.normal(size=(5, 2, 4)))
    ours = functools.partial(loss, scan, dense)
    stock = functools.partial(loss, jax.lax.scan, plain)
    for one, other in zip(
        jax.tree.leaves(jax.jit(jax.value_and_grad(ours, argnums=(0, 1, 2)))(*inputs)),
        jax.tree.leaves(jax.jit(jax.value_and_grad(stock, argnums=(0, 1, 2)))(*inputs)),
        strict=True,
    ):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12)
    # Two in place of four: those of `both`, and that of `hidden`.
    assert str(jax.make_jaxpr(ours)(*inputs)).count("dot_general[") == 2
    assert str(jax.make_jaxpr(stock)(*inputs)).count("dot_general[") == 4


def test_images_without_a_gradient_are_no_part_of_the_median(x64):
    rng = np.random.default_rng(0)
    x, dy = jnp.asarray(rng.normal(size=(5, 3))), rng.normal(size=(5, 4))
    dy[2:] = 0
    weights = {"a": (jnp.asarray(rng.normal(size=(3, 4))), jnp.zeros(4))}
    whole = _one_step(None, weights, x, jnp.asarray(dy))
    chex.assert_trees_all_close(_one_step(10.0, weights, x, jnp.asarray(dy)), whole)
    nothing = _one_step(10.0, weights, x, jnp.zeros((5, 4)))
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(nothing))


@pytest.mark.parametrize("ratio", [0.0, -1.0, float("nan")])
def test_a_limit_that_is_not_positive_is_refused(ratio):
    with pytest.raises(ValueError, match="clip_ratio must be positive"):
        scan(lambda state, x: (state, x), jnp.zeros(2), jnp.zeros((3, 2)), clip_ratio=ratio)


@pytest.mark.parametrize("deferred", [True, False])
def test_a_state_may_hold_whole_numbers_where_gradients_are_clipped(deferred):
    kernel, bias = jnp.ones((3, 3)) / 3, jnp.zeros(3)

    def total(kernel):
        def body(state, x):
            hidden, count = state
            inner = bias if deferred else jnp.zeros(3)  # made inside, it stays in the loop
            return (jnp.tanh(dense(hidden + x, kernel, inner)), count + 1), ()

        state = jnp.ones((2, 3)), jnp.zeros(2, jnp.int32)
        (hidden, count), _ = scan(body, state, jnp.ones((4, 2, 3)), clip_ratio=1e9)
        return jnp.sum(hidden * count[:, None].astype(hidden.dtype))

    assert np.all(np.abs(jax.grad(total)(kernel)) > 0)
