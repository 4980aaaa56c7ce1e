"""DRAW, Sec. 2.1 and 2.3 of Gregor et al. (2015): one pure step, and scans over it.

The networks come in as an argument (`drawjax.networks`) and so does the noise, `[T, batch, Z]`, so
everything here is deterministic. Three roads through the same equations:

* `infer`: images and noise -> canvases, windows and KL of every step (Eq. 3-8, 10). `reconstruct`
  is the same with the posterior's mean in place of a sample; `complete` the same with the canvas
  in place of pixels that nobody knows.
* `generate`: prior noise -> canvases and windows, through the decoder alone (Eq. 13-16).
* `loss`, `importance_weighted_bound`: what that says of an image's likelihood (Eq. 9-12).

Axes: `T` steps, `batch` images, `height`, `width`, `channels`, `Z` latents, `K` samples.
"""

import dataclasses
import math
from typing import Any

import chex
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from drawjax import objective
from drawjax.attention import Window
from drawjax.networks import Networks, State, scan

__all__ = [
    "Trace",
    "complete",
    "generate",
    "importance_weighted_bound",
    "infer",
    "loss",
    "reconstruct",
    "sample",
    "step",
]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Trace:
    """What happened at every step. Fields that a road does not produce are None."""

    canvases: Float[Array, "T batch height width channels"]  #: c_1..c_T, logits
    write_windows: Window | None  #: fields [T, batch]; None without attention
    read_windows: Window | None  #: fields [T, batch]; None without attention or when generating
    kl: Float[Array, "T batch"] | None  #: nats, Eq. 10
    log_ratio: Float[Array, "T batch"] | None  #: log p(z_t) - log q(z_t | h^enc_t), nats


def step(
    networks: Networks,
    state: State,
    image: Float[Array, "batch height width channels"],
    noise: Float[Array, "batch Z"],
) -> tuple[State, Trace]:
    """One step of Eq. 3-8.

    Args:
      networks: the learned functions.
      state: c_{t-1} and the cells' states.
      image: x, values in [0, 1].
      noise: standard normal; zeros give the posterior's mean.

    Returns:
      The next state, and a `Trace` of this step alone (fields without the axis T).
    """
    error = image - jax.nn.sigmoid(state.canvas)  # Eq. 3
    glimpse, read_window = networks.read(image, error, state.h_dec)  # Eq. 4
    inputs = jnp.concatenate([glimpse, state.h_dec], axis=-1)
    encoder, h_enc = networks.encode(state.encoder, inputs)  # Eq. 5
    mean, log_scale = networks.posterior(h_enc)  # Eq. 1-2
    latent = mean + jnp.exp(log_scale) * noise  # Eq. 6
    decoder, h_dec = networks.decode(state.decoder, latent)  # Eq. 7
    change, write_window = networks.write(h_dec)
    canvas = state.canvas + change  # Eq. 8
    kl = objective.gaussian_kl(mean, log_scale)  # Eq. 10, one term
    log_ratio = objective.gaussian_log_density(latent) - objective.gaussian_log_density(
        latent, mean, log_scale
    )
    return State(canvas, encoder, decoder, h_dec), Trace(
        canvas, write_window, read_window, kl, log_ratio
    )


def infer(
    networks: Networks,
    images: Float[Array, "batch height width channels"],
    noise: Float[Array, "T batch Z"],
    *,
    remat: bool = False,
) -> Trace:
    """Draws images with the encoder looking at them: T steps of Eq. 3-8.

    Args:
      networks: the learned functions.
      images: x, values in [0, 1].
      noise: standard normal, one draw a step, image and latent; T is its length.
      remat: recompute the steps in the backward pass in blocks of about sqrt(T), which stores
        about 2 sqrt(T) steps in place of T and costs one more forward pass.

    Returns:
      A `Trace` with every field.
    """
    chex.assert_rank([images, noise], [4, 3])
    _check_batch(images, noise)

    def body(networks: Networks, state: State, noise: jax.Array) -> tuple[State, Trace]:
        return step(networks, state, images, noise)

    return scan(body, networks, noise, remat=remat)[1]


def reconstruct(
    networks: Networks, images: Float[Array, "batch height width channels"], steps: int
) -> Trace:
    """`infer` with the posterior's mean at each of `steps` steps; deterministic."""
    mean, _ = jax.eval_shape(networks.posterior, networks.initial_state(1).h_dec)
    noise = jnp.zeros((steps, images.shape[0], mean.shape[-1]), images.dtype)
    return infer(networks, images, noise)


def complete(
    networks: Networks,
    images: Float[Array, "batch height width channels"],
    known: Bool[Array, "batch height width #channels"],
    noise: Float[Array, "T batch Z"],
) -> Trace:
    """Draws images of which some pixels are known: `infer` that fills in the others as it goes.

    At every step the encoder sees the known pixels and, elsewhere, the drawing itself: the sigmoid
    of its canvas c_{t-1}. The error image (Eq. 3) is thus zero where nothing is known. Rezende et
    al. ("Stochastic backpropagation", 2014) fill in missing pixels by rounds of inference and
    reconstruction; here the steps of one drawing are the rounds. It is no draw from
    p(unknown | known), which has no closed form: the posterior of Eq. 1-2 was trained on whole
    images, and the more is unknown, the further this is from what it was trained on.

    Args:
      networks: the learned functions.
      images: values in [0, 1]; what is not known does not matter, as long as it is finite.
      known: where `images` is given. All true is `infer`.
      noise: standard normal, one draw a step, image and latent. Different noise gives different
        completions; T is its length.

    Returns:
      A `Trace` with every field. The canvas covers known pixels too: they are the model's own
      rendering of what it saw. `kl` and `log_ratio` are of the filled-in image of each step.

    Raises:
      ValueError: if the shapes of `known` and `images` do not go together, or the batches differ.
    """
    chex.assert_rank([images, noise], [4, 3])
    _check_batch(images, noise)
    if known.shape[:-1] != images.shape[:-1] or known.shape[-1] not in (1, images.shape[-1]):
        raise ValueError(
            f"known must have shape {list(images.shape)}, or one channel, got {list(known.shape)}"
        )

    def body(networks: Networks, state: State, noise: jax.Array) -> tuple[State, Trace]:
        seen = jnp.where(known, images, jax.nn.sigmoid(state.canvas))
        return step(networks, state, seen, noise)

    return scan(body, networks, noise)[1]


def generate(networks: Networks, noise: Float[Array, "T batch Z"]) -> Trace:
    """Draws from the prior with the decoder alone, Eq. 13-16.

    Args:
      networks: the learned functions; `read`, `encode` and `posterior` are not called.
      noise: z_1..z_T, standard normal, one draw a step, image and latent.

    Returns:
      A `Trace` with canvases and write windows. The image's Bernoulli means (Eq. 16) are the
      sigmoid of the last canvas.
    """
    chex.assert_rank(noise, 3)

    def body(networks: Networks, state: State, latent: jax.Array) -> tuple[State, Trace]:
        state, write_window = _decode(networks, state, latent)
        return state, Trace(state.canvas, write_window, None, None, None)

    return scan(body, networks, noise)[1]


def sample(
    networks: Networks, noise: Float[Array, "T batch Z"], *, chunk: int | None = None
) -> Float[Array, "batch height width channels"]:
    """The Bernoulli means of images from the prior, Eq. 16: the last canvas of `generate` alone.

    Takes the memory of one canvas an image in place of T.

    Args:
      networks: the learned functions; `read`, `encode` and `posterior` are not called.
      noise: z_1..z_T, standard normal, one draw a step, image and latent.
      chunk: how many images are drawn at once; None: all. On a CPU some hundred are faster than a
        thousand, since they stay in its cache.

    Raises:
      ValueError: if `chunk` is not positive.
    """
    chex.assert_rank(noise, 3)
    if chunk is not None and chunk < 1:
        raise ValueError(f"chunk must be positive, got {chunk}")

    def body(networks: Networks, state: State, latent: jax.Array) -> tuple[State, None]:
        return _decode(networks, state, latent)[0], None

    def images(noise: jax.Array) -> jax.Array:
        return jax.nn.sigmoid(scan(body, networks, noise)[0].canvas)

    steps, batch, latents = noise.shape
    if chunk is None or batch <= chunk:
        return images(noise)
    whole = batch - batch % chunk
    chunks = noise[:, :whole].reshape(steps, -1, chunk, latents)
    drawn = jax.lax.map(images, jnp.swapaxes(chunks, 0, 1))
    drawn = drawn.reshape(whole, *drawn.shape[2:])
    return drawn if whole == batch else jnp.concatenate([drawn, images(noise[:, whole:])])


def loss(
    networks: Networks,
    images: Float[Array, "batch height width channels"],
    noise: Float[Array, "T batch Z"],
    *,
    remat: bool = False,
    clip_ratio: float | None = None,
) -> tuple[Float[Array, " batch"], Float[Array, " batch"]]:
    """L^x and L^z of Eq. 9-10 with one sample, each in nats an image, `[batch]`.

    Their sum is the negative bound of Eq. 12. Arguments as for `infer`, and `clip_ratio`: an image
    whose gradient is longer than this many times the median of the batch has it scaled down to
    that (`drawjax.hoist.scan`). The losses stay as they are.
    """
    chex.assert_rank([images, noise], [4, 3])
    _check_batch(images, noise)

    def body(networks: Networks, state: State, noise: jax.Array) -> tuple[State, Any]:
        state, trace = step(networks, state, images, noise)
        return state, trace.kl  # the canvases of a Trace would be kept in memory, all T of them

    state, kl = scan(body, networks, noise, remat=remat, clip_ratio=clip_ratio)
    return objective.reconstruction_loss(state.canvas, images), jnp.sum(kl, axis=0)


def importance_weighted_bound(
    networks: Networks,
    images: Float[Array, "batch height width channels"],
    key: jax.Array,
    *,
    steps: int,
    latents: int,
    num_samples: int,
    chunk: int = 50,
) -> tuple[Float[Array, " batch"], Float[Array, " batch"]]:
    """The K-sample bound on log p(x) of Burda et al. (2016), in memory of `chunk` samples.

    Args:
      networks: the learned functions.
      images: binary images, `[batch, height, width, channels]`.
      key: PRNG key; sample k uses `fold_in(key, k)`, so the value does not depend on `chunk`.
      steps: T.
      latents: Z.
      num_samples: K.
      chunk: how many samples are held in memory at once.

    Returns:
      A lower bound on log p(x), which in expectation grows with K, and the mean of the same K
      samples' log-weights, which in expectation is minus the loss of Eq. 12, the bound for K = 1;
      nats an image, `[batch]` each.

    Raises:
      ValueError: if `num_samples` or `chunk` is not positive.
    """
    if num_samples < 1 or chunk < 1:
        raise ValueError(f"num_samples and chunk must be positive, got {num_samples} and {chunk}")
    batch = images.shape[0]
    chunk = min(chunk, num_samples)

    def body(networks: Networks, state: State, noise: jax.Array) -> tuple[State, Any]:
        state, trace = step(networks, state, images, noise)
        return state, trace.log_ratio  # as in `loss`, without the canvases

    def log_weights(index: jax.Array) -> jax.Array:  # one sample of z for each image
        noise = jax.random.normal(
            jax.random.fold_in(key, index), (steps, batch, latents), images.dtype
        )
        state, log_ratios = scan(body, networks, noise)
        return jnp.sum(log_ratios, axis=0) - objective.reconstruction_loss(state.canvas, images)

    def add_chunk(totals: tuple[jax.Array, jax.Array], first: jax.Array) -> tuple[Any, None]:
        weight, log_weight = totals
        indices = first + jnp.arange(chunk)
        logs = jax.vmap(log_weights)(indices)
        # The last chunk may reach beyond K; what lies there weighs nothing.
        inside = (indices < num_samples)[:, None]
        more = jax.nn.logsumexp(logs, axis=0, where=inside)
        return (jnp.logaddexp(weight, more), log_weight + jnp.sum(logs, axis=0, where=inside)), None

    start = (jnp.full((batch,), -jnp.inf, images.dtype), jnp.zeros((batch,), images.dtype))
    (weight, log_weight), _ = jax.lax.scan(add_chunk, start, jnp.arange(0, num_samples, chunk))
    return weight - math.log(num_samples), log_weight / num_samples


def _decode(networks: Networks, state: State, latent: jax.Array) -> tuple[State, Window | None]:
    """One step from the prior, Eq. 14-15."""
    decoder, h_dec = networks.decode(state.decoder, latent)  # Eq. 14
    change, write_window = networks.write(h_dec)
    canvas = state.canvas + change  # Eq. 15
    return State(canvas, state.encoder, decoder, h_dec), write_window


def _check_batch(images: jax.Array, noise: jax.Array) -> None:
    if images.shape[0] != noise.shape[1]:
        raise ValueError(
            "images [batch, ...] and noise [T, batch, Z] must have one batch size, got "
            f"{images.shape[0]} and {noise.shape[1]}"
        )
