import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from drawjax import attention, kernels

SHAPES = [((6, 9), 3, 1), ((9, 6), 2, 3), ((5, 7), 1, 2)]


def _logits(batch, dtype=jnp.float64):
    return 0.7 * jax.random.normal(jax.random.key(0), (batch, 5), dtype)


def _read(image, logits, image_shape, size):
    window = attention.window_from_logits(logits, image_shape, size)
    patch = kernels.read(image, *kernels.filterbanks(window, image_shape, size))
    return window.intensity[:, None, None, None] * patch


def _write(patch, logits, image_shape, size):
    window = attention.window_from_logits(logits, image_shape, size)
    image = kernels.write(patch, *kernels.filterbanks(window, image_shape, size))
    return image / window.intensity[:, None, None, None]


def _same_value_and_gradients(actual, expected, arguments, rtol=1e-10):
    """Compares two functions and the pullbacks of one random cotangent."""
    value, pullback = jax.vjp(actual, *arguments)
    expected_value, expected_pullback = jax.vjp(expected, *arguments)
    cotangent = jax.random.normal(jax.random.key(9), value.shape, value.dtype)
    chex.assert_trees_all_close(value, expected_value, rtol=rtol, atol=1e-12)
    chex.assert_trees_all_close(
        pullback(cotangent), expected_pullback(cotangent), rtol=rtol, atol=1e-11
    )


@pytest.mark.parametrize(("image_shape", "size", "channels"), SHAPES)
def test_read_equals_attention(x64, image_shape, size, channels):
    image = jax.random.normal(jax.random.key(1), (4, *image_shape, channels), jnp.float64)

    def expected(image, logits):
        window = attention.window_from_logits(logits, image_shape, size)
        return attention.read(image, window, size)

    _same_value_and_gradients(
        lambda image, logits: _read(image, logits, image_shape, size), expected, (image, _logits(4))
    )


@pytest.mark.parametrize(("image_shape", "size", "channels"), SHAPES)
def test_write_equals_attention(x64, image_shape, size, channels):
    patch = jax.random.normal(jax.random.key(1), (4, size, size, channels), jnp.float64)

    def expected(patch, logits):
        window = attention.window_from_logits(logits, image_shape, size)
        return attention.write(patch, window, image_shape)

    _same_value_and_gradients(
        lambda patch, logits: _write(patch, logits, image_shape, size),
        expected,
        (patch, _logits(4)),
    )


@pytest.mark.parametrize("column", range(5))
@pytest.mark.parametrize("value", [-95.0, -50.0, 50.0, 100.0])
def test_extreme_windows_stay_finite(column, value):
    logits = jnp.zeros((1, 5)).at[0, column].set(value)
    image = jax.random.normal(jax.random.key(1), (1, 8, 7, 1))

    def total(image, logits):
        # The patch without its intensity, which may itself be as large as exp(40).
        window = attention.window_from_logits(logits, (8, 7), 3)
        filters = kernels.filterbanks(window, (8, 7), 3)
        return jnp.sum(kernels.read(image, *filters) ** 2)

    result, gradients = jax.value_and_grad(total, argnums=(0, 1))(image, logits)
    chex.assert_tree_all_finite((result, gradients))


def test_filters_far_off_the_image_keep_their_gradient():
    # In float32, against attention's own.
    window = attention.window_from_logits(jnp.array([[30.0, -30.0, 3.0, 0.0, 0.0]]), (8, 7), 3)
    cotangent = jax.random.normal(jax.random.key(2), (1, 3, 8))
    for filterbanks in (kernels.filterbanks, attention.filterbanks):
        gradient = jax.grad(lambda w, f=filterbanks: jnp.sum(f(w, (8, 7), 3)[0] * cotangent))
        gradient = gradient(window)
        assert float(jnp.abs(gradient.center_y[0])) > 0
        if filterbanks is kernels.filterbanks:
            first = gradient
    chex.assert_trees_all_close(first, gradient, rtol=1e-4)


def test_lstm_equals_its_equations(x64):
    gates = 2 * jax.random.normal(jax.random.key(0), (3, 20), jnp.float64)
    cell = jax.random.normal(jax.random.key(1), (3, 5), jnp.float64)

    def equations(gates, cell):
        enter, forget, new, leave = jnp.split(gates, 4, axis=-1)
        cell = jax.nn.sigmoid(forget) * cell + jax.nn.sigmoid(enter) * jnp.tanh(new)
        return jnp.concatenate([cell, jax.nn.sigmoid(leave) * jnp.tanh(cell)])

    _same_value_and_gradients(
        lambda *inputs: jnp.concatenate(kernels.lstm(*inputs)), equations, (gates, cell)
    )
    check_grads(kernels.lstm, (gates, cell), order=1, modes=["rev"])


def test_lstm_of_large_gates_is_saturated():
    gates = jnp.full((1, 4), 1e4)
    (cell, hidden), pullback = jax.vjp(kernels.lstm, gates, jnp.ones((1, 1)))
    np.testing.assert_allclose([cell[0, 0], hidden[0, 0]], [2.0, np.tanh(2.0)], rtol=1e-6)
    to_gates, to_cell = pullback((jnp.ones((1, 1)), jnp.zeros((1, 1))))
    np.testing.assert_array_equal(to_gates, jnp.zeros((1, 4)))
    np.testing.assert_allclose(to_cell, [[1.0]])
