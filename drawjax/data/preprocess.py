"""What a model sees of a set's images: binarized, cropped, in pairs, or in clutter.

All that is random about an image comes from a key of its own, so an image is the same in whatever
batch it comes.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from drawjax.config import Binarization, ClutterDataConfig, DataConfig, GenerationDataConfig
from drawjax.data.pipeline import ArraySource, Batch, ImageSet, Source
from drawjax.data.placing import PIECE_SIZE, center_crop, cluttered, pair, partner, random_crop


def image_keys(key: jax.Array, indices: Int[Array | np.ndarray, " batch"]) -> jax.Array:
    """A key for each image of a set, by its number alone, `[batch]`."""
    return jax.vmap(functools.partial(jax.random.fold_in, key))(jnp.asarray(indices))


def seen_shape(config: DataConfig, images: ImageSet) -> tuple[int, int, int]:
    """The `(height, width, channels)` that a model sees.

    Raises:
      ValueError: if the set's images do not fit into a square that the config asks for, or a crop
        is larger than they are, or pieces of clutter are.
    """
    height, width, channels = images.image_shape
    flag, side = _side(config)
    if side is None:
        return images.image_shape
    shorter, longer = sorted((height, width))
    limit = (
        f"at most {shorter}, the shorter" if flag == "crop" else f"at least {longer}, the longer"
    )
    if side > shorter if flag == "crop" else side < longer:
        raise ValueError(f"data.{flag} must be {limit} side of the images, got {side}")
    if isinstance(config, ClutterDataConfig) and config.pieces and shorter < PIECE_SIZE:
        raise ValueError(
            f"pieces of clutter are {PIECE_SIZE}x{PIECE_SIZE} pixels of the images, got images of "
            f"{height}x{width}; give data.pieces 0"
        )
    return side, side, channels


def pool(config: DataConfig, source: Source) -> Batch:
    """The records of a source that partners and pieces are taken from; none where none are needed.

    Raises:
      ValueError: if the set is too large to be held in memory.
    """
    if _side(config)[0] not in ("pair_size", "clutter_size"):
        return {"image": jnp.zeros((0, 1, 1, 1), jnp.uint8), "label": jnp.zeros(0, jnp.int32)}
    if not isinstance(source, ArraySource):
        raise ValueError(
            "partners and pieces are taken from images held in memory, and this set is too large"
        )
    return {"image": jnp.asarray(source.images), "label": jnp.asarray(source.labels)}


def preprocess(
    config: DataConfig,
    images: UInt8[Array | np.ndarray, "batch rows columns channels"],
    keys: Array,
    pool: Batch,
    *,
    training: bool,
) -> Float[Array, "batch height width seen_channels"]:
    """Turns stored images into what a model sees. Pure; for inside jit.

    Args:
      config: how.
      images: bytes, as a source gives them.
      keys: a PRNG key per image, `[batch]`.
      pool: as `pool` gives it.
      training: whether a crop is at a random place; elsewhere it is in the middle.

    Returns:
      Values in [0, 1].
    """
    others = pool["image"]

    def one(image: jax.Array, key: jax.Array) -> jax.Array:
        place_key, binarize_key = jax.random.split(key)
        if isinstance(config, ClutterDataConfig):
            return cluttered(
                place_key, image, others, size=config.clutter_size, pieces=config.pieces
            )
        if not isinstance(config, GenerationDataConfig):
            return to_unit(image)
        seen = to_unit(image)
        if config.pair_size is not None:
            seen = pair(place_key, image, others, size=config.pair_size)
        elif config.crop is not None:
            cut = functools.partial(random_crop, place_key) if training else center_crop
            seen = cut(seen, size=config.crop)
        return binarize(seen, config.binarization, binarize_key)

    return jax.vmap(one)(jnp.asarray(images), keys)


def seen_labels(
    config: DataConfig, labels: Int[Array | np.ndarray, " batch"], keys: Array, pool: Batch
) -> Int[Array | np.ndarray, "batch *two"]:
    """The classes of what `preprocess` makes: as stored, or both of a pair, `[batch, 2]`."""
    if not isinstance(config, GenerationDataConfig) or config.pair_size is None:
        return labels

    def other(key: jax.Array) -> jax.Array:
        place_key, _ = jax.random.split(key)  # as above
        return pool["label"][partner(place_key, len(pool["label"]))]

    return jnp.stack([jnp.asarray(labels), jax.vmap(other)(keys)], axis=1)


def to_unit(images: UInt8[Array | np.ndarray, "*shape"]) -> Float[Array, "*shape"]:
    """Maps bytes 0..255 to float32 in [0, 1]."""
    return jnp.asarray(images, jnp.float32) / 255


def binarize(
    images: Float[Array, "*shape"], method: Binarization, key: jax.Array
) -> Float[Array, "*shape"]:
    """Turns intensities in [0, 1] into zeros and ones.

    Args:
      images: values in [0, 1].
      method: `dynamic` draws each pixel anew with its intensity as the probability of a one
        (Salakhutdinov and Murray 2008); `threshold` takes a one above 0.5; `static` and `none`
        leave the images alone, the first because its images were binarized once, when loaded.
      key: PRNG key, consumed by `dynamic` only.

    Returns:
      The same shape; float32 for `dynamic` and `threshold`, else as it was.

    Raises:
      ValueError: on another method.
    """
    if method == "dynamic":
        return jax.random.bernoulli(key, images).astype(jnp.float32)
    if method == "threshold":
        return (images > 0.5).astype(jnp.float32)
    if method in ("static", "none"):
        return images
    raise ValueError(f"binarization must be static, dynamic, threshold or none, got {method!r}")


def binarize_once(images: UInt8[np.ndarray, "*shape"], seed: int) -> UInt8[np.ndarray, "*shape"]:
    """Draws each pixel once: 255 with its intensity as the probability, else 0."""
    # Above r of 0..254: a pixel of 0 never is, one of 255 always, and one of v in v cases of 255.
    thresholds = np.random.default_rng(seed).integers(0, 255, images.shape, dtype=np.uint8)
    return np.where(images > thresholds, np.uint8(255), np.uint8(0))


def _side(config: DataConfig) -> tuple[str, int | None]:
    """The field that gives the side of what is seen, and its value."""
    for name in ("clutter_size", "crop", "pair_size"):
        if (side := getattr(config, name, None)) is not None:
            return name, side
    return "", None
