import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from drawjax.data.placing import pair


@functools.partial(jax.jit, static_argnames="size")
def _make(key, images, pool, size=60):
    keys = jax.random.split(key, len(images))
    return jax.vmap(lambda key, image: pair(key, image, pool, size=size))(keys, images)


def _digits(count, seed=0, height=12, width=10):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, height, width, 1), np.uint8)


@pytest.mark.slow
def test_equals_a_loop():
    images, pool, key, size = _digits(6), _digits(9, seed=1), jax.random.key(5), 21
    limits = np.array([[size - 12 + 1, size - 10 + 1]])
    expected = np.zeros((6, size, size, 1))
    for b, its_key in enumerate(jax.random.split(key, 6)):
        other_key, place_key = jax.random.split(its_key)
        other = int(jax.random.randint(other_key, (), 0, 9))
        corners = np.asarray(jax.random.randint(place_key, (2, 2), 0, limits))
        for digit, (y, x) in zip((images[b], pool[other]), corners, strict=True):
            expected[b, y : y + 12, x : x + 10] += digit / 255

    made = _make(key, images, pool, size=size)

    assert expected.max() > 1.2  # some overlap, so the clip is seen to work
    np.testing.assert_allclose(made, np.minimum(expected, 1), atol=1e-6)
    assert made.dtype == jnp.float32


def test_digits_are_whole_and_partners_come_from_everywhere_in_the_pool():
    # Each image of the pool has a sum of its own; the first of a pair is black.
    pool = np.zeros((20, 4, 4, 1), np.uint8)
    pool[np.arange(20), 1, 2, 0] = 10 + np.arange(20)
    made = np.asarray(_make(jax.random.key(0), np.zeros((400, 4, 4, 1), np.uint8), pool))
    assert made.shape == (400, 60, 60, 1)
    sums = np.rint(255 * made.sum((1, 2, 3))).astype(int)
    assert set(sums) == set(range(10, 30))


def test_the_two_places_are_independent_and_differ_between_images():
    dot, blank = np.full((500, 1, 1, 1), 255, np.uint8), np.zeros((500, 1, 1, 1), np.uint8)
    key = jax.random.key(0)
    first, second = (
        np.asarray(_make(key, images, pool[:1], size=10)).reshape(500, 100).argmax(1)
        for images, pool in ((dot, blank), (blank, dot))
    )
    assert len(set(first)) > 90  # of 100 places, 500 draws miss fewer than one on average
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.15
    assert (first == second).mean() < 0.05
