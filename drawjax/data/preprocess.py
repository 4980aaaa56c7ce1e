"""What a model sees of a set's images: binarized, cropped, in pairs, or in clutter.

All that is random about an image comes from a key of its own, so an image is the same in whatever
batch it comes.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from drawjax.config import ClutterDataConfig, DataConfig, GenerationDataConfig
from drawjax.data.binarize import binarize, to_unit
from drawjax.data.clutter import cluttered
from drawjax.data.crop import center_crop, random_crop
from drawjax.data.image_set import ArraySource, ImageSet, Source
from drawjax.data.pairs import pair

__all__ = ["image_keys", "pool", "preprocess", "seen_shape"]


def image_keys(key: jax.Array, indices: Int[Array | np.ndarray, " batch"]) -> jax.Array:
    """A key for each image of a set, by its number alone, `[batch]`."""
    return jax.vmap(functools.partial(jax.random.fold_in, key))(jnp.asarray(indices))


def seen_shape(config: DataConfig, images: ImageSet) -> tuple[int, int, int]:
    """The `(height, width, channels)` that a model sees.

    Raises:
      ValueError: if the set's images do not fit into a square that the config asks for, or a crop
        is larger than they are.
    """
    height, width, channels = images.image_shape
    flag, side = _side(config)
    if side is None:
        return images.image_shape
    if flag == "crop" and side > min(height, width):
        raise ValueError(
            f"data.crop must be at most {min(height, width)}, the shorter side of the images, "
            f"got {side}"
        )
    if flag != "crop" and side < max(height, width):
        raise ValueError(
            f"data.{flag} must be at least {max(height, width)}, the longer side of the images, "
            f"got {side}"
        )
    return side, side, channels


def pool(config: DataConfig, source: Source) -> UInt8[Array, "images rows columns channels"]:
    """The images of a source that partners and pieces are taken from; none where none are needed.

    Raises:
      ValueError: if the set is too large to be held in memory.
    """
    if _side(config)[0] not in ("pair_size", "clutter_size"):
        return jnp.zeros((0, 1, 1, 1), jnp.uint8)
    if not isinstance(source, ArraySource):
        raise ValueError(
            "partners and pieces are taken from images held in memory, and this set is too large"
        )
    return jnp.asarray(source.images)


def preprocess(
    config: DataConfig,
    images: UInt8[Array | np.ndarray, "batch rows columns channels"],
    keys: Array,
    pool: UInt8[Array, "images pool_rows pool_columns pool_channels"],
    *,
    training: bool,
) -> Float[Array, "batch height width seen_channels"]:
    """Turns stored images into what a model sees. Pure; for inside jit.

    Args:
      config: how.
      images: bytes, as a source gives them.
      keys: a PRNG key an image, `[batch]`.
      pool: as `pool` gives it.
      training: whether a crop is at a random place; elsewhere it is in the middle.

    Returns:
      Values in [0, 1].
    """

    def one(image: jax.Array, key: jax.Array) -> jax.Array:
        place_key, binarize_key = jax.random.split(key)
        if isinstance(config, ClutterDataConfig):
            return cluttered(place_key, image, pool, size=config.clutter_size, pieces=config.pieces)
        if not isinstance(config, GenerationDataConfig):
            return to_unit(image)
        if config.pair_size is not None:
            seen = pair(place_key, image, pool, size=config.pair_size)
        elif config.crop is not None and training:
            seen = random_crop(place_key, to_unit(image), size=config.crop)
        elif config.crop is not None:
            seen = center_crop(to_unit(image), size=config.crop)
        else:
            seen = to_unit(image)
        return binarize(seen, config.binarization, binarize_key)

    return jax.vmap(one)(jnp.asarray(images), keys)


def _side(config: DataConfig) -> tuple[str, int | None]:
    """The field that gives the side of what is seen, and its value."""
    if isinstance(config, ClutterDataConfig):
        return "clutter_size", config.clutter_size
    if isinstance(config, GenerationDataConfig) and config.crop is not None:
        return "crop", config.crop
    if isinstance(config, GenerationDataConfig) and config.pair_size is not None:
        return "pair_size", config.pair_size
    return "", None
