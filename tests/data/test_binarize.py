import jax
import jax.numpy as jnp
import numpy as np
import pytest

from drawjax.data import binarize, to_unit
from drawjax.data.preprocess import binarize_once


def test_to_unit_maps_bytes_to_zero_to_one():
    images = to_unit(np.array([[0, 51, 255]], np.uint8))
    assert images.dtype == jnp.float32
    np.testing.assert_allclose(images, [[0, 0.2, 1]], rtol=1e-6)


def test_dynamic_draws_ones_as_often_as_the_intensity_says():
    levels = jnp.linspace(0, 1, 11)
    images = jnp.broadcast_to(levels, (20_000, 11))
    draws = np.asarray(jax.jit(binarize, static_argnums=1)(images, "dynamic", jax.random.key(0)))
    assert set(np.unique(draws)) == {0, 1}
    assert draws.dtype == np.float32
    means = draws.mean(0)
    np.testing.assert_array_equal(means[[0, -1]], [0, 1])  # black and white never change
    np.testing.assert_allclose(means, levels, atol=0.015)  # four standard errors
    # Each pixel is drawn by itself: neighbors of one intensity do not go together.
    pair = np.asarray(binarize(jnp.full((20_000, 2), 0.5), "dynamic", jax.random.key(1)))
    assert abs(np.corrcoef(pair.T)[0, 1]) < 0.03


def test_dynamic_depends_on_the_key_alone():
    images = jnp.full((4, 9), 0.5)
    first, again, other = (binarize(images, "dynamic", jax.random.key(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_threshold_takes_a_one_above_a_half():
    images = to_unit(np.array([0, 127, 128, 255], np.uint8))
    np.testing.assert_array_equal(binarize(images, "threshold", jax.random.key(0)), [0, 0, 1, 1])


@pytest.mark.parametrize("method", ["static", "none"])
def test_static_and_none_leave_images_alone(method):
    images = jnp.linspace(0, 1, 5)
    np.testing.assert_array_equal(binarize(images, method, jax.random.key(0)), images)


@pytest.mark.usefixtures("own_errors")
def test_another_method_is_named():
    with pytest.raises(ValueError, match=r"static, dynamic, threshold or none, got 'bernoulli'"):
        binarize(jnp.zeros(3), "bernoulli", jax.random.key(0))


def test_once_is_drawn_by_intensity():
    levels = np.arange(256, dtype=np.uint8)
    draws = binarize_once(np.broadcast_to(levels, (20_000, 256)), 0)
    assert draws.dtype == np.uint8
    assert set(np.unique(draws)) == {0, 255}
    assert not draws[:, 0].any()
    assert draws[:, 255].all()
    np.testing.assert_allclose(draws.mean(0), levels, atol=0.015 * 255)  # four standard errors
    np.testing.assert_array_equal(draws, binarize_once(np.broadcast_to(levels, (20_000, 256)), 0))
    assert not np.array_equal(draws, binarize_once(np.broadcast_to(levels, (20_000, 256)), 1))
