import jax.numpy as jnp
import numpy as np
import pytest

from drawjax import attention
from drawjax.explore.glimpse import glimpse

PIXELS = np.random.default_rng(0).integers(256, size=(9, 14, 3), dtype=np.uint8)


@pytest.mark.slow
@pytest.mark.parametrize("patch_size", [1, 5])
def test_the_numbers_are_those_of_the_attention_module(patch_size):
    logits = [0.3, -0.2, 0.5, -0.4, 0.7]
    window = attention.window_from_logits(jnp.asarray(logits), (9, 14), patch_size)
    patch = attention.read(PIXELS / np.float32(255), window, patch_size)
    fields = [
        15 / 2 * 1.3, window.center_y, window.stride, window.variance, window.intensity,
        *attention.filter_means(window, patch_size), patch, attention.write(patch, window, (9, 14)),
    ]  # fmt: skip
    expected = np.concatenate([np.ravel(field) for field in fields])
    seen = glimpse(PIXELS, logits, patch_size)
    np.testing.assert_allclose(seen, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("logits", [[9.0] * 5, [-9.0] * 5, [3e38] * 5])
def test_every_window_gives_finite_pictures(logits):
    pictures = glimpse(PIXELS, logits, 5)[5 + 2 * 5 :]
    assert len(pictures) == (5 * 5 + 9 * 14) * 3
    assert np.isfinite(pictures).all()


@pytest.mark.parametrize(
    ("shape", "numbers", "patch_size", "message"),
    [
        ((9, 257, 1), 5, 5, "at most 256 pixels"),
        ((9, 9, 1), 4, 5, "logits must"),
        ((9, 9, 1), 5, 0, "patch_size"),
        ((9, 9, 1), 5, 33, "32 filters per side"),
    ],
)
def test_what_the_page_never_asks_for_is_refused(shape, numbers, patch_size, message):
    with pytest.raises(ValueError, match=message):
        glimpse(np.zeros(shape, np.uint8), [0] * numbers, patch_size)
