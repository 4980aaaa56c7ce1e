"""The learned functions of `drawjax.modules.Draw`, arranged for speed.

The same equations over the same parameters: products of one hidden vector are one product, and
what surrounds them comes from `drawjax.kernels`. `drawjax.modules.Draw` is the readable version;
tests hold this one to it. Axes as in `drawjax.draw`.
"""

import dataclasses

import jax
import jax.numpy as jnp

from drawjax import attention, hoist, kernels
from drawjax.attention import Window

__all__ = ["Fast"]


@dataclasses.dataclass(frozen=True)
class Fast:
    """Eq. 1-8 over `linear(name, inputs)`; the names are those of `Draw.weights`.

    All of `drawjax.networks.Networks` but for the initial state.
    """

    linear: hoist.Linear
    image_shape: tuple[int, int, int]
    read_size: int | None
    write_size: int | None

    def read(
        self, image: jax.Array, error: jax.Array, h_dec: jax.Array
    ) -> tuple[jax.Array, Window | None]:
        """Eq. 27, or Eq. 17 without a read window."""
        batch = image.shape[0]
        if self.read_size is None:
            return jnp.concatenate([image, error], axis=-1).reshape(batch, -1), None
        logits = self.linear("read", h_dec)
        window = attention.window_from_logits(logits, self.image_shape[:2], self.read_size)
        filters = kernels.filterbanks(window, self.image_shape[:2], self.read_size)
        patches = jnp.concatenate(
            [kernels.read(image, *filters), kernels.read(error, *filters)], axis=-1
        )
        return window.intensity[:, None] * patches.reshape(batch, -1), window

    def encode(
        self, carry: tuple[jax.Array, jax.Array], inputs: jax.Array
    ) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
        """Eq. 5."""
        return self._recur("encoder", carry, inputs)

    def posterior(self, h_enc: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Eq. 1-2."""
        mean, log_scale = jnp.split(self.linear("posterior", h_enc), 2, axis=-1)
        return mean, log_scale

    def decode(
        self, carry: tuple[jax.Array, jax.Array], latent: jax.Array
    ) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
        """Eq. 7."""
        return self._recur("decoder", carry, latent)

    def write(self, h_dec: jax.Array) -> tuple[jax.Array, Window | None]:
        """Eq. 28-29, or Eq. 18 without a write window."""
        height, width, channels = self.image_shape
        outputs = self.linear("write", h_dec)
        if self.write_size is None:
            return outputs.reshape(-1, height, width, channels), None
        size = self.write_size
        patch, logits = outputs[:, :-5], outputs[:, -5:]
        window = attention.window_from_logits(logits, (height, width), size)
        filters = kernels.filterbanks(window, (height, width), size)
        patch = (patch / window.intensity[:, None]).reshape(-1, size, size, channels)
        return kernels.write(patch, *filters), window

    def _recur(
        self, name: str, carry: tuple[jax.Array, jax.Array], inputs: jax.Array
    ) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
        cell, hidden = carry
        gates = self.linear(name, jnp.concatenate([inputs, hidden], axis=-1))
        cell, hidden = kernels.lstm(gates, cell)
        return (cell, hidden), hidden
