"""Which images, and in what form: the flags under `--data`."""

import dataclasses
import os
import pathlib
from typing import Literal

__all__ = [
    "MAX_PIECES",
    "Binarization",
    "ClutterDataConfig",
    "DataConfig",
    "GenerationDataConfig",
    "data_dir",
]

Binarization = Literal["static", "dynamic", "threshold", "none"]
MAX_PIECES = 127  # of clutter; with the target, as many as 16 bits can add up


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Which images."""

    name: str | None = None
    """TFDS name of a prepared image set, e.g. fashion_mnist; None: the experiment's own."""
    dir: str | None = None
    """Folder of prepared sets; None: $TFDS_DATA_DIR, else TFDS's own, ~/tensorflow_datasets."""
    size: int | None = None
    """Resize images to size x size pixels; None: as they are."""
    invert: bool = False
    """Swap black and white, for sets of dark ink on a light ground (omniglot)."""

    def __post_init__(self):
        _check_positive(self, "size")


@dataclasses.dataclass(frozen=True)
class GenerationDataConfig(DataConfig):
    """Which images to draw, and in what form."""

    folder: str | None = None
    """Folder of pictures of your own in place of a named set. It is prepared on the way, and again
    when its files change; --data.size then cuts the middle square out of each."""
    binarization: Binarization = "static"
    """static: drawn once (TFDS's binarized_mnist for MNIST); dynamic: anew each time a batch is
    made; threshold: at 0.5; none: intensities in [0, 1]."""
    train_on_validation: bool = False
    """Train on the validation images as well, once all choices have been made without them. What is
    said of them then says nothing of new images."""
    crop: int | None = None
    """Side in pixels of the square that the model sees: a random place in training, the middle
    elsewhere; None: whole images."""
    pair_size: int | None = None
    """Put each image and another at random places on a black square of so many pixels, as in
    two-digit MNIST; None: images alone."""

    def __post_init__(self):
        super().__post_init__()
        _check_positive(self, "crop", "pair_size")
        if self.crop is not None and self.pair_size is not None:
            raise ValueError("data.crop and data.pair_size do not go together; give one of them")


@dataclasses.dataclass(frozen=True)
class ClutterDataConfig(DataConfig):
    """Which digits to classify, and in what clutter."""

    clutter_size: int = 100
    """Side of the cluttered image in pixels."""
    pieces: int = 8
    """Pieces of other digits in an image, 8x8 pixels each."""

    def __post_init__(self):
        super().__post_init__()
        _check_positive(self, "clutter_size")
        if not 0 <= self.pieces <= MAX_PIECES:
            raise ValueError(f"data.pieces must lie in 0..{MAX_PIECES}, got {self.pieces}")


def data_dir(config: DataConfig) -> pathlib.Path:
    """The folder in which prepared sets are looked for.

    Raises:
      ValueError: if it would be in the user's home, and there is none.
    """
    folder = config.dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    expanded = os.path.expanduser(folder)
    if expanded.startswith("~"):
        raise ValueError("there is no home folder; name one for data sets in TFDS_DATA_DIR")
    return pathlib.Path(expanded)


def _check_positive(config: DataConfig, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        if value is not None and value < 1:
            raise ValueError(f"data.{name} must be at least 1 pixel, got {value}")
