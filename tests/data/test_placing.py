"""Crops, pairs and clutter, held to loops over their images and patches."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from drawjax.data.placing import (
    add_patches,
    center_crop,
    cluttered,
    pair,
    random_corners,
    random_crop,
)


def _digits(count, seed=0, height=12, width=10):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, height, width, 1), np.uint8)


@functools.partial(jax.jit, static_argnames="size")
def _crops(key, images, size):
    keys = jax.random.split(key, len(images))
    return jax.vmap(lambda key, image: random_crop(key, image, size=size))(keys, images)


def _coordinates(count, height, width):
    """Images whose two channels hold each pixel's row and column."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([np.stack([rows, columns], axis=-1)] * count).astype(np.uint8)


def test_random_crops_are_squares_of_the_images_at_all_places():
    crops = np.asarray(_crops(jax.random.key(0), _coordinates(400, 8, 9), size=5))
    assert crops.shape == (400, 5, 5, 2)
    assert crops.dtype == np.uint8
    corners = crops[:, 0, 0]
    np.testing.assert_array_equal(
        crops - corners[:, None, None], _coordinates(400, 5, 5), err_msg="a square in one piece"
    )
    assert {tuple(corner) for corner in corners} == {(y, x) for y in range(4) for x in range(5)}


def test_same_key_same_crops_and_another_key_others():
    images = _coordinates(10, 20, 20)
    first = _crops(jax.random.key(0), images, size=6)
    np.testing.assert_array_equal(first, _crops(jax.random.key(0), images, size=6))
    assert not np.array_equal(first, _crops(jax.random.key(1), images, size=6))


@pytest.mark.parametrize(
    ("height", "width", "size", "corner"),
    [(64, 64, 54, (5, 5)), (8, 9, 5, (1, 2)), (4, 4, 4, (0, 0))],
)
def test_center_crop_is_the_middle(height, width, size, corner):
    crops = center_crop(jnp.asarray(_coordinates(2, height, width)), size=size)
    assert crops.shape == (2, size, size, 2)
    np.testing.assert_array_equal(crops[:, 0, 0], [corner] * 2)


def test_center_crop_of_one_image():
    assert center_crop(jnp.asarray(_coordinates(1, 8, 8)[0]), size=2).shape == (2, 2, 2)


@functools.partial(jax.jit, static_argnames="size")
def _pairs(key, images, pool, size=60):
    keys = jax.random.split(key, len(images))
    return jax.vmap(lambda key, image: pair(key, image, pool, size=size))(keys, images)


@pytest.mark.slow
def test_pairs_equal_a_loop():
    images, pool, key, size = _digits(6), _digits(9, seed=1), jax.random.key(5), 21
    limits = np.array([[size - 12 + 1, size - 10 + 1]])
    expected = np.zeros((6, size, size, 1))
    for b, its_key in enumerate(jax.random.split(key, 6)):
        other_key, place_key = jax.random.split(its_key)
        other = int(jax.random.randint(other_key, (), 0, 9))
        corners = np.asarray(jax.random.randint(place_key, (2, 2), 0, limits))
        for digit, (y, x) in zip((images[b], pool[other]), corners, strict=True):
            expected[b, y : y + 12, x : x + 10] += digit / 255

    made = _pairs(key, images, pool, size=size)

    assert expected.max() > 1.2  # some overlap, so the clip is seen to work
    np.testing.assert_allclose(made, np.minimum(expected, 1), atol=1e-6)
    assert made.dtype == jnp.float32


def test_digits_are_whole_and_partners_come_from_everywhere_in_the_pool():
    # Each image of the pool has a sum of its own; the first of a pair is black.
    pool = np.zeros((20, 4, 4, 1), np.uint8)
    pool[np.arange(20), 1, 2, 0] = 10 + np.arange(20)
    made = np.asarray(_pairs(jax.random.key(0), np.zeros((400, 4, 4, 1), np.uint8), pool))
    assert made.shape == (400, 60, 60, 1)
    sums = np.rint(255 * made.sum((1, 2, 3))).astype(int)
    assert set(sums) == set(range(10, 30))


def test_the_two_places_are_independent_and_differ_between_images():
    dot, blank = np.full((500, 1, 1, 1), 255, np.uint8), np.zeros((500, 1, 1, 1), np.uint8)
    key = jax.random.key(0)
    first, second = (
        np.asarray(_pairs(key, images, pool[:1], size=10)).reshape(500, 100).argmax(1)
        for images, pool in ((dot, blank), (blank, dot))
    )
    assert len(set(first)) > 90  # of 100 places, 500 draws miss fewer than one on average
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.15
    assert (first == second).mean() < 0.05


@functools.partial(jax.jit, static_argnames=("size", "pieces", "piece_size"))
def _clutter(key, pool, targets, **sizes):
    keys = jax.random.split(key, len(targets))
    return jax.vmap(lambda key, target: cluttered(key, target, pool, **sizes))(keys, targets)


@functools.partial(jax.jit, static_argnums=(1, 2, 3, 4, 5, 6))
def _draws(key, count, batch, digit, size, pieces, piece_size):
    """What `cluttered` draws by the key of each image."""
    side, piece = np.array([size, size]), piece_size

    def one(key):
        keys = jax.random.split(key, 4)
        return (
            jax.random.randint(keys[0], (pieces,), 0, count),
            jax.random.randint(keys[1], (pieces, 2), 0, np.array([digit]) - piece + 1),
            jax.random.randint(keys[2], (pieces, 2), 0, side[None] - piece + 1),
            jax.random.randint(keys[3], (1, 2), 0, side[None] - np.array([digit]) + 1),
        )

    return jax.vmap(one)(jax.random.split(key, batch))


def _loop(key, pool, targets, size, pieces, piece_size):
    """The generator of Mnih et al., one piece after the other."""
    batch, (rows, columns) = len(targets), targets.shape[1:3]
    which, cut, put, place = map(
        np.asarray, _draws(key, len(pool), batch, (rows, columns), size, pieces, piece_size)
    )
    images = np.zeros((batch, size, size, 1))
    for b in range(batch):
        for k in range(pieces):
            (i, j), (y, x) = cut[b, k], put[b, k]
            piece = pool[which[b, k], i : i + piece_size, j : j + piece_size]
            images[b, y : y + piece_size, x : x + piece_size] += piece / 255
        y, x = place[b, 0]
        images[b, y : y + rows, x : x + columns] += targets[b] / 255
    return np.minimum(images, 1)


@pytest.mark.slow
@pytest.mark.parametrize("pieces", [0, 1, 8])
def test_clutter_equals_a_loop(pieces):
    pool, targets, key = _digits(30), _digits(5, seed=1), jax.random.key(7)
    images = _clutter(key, pool, targets, size=25, pieces=pieces, piece_size=6)
    expected = _loop(key, pool, targets, 25, pieces, 6)
    np.testing.assert_allclose(images, expected, atol=1e-6)
    assert images.dtype == np.float32


@pytest.mark.slow
def test_defaults_of_clutter_are_those_of_the_paper():
    pool, targets = _digits(9, height=28, width=28), _digits(2, seed=1, height=28, width=28)
    key = jax.random.key(3)
    images = _clutter(key, pool, targets)
    assert images.shape == (2, 100, 100, 1)
    np.testing.assert_allclose(images, _loop(key, pool, targets, 100, 8, 8), atol=1e-6)


def test_intensities_stay_within_zero_and_one():
    white = np.full((3, 12, 10, 1), 255, np.uint8)
    images = _clutter(jax.random.key(0), white, white, size=14, pieces=20, piece_size=8)
    assert images.min() >= 0
    assert images.max() == 1


def test_the_key_sets_the_clutter():
    make = functools.partial(_clutter, size=30, piece_size=4)
    pool, targets = _digits(20), _digits(4, seed=1)
    first = make(jax.random.key(0), pool, targets)
    np.testing.assert_array_equal(first, make(jax.random.key(0), pool, targets))
    assert not np.array_equal(first, make(jax.random.key(1), pool, targets))


def test_each_image_of_a_batch_has_clutter_of_its_own():
    pool, black = _digits(20), np.zeros((6, 12, 10, 1), np.uint8)
    images = np.asarray(_clutter(jax.random.key(0), pool, black, size=40, piece_size=4))
    assert len({image.tobytes() for image in images}) == 6


def test_the_most_pieces_add_up():
    white = np.full((1, 4, 4, 1), 255, np.uint8)
    images = _clutter(jax.random.key(0), white, white, size=4, pieces=127, piece_size=4)
    np.testing.assert_array_equal(images, 1.0)


def test_pieces_come_from_everywhere_in_the_pool():
    # Every pixel of every digit has a value of its own, so a piece of one pixel tells its origin.
    pool = np.arange(1, 241, dtype=np.uint8).reshape(8, 6, 5, 1)
    black = np.zeros((400, 6, 5, 1), np.uint8)
    images = _clutter(jax.random.key(0), pool, black, size=20, pieces=8, piece_size=1)
    values = np.rint(np.asarray(images) * 255).astype(int)
    assert set(range(1, 241)) <= set(values.ravel())


def _add_loop(canvas, patches, corners):
    canvas = np.array(canvas)
    for image, its_patches, its_corners in zip(canvas, patches, corners, strict=True):
        for patch, (row, column) in zip(its_patches, its_corners, strict=True):
            for i in range(patch.shape[0]):
                for j in range(patch.shape[1]):
                    image[row + i, column + j] += patch[i, j]
    return canvas


@pytest.mark.parametrize("jit", [False, True])
def test_add_patches_equals_a_loop(jit):
    rng = np.random.default_rng(0)
    canvas = rng.integers(0, 9, (3, 11, 7, 2), np.int32)
    patches = rng.integers(0, 256, (3, 6, 4, 3, 2), np.uint8)
    corners = np.stack([rng.integers(0, 8, (3, 6)), rng.integers(0, 5, (3, 6))], axis=-1)
    corners[0, :2] = [[0, 0], [7, 4]]  # both ends of the range

    add = jax.jit(jax.vmap(add_patches)) if jit else jax.vmap(add_patches)
    result = add(*map(jnp.asarray, (canvas, patches, corners)))
    alone = add_patches(*(jnp.asarray(array[1]) for array in (canvas, patches, corners)))
    np.testing.assert_array_equal(alone, result[1])

    np.testing.assert_array_equal(result, _add_loop(canvas, patches.astype(int), corners))
    assert result.max() > 255  # sums do not wrap round at a byte


@pytest.mark.slow
def test_random_corners_are_uniform_over_all_places():
    corners = random_corners(jax.random.key(1), 20_000, (6, 9), (3, 4))
    assert corners.shape == (20_000, 2)
    counts = np.zeros((4, 6))
    np.add.at(counts, tuple(np.asarray(corners).T), 1)
    expected = 20_000 / counts.size
    chi_squared = float(((counts - expected) ** 2 / expected).sum())
    assert chi_squared < 50  # 23 degrees of freedom: above 49.7 once in a thousand


def test_random_corners_has_one_place_for_a_patch_that_fills_the_image():
    corners = random_corners(jax.random.key(0), 50, (5, 8), (5, 8))
    np.testing.assert_array_equal(corners, 0)
