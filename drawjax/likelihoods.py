"""What a canvas says of an image: D(X | c_T) of Eq. 9, one class a likelihood.

The mean of every one is the sigmoid of the canvas, which the error image of Eq. 3 is taken from and
pictures show. `*batch` is any leading shape, so that a whole drawing `[T, batch, ...]` has its
means taken at once.
"""

import dataclasses
import typing
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from drawjax import objective

__all__ = ["Bernoulli", "DiscretizedLogistic", "Gaussian", "Likelihood"]


@runtime_checkable
class Likelihood(Protocol):
    """What `drawjax.draw` asks of a likelihood. A pytree."""

    @property
    def mean(self) -> jax.Array:
        """The image that is expected, `[*batch, height, width, channels]` in [0, 1]."""
        ...

    def log_prob(self, images: jax.Array) -> jax.Array:
        """Log-probability of images in nats, `[*batch]`."""
        ...

    def sample(self, key: jax.Array) -> jax.Array:
        """Images drawn from it, in the shape of the mean."""
        ...


@typing.no_type_check  # a pytree's fields hold whatever a JAX transformation puts there
@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Bernoulli:
    """Pixels that are one or zero, the paper's likelihood (Sec. 2.2).

    Intensities between are taken as well: the paper does so for color, as "independent emission
    probabilities". The value is then a cross-entropy, and no log-probability of the image.
    """

    logits: Float[Array, "*batch height width channels"]  #: the canvas

    @property
    def mean(self) -> Float[Array, "*batch height width channels"]:
        """The probability of a one."""
        return jax.nn.sigmoid(self.logits)

    def log_prob(
        self, images: Float[Array, "*batch height width channels"]
    ) -> Float[Array, "*batch"]:
        """Minus `drawjax.objective.reconstruction_loss`, `[*batch]`."""
        return -objective.reconstruction_loss(self.logits, images)

    def sample(self, key: jax.Array) -> Float[Array, "*batch height width channels"]:
        """Zeros and ones."""
        return jax.random.bernoulli(key, self.mean).astype(self.logits.dtype)


@typing.no_type_check
@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class DiscretizedLogistic:
    """8-bit images: each of 256 levels has the mass of a logistic distribution around it.

    Salimans et al. (2017), Sec. 2.1, with one component. `mean` is the location; the mass cut off
    at black and white moves the expectation a little from it.
    """

    logits: Float[Array, "*batch height width channels"]  #: the canvas
    log_scale: Float[Array, "..."]  #: in units of the whole range; broadcasts with the canvas

    @property
    def mean(self) -> Float[Array, "*batch height width channels"]:
        """The location of the logistic distributions."""
        return jax.nn.sigmoid(self.logits)

    def log_prob(
        self, images: Float[Array, "*batch height width channels"]
    ) -> Float[Array, "*batch"]:
        """Minus `drawjax.objective.discretized_logistic_loss`, `[*batch]`."""
        return -objective.discretized_logistic_loss(self.mean, images, self.log_scale)

    def sample(self, key: jax.Array) -> Float[Array, "*batch height width channels"]:
        """Multiples of 1/255 in [0, 1]."""
        noise = jax.random.logistic(key, self.mean.shape, self.mean.dtype)
        values = self.mean + jnp.exp(self.log_scale) * noise
        return jnp.clip(jnp.round(255 * values), 0, 255) / 255


@typing.no_type_check
@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Gaussian:
    """Real-valued pixels with normal noise; its values are densities."""

    logits: Float[Array, "*batch height width channels"]  #: the canvas
    log_scale: Float[Array, "..."]  #: of the standard deviation; broadcasts with the canvas

    @property
    def mean(self) -> Float[Array, "*batch height width channels"]:
        """The means."""
        return jax.nn.sigmoid(self.logits)

    def log_prob(
        self, images: Float[Array, "*batch height width channels"]
    ) -> Float[Array, "*batch"]:
        """Minus `drawjax.objective.gaussian_loss`, `[*batch]`."""
        return -objective.gaussian_loss(self.mean, images, self.log_scale)

    def sample(self, key: jax.Array) -> Float[Array, "*batch height width channels"]:
        """Real values, some of which lie outside of [0, 1]."""
        noise = jax.random.normal(key, self.mean.shape, self.mean.dtype)
        return self.mean + jnp.exp(self.log_scale) * noise
