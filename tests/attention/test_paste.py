import dataclasses
import functools
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from drawjax import attention
from drawjax.attention import Window

pytestmark = pytest.mark.usefixtures("strict")

WINDOWS = [
    Window(6.0, 4.5, 1.5, 0.7, 1.0),
    Window(6.3, 4.1, 2.5, 0.9, 2.0, stride_y=-1.4, variance_y=0.3),  # mirrored
    Window(12.0, 2.0, 1.7, 0.5, 0.5, rotation=0.5),  # partly off the image
    Window(5.5, 4.7, 1.1, 0.6, 1.5, stride_y=1.6, rotation=-0.4, shear=0.8),
    Window(5.5, 4.7, 1.1, 0.6, 1.0, shear=-0.5),
]


def _cells(window, height, width):
    """How far pixels are from a window's center, in rows and columns of its grid."""
    angle, shear = window.rotation or 0.0, window.shear or 0.0
    stride_x, stride_y = window.strides
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    inverse = np.linalg.inv(turn @ [[stride_x, shear], [0, stride_y]])
    u, v = np.zeros((2, height, width))
    for b, a in np.ndindex(height, width):
        u[b, a], v[b, a] = inverse @ [a + 1 - window.center_x, b + 1 - window.center_y]
    return u, v


def _expected_mask(window, rows, columns, height, width):
    u, v = _cells(window, height, width)
    (stride_x, stride_y), (variance_x, variance_y) = window.strides, window.variances
    lean = math.hypot(1, (window.shear or 0.0) / stride_y)
    sides = [(u, columns, lean * math.sqrt(variance_x) / abs(stride_x)),
             (v, rows, math.sqrt(variance_y) / abs(stride_y))]  # fmt: skip
    covered = np.ones((height, width, 1))
    for b, a in np.ndindex(height, width):
        for cells, size, deviation in sides:
            above, below = (
                math.erf((cells[b, a] + sign * size / 2) / deviation / math.sqrt(2))
                for sign in (1, -1)
            )
            covered[b, a] *= (above - below) / 2
    return covered


def _expected_paste(patch, window, height, width):
    rows, columns, channels = patch.shape
    u, v = _cells(window, height, width)
    (stride_x, stride_y), (variance_x, variance_y) = window.strides, window.variances
    image = np.zeros((height, width, channels))
    for b, a in np.ndindex(height, width):
        total = 0
        for j, i in np.ndindex(rows, columns):
            right = (u[b, a] - (i - (columns - 1) / 2)) * stride_x
            below = (v[b, a] - (j - (rows - 1) / 2)) * stride_y
            weight = math.exp(-(right**2) / variance_x / 2 - below**2 / variance_y / 2)
            image[b, a] += weight * patch[j, i]
            total += weight
        image[b, a] /= max(total, 1e-300) * window.intensity
    return image * _expected_mask(window, rows, columns, height, width)


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("size", [(3, 4), (1, 1)])
def test_masks_and_pasted_patches_match_loops(x64, window, size):
    patch = np.random.default_rng(0).normal(size=(*size, 2))
    covered = attention.mask(window, size, (9, 13))
    np.testing.assert_allclose(covered, _expected_mask(window, *size, 9, 13), atol=1e-12)
    pasted = attention.paste(patch, window, (9, 13))
    np.testing.assert_allclose(pasted, _expected_paste(patch, window, 9, 13), atol=1e-9)


def test_a_mask_is_its_box_blurred(x64):
    box = np.array([3.0, 2.0, 10.0, 7.0])
    window = dataclasses.replace(attention.window_from_box(box, 4), variance=0.5, variance_y=0.5)
    # The integral of a Gaussian over the box, by a sum over a fine grid.
    fine = (np.arange(400) + 0.5) / 20  # edges of the image at 0
    inside_x, inside_y = (fine > 3) & (fine < 10), (fine > 2) & (fine < 7)

    def blurred(inside, size):
        pixels = np.arange(size)[:, None] + 0.5
        kernel = np.exp(-((pixels - fine) ** 2)) / math.sqrt(math.pi) / 20
        return kernel @ inside

    expected = blurred(inside_y, 9)[:, None] * blurred(inside_x, 13)
    found = attention.mask(window, 4, (9, 13))[..., 0]
    np.testing.assert_allclose(found, expected, atol=1e-3)
    assert found.min() >= 0 and found.max() <= 1
    turned = dataclasses.replace(window, variance_y=None, rotation=math.pi / 2)
    there = dataclasses.replace(turned, center_x=window.center_y, center_y=window.center_x)
    np.testing.assert_allclose(attention.mask(there, 4, (13, 9))[..., 0], found.T, atol=1e-12)


@pytest.mark.parametrize("rotation", [None, 0.4])
def test_a_paste_is_a_write_divided_by_its_weights(x64, rotation):
    # Inside, where the filters leave no gaps: the strides squared are what people multiplied by.
    window = Window(20.0, 15.0, 2.0, 1.0, 1.3, rotation=rotation)
    patch = np.random.default_rng(0).uniform(size=(10, 12, 3))
    pasted = attention.paste(patch, window, (30, 40))
    written = attention.write(patch, window, (30, 40)) * 4
    inside = np.asarray(attention.mask(window, (10, 12), (30, 40)))[..., 0] > 0.99
    assert inside.sum() > 200
    assert np.max(np.abs(pasted - written)[inside]) < 0.05
    covered = attention.mask(window, (10, 12), (30, 40))
    ones = attention.paste(np.ones((10, 12, 1)), window, (30, 40))
    np.testing.assert_allclose(ones, covered / 1.3, atol=1e-12)
    total = attention.write(np.ones((10, 12, 1)), window, (30, 40)) * 4 * 1.3
    np.testing.assert_allclose(total, covered, atol=0.15)


def test_what_was_read_is_pasted_where_it_was(x64):
    y, x = np.mgrid[1:31, 1:41] / 10
    image = np.stack([np.sin(x + y), np.cos(x - 2 * y)], -1)
    for window in (Window(18.0, 16.0, 1.0, 0.2, 3.0), Window(18.0, 16.0, 1.0, 0.2, 3.0, shear=0.4)):
        pasted = attention.paste(attention.read(image, window, 14), window, (30, 40))
        covered = attention.mask(window, 14, (30, 40))
        np.testing.assert_allclose((1 - covered) * image + pasted, image, atol=0.08)


def test_off_the_image_a_mask_is_empty():
    window = attention.window_from_box(np.array([[-30.0, 2, -20, 6], [4.0, 4, 4, 4]]), 3)
    np.testing.assert_allclose(attention.mask(window, 3, (9, 13)), 0, atol=1e-6)
    np.testing.assert_allclose(attention.paste(np.ones((3, 3, 1)), window, (9, 13)), 0, atol=1e-6)


@functools.cache
def _pasted_and_covered(rotation):
    @jax.jit
    def both(patch, center):
        window = Window(center, 4.0, 1.5, 0.8, 2.0, rotation=rotation)
        return attention.paste(patch, window, (7, 9)), attention.mask(window, (2, 4), (7, 9))

    return both


@pytest.mark.parametrize(("patch_batch", "window_batch"), [
    ((2, 1), ()), ((1,), (3,)), ((2, 1), (2, 3)), ((), (2, 3)), ((), (0,)),
])  # fmt: skip
@pytest.mark.parametrize("rotation", [None, 0.3])
def test_batches_broadcast_without_rank_promotion(patch_batch, window_batch, rotation):
    rng = np.random.default_rng(0)
    patch = jnp.asarray(rng.normal(size=(*patch_batch, 2, 4, 2)), jnp.float32)
    center = jnp.asarray(rng.uniform(3, 6, size=window_batch), jnp.float32)
    both = _pasted_and_covered(rotation)
    found, covered = both(patch, center)
    batch = np.broadcast_shapes(patch_batch, window_batch)
    assert found.shape == (*batch, 7, 9, 2) and covered.shape == (*window_batch, 7, 9, 1)
    patches = np.broadcast_to(patch, (*batch, 2, 4, 2)).reshape(-1, 2, 4, 2)
    centers = np.broadcast_to(center, batch).reshape(-1)
    for k, center in enumerate(centers):
        np.testing.assert_allclose(
            found.reshape(-1, 7, 9, 2)[k], both(patches[k], center)[0], atol=1e-5
        )


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_dtypes_are_kept(x64, dtype):
    window = jax.tree.map(lambda field: jnp.asarray(field, dtype), WINDOWS[3])
    patch = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4, 2)), dtype)
    pasted, covered = attention.paste(patch, window, (9, 13)), attention.mask(window, 3, (9, 13))
    assert {pasted.dtype, covered.dtype} == {jnp.dtype(dtype)}
    exact = attention.paste(patch.astype("float64"), WINDOWS[3], (9, 13))
    tolerance = {"float16": 1e-2, "bfloat16": 1e-1}.get(dtype, 1e-5)
    np.testing.assert_allclose(pasted.astype("float64"), exact, atol=tolerance)


@pytest.mark.slow
@pytest.mark.parametrize("window", WINDOWS[1:4])
def test_gradients_match_finite_differences(x64, window):
    window = jax.tree.map(jnp.asarray, window)
    patch = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 2)))

    def both(patch, window):
        return attention.paste(patch, window, (5, 8)), attention.mask(window, 3, (5, 8))

    check_grads(jax.jit(both), (patch, window), order=2, modes=["fwd", "rev"], atol=1e-4, rtol=1e-4)


def test_a_window_learns_a_mask():
    target = attention.mask(Window(8.0, 5.0, 1.5, 0.6, 1.0), 4, (9, 13))

    @jax.jit
    def step(logits):
        def distance(logits):
            window = attention.window_from_logits(logits, (9, 13), 4)
            return jnp.sum(jnp.square(attention.mask(window, 4, (9, 13)) - target))

        return logits - 0.003 * jax.grad(distance)(logits)

    logits = jnp.array([0.0, 0.0, 0.0, -0.3, 0.0])
    for _ in range(500):
        logits = step(logits)
    found = attention.window_from_logits(logits, (9, 13), 4)
    np.testing.assert_allclose([found.center_x, found.center_y], [8, 5], atol=0.05)
    np.testing.assert_allclose(found.stride, 1.5, atol=0.05)


@functools.cache
def _total(turned):
    def total(fields):
        window = Window(*fields[:5], stride_y=fields[5])
        if turned:
            window = dataclasses.replace(window, rotation=0.3, shear=fields[6])
        covered = attention.mask(window, 3, (7, 9))
        pasted = attention.paste(jnp.ones((3, 3, 1)), window, (7, 9))
        return jnp.sum(jnp.sin(covered)) + jnp.sum(jnp.sin(pasted)), covered

    return jax.jit(jax.value_and_grad(total, has_aux=True))


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("value", [0.0, np.inf, -np.inf, 1e38, -1e38, 1e-38])
def test_any_window_gives_finite_masks_and_gradients(turned, value):
    for field in (0, 1, 2, 3, 5, 6):
        fields = jnp.array([3.0, 4.0, 1.5, 1.0, 1.0, 1.2, 0.3]).at[field].set(value)
        (loss, covered), gradient = _total(turned)(fields)
        chex.assert_tree_all_finite((loss, covered, gradient))
        assert np.all((covered >= 0) & (covered <= 1))


@pytest.mark.usefixtures("own_errors")
@pytest.mark.parametrize(("call", "message"), [
    (lambda w: attention.mask(w, 0, (5, 5)), "at least 1, got 0"),
    (lambda w: attention.mask(w, 3, (5, 5, 1)), r"image_shape must be \(height, width\)"),
    (lambda w: attention.paste(np.ones((3, 3)), w, (5, 5)), r"\[..., N, N, channels\], got \[3, 3"),
    (lambda w: attention.paste(np.ones((4, 3, 3, 1)), w, (5, 5)), r"got \[4\] and \[2\]"),
    (lambda w: attention.paste(np.ones((3, 3, 1)), w, (5, 0)), r"image_shape must be"),
])  # fmt: skip
def test_wrong_shapes_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(Window(jnp.ones(2), 3.0, 1.0, 1.0, 1.0))
