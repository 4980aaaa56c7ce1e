"""Where images come from: arrays, prepared TFDS sets, digits that come with a package, batches."""

from drawjax.config import ClutterDataConfig, DataConfig, GenerationDataConfig
from drawjax.data.pipeline import (
    ArraySource,
    Batch,
    DataNotFoundError,
    ImageSet,
    Source,
    check_batch_size,
    check_labels,
    eval_batches,
    train_batches,
)
from drawjax.data.preprocess import (
    binarize,
    image_keys,
    pool,
    preprocess,
    seen_labels,
    seen_shape,
    to_unit,
)
from drawjax.data.sources import from_arrays, load

__all__ = [
    "ArraySource",
    "Batch",
    "ClutterDataConfig",
    "DataConfig",
    "DataNotFoundError",
    "GenerationDataConfig",
    "ImageSet",
    "Source",
    "binarize",
    "check_batch_size",
    "check_labels",
    "eval_batches",
    "from_arrays",
    "image_keys",
    "load",
    "pool",
    "preprocess",
    "seen_labels",
    "seen_shape",
    "to_unit",
    "train_batches",
]
