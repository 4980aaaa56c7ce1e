import functools

import jax
import numpy as np
import pytest

from drawjax.data.placing import cluttered


def _digits(count, seed=0, height=12, width=10):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, height, width, 1), np.uint8)


@functools.partial(jax.jit, static_argnames=("size", "pieces", "piece_size"))
def _make(key, pool, targets, **sizes):
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
def test_equals_a_loop(pieces):
    pool, targets, key = _digits(30), _digits(5, seed=1), jax.random.key(7)
    images = _make(key, pool, targets, size=25, pieces=pieces, piece_size=6)
    expected = _loop(key, pool, targets, 25, pieces, 6)
    np.testing.assert_allclose(images, expected, atol=1e-6)
    assert images.dtype == np.float32


@pytest.mark.slow
def test_defaults_are_those_of_the_paper():
    pool, targets = _digits(9, height=28, width=28), _digits(2, seed=1, height=28, width=28)
    key = jax.random.key(3)
    images = _make(key, pool, targets)
    assert images.shape == (2, 100, 100, 1)
    np.testing.assert_allclose(images, _loop(key, pool, targets, 100, 8, 8), atol=1e-6)


def test_intensities_stay_within_zero_and_one():
    white = np.full((3, 12, 10, 1), 255, np.uint8)
    images = _make(jax.random.key(0), white, white, size=14, pieces=20, piece_size=8)
    assert images.min() >= 0
    assert images.max() == 1


def test_same_key_same_images_and_another_key_others():
    make = functools.partial(_make, size=30, piece_size=4)
    pool, targets = _digits(20), _digits(4, seed=1)
    first = make(jax.random.key(0), pool, targets)
    np.testing.assert_array_equal(first, make(jax.random.key(0), pool, targets))
    assert not np.array_equal(first, make(jax.random.key(1), pool, targets))


def test_each_image_of_a_batch_has_clutter_of_its_own():
    pool, black = _digits(20), np.zeros((6, 12, 10, 1), np.uint8)
    images = np.asarray(_make(jax.random.key(0), pool, black, size=40, piece_size=4))
    assert len({image.tobytes() for image in images}) == 6


def test_the_most_pieces_add_up():
    white = np.full((1, 4, 4, 1), 255, np.uint8)
    images = _make(jax.random.key(0), white, white, size=4, pieces=127, piece_size=4)
    np.testing.assert_array_equal(images, 1.0)


def test_pieces_come_from_everywhere_in_the_pool():
    # Every pixel of every digit has a value of its own, so a piece of one pixel tells its origin.
    pool = np.arange(1, 241, dtype=np.uint8).reshape(8, 6, 5, 1)
    black = np.zeros((400, 6, 5, 1), np.uint8)
    images = _make(jax.random.key(0), pool, black, size=20, pieces=8, piece_size=1)
    values = np.rint(np.asarray(images) * 255).astype(int)
    assert set(range(1, 241)) <= set(values.ravel())
