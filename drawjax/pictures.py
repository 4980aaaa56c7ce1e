"""Pictures of any file format made plain (upright, 8 bits, gray or color), and images as bytes."""

import contextlib
import errno
import io
import pathlib
import warnings
from collections.abc import Iterator
from typing import IO, Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

# Their decoders run other programs, or draw at a size of their own.
_NOT_OPENED = {"EPS", "WMF"}
# Pillow may open their 16 bits of gray as 32; they have no more.
_AT_MOST_16_BITS = {"PNG", "PPM"}
_ROUNDING = 0.02  # what arithmetic in bfloat16 may leave outside of [0, 1]


def open_picture(file: str | pathlib.Path | IO[bytes] | bytes) -> Image.Image:
    """A picture file, made plain.

    Args:
      file: its path, an open file, or its bytes; the content tells the format, not the name. Its
        EXIF orientation is followed.

    Returns:
      As `plain`.

    Raises:
      ValueError: if it is no picture that Pillow reads, damaged, too large, or of numbers whose
        range is not known; the message says which, and no more.
      OSError: if the file cannot be read.
    """
    with _opened(file) as picture:
        narrow = picture.mode == "I" and picture.format in _AT_MOST_16_BITS
        picture = ImageOps.exif_transpose(picture)  # reads all of it
        if narrow:
            picture = Image.fromarray(np.asarray(picture).astype(np.uint16))
    return plain(picture)


def picture_size(file: str | pathlib.Path | IO[bytes] | bytes) -> tuple[int, int]:
    """The width and height of `open_picture(file)`, as far as the file's head says."""
    with _opened(file) as picture:
        width, height = picture.size
        # PNG's own `getexif` reads all of the pixels.
        turned = Image.Image.getexif(picture).get(ExifTags.Base.Orientation, 1) >= 5  # by a quarter
    return (height, width) if turned else (width, height)


@contextlib.contextmanager
def _opened(file: str | pathlib.Path | IO[bytes] | bytes) -> Iterator[Image.Image]:
    """A picture of Pillow's, whose pixels are not read yet; errors as of `open_picture`."""
    Image.init()
    formats = [name for name in Image.OPEN if name not in _NOT_OPENED]
    opened = io.BytesIO(file) if isinstance(file, bytes) else file
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(opened, formats=formats) as picture:
                yield picture
        except UnidentifiedImageError:
            raise ValueError("not a picture") from None
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            limit = (Image.MAX_IMAGE_PIXELS or 0) / 1e6
            raise ValueError(f"more than {limit:.0f} million pixels") from None
        except Exception as error:  # Pillow's plugins raise SyntaxError, struct.error and others
            # Of a damaged icon Pillow seeks to a negative place, which is an invalid argument.
            if isinstance(error, OSError) and error.strerror and error.errno != errno.EINVAL:
                name = error.filename or (file if isinstance(file, str | pathlib.Path) else None)
                raise OSError(error.errno, error.strerror, name and str(name)) from error
            raise ValueError("damaged") from None


def plain(picture: Image.Image) -> Image.Image:
    """A picture in mode "L" or "RGB".

    Args:
      picture: in any mode. Of 16 bits of gray the upper 8 are kept, where Pillow would cut off at
        255; floats in [0, 1] are rounded to 256 levels; what is transparent is laid on white.

    Raises:
      ValueError: if it holds floats outside of [0, 1], or 32-bit integers.
    """
    if picture.mode == "F":
        values = np.asarray(picture)
        if not (values.min() >= 0 and values.max() <= 1):
            raise ValueError("floats outside of [0, 1]")
        picture = Image.fromarray(np.round(255 * values).astype(np.uint8))
    elif picture.mode == "I":
        raise ValueError("32-bit integers, whose range is not known")
    elif picture.mode.startswith("I"):
        picture = Image.fromarray((np.asarray(picture) // 256).astype(np.uint8))
    if picture.has_transparency_data:
        below = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(below, picture.convert("RGBA")).convert("RGB")
    return picture.convert("L" if picture.mode in ("1", "L") else "RGB")


def is_gray(images: Image.Image | np.ndarray) -> bool:
    """Whether all channels of a picture, or of images `[..., channels]`, are equal."""
    pixels = np.asarray(images)
    return bool((pixels[..., 1:] == pixels[..., :1]).all())


def image_bytes(
    name: str, images: Any, ndim: int, *, slack: float = _ROUNDING
) -> UInt8[np.ndarray, "..."]:
    """Images as the bytes that are shown.

    Args:
      name: what messages call them.
      images: `[..., height, width, channels]`, bytes or floats in [0, 1], or True and False.
      ndim: how many axes they must have.
      slack: how far outside of [0, 1] floats may lie, which are clipped.

    Raises:
      ValueError: if they are anything else, or there are none.
    """
    images = np.asarray(images)
    if images.ndim != ndim or images.shape[-1] not in (1, 3):
        raise ValueError(
            f"{name} must have {ndim} axes, the last of 1 or 3 channels, got {list(images.shape)}"
        )
    if images.size == 0:
        raise ValueError(f"{name} must not be empty, got {list(images.shape)}")
    if images.dtype == np.uint8:
        return images
    if images.dtype != bool and not jnp.issubdtype(images.dtype, jnp.floating):
        raise ValueError(f"{name} must be floats in [0, 1] or bytes, got {images.dtype}")
    low, high = float(images.min()), float(images.max())
    if not (low >= -slack and high <= 1 + slack):
        raise ValueError(f"{name} must lie in [0, 1], got values from {low} to {high}")
    images = images.astype(np.promote_types(images.dtype, np.float32))
    return np.round(255 * np.clip(images, 0, 1)).astype(np.uint8)
