"""Pictures of any file format made plain: upright, 8 bits, gray or color, nothing transparent."""

import numpy as np
from PIL import Image, ImageOps

__all__ = ["plain"]


def plain(picture: Image.Image, ground: str) -> Image.Image:
    """A picture in mode "L" or "RGB".

    Args:
      picture: in any mode. Its EXIF orientation is followed; of 16 bits of gray the upper 8 are
        kept, where Pillow would cut off at 255.
      ground: color that transparent parts are laid on.
    """
    picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith("I"):
        upper = np.asarray(picture) // 256
        picture = Image.fromarray(np.clip(upper, 0, 255).astype(np.uint8))
    if picture.has_transparency_data:
        below = Image.new("RGBA", picture.size, ground)
        picture = Image.alpha_composite(below, picture.convert("RGBA")).convert("RGB")
    return picture.convert("L" if picture.mode in ("1", "L") else "RGB")
