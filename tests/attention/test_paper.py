import dataclasses
import functools
import subprocess
import sys

import chex
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from drawjax import attention
from tests import oracle

pytestmark = pytest.mark.usefixtures("strict")

SHAPES = [(9, 13, 1, 4), (13, 9, 3, 5), (6, 6, 2, 1), (28, 28, 1, 12)]  # height, width, channels, N


def _case(height, width, channels, n, seed=0, batch=3):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(batch, 5)) * [0.6, 0.6, 1.0, 0.7, 0.8]
    image = rng.normal(size=(batch, height, width, channels))
    patch = rng.normal(size=(batch, n, n, channels))
    return logits, image, patch


@pytest.mark.parametrize(("height", "width", "channels", "n"), SHAPES)
def test_matches_the_paper_in_float64(x64, height, width, channels, n):
    logits, image, patch = _case(height, width, channels, n)
    window = attention.window_from_logits(jnp.asarray(logits), (height, width), n)
    rows, columns = attention.filterbanks(window, (height, width), n)
    patches = attention.read(jnp.asarray(image), window, n)
    images = attention.write(jnp.asarray(patch), window, (height, width))
    for k in range(len(logits)):
        expected = oracle.window(logits[k], width, height, n)
        names = ("center_x", "center_y", "stride", "variance", "intensity")
        for name, value in zip(names, expected, strict=True):
            np.testing.assert_allclose(getattr(window, name)[k], value, rtol=1e-12)
        expected_rows, expected_columns = oracle.banks(expected, width, height, n)
        np.testing.assert_allclose(rows[k], expected_rows, atol=1e-10)
        np.testing.assert_allclose(columns[k], expected_columns, atol=1e-10)
        np.testing.assert_allclose(patches[k], oracle.read(image[k], expected, n), atol=1e-10)
        np.testing.assert_allclose(
            images[k], oracle.write(patch[k], expected, width, height), atol=1e-10
        )


def test_a_window_worked_by_hand():
    # 5 x 9 image, N = 3: middle at (5, 3); widest stride (9 - 1) / 2 = 4, halved by log 1/2.
    logits = jnp.array([0.0, 0.0, 0.0, np.log(0.5), np.log(3.0)])
    window = attention.window_from_logits(logits, (5, 9), 3)
    np.testing.assert_allclose(
        [window.center_x, window.center_y, window.stride, window.variance, window.intensity],
        [5, 3, 2, 1, 3],
        rtol=1e-6,
    )
    narrow = attention.Window(*(jnp.asarray(v) for v in (5.0, 3.0, 2.0, 1e-4, 1.0)))
    rows, columns = attention.filterbanks(narrow, (5, 9), 3)
    # Filters at 1, 3, 5 down the height and at 3, 5, 7 along the width.
    np.testing.assert_array_equal(np.argmax(rows, axis=-1), [0, 2, 4])
    np.testing.assert_array_equal(np.argmax(columns, axis=-1), [2, 4, 6])


@pytest.mark.slow
def test_gradients_match_finite_differences(x64):
    logits, image, patch = (jnp.asarray(a) for a in _case(5, 7, 2, 3, batch=2))

    def both(*arrays):
        logits, image, patch = map(jnp.asarray, arrays)
        window = attention.window_from_logits(logits, (5, 7), 3)
        return attention.read(image, window, 3), attention.write(patch, window, (5, 7))

    check_grads(
        jax.jit(both), (logits, image, patch), order=2, modes=["fwd", "rev"], atol=1e-5, rtol=1e-5
    )


def test_the_whole_image_is_read_back(x64):
    # N equal to the size, stride 1, narrow filters: reading and writing change nothing.
    image = jnp.asarray(np.random.default_rng(0).normal(size=(7, 7, 2)))
    window = attention.window_from_logits(jnp.array([0.0, 0.0, -12.0, 0.0, 0.0]), (7, 7), 7)
    patch = attention.read(image, window, 7)
    np.testing.assert_allclose(patch, image, atol=1e-10)
    np.testing.assert_allclose(attention.write(patch, window, (7, 7)), image, atol=1e-10)


def test_intensity_scales_reading_and_divides_writing():
    logits, image, patch = (jnp.asarray(a, jnp.float32) for a in _case(6, 8, 1, 3))
    window = attention.window_from_logits(logits, (6, 8), 3)
    louder = attention.Window(
        window.center_x, window.center_y, window.stride, window.variance, 2 * window.intensity
    )
    chex.assert_trees_all_close(
        attention.read(image, louder, 3), 2 * attention.read(image, window, 3), rtol=1e-5
    )
    chex.assert_trees_all_close(
        attention.write(patch, louder, (6, 8)),
        attention.write(patch, window, (6, 8)) / 2,
        rtol=1e-5,
    )


@pytest.mark.parametrize("image_batch", [(), (3,), (2, 3), (2, 1)])
@pytest.mark.parametrize("window_batch", [(), (3,), (2, 3)])
def test_any_leading_shapes_broadcast(image_batch, window_batch):
    rng = np.random.default_rng(0)
    image = jnp.asarray(rng.normal(size=(*image_batch, 6, 5, 2)), jnp.float32)
    patch = jnp.asarray(rng.normal(size=(*image_batch, 3, 3, 2)), jnp.float32)
    logits = jnp.asarray(rng.normal(size=(*window_batch, 5)) * 0.5, jnp.float32)
    window = attention.window_from_logits(logits, (6, 5), 3)
    batch = np.broadcast_shapes(image_batch, window_batch)
    read, written = attention.read(image, window, 3), attention.write(patch, window, (6, 5))
    chex.assert_shape(read, (*batch, 3, 3, 2))
    chex.assert_shape(written, (*batch, 6, 5, 2))
    images = np.broadcast_to(image, (*batch, 6, 5, 2)).reshape(-1, 6, 5, 2)
    patches = np.broadcast_to(patch, (*batch, 3, 3, 2)).reshape(-1, 3, 3, 2)
    all_logits = np.broadcast_to(logits, (*batch, 5)).reshape(-1, 5)
    for k, one in enumerate(all_logits):
        parameters = oracle.window(one, 5, 6, 3)
        np.testing.assert_allclose(
            read.reshape(-1, 3, 3, 2)[k], oracle.read(images[k], parameters, 3), atol=1e-4
        )
        np.testing.assert_allclose(
            written.reshape(-1, 6, 5, 2)[k], oracle.write(patches[k], parameters, 5, 6), atol=1e-4
        )


class VariantsTest(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True, with_device=True)
    def test_jit_and_vmap_change_nothing(self):
        logits, image, patch = (jnp.asarray(a, jnp.float32) for a in _case(8, 6, 3, 4, batch=5))

        def glimpse(logits, image, patch):
            window = attention.window_from_logits(logits, (8, 6), 4)
            return attention.read(image, window, 4), attention.write(patch, window, (8, 6))

        batched = self.variant(glimpse)(logits, image, patch)
        chex.assert_trees_all_close(
            batched, jax.vmap(glimpse)(logits, image, patch), rtol=1e-5, atol=1e-6
        )


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_dtype_is_kept(dtype):
    logits, image, patch = (jnp.asarray(a, dtype) for a in _case(8, 6, 1, 4))
    window = attention.window_from_logits(logits, (8, 6), 4)
    rows, columns = attention.filterbanks(window, (8, 6), 4)
    outputs = (*jax.tree.leaves(window), rows, columns)
    outputs += (attention.read(image, window, 4), attention.write(patch, window, (8, 6)))
    assert {a.dtype for a in outputs} == {jnp.dtype(dtype)}


def test_bfloat16_logits_are_rounded_once():
    center = attention.window_from_logits(
        jnp.asarray([0.3125, 0, 0, 0, 0], jnp.bfloat16), (8, 320), 4
    )
    assert center.center_x == jnp.asarray(321 / 2 * 1.3125, jnp.bfloat16)


@pytest.mark.parametrize(
    ("patch_size", "expected"), [((1, 12), 19 / 11), ((8, 1), 27 / 7), (1, 27), ((3, 5), 27 / 2)]
)
def test_a_single_row_or_column_of_filters_sets_no_stride(patch_size, expected):
    window = attention.window_from_logits(jnp.zeros(5), (28, 20), patch_size)
    assert window.stride == np.float32(expected)


def test_bfloat16_filters_keep_far_pixels_apart():
    # Pixel 301 does not exist in bfloat16 (it rounds to 300 or 302), yet filters stay distinct.
    window = attention.Window(*(jnp.asarray(v, jnp.bfloat16) for v in (300, 8, 1, 1e-3, 1)))
    _, columns = attention.filterbanks(window, (16, 600), 5)
    np.testing.assert_array_equal(np.argmax(columns, axis=-1), [297, 298, 299, 300, 301])


extreme = st.one_of(
    st.floats(-3, 3, width=32), st.sampled_from([-1e30, -100.0, -95.0, -50.0, 95.0, 100.0, 1e30])
)


@functools.cache
def _filters_and_gradients(shape, n, dtype):
    image = jnp.asarray(np.random.default_rng(0).normal(size=(*shape, 1)), dtype)
    patch = jnp.asarray(np.random.default_rng(1).normal(size=(n, n, 1)), dtype)

    def total(logits, image, patch):
        window = attention.window_from_logits(logits, shape, n)
        read, written = attention.read(image, window, n), attention.write(patch, window, shape)
        return jnp.sum(jnp.sin(read)) + jnp.sum(jnp.sin(written))

    @jax.jit
    def both(logits):
        banks = attention.filterbanks(attention.window_from_logits(logits, shape, n), shape, n)
        return banks, jax.value_and_grad(total, argnums=(0, 1, 2))(logits, image, patch)

    return both


@pytest.mark.slow
@hypothesis.settings(max_examples=150, deadline=None)
@hypothesis.given(
    logits=st.tuples(extreme, extreme, extreme, extreme, st.floats(-3, 3, width=32)),
    shape=st.sampled_from([(5, 8), (8, 5), (1, 1), (28, 28)]),
    n=st.sampled_from([1, 2, 5]),
    dtype=st.sampled_from(["float32", "bfloat16"]),
)
def test_extreme_windows_stay_finite(logits, shape, n, dtype):
    banks, losses = _filters_and_gradients(shape, n, dtype)(jnp.asarray(logits, dtype))
    for bank in banks:
        tolerance = 1e-5 if dtype == "float32" else 2e-2
        np.testing.assert_allclose(np.sum(bank.astype("float32"), -1), 1, rtol=tolerance)
        assert np.all(np.asarray(bank, "float32") >= 0)
    chex.assert_tree_all_finite(losses)


@pytest.mark.parametrize("fields", [
    (4, 3, 2, 1, 1),
    (4.0, 3.0, 2.0, 1.0, 1.0),
    (np.int32(4), np.float32(3), jnp.array(2), True, 1.0),
    (jnp.array(4, jnp.bfloat16), 3, 2, 1, 1),
])  # fmt: skip
@pytest.mark.usefixtures("promoting")
def test_windows_are_numbers_of_any_kind(fields):
    image = np.arange(7 * 9, dtype=np.uint8).reshape(7, 9, 1)
    expected = attention.Window(*(jnp.float32(value) for value in (4, 3, 2, 1, 1)))
    window, floats = attention.Window(*fields), np.asarray(image, np.float32)
    tolerance = {"rtol": 2e-2} if "bfloat16" in repr(fields) else {"rtol": 1e-6}
    found, patch = attention.read(image, window, 3), attention.read(floats, expected, 3)
    assert patch.std() > 1
    np.testing.assert_allclose(np.asarray(found, np.float32), patch, **tolerance)
    np.testing.assert_allclose(
        np.asarray(attention.write(np.ones((3, 3, 1), int), window, (7, 9)), np.float32),
        attention.write(np.ones((3, 3, 1), np.float32), expected, (7, 9)), atol=5e-3,
    )  # fmt: skip
    for one, other in zip(attention.filter_means(window, 3), attention.filter_means(expected, 3),
                          strict=True):  # fmt: skip
        np.testing.assert_allclose(np.asarray(one, np.float32), other)


def test_numbers_stand_beside_arrays():
    window = attention.Window(jnp.array([2.0, 5.0]), 3.0, 1, 1, 1)
    assert attention.read(np.ones((7, 9, 1)), window, 3).shape == (2, 3, 3, 1)
    with pytest.raises(ValueError, match="must share one shape, got"):
        attention.read(np.ones((7, 9, 1)), attention.Window(np.ones(2), np.ones(3), 1, 1, 1), 3)


@functools.cache
def _window_and_gradient(dtype):
    image = jnp.asarray(np.random.default_rng(0).normal(size=(6, 7, 1)), dtype)

    def total(logits):
        window = attention.window_from_logits(logits, (6, 7), 3)
        return jnp.sum(jnp.sin(attention.read(image, window, 3))), window

    return jax.jit(jax.grad(total, has_aux=True))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("value", [-1e4, -95.0, -20.0, 12.0, 40.0, 95.0, 1e4])
@pytest.mark.usefixtures("promoting")
def test_logits_of_any_size_and_type_have_finite_gradients(x64, dtype, value):
    for field in range(5):
        logits = jnp.zeros(5, dtype).at[field].set(value)
        found, window = _window_and_gradient(dtype)(logits)
        fields = {leaf.dtype for leaf in jax.tree.leaves(window)}
        assert fields == {jnp.dtype("float32" if dtype == "float16" else dtype)}
        chex.assert_tree_all_finite((window, _window_and_gradient(dtype)(logits.astype("float32"))))
        if dtype == "float16":  # some are beyond what it holds, and infinite; none is a NaN
            assert not np.isnan(found).any()
        else:
            chex.assert_tree_all_finite(found)


@pytest.mark.parametrize("field", range(5))
@pytest.mark.parametrize("value", [0.0, np.inf, 1e38, -1e38])
def test_any_window_gives_finite_filters(field, value):
    values = [3.0, 4.0, 1.5, 1.0, 1.0]
    values[field] = value
    for n in (1, 4, 5):
        for bank in attention.filterbanks(
            attention.Window(*(jnp.float32(v) for v in values)), (7, 9), n
        ):
            np.testing.assert_allclose(np.sum(bank, -1), 1, rtol=1e-5)


@pytest.mark.parametrize("log_variance", [-50.0, -95.0, 95.0])
def test_the_known_nan_windows_have_usable_gradients(log_variance):
    image = jnp.asarray(np.random.default_rng(0).normal(size=(28, 28, 1)), jnp.float32)

    def total(logits):
        return jnp.sum(attention.read(image, attention.window_from_logits(logits, (28, 28), 5), 5))

    gradient = jax.grad(total)(jnp.array([0.3, -0.2, log_variance, 0.1, 0.2]))
    chex.assert_tree_all_finite(gradient)
    assert np.sum(np.square(gradient)) < 1e12


def test_a_window_off_the_image_still_sends_a_gradient_back():
    image = jnp.asarray(np.random.default_rng(0).uniform(size=(20, 20, 1)), jnp.float32)

    def total(logits):
        return jnp.sum(attention.read(image, attention.window_from_logits(logits, (20, 20), 3), 3))

    gradient = jax.grad(total)(jnp.array([4.0, -4.0, 3.0, -3.0, 0.0]))
    assert abs(gradient[0]) > 1e-6
    assert abs(gradient[1]) > 1e-6


def test_far_filters_pick_the_edge():
    window = attention.Window(*(jnp.float32(v) for v in (1e9, -1e9, 1.0, 1.0, 1.0)))
    rows, columns = attention.filterbanks(window, (6, 9), 2)
    np.testing.assert_allclose(rows[:, 0], 1)
    np.testing.assert_allclose(columns[:, -1], 1)


@pytest.mark.usefixtures("own_errors")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda w: attention.window_from_logits(jnp.zeros((2, 4)), (5, 5), 3), "[..., 5] (to 8)"),
        (lambda w: attention.window_from_logits(jnp.zeros(5), (5, 0), 3), "(5, 0)"),
        (lambda w: attention.window_from_logits(jnp.zeros(5), (5, 5), 0), "at least 1, got 0"),
        (lambda w: attention.read(jnp.zeros((5, 5)), w, 3), "[5, 5]"),
        (lambda w: attention.read(jnp.zeros((4, 5, 5, 1)), w, 3), "[4] and [2]"),
        (lambda w: attention.write(jnp.zeros((3, 3)), w, (5, 5)), "[3, 3]"),
        (lambda w: attention.read(jnp.zeros((5, 5, 1)), w, (3, 0)), "at least 1, got (3, 0)"),
        (lambda w: attention.write(jnp.zeros((3, 3, 1)), w, (5, 5, 1)), "(height, width)"),
    ],
)
def test_wrong_shapes_are_named(call, message):
    window = attention.window_from_logits(jnp.zeros((2, 5)), (5, 5), 3)
    with pytest.raises(ValueError) as error:
        call(window)
    assert message in str(error.value)


@pytest.mark.usefixtures("own_errors")
def test_a_window_of_unequal_fields_is_refused():
    fields = [jnp.zeros(2), jnp.zeros(2), jnp.zeros(3), jnp.ones(2), jnp.ones(2)]
    with pytest.raises(ValueError, match="share one shape"):
        attention.filterbanks(attention.Window(*fields), (5, 5), 3)


def test_importing_the_glimpse_op_loads_nothing_heavy():
    script = (
        "import sys, drawjax.attention\n"
        "heavy = {'flax', 'optax', 'tensorflow_datasets', 'orbax', 'grain', 'tensorflow'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("image_batch", "window_batch"),
    [((), ()), ((3,), ()), ((), (4,)), ((3,), (3,)), ((2, 3), (3,)), ((3,), (2, 3))],
)
def test_batches_broadcast_without_rank_promotion(image_batch, window_batch):
    image = jax.random.normal(jax.random.key(0), (*image_batch, 7, 9, 2))
    logits = 0.5 * jax.random.normal(jax.random.key(1), (*window_batch, 5))

    @jax.jit
    def read_and_write(image, logits):
        window = attention.window_from_logits(logits, (7, 9), 3)
        patch = attention.read(image, window, 3)
        return window, patch, attention.write(patch, window, (7, 9))

    window, patch, written = read_and_write(image, logits)
    batch = np.broadcast_shapes(image_batch, window_batch)
    assert patch.shape == (*batch, 3, 3, 2)
    assert written.shape == (*batch, 7, 9, 2)
    rows, columns = attention.filterbanks(window, (7, 9), 3)
    expected = np.einsum("...nh,...hwc,...mw->...nmc", rows, image, columns)
    expected = np.asarray(window.intensity)[..., None, None, None] * expected
    np.testing.assert_allclose(patch, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("num_scales", [1, 3])
def test_scales_are_reads_by_wider_windows(x64, num_scales):
    rng = np.random.default_rng(0)
    images, logits = rng.uniform(size=(2, 9, 7, 3)), jnp.asarray(rng.normal(size=(4, 2, 5)))
    window = attention.window_from_logits(logits, (9, 7), 4)
    patches = attention.read_scales(images, window, 4, num_scales)
    assert patches.shape == (4, 2, num_scales, 4, 4, 3)
    for k in range(num_scales):
        wider = dataclasses.replace(
            window, stride=2**k * window.stride, variance=4**k * window.variance
        )
        expected = attention.read(images, wider, 4)
        np.testing.assert_allclose(patches[:, :, k], expected, atol=1e-12)
    with pytest.raises(ValueError, match="num_scales must be at least 1 and whole, got 0"):
        attention.read_scales(images, window, 4, 0)
