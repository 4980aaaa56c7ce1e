import jax
import jax.numpy as jnp
import numpy as np
import pytest

from drawjax.data.placing import add_patches, cut_patches, random_corners


def _loop(canvas, patches, corners):
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

    np.testing.assert_array_equal(result, _loop(canvas, patches.astype(int), corners))
    assert result.max() > 255  # sums do not wrap round at a byte


def test_add_patches_takes_no_patch_at_all():
    canvas = jnp.ones((5, 6, 1), jnp.int32)
    nothing = jnp.zeros((0, 3, 3, 1), jnp.uint8)
    result = add_patches(canvas, nothing, jnp.zeros((0, 2), jnp.int32))
    np.testing.assert_array_equal(result, canvas)


def test_cut_patches_equals_slices():
    images = np.random.default_rng(0).integers(0, 256, (5, 6, 9, 2), np.uint8)
    which, corners = np.array([0, 4, 2, 2]), np.array([[0, 0], [3, 6], [1, 2], [2, 0]])
    result = jax.jit(cut_patches, static_argnums=3)(images, which, corners, 3)
    for number, (row, column) in enumerate(corners):
        expected = images[which[number], row : row + 3, column : column + 3]
        np.testing.assert_array_equal(result[number], expected)


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
