import errno
import io
import os

import numpy as np
import pytest
from PIL import Image, ImageOps

from drawjax.pictures import open_picture, picture_size, plain


@pytest.mark.parametrize("mode", ["1", "L", "F", "RGB", "RGBA", "P", "CMYK", "I;16"])
def test_every_mode_becomes_gray_or_color(mode):
    picture = plain(Image.new(mode, (4, 3)))
    assert picture.mode == ("L" if mode in ("1", "L", "F", "I;16") else "RGB")
    assert picture.size == (4, 3)


def test_sixteen_bits_of_gray_are_scaled():
    deep = Image.fromarray(np.array([[0, 257 * 100, 65535]], np.uint16))
    np.testing.assert_array_equal(plain(deep), [[0, 100, 255]])


@pytest.mark.parametrize(
    ("most", "values"), [(65535, [0, 257 * 100, 65535]), (1023, [0, 402, 1023])]
)
def test_a_deep_graymap_is_scaled(most, values):
    pixels = np.array(values, ">u2").tobytes()
    picture = open_picture(b"P5 3 1 %d\n" % most + pixels)
    np.testing.assert_array_equal(picture, [[0, 100, 255]])


def test_floats_of_the_unit_interval_are_scaled():
    floats = Image.fromarray(np.array([[0, 100 / 255, 1]], np.float32))
    np.testing.assert_array_equal(plain(floats), [[0, 100, 255]])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.array([[0, 1.5]], np.float32), "floats outside of"),
        (np.array([[0, np.nan]], np.float32), "floats outside of"),
        (np.array([[0, 70_000]], np.int32), "32-bit integers"),
    ],
)
def test_an_unknown_range_is_refused(values, message):
    with pytest.raises(ValueError, match=message):
        plain(Image.fromarray(values))


def test_transparent_parts_are_white():
    assert plain(Image.new("RGBA", (1, 1), (255, 0, 0, 0))).getpixel((0, 0)) == (255, 255, 255)
    assert plain(Image.new("RGBA", (1, 1), (255, 0, 0, 255))).getpixel((0, 0)) == (255, 0, 0)


def test_a_picture_stands_upright():
    lying = Image.new("RGB", (4, 3))
    lying.getexif()[0x0112] = 6  # turned by a quarter
    file = io.BytesIO()
    lying.save(file, "png", exif=lying.getexif())
    assert open_picture(file).size == picture_size(file) == (3, 4)


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EIO])
def test_an_error_of_the_system_names_the_file(tmp_path, monkeypatch, number):
    path = tmp_path / "one.png"
    Image.new("L", (4, 3)).save(path)

    def fail(picture):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(ImageOps, "exif_transpose", fail)
    # Of a damaged icon Pillow seeks to a place before the file's beginning.
    kind, said = (ValueError, "^damaged$") if number == errno.EINVAL else (OSError, "one.png")
    with pytest.raises(kind, match=said):
        open_picture(path)
