"""The attention window at several zooms, Figs. 3 and 4 of Gregor et al. (2015). No training.

Left of each row the image with the N x N grid of filters drawn on it, then the patch that is read,
then the image rebuilt from the patch by the transposed filters.
"""

import dataclasses
import logging
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from drawjax import attention, cli, figures
from drawjax.config import Checked, option
from drawjax.explore import images
from drawjax.pictures import open_picture

_DIGIT = (42.5, 42.5)  # the middle of one of the built-in image's digits, in pixels

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class ZoomConfig(Checked):
    """What to look at, and how closely."""

    _prefix = "--"

    workdir: str = option("runs/attention_zoom", path=True)
    """Folder for zoom.png."""
    image: str | None = option(None, path=True)
    """An image file, gray or color, of any size; None: two digits on 60x60 pixels."""
    patch_size: int = option(12, low=1)
    """N of the window, filters per side."""
    center: tuple[float, float] | None = None
    """Center of the window, x and y in pixels, 1 being the first; None: the middle of an image
    file, a digit of the built-in image."""
    zooms: tuple[float, ...] = option((1.0, 0.5, 0.25), above=0, high=1000)
    """Share of the image's longer side that the grid spans, one row each."""
    sharpness: float = option(0.5, above=0, high=1000)
    """Standard deviation of the filters, in strides."""

    def __post_init__(self):
        super().__post_init__()
        if not self.zooms:
            raise ValueError("--zooms needs at least one")


PRESETS = {"paper": ZoomConfig(), "demo": ZoomConfig(patch_size=8, zooms=(1.0, 0.4))}


def run(config: ZoomConfig) -> None:
    """Writes zoom.png into the run's folder."""
    image = jnp.asarray(load(config.image))
    height, width, _ = image.shape
    middle = ((width + 1) / 2, (height + 1) / 2) if config.image else _DIGIT
    center = config.center or middle
    stride = max(height, width) * jnp.asarray(config.zooms) / config.patch_size
    rows = len(config.zooms)
    windows = attention.Window(
        center_x=jnp.full(rows, center[0]),
        center_y=jnp.full(rows, center[1]),
        stride=stride,
        variance=(config.sharpness * stride) ** 2,
        intensity=jnp.ones(rows),
    )
    patches = attention.read(image, windows, config.patch_size)
    # The transposed filters sum over strides; times stride^2 is the Riemann sum of the inverse.
    rebuilt = attention.write(patches, windows, (height, width)) * stride[:, None, None, None] ** 2
    folder = pathlib.Path(config.workdir)
    folder.mkdir(parents=True, exist_ok=True)
    figures.save_zooms(
        folder / "zoom.png",
        np.asarray(image),
        jax.tree.map(np.asarray, windows),
        np.asarray(patches),
        np.asarray(rebuilt),
    )
    _log.info("done: %s", folder / "zoom.png")


def load(path: str | None) -> np.ndarray:
    """An image as `[height, width, channels]` in [0, 1].

    Raises:
      ValueError: if the file is no image.
      OSError: if it cannot be read.
    """
    if path is None:
        return images.built_in("digits") / np.float32(255)
    try:
        pixels = np.asarray(open_picture(path), np.float32) / 255
    except ValueError as error:
        raise ValueError(f"{path} cannot be read: {error}") from None
    return pixels[..., None] if pixels.ndim == 2 else pixels


if __name__ == "__main__":
    cli.command(run, PRESETS, description=__doc__)
