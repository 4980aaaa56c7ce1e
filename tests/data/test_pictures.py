import numpy as np
import pytest
from PIL import Image

from drawjax.data.pictures import plain


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "RGBA", "P", "CMYK", "I;16", "I"])
def test_every_mode_becomes_gray_or_color(mode):
    picture = plain(Image.new(mode, (4, 3)), "white")
    assert picture.mode == ("L" if mode in ("1", "L", "I;16", "I") else "RGB")
    assert picture.size == (4, 3)


def test_sixteen_bits_of_gray_are_scaled():
    deep = Image.fromarray(np.array([[0, 257 * 100, 65535]], np.uint16))
    np.testing.assert_array_equal(plain(deep, "black"), [[0, 100, 255]])


def test_transparent_parts_show_the_ground():
    clear = Image.new("RGBA", (1, 1), (255, 0, 0, 0))
    assert plain(clear, "white").getpixel((0, 0)) == (255, 255, 255)
    assert plain(clear, "black").getpixel((0, 0)) == (0, 0, 0)


def test_a_picture_stands_upright():
    lying = Image.new("RGB", (4, 3))
    lying.getexif()[0x0112] = 6  # turned by a quarter
    assert plain(lying, "black").size == (3, 4)
