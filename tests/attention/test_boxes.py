import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from drawjax import attention

pytestmark = pytest.mark.usefixtures("strict")

BOXES = np.array([[2.0, 1.0, 6.0, 4.0], [0.0, 0.0, 9.0, 7.0], [3.0, 3.0, 3.5, 6.0]], np.float32)


@pytest.mark.parametrize("coordinates", ["pixels", "normalized", "paper"])
@pytest.mark.parametrize("patch_size", [3, (2, 5), (1, 1)])
def test_boxes_come_back(coordinates, patch_size):
    unit = np.array([9, 7, 9, 7]) if coordinates == "normalized" else 1
    boxes = BOXES / unit + (0.5 if coordinates == "paper" else 0)
    options = {"coordinates": coordinates, "image_shape": (7, 9)}
    window = attention.window_from_box(boxes, patch_size, **options)
    found = attention.box_of_window(window, patch_size, **options)
    np.testing.assert_allclose(found, boxes, rtol=1e-5, atol=1e-5)
    # One window whatever the coordinates.
    same = attention.window_from_box(BOXES, patch_size)
    for one, other in zip(jax.tree.leaves(window), jax.tree.leaves(same), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_filters_lie_in_the_middle_of_the_cells_of_a_box():
    window = attention.window_from_box(np.array([2, 1, 6, 4]), (3, 2))  # cells of 2 x 1 pixels
    means_y, means_x = attention.filter_means(window, (3, 2))
    np.testing.assert_allclose(means_y, [2, 3, 4])  # the paper's: pixels 1, 2, 3 from 0
    np.testing.assert_allclose(means_x, [3.5, 5.5])  # between two pixels each
    assert (float(window.stride), float(window.stride_y)) == (2, 1)
    assert (float(window.variance), float(window.variance_y)) == (1, 0.25)


def test_a_box_of_whole_pixels_is_cut_out(x64):
    image = np.random.default_rng(0).normal(size=(7, 9, 3))
    window = attention.window_from_box(np.array([2.0, 1.0, 6.0, 4.0]), (3, 4))
    narrow = dataclasses.replace(window, variance=1e-4, variance_y=1e-4)
    patch = attention.read(image, narrow, (3, 4))
    np.testing.assert_allclose(patch, image[1:4, 2:6], atol=1e-10)
    mirrored = attention.window_from_box(np.array([6.0, 1.0, 2.0, 4.0]), (3, 4))
    mirrored = dataclasses.replace(mirrored, variance=1e-4, variance_y=1e-4)
    np.testing.assert_allclose(
        attention.read(image, mirrored, (3, 4)), image[1:4, 5:1:-1], atol=1e-10
    )


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_narrow_boxes_are_rounded_once(dtype):
    box = jnp.asarray([101, 3, 200, 30], dtype)  # each number is one of either type
    window = attention.window_from_box(box, 4)
    assert window.center_x == 151
    assert window.center_x.dtype == ("float32" if dtype == "float16" else dtype)
    wide = attention.window_from_box(jnp.asarray([0, 0, 3000, 8], dtype), 4)
    assert np.isfinite(np.asarray(wide.variance, np.float32))


def test_a_box_without_extent_is_one_point():
    image = np.arange(63, dtype=np.float32).reshape(7, 9, 1)
    window = attention.window_from_box(np.array([4.5, 2.5, 4.5, 2.5]), 2)
    np.testing.assert_allclose(attention.read(image, window, 2), np.full((2, 2, 1), image[2, 4]))
    gradient = jax.grad(
        lambda box: jnp.sum(attention.read(image, attention.window_from_box(box, 2), 2))
    )(jnp.array([4.5, 2.5, 4.5, 2.5]))
    assert np.isfinite(gradient).all()


def test_a_turned_window_has_the_box_around_it():
    window = attention.Window(5.0, 5.0, 2.0, 1.0, 1.0, rotation=np.pi / 2)
    np.testing.assert_allclose(attention.box_of_window(window, (1, 3)), [3.5, 1.5, 5.5, 7.5])
    window = dataclasses.replace(window, rotation=np.pi / 4)
    half = 2 * np.sqrt(2)
    np.testing.assert_allclose(
        attention.box_of_window(window, 2), np.array([-half, -half, half, half]) + 4.5, rtol=1e-6
    )


def test_a_window_learns_a_box():
    target = jnp.array([3.0, 2.0, 8.0, 6.0])

    @jax.jit
    def step(logits):
        def distance(logits):
            window = attention.window_from_logits(logits, (9, 12), 4)
            return jnp.mean(jnp.abs(attention.box_of_window(window, 4) - target))

        return logits - 0.01 * jax.grad(distance)(logits)

    logits = jnp.zeros(7)
    for _ in range(300):
        logits = step(logits)
    window = attention.window_from_logits(logits, (9, 12), 4)
    np.testing.assert_allclose(attention.box_of_window(window, 4), target, atol=0.2)


@pytest.mark.usefixtures("own_errors")
@pytest.mark.parametrize(("call", "message"), [
    (lambda w: attention.window_from_box(jnp.zeros(5), 3), r"box must have shape \[..., 4\]"),
    (lambda w: attention.window_from_box(jnp.zeros(4), 0), "at least 1, got 0"),
    (lambda w: attention.window_from_box(jnp.zeros(4), 3, coordinates="normalized"), "need image"),
    (lambda w: attention.box_of_window(w, 3, coordinates="normalized"), "need image_shape"),
    (lambda w: attention.box_of_window(w, 3, coordinates="xywh"), "normalized or paper, got 'xywh"),
])  # fmt: skip
def test_wrong_boxes_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(attention.Window(3.0, 3.0, 1.0, 1.0, 1.0))
