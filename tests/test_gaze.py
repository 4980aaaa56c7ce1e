"""Scanpaths, coverage and policies, held to loops over images, steps and pixels."""

import csv
import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from drawjax import attention, gaze, modules, ram
from drawjax.attention import Window

SHAPE = (7, 9, 2)
STEPS, BATCH, SIZE = 5, 4, 3
CONFIG = modules.RamConfig(
    num_glimpses=STEPS, hidden_size=6, read_size=SIZE, num_classes=4, num_scales=2
)


@pytest.fixture
def model(x64):
    """A classifier whose every parameter is random and not small."""
    graph, params = modules.abstract(modules.Ram, CONFIG, SHAPE)
    rng = np.random.default_rng(0)
    return modules.merge(
        graph, jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape) * 0.4), params)
    )


@pytest.fixture
def images(x64):
    return jnp.asarray(np.random.default_rng(1).uniform(size=(BATCH, *SHAPE)))


def _windows(*shape):
    """Random windows, of other extents along x and y."""
    rng = np.random.default_rng(2)
    fields = {f.name: rng.uniform(1, 6, shape) for f in dataclasses.fields(Window)}
    return Window(**{name: jnp.asarray(v) for name, v in fields.items() if name in _FIELDS})


_FIELDS = {
    "center_x", "center_y", "stride", "variance", "intensity", "stride_y", "variance_y",
}  # fmt: skip


def _run(model, images, policy):
    return jax.jit(lambda images: ram.classify(model, images, policy=policy))(images)


def _centers(output):
    return np.stack([output.windows.center_x, output.windows.center_y], axis=-1)


def _assert_equal(output, expected):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12), output, expected)


# ram.classify(policy=...)


def test_the_models_own_policy_changes_nothing(model, images):
    expected = jax.jit(lambda images: ram.classify(model, images))(images)
    _assert_equal(_run(model, images, gaze.learned(model)), expected)
    _assert_equal(_run(model, images, gaze.replay(expected.windows)), expected)


def test_a_policy_is_given_what_is_known_before_its_glimpse(model, images):
    def policy(state):
        # A function of all there is: the number, the pictures, the model's memory, the past.
        before = jnp.nansum(state.centers, axis=0)
        return Window(
            center_x=1 + state.glimpse + state.images.mean((1, 2, 3)) + 0.1 * before[:, 1],
            center_y=4 + state.hidden[:, 0] - 0.1 * before[:, 0],
            stride=1.0 + state.carry[0][:, 0] ** 2, variance=1, intensity=2.0,
        )  # fmt: skip

    output = _run(model, images, policy)
    (carry, hidden), before = model.initial_state(BATCH), np.zeros((BATCH, 2))
    for t in range(STEPS):
        window = Window(
            center_x=1 + t + images.mean((1, 2, 3)) + 0.1 * before[:, 1],
            center_y=4 + hidden[:, 0] - 0.1 * before[:, 0],
            stride=1.0 + carry[0][:, 0] ** 2, variance=jnp.ones(BATCH),
            intensity=jnp.full(BATCH, 2.0),
        )  # fmt: skip
        before = before + np.stack([window.center_x, window.center_y], -1)
        patch = attention.read_scales(images, window, SIZE, 2)
        patch = np.moveaxis(patch, 1, -2).reshape(BATCH, SIZE, SIZE, 4)
        carry, hidden = model.recur(carry, jnp.asarray(patch))
        np.testing.assert_allclose(output.patches[t], patch, atol=1e-12)
        np.testing.assert_allclose(
            output.glimpse_logits[t], model.logits(hidden, images), atol=1e-12
        )
        jax.tree.map(
            lambda a, b, t=t: np.testing.assert_allclose(a[t], b, atol=1e-12),
            output.windows,
            window,
        )


def test_centers_to_come_are_nan(model, images):
    seen = []

    def policy(state):
        jax.debug.callback(lambda t, c: seen.append((int(t), c)), state.glimpse, state.centers)
        return Window(3.0, 4.0, 1.0, 1.0, 1.0)

    jax.block_until_ready(_run(model, images, policy))
    jax.effects_barrier()
    assert sorted(t for t, _ in seen) == list(range(STEPS))
    for t, centers in seen:
        np.testing.assert_array_equal(centers[:t], np.broadcast_to([3, 4], (t, BATCH, 2)))
        assert np.isnan(centers[t:]).all()


def test_gradients_pass_through_a_policy(model, images):
    def total(x):
        policy = gaze.replay(Window(x + jnp.zeros(STEPS), *(jnp.ones(STEPS) for _ in range(4))))
        return jnp.sum(ram.classify(model, images, policy=policy).logits)

    slope = (total(4.0 + 1e-5) - total(4.0 - 1e-5)) / 2e-5
    np.testing.assert_allclose(jax.grad(total)(4.0), slope, rtol=1e-6)


# Policies


def test_policies_that_move_windows_keep_their_size(model, images):
    windows = _windows(STEPS, BATCH)
    base = gaze.replay(windows)
    keys = jax.random.split(jax.random.key(0), BATCH)
    policies = [
        gaze.middle(base), gaze.random(base, keys), gaze.grid(base, 2, 3), gaze.inhibit(base, 2.0),
        gaze.salient(base, lambda state: state.images[..., 0]),
    ]  # fmt: skip
    for policy in policies:
        output = _run(model, images, policy)
        for field in dataclasses.fields(Window):
            if field.name not in ("center_x", "center_y"):
                expected = getattr(windows, field.name)
                np.testing.assert_array_equal(getattr(output.windows, field.name), expected)
        assert not np.array_equal(output.windows.center_x, windows.center_x)


ONE = Window(2.0, 3.0, 1.0, 1.0, 1.0)  # one window for all images


def test_the_grid_is_walked_row_by_row_and_begins_anew(model, images):
    found = _centers(_run(model, images, gaze.grid(lambda state: ONE, 2, 2)))
    # Of the 7 x 9 image the edges are 0.5 and 9.5, and 0.5 and 7.5.
    expected = [(2.75, 2.25), (7.25, 2.25), (2.75, 5.75), (7.25, 5.75), (2.75, 2.25)]
    np.testing.assert_allclose(found, np.broadcast_to(np.array(expected)[:, None], found.shape))
    middle = _centers(_run(model, images, gaze.middle(lambda state: ONE)))
    np.testing.assert_allclose(middle, np.broadcast_to([5.0, 4.0], middle.shape))


def test_random_places_are_of_an_image_and_a_glimpse_alone(model, images):
    keys = jax.random.split(jax.random.key(3), BATCH)
    found = _centers(_run(model, images, gaze.random(lambda state: ONE, keys)))
    for t in range(STEPS):
        for i in range(BATCH):
            x, y = jax.random.uniform(jax.random.fold_in(keys[i], t), (2,))
            np.testing.assert_allclose(found[t, i], [0.5 + 9 * x, 0.5 + 7 * y])
    few = _centers(_run(model, images[2:3], gaze.random(lambda state: ONE, keys[2:3])))
    np.testing.assert_array_equal(few[:, 0], found[:, 2])


def test_policies_are_of_the_images_type(model, images):
    single = jax.tree.map(lambda p: p.astype(jnp.float32), modules.split(model)[1])
    model = modules.merge(modules.split(model)[0], single)
    window = Window(*(jnp.float32(v) for v in (5, 4, 1, 1, 1)))
    keys = jax.random.split(jax.random.key(3), BATCH)
    for policy in (
        gaze.random(lambda state: window, keys),
        gaze.grid(lambda state: window, 2, 2),
        gaze.salient(lambda state: window, lambda state: state.images[..., 0], 2.0),
        gaze.inhibit(lambda state: window, 2.0),
    ):
        with jax.numpy_dtype_promotion("strict"):
            output = _run(model, images.astype(jnp.float32), policy)
        assert output.windows.center_x.dtype == jnp.float32


def test_keys_are_one_an_image(model, images):
    for keys in (jax.random.key(0), jax.random.split(jax.random.key(0), BATCH + 1)):
        with pytest.raises(ValueError, match=r"keys must be a PRNG key per image \[4\]"):
            _run(model, images, gaze.random(lambda state: ONE, keys))


def _nearest_free(values, earlier, radius):
    """The best pixel that is free, by a loop; the best of all where none is."""
    best = {}
    for y in range(1, 8):
        for x in range(1, 10):
            free = all(np.hypot(x - cx, y - cy) >= radius for cx, cy in earlier)
            value = values(x, y)
            if free not in best or value > best[free][0]:
                best[free] = value, (x, y)
    return best.get(True, best.get(False))[1]


@pytest.mark.parametrize("radius", [0.0, 2.5, 20.0])
def test_the_most_salient_free_pixel_is_looked_at(model, images, radius):
    policy = gaze.salient(lambda state: ONE, lambda state: state.images[..., 1], radius)
    found = _centers(_run(model, images, policy))
    for i in range(BATCH):
        for t in range(STEPS):
            values = lambda x, y, i=i: images[i, y - 1, x - 1, 1]  # noqa: E731
            assert tuple(found[t, i]) == _nearest_free(values, found[:t, i], radius)
    # Without a radius, and where all is taken, it is the peak at every glimpse.
    assert len(np.unique(found[:, 0], axis=0)) == (STEPS if radius == 2.5 else 1)


@pytest.mark.parametrize("radius", [0.0, 1.5, 3.0, 20.0])
def test_inhibition_moves_what_returns_to_the_nearest_free_pixel(model, images, radius):
    windows = _windows(STEPS, BATCH)
    found = _centers(_run(model, images, gaze.inhibit(gaze.replay(windows), radius)))
    moved = 0
    for i in range(BATCH):
        for t in range(STEPS):
            x, y = float(windows.center_x[t, i]), float(windows.center_y[t, i])
            expected = x, y
            if any(np.hypot(x - cx, y - cy) < radius for cx, cy in found[:t, i]):
                values = lambda column, row, x=x, y=y: -np.hypot(column - x, row - y)  # noqa: E731
                expected, moved = _nearest_free(values, found[:t, i], radius), moved + 1
            np.testing.assert_allclose(found[t, i], expected)
    assert moved == {0.0: 0, 20.0: BATCH * (STEPS - 1)}.get(radius, moved)
    assert moved > 0 or radius == 0


def test_sensitivity_is_the_gradient_of_the_expected_error(model, images):
    window = _windows(BATCH)
    carry, hidden = model.initial_state(BATCH)
    state = ram.State(jnp.array(0), images, carry, hidden, jnp.full((STEPS, BATCH, 2), jnp.nan))
    found = gaze.sensitivity(model, lambda state: window)(state)

    def entropy(image, i):
        one = images.at[i].set(image)
        _, hidden = model.recur(carry, model.read(one, state.hidden, window)[0])
        p = np.asarray(jax.nn.softmax(model.logits(hidden, one)[i]))
        return -np.sum(p * np.log(p))

    for i, y, x in ((0, 2, 3), (3, 5, 1), (2, 3, 4)):
        slopes = []
        for channel in range(2):
            step = np.zeros(SHAPE)
            step[y, x, channel] = 1e-5
            slopes.append((entropy(images[i] + step, i) - entropy(images[i] - step, i)) / 2e-5)
        np.testing.assert_allclose(found[i, y, x], np.hypot(*slopes), rtol=1e-6)


# Scanpaths and coverage


def test_coverage_is_that_of_the_window_that_covers_a_pixel_best(x64):
    windows = _windows(STEPS, BATCH)
    found = gaze.coverage(windows, (2, SIZE), SHAPE[:2])
    assert found.shape == (BATCH, *SHAPE[:2])
    for i in range(BATCH):
        expected = np.zeros(SHAPE[:2])
        for t in range(STEPS):
            window = jax.tree.map(lambda f, t=t, i=i: f[t, i], windows)
            own = attention.mask(window, (2, SIZE), SHAPE[:2])[..., 0]
            expected = np.maximum(expected, own)
        np.testing.assert_allclose(found[i], expected, atol=1e-12)
    one = gaze.coverage(jax.tree.map(lambda f: f[:, 0], windows), (2, SIZE), SHAPE[:2])
    np.testing.assert_allclose(one, found[0], atol=1e-12)


def test_numbers_and_lists_stand_beside_arrays(model, images):
    every = jax.tree.map(jnp.float32, _windows(STEPS, BATCH))
    some = dataclasses.replace(every, stride=2.0, variance=1, intensity=1.0)
    all_arrays = dataclasses.replace(
        every,
        **{
            name: jnp.full((STEPS, BATCH), getattr(some, name), jnp.float32)
            for name in ("stride", "variance", "intensity")
        },
    )
    np.testing.assert_array_equal(
        gaze.coverage(some, 2, (8, 9)), gaze.coverage(all_arrays, 2, (8, 9))
    )
    output = _run(model, images, gaze.replay(some))
    np.testing.assert_array_equal(output.windows.stride, all_arrays.stride)


def test_coverage_is_one_inside_of_a_box_and_zero_outside(x64):
    window = attention.window_from_box(jnp.array([[10.0, 20.0, 30.0, 50.0]]), (15, 10))
    found = gaze.coverage(window, (15, 10), (70, 60))
    np.testing.assert_allclose(found[23:47, 13:27], 1, atol=0.02)
    outside = np.array(found)
    outside[16:54, 6:34] = 0
    assert outside.max() < 1e-3
    np.testing.assert_allclose(found.sum(), 20 * 30, rtol=0.02)


def test_a_scanpath_has_a_row_an_image_and_step(x64):
    windows = _windows(STEPS, BATCH)
    columns = gaze.scanpath(windows, (2, SIZE))
    assert list(columns) == ["image", "time", "x", "y", "width", "height"]
    row = 0
    for i in range(BATCH):
        for t in range(STEPS):
            expected = (
                i, t + 1, windows.center_x[t, i] - 0.5, windows.center_y[t, i] - 0.5,
                SIZE * windows.stride[t, i], 2 * windows.stride_y[t, i],
            )  # fmt: skip
            np.testing.assert_allclose([column[row] for column in columns.values()], expected)
            row += 1
    assert {len(column) for column in columns.values()} == {row}


@pytest.mark.parametrize("precision", [np.float32, np.float64])
def test_a_scanpath_is_read_back_as_it_was(x64, tmp_path, precision):
    windows = jax.tree.map(lambda f: f.astype(precision), _windows(STEPS, BATCH))
    columns = gaze.scanpath(windows, SIZE)
    gaze.save_scanpath(tmp_path / "s.csv", windows, SIZE)
    gaze.save_scanpath(tmp_path / "s.json", windows, SIZE)
    with (tmp_path / "s.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    objects = json.loads((tmp_path / "s.json").read_text())
    for name, column in columns.items():
        np.testing.assert_array_equal([float(row[name]) for row in rows], column)
        np.testing.assert_array_equal([each[name] for each in objects], column)
    assert isinstance(objects[0]["time"], int)


def test_what_is_not_finite_is_null_in_json(tmp_path):
    nan = jnp.full((1, 1), jnp.nan)
    gaze.save_scanpath(tmp_path / "s.json", Window(nan, nan, nan, nan, nan), SIZE)
    assert json.loads((tmp_path / "s.json").read_text())[0]["x"] is None


@pytest.mark.usefixtures("own_errors")
def test_errors_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"fields \[T, batch\], got \[5\]"):
        gaze.scanpath(_windows(STEPS), SIZE)
    for rows, columns, name in ((0, 3, "rows"), (1.5, 2, "rows"), (2, -1, "columns")):
        with pytest.raises(ValueError, match=f"{name} must be a whole number, at least 1"):
            gaze.grid(None, rows, columns)
    for radius in (-3.0, float("nan")):
        with pytest.raises(ValueError, match="radius must be at least 0"):
            gaze.inhibit(None, radius)
        with pytest.raises(ValueError, match="radius must be at least 0"):
            gaze.salient(None, None, radius)
    with pytest.raises(ValueError, match=r"written to .csv or .json, got s.txt"):
        gaze.save_scanpath(tmp_path / "s.txt", _windows(STEPS, BATCH), SIZE)
