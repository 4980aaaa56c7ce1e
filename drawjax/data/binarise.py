"""From bytes to what the model sees: intensities in [0, 1], binarised or not. For inside jit."""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

__all__ = ["Binarisation", "binarise", "to_unit"]

Binarisation = Literal["static", "dynamic", "threshold", "none"]


def to_unit(images: UInt8[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Maps bytes 0..255 to float32 in [0, 1]."""
    return jnp.asarray(images, jnp.float32) / 255


def binarise(
    images: Float[Array, "*shape"], method: Binarisation, key: jax.Array
) -> Float[Array, "*shape"]:
    """Turns intensities in [0, 1] into zeros and ones.

    Args:
      images: values in [0, 1].
      method: `dynamic` draws each pixel anew with its intensity as the probability of a one
        (Salakhutdinov and Murray 2008); `threshold` takes a one above 0.5; `static` and `none`
        leave the images alone, the first because its images were binarised once, when loaded.
      key: PRNG key, consumed by `dynamic` only.

    Returns:
      The same shape, float32.

    Raises:
      ValueError: on another method.
    """
    if method == "dynamic":
        return jax.random.bernoulli(key, images).astype(jnp.float32)
    if method == "threshold":
        return (images > 0.5).astype(jnp.float32)
    if method in ("static", "none"):
        return images
    raise ValueError(f"binarisation must be static, dynamic, threshold or none, got {method!r}")
