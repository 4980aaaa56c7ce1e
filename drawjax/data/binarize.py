"""From bytes to what the model sees: intensities in [0, 1], binarized or not.

All for inside jit but `binarize_once`, which is done on the host when a set is loaded.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from drawjax.config import Binarization

__all__ = ["binarize", "binarize_once", "to_unit"]


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
    raise ValueError(f"binarization must be static, dynamic, threshold or none, got {method!r}")


def binarize_once(images: UInt8[np.ndarray, "*shape"], seed: int) -> UInt8[np.ndarray, "*shape"]:
    """Draws each pixel once: 255 with its intensity as the probability, else 0.

    Args:
      images: bytes, NumPy's.
      seed: of the draw; the same seed and shape give the same one.
    """
    # Above r of 0..254: a pixel of 0 never is, one of 255 always, and one of v in v cases of 255.
    thresholds = np.random.default_rng(seed).integers(0, 255, images.shape, dtype=np.uint8)
    return np.where(images > thresholds, np.uint8(255), np.uint8(0))
