import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from drawjax.explore import images


def file(pixels, kind="PNG", **options):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def with_size(width, height):
    """A PNG whose header claims a size."""
    content = bytearray(file(np.zeros((2, 2), np.uint8)))
    content[16:24] = struct.pack(">II", width, height)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    return bytes(content)


RNG = np.random.default_rng(0)
COLOR = RNG.integers(256, size=(5, 7, 3), dtype=np.uint8)
GRAY = RNG.integers(256, size=(5, 7), dtype=np.uint8)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "WEBP"])
def test_color_comes_as_it_is(kind):
    pixels, size = images.decode(
        file(COLOR, kind, **({"lossless": True} if kind == "WEBP" else {}))
    )
    np.testing.assert_array_equal(pixels, COLOR)
    assert size == (5, 7)


def test_gray_has_one_channel():
    np.testing.assert_array_equal(images.decode(file(GRAY))[0], GRAY[..., None])
    deep = images.decode(file(GRAY.astype(np.uint16) * 257))[0]
    np.testing.assert_allclose(deep[..., 0].astype(int), GRAY, atol=1)


def test_what_is_transparent_becomes_white():
    clear = np.dstack([COLOR, np.zeros((5, 7), np.uint8)])
    assert (images.decode(file(clear))[0] == 255).all()


def test_the_orientation_of_a_photograph_is_followed():
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    pixels, size = images.decode(file(COLOR, "PNG", exif=exif))
    np.testing.assert_array_equal(pixels, np.rot90(COLOR, -1))
    assert size == (7, 5)


def test_large_images_are_scaled_down_and_small_ones_are_not():
    pixels, size = images.decode(file(np.zeros((300, 1024, 3), np.uint8)))
    assert pixels.shape == (75, 256, 3)
    assert size == (300, 1024)
    assert images.decode(file(np.zeros((1, 2000), np.uint8)))[0].shape == (1, 256, 1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not an image that can be read"),
        (b"%PDF-1.7", "not an image that can be read"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "PNG, JPEG, GIF, WebP, BMP"),
        (file(COLOR, "TIFF"), "not an image that can be read"),
        (file(RNG.integers(256, size=(99, 99), dtype=np.uint8))[:-2000], "damaged"),
        (bytes(images.MAX_BYTES + 1), "8.0 MB; at most 8 MB"),
        (with_size(4001, 4000), "4001 x 4000 pixels; at most 16 million"),
        (with_size(10_000, 10_000), "pixels; at most 16 million"),
        (with_size(100_000, 100_000), "pixels; at most 16 million"),
    ],
    ids=["empty", "pdf", "svg", "tiff", "torn", "long", "large", "very large", "bomb"],
)
def test_other_files_are_refused_in_words(content, message):
    with pytest.raises(ValueError, match=message):
        images.decode(content)


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
