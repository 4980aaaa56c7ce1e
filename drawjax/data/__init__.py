"""Where images come from: prepared TFDS sets, digits that come with a package, Grain batches."""

from drawjax.data.binarize import binarize, to_unit
from drawjax.data.image_set import ArraySource, DataConfig, DataNotFoundError, ImageSet, Source
from drawjax.data.pipeline import check_batch_size, eval_batches, train_batches
from drawjax.data.sources import load

__all__ = [
    "ArraySource",
    "DataConfig",
    "DataNotFoundError",
    "ImageSet",
    "Source",
    "binarize",
    "check_batch_size",
    "eval_batches",
    "load",
    "to_unit",
    "train_batches",
]
