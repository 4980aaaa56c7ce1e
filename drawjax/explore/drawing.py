"""Pretrained models that draw, for the glimpse explorer.

Axes: `T` steps, `count` drawings, `height`, `width`, `channels`.
"""

import dataclasses
import functools
import pathlib
import threading
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, UInt8

from drawjax import figures, pretrained
from drawjax.config import PRNG
from drawjax.draw import DrawOutput
from drawjax.modules import Draw

COUNT = 4  # drawings at once, each from noise of its own


@dataclasses.dataclass(frozen=True)
class Drawing:
    """Drawings step by step."""

    frames: UInt8[np.ndarray, "T count height width channels"]  # means of the canvases, times 255
    # Corners as of `figures.outlines`, [T, count, 4, 2]; None without the window.
    write: Float[np.ndarray, "T count 4 2"] | None
    read: Float[np.ndarray, "T count 4 2"] | None


class Models:
    """The models that draw, of the package and of a folder besides; loaded when asked for."""

    def __init__(self, folder: pathlib.Path | None = None):
        self._drawing = threading.Lock()  # one at a time: a drawing takes all cores
        self.left_out: dict[str, str] = {}
        """Models that the page cannot show, and why."""
        self._models: dict[str, pathlib.Path] = {}
        if folder is not None:
            self._add(folder)
        for name in sorted(pretrained.available("draw"), key=lambda name: (name != "mnist", name)):
            if name in self._models:
                self.left_out[name] = "it is the package's, and the folder has another of this name"
            else:
                self._models[name] = pretrained.FOLDER / name

    def _add(self, folder: pathlib.Path) -> None:
        """Adds the models of a folder, or says why not."""
        if not (names := pretrained.available(folder=folder)):
            raise ValueError(
                f"{folder} holds no folders of models, as drawjax.save_pretrained writes them"
            )
        for name in names:
            known = pretrained.describe(folder / name)
            if known["kind"] != "draw":
                self.left_out[name] = "it classifies, and does not draw"
            elif known["config"].get("condition_size"):
                self.left_out[name] = "it is conditional on features that the page cannot ask for"
            else:
                self._models[name] = folder / name

    def describe(self) -> list[dict[str, Any]]:
        """Name, image shape, steps and data set of every model; a damaged one is a ValueError.

        A person's own models, then `mnist`, then the others.
        """
        for name, model in self._models.items():
            if model.parent != pretrained.FOLDER:
                self.load(name)
        described = {name: pretrained.describe(model) for name, model in self._models.items()}
        return [
            {
                "name": name,
                "shape": known["image_shape"],
                "steps": known["config"]["num_glimpses"],
                "classes": known["config"].get("num_classes"),
                "data": str(known["provenance"].get("data", "")),
            }
            for name, known in described.items()
        ]

    @functools.cache  # noqa: B019  one `Models` lives as long as its server
    def load(self, name: str) -> Draw:
        """A model by its name."""
        if name not in self._models:
            raise ValueError(f"there is no drawing model {name!r}")
        return cast(Draw, pretrained.load_pretrained(self._models[name]))

    def from_seed(self, name: str, seed: int, label: int | None = None) -> Drawing:
        """`COUNT` images from the prior, of the label's class; without one, an image of each."""
        model = self.load(name)
        count, condition = _asked(model, label)
        key = jax.random.key(seed, impl=PRNG)
        with self._drawing:
            return _drawing(model, model.generate(count, key=key, condition=condition))

    def complete(
        self,
        name: str,
        pixels: UInt8[np.ndarray, "height width channels"],
        known: Bool[np.ndarray, "height width"],
        seed: int,
        label: int | None = None,
    ) -> Drawing:
        """`COUNT` completions of one image, of the label's class; without one, one of each."""
        model = self.load(name)
        count, condition = _asked(model, label)
        images = jnp.broadcast_to(pixels.astype(np.float32) / 255, (count, *pixels.shape))
        mask = jnp.broadcast_to(known[..., None], (count, *known.shape, 1))
        key = jax.random.key(seed, impl=PRNG)
        with self._drawing:
            return _drawing(model, model.complete(images, mask, key=key, condition=condition))


def _asked(model: Draw, label: int | None) -> tuple[int, Any]:
    """How many drawings, and their classes if the model draws by one: the label's, or each."""
    classes = model.config.num_classes
    if classes is None or label is not None:
        return COUNT, label
    return classes, np.arange(classes)


def _drawing(model: Draw, output: DrawOutput) -> Drawing:
    sizes = model.config.write_size, model.config.read_size
    write, read = (
        None if window is None or size is None else figures.outlines(window, size)[0]
        for window, size in zip((output.write_windows, output.read_windows), sizes, strict=True)
    )
    means = jnp.round(255 * model.likelihood(output.canvases).mean)
    return Drawing(np.asarray(means.astype(jnp.uint8)), write, read)
