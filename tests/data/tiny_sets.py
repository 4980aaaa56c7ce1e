"""Tiny prepared sets in the layout of the real ones, written without TensorFlow."""

import io
import pathlib

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

tfds.disable_progress_bar()

_VERSIONS = {
    "mnist": "3.0.1",
    "binarized_mnist": "1.0.0",
    "cifar10": "3.0.2",
    "svhn_numbers": "1.0.0",
}
_WITH_VALIDATION = ("binarized_mnist", "svhn_numbers")


def write_tiny_set(
    folder: str | pathlib.Path,
    name: str,
    *,
    train: int = 64,
    test: int = 32,
    validation: int | None = None,
) -> pathlib.Path:
    """Writes a set of made-up images that `drawjax.data.load` reads like the real one.

    Args:
      folder: what to pass as `--data.dir`, or in TFDS_DATA_DIR.
      name: mnist, binarized_mnist, cifar10 or svhn_numbers.
      train: training images.
      test: test images.
      validation: validation images; None: 32 for sets that have this split, none for others.

    Returns:
      The folder of the set.
    """
    if validation is None and name in _WITH_VALIDATION:
        validation = 32
    counts = {"train": train, "validation": validation, "test": test}
    return write_set(
        folder,
        name,
        _features(name),
        {
            split: [_record(name, split, i) for i in range(count)]
            for split, count in counts.items()
            if count is not None
        },
        version=_VERSIONS[name],
    )


def write_set(
    folder: str | pathlib.Path,
    name: str,
    features: dict,
    splits: dict[str, list[dict]],
    *,
    version: str = "1.0.0",
    notes: tuple[str, ...] = (),
    file_format: str = "array_record",
) -> pathlib.Path:
    """Writes records, in their order, as a prepared TFDS set."""

    def info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,
            metadata=tfds.core.MetadataDict(notes=list(notes)) if notes else None,
        )

    def split_generators(self, dl_manager):
        del dl_manager
        return {split: self._generate_examples(records) for split, records in splits.items()}

    def generate_examples(self, records):
        del self
        yield from enumerate(records)

    members = {
        "__module__": __name__,
        "name": name,
        "VERSION": tfds.core.Version(version),
        "_info": info,
        "_split_generators": split_generators,
        "_generate_examples": generate_examples,
    }
    with tfds.core.registered.skip_registration():
        builder_class = type("Tiny", (tfds.core.GeneratorBasedBuilder,), members)
    builder = builder_class(data_dir=str(folder))
    builder.download_and_prepare(file_format=file_format)
    return pathlib.Path(builder.data_dir)


def png(image: np.ndarray) -> bytes:
    """The PNG file of `[height, width, channels]` bytes, gray or color."""
    buffer = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(buffer, "png")
    return buffer.getvalue()


def picture(split: str, number: int, shape: tuple[int, int, int]) -> np.ndarray:
    """Image `number` of a split: a bright ellipse on dark, bytes, with noise; like no other."""
    height, width, channels = shape
    rng = np.random.default_rng([number, *split.encode()])
    row, column = rng.uniform(0.3, 0.7, 2) * (height, width)
    tall, wide = rng.uniform(0.1, 0.3, 2) * (height, width)
    y, x = np.mgrid[:height, :width]
    inside = ((y - row) / tall) ** 2 + ((x - column) / wide) ** 2 < 1
    color = rng.uniform(150, 250, channels)
    noise = rng.uniform(-5, 5, shape)
    return np.clip(inside[..., None] * color + noise, 0, 255).astype(np.uint8)


def _features(name: str) -> dict:
    ten = tfds.features.ClassLabel(num_classes=10)
    image, text = tfds.features.Image, tfds.features.Text()
    return {
        "mnist": {"image": image(shape=(28, 28, 1)), "label": ten},
        "binarized_mnist": {"image": image(shape=(28, 28, 1))},
        "cifar10": {"id": text, "image": image(shape=(32, 32, 3)), "label": ten},
        "svhn_numbers": {
            "image": image(shape=(64, 64, 3), encoding_format="png"),
            "digits": tfds.features.Sequence(ten),
            "id": text,
        },
    }[name]


def _record(name: str, split: str, number: int) -> dict:
    side, channels = {"cifar10": (32, 3), "svhn_numbers": (64, 3)}.get(name, (28, 1))
    image = picture(split, number, (side, side, channels))
    if name == "binarized_mnist":
        return {"image": png((image > 127).astype(np.uint8))}
    record = {"image": png(image), "label": number % 10}
    if name == "mnist":
        return record
    record["id"] = f"{split}/{number}"
    if name == "svhn_numbers":
        record["digits"] = (record.pop("label"), 7)
    return record
