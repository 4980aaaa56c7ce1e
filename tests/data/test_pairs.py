import jax
import jax.numpy as jnp
import numpy as np
import pytest

from drawjax.data.two_digit import two_digits

_make = jax.jit(two_digits, static_argnames="size")


def _digits(count, seed=0, height=12, width=10):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, height, width, 1), np.uint8)


def test_equals_a_loop():
    first, second, key, size = _digits(6), _digits(6, seed=1), jax.random.key(5), 21
    limits = jnp.asarray([size - 12 + 1, size - 10 + 1])
    corners = np.asarray(jax.random.randint(key, (6, 2, 2), 0, limits))
    expected = np.zeros((6, size, size, 1))
    for b in range(6):
        for digits, (y, x) in zip((first, second), corners[b], strict=True):
            expected[b, y : y + 12, x : x + 10] += digits[b] / 255

    images = _make(key, first, second, size=size)

    assert expected.max() > 1.2  # some overlap, so the clip is seen to work
    np.testing.assert_allclose(images, np.minimum(expected, 1), atol=1e-6)
    assert images.dtype == jnp.float32


def test_size_is_60_and_digits_are_whole():
    first, second = _digits(40, height=28, width=28), _digits(40, seed=1, height=28, width=28)
    first, second = first // 2, second // 2  # their sum is never clipped
    images = _make(jax.random.key(0), first, second)
    assert images.shape == (40, 60, 60, 1)
    total = np.asarray(images).sum((1, 2, 3)) * 255
    np.testing.assert_allclose(total, first.sum((1, 2, 3)) + second.sum((1, 2, 3)), rtol=1e-5)


def test_the_two_places_are_independent_and_differ_between_images():
    dot, blank = np.full((500, 1, 1, 1), 255, np.uint8), np.zeros((500, 1, 1, 1), np.uint8)
    key = jax.random.key(0)
    first, second = (
        np.asarray(_make(key, *pair, size=10)).reshape(500, 100).argmax(1)
        for pair in ((dot, blank), (blank, dot))
    )
    assert len(set(first)) > 90  # of 100 places, 500 draws miss fewer than one on average
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.15
    assert (first == second).mean() < 0.05


def test_same_key_same_images_and_another_key_others():
    first, second = _digits(3), _digits(3, seed=1)
    images = _make(jax.random.key(0), first, second)
    np.testing.assert_array_equal(images, _make(jax.random.key(0), first, second))
    assert not np.array_equal(images, _make(jax.random.key(1), first, second))


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (_digits(3), _digits(2), "must have one shape"),
        (_digits(3)[0], _digits(3), "first must be uint8"),
        (_digits(3), _digits(3).astype(np.float32), "second must be uint8 .* got float32"),
        (_digits(3, width=61), _digits(3, width=61), "first of 12x61 pixels do not fit"),
    ],
)
def test_wrong_arguments_are_named(first, second, message):
    with pytest.raises(ValueError, match=message):
        two_digits(jax.random.key(0), first, second)
