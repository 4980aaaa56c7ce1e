import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from drawjax.data.placing import center_crop, random_crop


@functools.partial(jax.jit, static_argnames="size")
def _random(key, images, size):
    keys = jax.random.split(key, len(images))
    return jax.vmap(lambda key, image: random_crop(key, image, size=size))(keys, images)


def _coordinates(count, height, width):
    """Images whose two channels hold each pixel's row and column."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([np.stack([rows, columns], axis=-1)] * count).astype(np.uint8)


def test_random_crops_are_squares_of_the_images_at_all_places():
    crops = np.asarray(_random(jax.random.key(0), _coordinates(400, 8, 9), size=5))
    assert crops.shape == (400, 5, 5, 2)
    assert crops.dtype == np.uint8
    corners = crops[:, 0, 0]
    np.testing.assert_array_equal(
        crops - corners[:, None, None], _coordinates(400, 5, 5), err_msg="a square in one piece"
    )
    assert {tuple(corner) for corner in corners} == {(y, x) for y in range(4) for x in range(5)}


def test_same_key_same_crops_and_another_key_others():
    images = _coordinates(10, 20, 20)
    first = _random(jax.random.key(0), images, size=6)
    np.testing.assert_array_equal(first, _random(jax.random.key(0), images, size=6))
    assert not np.array_equal(first, _random(jax.random.key(1), images, size=6))


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
