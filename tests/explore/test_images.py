import io

import numpy as np
import pytest
from PIL import Image

from drawjax.explore import images


def file(pixels, kind="PNG", **options):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


COLOR = np.random.default_rng(0).integers(256, size=(5, 7, 3), dtype=np.uint8)


def test_large_images_are_scaled_down_and_small_ones_are_not():
    large = Image.new("RGB", (1024, 300))
    assert images.shrunk(large).shape == (75, 256, 3)
    assert large.size == (1024, 300)
    assert images.shrunk(Image.new("L", (2000, 1))).shape == (1, 256, 1)
    np.testing.assert_array_equal(images.shrunk(Image.fromarray(COLOR)), COLOR)


@pytest.mark.slow
def test_built_in_images_and_digits():
    for name in images.BUILT_IN:
        pixels = images.built_in(name)
        assert pixels.dtype == np.uint8
        assert max(pixels.shape[:2]) <= images.MAX_SIDE
        assert pixels.std() > 30
    with pytest.raises(ValueError, match="no built-in image 'x'"):
        images.built_in("x")
    assert images.digit(3).shape == (28, 28, 1)
    np.testing.assert_array_equal(images.digit(3), images.digit(3 + 500))
