"""The losses of DRAW, Sec. 2.2 of Gregor et al. (2015), in nats: formulas and distributions.

`Normal` is a step's posterior or prior (Eq. 1-2, 6, 10-11). `Bernoulli`, `DiscretizedLogistic` and
`Gaussian` are what a canvas says of an image, D(X | c_T) of Eq. 9: the mean of each is the sigmoid
of the canvas, which the error image of Eq. 3 is taken from and pictures show.

Axes: `*batch` any leading shape, so that a whole drawing `[T, batch, ...]` has its means taken at
once; `height`, `width`, `channels` of the image, `Z` latents.
"""

import dataclasses
import typing
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

__all__ = [
    "Bernoulli",
    "DiscretizedLogistic",
    "Gaussian",
    "Likelihood",
    "Normal",
    "discretized_logistic_loss",
    "gaussian_kl",
    "gaussian_log_density",
    "reconstruction_loss",
]


@typing.no_type_check  # a pytree's fields hold whatever a JAX transformation puts there
@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Normal:
    """Independent normal distributions of Z latents: DRAW's posterior, Eq. 1-2, and its prior.

    What `drawjax.draw` asks of a posterior: `sample`, `log_prob` and, if it is known, `kl`. The
    defaults are the standard normal distribution, whatever Z.
    """

    mean: Float[Array, "*batch Z"] | Float[Array, ""] = dataclasses.field(
        default_factory=lambda: jnp.zeros(())
    )  #: mu_t
    log_scale: Float[Array, "*batch Z"] | Float[Array, ""] = dataclasses.field(
        default_factory=lambda: jnp.zeros(())
    )  #: log sigma_t

    def sample(self, noise: Float[Array, "*batch Z"]) -> Float[Array, "*batch Z"]:
        """z_t from standard normal noise, a differentiable function of mean and scale."""
        return self.mean + jnp.exp(self.log_scale) * noise

    def log_prob(self, value: Float[Array, "*batch Z"]) -> Float[Array, "*batch"]:
        """Log-density of z_t in nats, summed over latents."""
        return gaussian_log_density(value, self.mean, self.log_scale)

    def kl(self, prior: "Normal") -> Float[Array, "*batch"]:
        """KL to a normal prior in nats, one step of Eq. 10.

        Raises:
          ValueError: for a prior of another kind, whose fields may well have these names.
        """
        if not isinstance(prior, Normal):
            kind = type(prior).__name__
            raise ValueError(f"the KL of a Normal is to a Normal prior, got a {kind}")
        return gaussian_kl(self.mean, self.log_scale, prior.mean, prior.log_scale)


def reconstruction_loss(
    logits: Float[Array, "*batch height width channels"],
    images: Float[Array, "*batch height width channels"],
) -> Float[Array, "*batch"]:
    """L^x of Eq. 9: minus the log-likelihood of images under Bernoulli means sigmoid(logits).

    Images may hold intensities in [0, 1] as well as zeros and ones; for intensities the value is
    the cross-entropy that the paper uses for color (independent emission probabilities), and not
    a likelihood: do not compare it with figures for binary images.

    Args:
      logits: `[*batch, height, width, channels]`, the last canvas.
      images: the same shape, values in [0, 1].

    Returns:
      Nats per image, summed over pixels and channels, `[*batch]`.

    Raises:
      ValueError: if the shapes differ or have fewer than three axes.
    """
    if logits.shape != images.shape or logits.ndim < 3:
        raise ValueError(
            "logits and images must both have shape [..., height, width, channels], got "
            f"{list(logits.shape)} and {list(images.shape)}"
        )
    return jnp.sum(optax.sigmoid_binary_cross_entropy(logits, images), axis=(-3, -2, -1))


def discretized_logistic_loss(
    means: Float[Array, "*batch height width channels"],
    images: Float[Array, "*batch height width channels"],
    log_scale: Float[Array, "*#batch #height #width channels"] | Float[Array, " channels"],
) -> Float[Array, "*batch"]:
    """Minus the log-probability of 8-bit images under logistic distributions around means.

    Each of the 256 levels k/255 gets the mass of a logistic distribution between k - 1/2 and
    k + 1/2, the outermost levels all that lies beyond (Salimans et al. 2017, Sec. 2.1). Unlike the
    cross-entropy of `reconstruction_loss` this is a likelihood of intensities: its sum with the
    KL, divided by pixels, channels and log 2, is a bound in bits per dimension.

    Args:
      means: `[*batch, height, width, channels]`, in [0, 1].
      images: the same shape; multiples of 1/255.
      log_scale: log of the logistic scale, in units of the whole range: of each channel,
        `[channels]`, or of whatever broadcasts with the images.

    Returns:
      Nats per image, `[*batch]`.
    """
    half = 0.5 / 255
    scale = jnp.exp(_like(images, log_scale))
    upper, lower = (images - means + half) / scale, (images - means - half) / scale
    # log(sigmoid(u) - sigmoid(l)) = log sigmoid(u) + log sigmoid(-l) + log(1 - exp(l - u)), all in
    # log space: far from the mean both sigmoids round to the same number.
    middle = (
        jax.nn.log_sigmoid(upper) + jax.nn.log_sigmoid(-lower) + jnp.log(-jnp.expm1(lower - upper))
    )
    log_mass = jnp.where(
        images < half,
        jax.nn.log_sigmoid(upper),
        jnp.where(images > 1 - half, jax.nn.log_sigmoid(-lower), middle),
    )
    return -jnp.sum(log_mass, axis=(-3, -2, -1))


def gaussian_kl(
    mean: Float[Array, "*#batch #Z"],
    log_scale: Float[Array, "*#batch #Z"],
    prior_mean: Float[Array, "*#batch #Z"] | Float[Array, ""] | float = 0.0,
    prior_log_scale: Float[Array, "*#batch #Z"] | Float[Array, ""] | float = 0.0,
) -> Float[Array, "*batch"]:
    """KL(N(mean, exp(log_scale)^2) || prior) summed over latents, one step of Eq. 10-11.

    Exact and never negative: Eq. 11 prints its constant as T/2 for all latents together; it is
    1/2 for each latent and step.

    Args:
      mean: mu_t, `[*batch, Z]`.
      log_scale: log sigma_t, the same shape.
      prior_mean: the prior's mean, broadcast; the default prior is N(0, 1), the paper's.
      prior_log_scale: log of the prior's standard deviation, broadcast.

    Returns:
      Nats, `[*batch]`.
    """
    # expm1 keeps the digits when the scales are near each other: r^2 - 1 - log r^2 is then tiny.
    log_ratio = 2 * (log_scale - prior_log_scale)
    distance = (mean - prior_mean) * jnp.exp(-jnp.asarray(prior_log_scale, mean.dtype))
    return 0.5 * jnp.sum(jnp.square(distance) + jnp.expm1(log_ratio) - log_ratio, axis=-1)


def gaussian_log_density(
    value: Float[Array, "*#batch Z"],
    mean: Float[Array, "*#batch Z"] | Float[Array, ""] | float = 0.0,
    log_scale: Float[Array, "*#batch Z"] | Float[Array, ""] | float = 0.0,
) -> Float[Array, "*batch"]:
    """Log N(value; mean, exp(log_scale)^2) summed over the last axis, in nats; `[*batch]`."""
    standardized = (value - mean) * jnp.exp(-jnp.asarray(log_scale, value.dtype))
    terms = -0.5 * jnp.square(standardized) - log_scale - 0.5 * jnp.log(2 * jnp.pi)
    return jnp.sum(terms, axis=-1)


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

    Intensities between are taken as well: the paper does so for color, as independent emission
    probabilities. The value is then a cross-entropy, and no log-probability of the image.
    """

    logits: Float[Array, "*batch height width channels"]  #: the canvas

    @property
    def mean(self) -> Float[Array, "*batch height width channels"]:
        """The probability of a one."""
        return jax.nn.sigmoid(self.logits)

    def log_prob(
        self, images: Float[Array, "*batch height width channels"]
    ) -> Float[Array, "*batch"]:
        """Minus `reconstruction_loss`, `[*batch]`."""
        return -reconstruction_loss(self.logits, images)

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
        """Minus `discretized_logistic_loss`, `[*batch]`."""
        return -discretized_logistic_loss(self.mean, images, self.log_scale)

    def sample(self, key: jax.Array) -> Float[Array, "*batch height width channels"]:
        """Multiples of 1/255 in [0, 1]."""
        noise = jax.random.logistic(key, self.mean.shape, self.mean.dtype)
        values = self.mean + jnp.exp(_like(self.mean, self.log_scale)) * noise
        return jnp.clip(jnp.round(255 * values), 0, 255) / 255


@typing.no_type_check
@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Gaussian:
    """Real-valued pixels with normal noise.

    Its values are densities of intensities in [0, 1], not probabilities: a loss may well be
    negative, and is not to be compared with figures for 8-bit images.
    """

    logits: Float[Array, "*batch height width channels"]  #: the canvas
    log_scale: Float[Array, "..."]  #: of the standard deviation; broadcasts with the canvas

    @property
    def mean(self) -> Float[Array, "*batch height width channels"]:
        """The means."""
        return jax.nn.sigmoid(self.logits)

    def log_prob(
        self, images: Float[Array, "*batch height width channels"]
    ) -> Float[Array, "*batch"]:
        """The log-density of images, `[*batch]`."""
        log_scale = _like(images, self.log_scale)
        return jnp.sum(gaussian_log_density(images, self.mean, log_scale), axis=(-2, -1))

    def sample(self, key: jax.Array) -> Float[Array, "*batch height width channels"]:
        """Real values, some of which lie outside of [0, 1]."""
        noise = jax.random.normal(key, self.mean.shape, self.mean.dtype)
        return self.mean + jnp.exp(_like(self.mean, self.log_scale)) * noise


def _like(images: jax.Array, log_scale: jax.Array) -> jax.Array:
    """A scale with as many axes as images have: those of a channel or pixel have fewer."""
    return jnp.expand_dims(log_scale, range(images.ndim - log_scale.ndim))
