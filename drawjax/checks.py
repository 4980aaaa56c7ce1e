"""What models and policies are given, looked at once: images, classes, keys."""

from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

_ROUNDING = 1e-6  # by which a resize may leave [0, 1]; no loss minds


def check_images(images: Any, image_shape: tuple[int, ...] | None = None) -> None:
    """Raises ValueError unless images are `[batch, height, width, channels]` in [0, 1].

    Values are looked at where they are known, outside of `jit`.

    Args:
      images: what was given.
      image_shape: the model's `(height, width, channels)`; None: any.
    """
    if not isinstance(images, jax.Array | np.ndarray):
        raise ValueError(f"images must be an array, got {type(images).__name__}")
    if images.ndim != 4:
        raise ValueError(
            f"images must have shape [batch, height, width, channels], got {list(images.shape)}"
        )
    if image_shape is not None and images.shape[1:] != tuple(image_shape):
        listed = ", ".join(map(str, image_shape))
        first = images.shape[-1] not in (1, 2, 3, 4) and images.shape[1] in (1, 2, 3, 4)
        hint = ": channels come last, np.moveaxis(images, 1, -1)" if first else ""
        raise ValueError(
            f"images must have the model's shape [batch, {listed}], got {list(images.shape)}{hint}"
        )
    if not (is_floating(images) or images.dtype == bool):
        raise ValueError(
            f"images must be floats in [0, 1] (divide bytes by 255), got {images.dtype}"
        )
    values = known_values(images)
    if values is not None and values.size:
        low, high = values.min(), values.max()
        if not (low >= -_ROUNDING and high <= 1 + _ROUNDING):
            raise ValueError(f"images must lie in [0, 1], got values from {low!s} to {high!s}")


def check_classes(name: str, labels: jax.Array | np.ndarray, num_classes: int) -> None:
    """Raises ValueError for a label that is known and none of the classes."""
    values = known_values(labels)
    if values is not None and len(wrong := values[(values < 0) | (values >= num_classes)].ravel()):
        raise ValueError(f"{name} must be classes 0 to {num_classes - 1}, got {wrong[0]}")


def check_keys(keys: Any, batch: int) -> jax.Array:
    """PRNG keys `[batch]`, new-style ones of old-style ones; ValueError for any others."""
    keys = jnp.asarray(keys)
    if keys.dtype == jnp.uint32 and keys.ndim == 2:
        keys = jax.random.wrap_key_data(keys)
    if not jnp.issubdtype(keys.dtype, jax.dtypes.prng_key) or keys.shape != (batch,):
        raise ValueError(
            f"keys must be a PRNG key per image [{batch}], as of jax.random.split, got "
            f"{list(keys.shape)} {keys.dtype}"
        )
    return keys


def known_values(values: jax.Array | np.ndarray) -> np.ndarray | None:
    """The values of an array where they are known: outside of `jit`, and all on this process."""
    if isinstance(values, jax.core.Tracer):
        return None
    if isinstance(values, jax.Array) and not values.is_fully_addressable:
        return None
    return np.asarray(values)  # in NumPy, since inside `jit` JAX would trace what is done with it


def is_floating(values: Any) -> bool:
    """Whether an array holds floats, of any precision."""
    return jnp.issubdtype(values.dtype, jnp.floating)
