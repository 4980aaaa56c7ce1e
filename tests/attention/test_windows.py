"""Windows that the paper does not have: rows x columns, strides along x and y, rotation."""

import dataclasses
import math

import chex
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from drawjax import attention
from drawjax.attention import Window
from tests import oracle

pytestmark = pytest.mark.usefixtures("strict")

SHAPES = [(9, 13, 1, 4, 2), (13, 9, 3, 1, 5), (6, 7, 2, 3, 1)]  # height, width, channels, filters


def _case(height, width, channels, rows, columns, rotated, seed=0, batch=3):
    """Logits, image and patch; and the windows' numbers worked out by hand."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(batch, 8)) * [0.6, 0.6, 1.0, 0.7, 0.8, 1.0, 0.7, 2.0]
    x, y, variance_x, stride_x, intensity, variance_y, stride_y, angle = logits.T
    variance_x, variance_y = np.exp(variance_x), np.exp(variance_y)
    stride_x = np.exp(stride_x) * (width - 1) / max(columns - 1, 1)
    stride_y = np.exp(stride_y) * (height - 1) / max(rows - 1, 1)
    if rotated:
        variance_y = variance_x
    expected = [
        ((width + 1) / 2 * (x[k] + 1), (height + 1) / 2 * (y[k] + 1), (stride_x[k], stride_y[k]),
         (variance_x[k], variance_y[k]), math.exp(intensity[k]), angle[k] if rotated else 0.0)
        for k in range(batch)
    ]  # fmt: skip
    image = rng.normal(size=(batch, height, width, channels))
    patch = rng.normal(size=(batch, rows, columns, channels))
    return jnp.asarray(logits if rotated else logits[:, :7]), image, patch, expected


def _window(logits, image_shape, patch_size):
    window = attention.window_from_logits(logits, image_shape, patch_size)
    return window if window.rotation is None else dataclasses.replace(window, variance_y=None)


@pytest.mark.parametrize("rotated", [False, True])
@pytest.mark.parametrize(("height", "width", "channels", "rows", "columns"), SHAPES)
def test_matches_one_surface_a_filter(x64, height, width, channels, rows, columns, rotated):
    logits, image, patch, expected = _case(height, width, channels, rows, columns, rotated)
    window = _window(logits, (height, width), (rows, columns))
    patches = attention.read(image, window, (rows, columns))
    images = attention.write(patch, window, (height, width))
    y, x = attention.filter_grid(window, (rows, columns))
    for k, numbers in enumerate(expected):
        weights = oracle.any_window(numbers, width, height, rows, columns)
        seen = numbers[4] * np.einsum("jiba,bac->jic", weights, image[k])
        np.testing.assert_allclose(patches[k], seen, atol=1e-10)
        written = np.einsum("jiba,jic->bac", weights, patch[k]) / numbers[4]
        np.testing.assert_allclose(images[k], written, atol=1e-10)
        if not rotated:
            means_y, means_x = attention.filter_means(window, (rows, columns))
            np.testing.assert_allclose(y[k], np.repeat(means_y[k][:, None], columns, 1))
            np.testing.assert_allclose(x[k], np.repeat(means_x[k][None], rows, 0))


@pytest.mark.parametrize("field", ["stride_y", "variance_y"])
def test_one_value_means_both(field):
    rng = np.random.default_rng(0)
    window = Window(jnp.float32(4), jnp.float32(5), jnp.float32(1.3), jnp.float32(0.6), 1.0)
    both = dataclasses.replace(window, **{field: getattr(window, field.removesuffix("_y"))})
    image = rng.normal(size=(8, 9, 2))
    np.testing.assert_array_equal(attention.read(image, window, 3), attention.read(image, both, 3))


def test_a_right_angle_turns_the_patch(x64):
    # Clockwise as images are shown: what was read along x is now read downwards.
    image = np.random.default_rng(0).normal(size=(9, 9, 2))
    window = Window(5.0, 5.0, 1.5, 0.7, 2.0, rotation=0.0)
    upright = attention.read(image, dataclasses.replace(window, rotation=None), (3, 5))
    np.testing.assert_allclose(attention.read(image, window, (3, 5)), upright, atol=1e-12)
    turned = dataclasses.replace(window, rotation=math.pi / 2)
    found = attention.read(image, turned, (3, 5))
    seen = attention.read(np.rot90(image), window, (3, 5))  # the image the other way around
    np.testing.assert_allclose(found, seen, atol=1e-12)
    y, x = attention.filter_grid(turned, (3, 5))
    assert x[0, 0] > x[-1, 0] and y[0, 0] < y[0, -1]


@pytest.mark.parametrize("numbers", [5, 6, 7, 8])
def test_logits_of_zero_span_the_image(numbers):
    window = attention.window_from_logits(jnp.zeros((2, numbers)), (7, 13), (3, 5))
    assert (window.stride_y is not None) == (numbers >= 7)
    assert (window.rotation is not None) == (numbers in (6, 8))
    upright = dataclasses.replace(window, rotation=None)
    means_y, means_x = attention.filter_means(upright, (3, 5))
    np.testing.assert_allclose(means_x[0], [1, 4, 7, 10, 13])
    np.testing.assert_allclose(means_y[0], [1, 4, 7])
    tall = attention.window_from_logits(jnp.zeros(numbers), (41, 13), (3, 5))
    assert float(tall.stride) == (3 if numbers >= 7 else 20)


@pytest.mark.slow
@pytest.mark.parametrize("rotated", [False, True])
def test_gradients_match_finite_differences(x64, rotated):
    logits, image, patch, _ = _case(5, 7, 2, 2, 3, rotated, batch=2)

    def both(*arrays):
        logits, image, patch = map(jnp.asarray, arrays)
        window = _window(logits, (5, 7), (2, 3))
        return attention.read(image, window, (2, 3)), attention.write(patch, window, (5, 7))

    check_grads(
        jax.jit(both), (logits, image, patch), order=2, modes=["fwd", "rev"], atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("rotation", [None, 0.4])
def test_scales_take_every_field_along(rotation):
    rng = np.random.default_rng(0)
    image = rng.normal(size=(2, 9, 8, 3)).astype(np.float32)
    window = Window(
        jnp.array([3.0, 5.0]), 4.0, 1.0, 0.5, 2.0, stride_y=0.5, rotation=rotation,
        variance_y=0.3 if rotation is None else None,
    )  # fmt: skip
    patches = attention.read_scales(image, window, (3, 2), 2)
    wider = dataclasses.replace(
        window, stride=2.0, variance=2.0, stride_y=1.0,
        variance_y=1.2 if rotation is None else None,
    )  # fmt: skip
    for k, one in enumerate((window, wider)):
        expected = attention.read(image, one, (3, 2))
        np.testing.assert_allclose(patches[:, k], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("window_batch", [(), (3,), (2, 3)])
@pytest.mark.parametrize("image_batch", [(), (3,), (2, 3)])
def test_rotated_batches_broadcast_without_rank_promotion(image_batch, window_batch):
    image = jax.random.normal(jax.random.key(0), (*image_batch, 7, 9, 2))
    logits = 0.5 * jax.random.normal(jax.random.key(1), (*window_batch, 6))

    @jax.jit
    def read_and_write(image, logits):
        window = attention.window_from_logits(logits, (7, 9), (2, 4))
        patch = attention.read(image, window, (2, 4))
        return patch, attention.write(patch, window, (7, 9))

    patch, written = read_and_write(image, logits)
    batch = np.broadcast_shapes(image_batch, window_batch)
    assert patch.shape == (*batch, 2, 4, 2)
    assert written.shape == (*batch, 7, 9, 2)
    images = np.broadcast_to(image, (*batch, 7, 9, 2)).reshape(-1, 7, 9, 2)
    all_logits = np.broadcast_to(logits, (*batch, 6)).reshape(-1, 6)
    for k, one in enumerate(all_logits):
        found, back = read_and_write(images[k], one)
        np.testing.assert_allclose(patch.reshape(-1, 2, 4, 2)[k], found, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(written.reshape(-1, 7, 9, 2)[k], back, rtol=1e-4, atol=1e-5)


extreme = st.one_of(
    st.floats(-3, 3, width=32), st.sampled_from([-1e30, -100.0, -50.0, 95.0, 100.0, 1e30])
)


@jax.jit
def _value_and_gradient(logits):
    def total(logits):
        window = _window(logits, (5, 8), (2, 3))
        patch = attention.read(jnp.ones((5, 8, 1)), window, (2, 3))
        spread = attention.write(jnp.ones((2, 3, 1)), window, (5, 8))
        return jnp.sum(jnp.sin(spread)) + jnp.sum(jnp.sin(patch)), patch / window.intensity

    return jax.value_and_grad(total, has_aux=True)(logits)


@pytest.mark.slow
@pytest.mark.parametrize("numbers", [6, 7, 8])
@hypothesis.settings(max_examples=50, deadline=None)
@hypothesis.given(data=st.data())
def test_extreme_windows_stay_finite(numbers, data):
    logits = [data.draw(extreme) for _ in range(numbers)]
    logits[4] = data.draw(st.floats(-3, 3, width=32))
    if numbers in (6, 8):
        logits[-1] = data.draw(st.floats(-1e3, 1e3, width=32))
    results = _value_and_gradient(jnp.asarray(logits, jnp.float32))
    chex.assert_tree_all_finite(results)
    np.testing.assert_allclose(results[0][1], 1, rtol=1e-4)  # ones are read as ones


@pytest.mark.usefixtures("own_errors")
def test_what_a_rotated_window_cannot_do_is_refused():
    window = Window(3.0, 3.0, 1.0, 1.0, 1.0, variance_y=2.0, rotation=0.3)
    for call in (
        lambda: attention.read(np.ones((5, 5, 1)), window, 3),
        lambda: attention.read_scales(np.ones((5, 5, 1)), window, 3, 2),
        lambda: attention.write(np.ones((3, 3, 1)), window, (5, 5)),
    ):
        with pytest.raises(ValueError, match="round filters: variance_y must be None"):
            call()
    for call in (
        lambda: attention.filterbanks(window, (5, 5), 3),
        lambda: attention.filter_means(window, 3),
    ):
        with pytest.raises(ValueError, match="see filter_grid"):
            call()


@pytest.mark.parametrize("size", [5.5, 5.0, (3, 2.0), (3,), [1, 2, 3], 0, "5", None])
@pytest.mark.usefixtures("own_errors")
def test_sizes_that_are_no_positive_integers_are_refused(size):
    window = Window(4.0, 5.0, 1.3, 0.6, 1.0)
    for call in (
        lambda: attention.read(jnp.zeros((8, 9, 1)), window, size),
        lambda: attention.read_scales(jnp.zeros((8, 9, 1)), window, size, 2),
        lambda: attention.filterbanks(window, (8, 9), size),
        lambda: attention.filter_grid(window, size),
        lambda: attention.window_from_logits(jnp.zeros(5), (8, 9), size),
        lambda: attention.window_from_box(jnp.ones(4), size),
        lambda: attention.box_of_window(window, size),
    ):
        with pytest.raises(ValueError, match=r"patch_size must be N or \(rows, columns\)"):
            call()


@pytest.mark.parametrize("shape", [(10.7, 12.0), (10, 12, 1), 10, (0, 4), ("8", "9")])
@pytest.mark.usefixtures("own_errors")
def test_image_shapes_that_are_no_two_positive_integers_are_refused(shape):
    window = Window(4.0, 5.0, 1.3, 0.6, 1.0)
    for call in (
        lambda: attention.window_from_logits(jnp.zeros(5), shape, 3),
        lambda: attention.filterbanks(window, shape, 3),
        lambda: attention.write(jnp.zeros((3, 3, 1)), window, shape),
        lambda: attention.window_from_box(
            jnp.ones(4), 3, coordinates="normalized", image_shape=shape
        ),
    ):
        with pytest.raises(ValueError, match=r"image_shape must be \(height, width\)"):
            call()


@pytest.mark.usefixtures("own_errors")
@pytest.mark.usefixtures("promoting")
def test_lists_are_taken_where_tuples_and_arrays_are():
    rng = np.random.default_rng(0)
    image = rng.normal(size=(2, 8, 9, 1))
    lists = Window([4.0, 3.0], [5.0, 2.0], 1.3, [0.6, 1.0], [1, 2])
    arrays = Window(*map(jnp.asarray, dataclasses.astuple(lists)[:5]))
    expected = attention.read(image, arrays, (4, 6))
    np.testing.assert_array_equal(attention.read(image, lists, [4, 6]), expected)
    np.testing.assert_array_equal(attention.read(image, arrays, np.array([4, 6])), expected)
    np.testing.assert_array_equal(
        attention.box_of_window(lists, [4, 6]), attention.box_of_window(arrays, (4, 6))
    )
    written = attention.write(expected, arrays, (8, 9))
    np.testing.assert_array_equal(attention.write(expected, lists, [8, np.int64(9)]), written)
