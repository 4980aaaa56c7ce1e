"""DRAW, Sec. 2.1 and 2.3 of Gregor et al. (2015): the model's protocol, one step, one scan.

The model comes in as an argument (`Model`; `drawjax.modules.Draw` is one) and so does the noise,
`[T, batch, Z]`, so every function here is deterministic and pure. All are a plain `jax.lax.scan`,
but for `loss`, which is what training differentiates: its weight gradients are taken out of the
loop (`drawjax.scan`).

* `infer`: images and noise -> canvases, windows, latents and KL of every step (Eq. 3-8, 10).
  `reconstruct` is the same with the posterior's mean in place of a sample; `complete` the same with
  the canvas in place of unknown pixels.
* `generate`: noise, or latents, -> canvases and windows, through the decoder alone (Eq. 13-16).
* `loss`, `importance_weighted_bound`: bounds on an image's likelihood (Eq. 9-12).

A `ConditionalModel` is conditional on features that are given with each image: encoder, decoder
and prior see them at every step beside their other inputs. Those of a class are `class_features`.

Over several devices: by `jax.jit` on a mesh of Auto axes, or inside of `jax.shard_map`; on a mesh
of Explicit axes `drawjax.attention` runs and a model's products do not.

Axes: `T` steps, `batch` images, `height`, `width`, `channels`, `Z` latents, `K` samples.
"""

import dataclasses
import functools
import math
from typing import Any, Protocol, cast, runtime_checkable

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Shaped

from drawjax.attention import Window
from drawjax.objective import Bernoulli, Likelihood, Normal
from drawjax.scan import scan, vary_like

__all__ = [
    "ConditionalModel",
    "Distribution",
    "DrawOutput",
    "Model",
    "State",
    "class_features",
    "complete",
    "generate",
    "generation_step",
    "importance_weighted_bound",
    "infer",
    "loss",
    "reconstruct",
    "sample",
    "step",
]

Images = Shaped[Array | np.ndarray, "batch height width channels"]  # floats or booleans
Noise = Float[Array | np.ndarray, "T batch Z"]
Condition = Shaped[Array | np.ndarray, "batch features"]  # floats
_ROUNDING = 1e-6  # by which a resize may leave [0, 1]; no loss minds
Carry = Any  # what a recurrent cell hands to its next step, e.g. the (c, h) of an LSTM


@runtime_checkable
class Distribution(Protocol):
    """A step's latents, posterior or prior; `drawjax.objective.Normal` is one. A pytree.

    A posterior may have `kl(prior)` as well, its KL to the model's prior in nats, `[batch]`. Of one
    that has not, as it is in no closed form, the loss takes the estimate at its sample z_t,
    log q(z_t) - log p(z_t).
    """

    def sample(self, noise: jax.Array) -> jax.Array:
        """Latents `[batch, Z]` from standard normal noise; zeros give the mean."""
        ...

    def log_prob(self, value: jax.Array) -> jax.Array:
        """Log-density in nats, `[batch]`."""
        ...


@runtime_checkable
class Model(Protocol):
    """What DRAW's equations need to be given. `h` is a hidden vector `[batch, units]`.

    Products by `drawjax.scan.dense`, as in the layers of `drawjax.modules`, train faster than
    others (`drawjax.scan`).
    """

    @property
    def num_glimpses(self) -> int:
        """T, steps of a drawing."""
        ...

    @property
    def latent_size(self) -> int:
        """Z, latent variables per step."""
        ...

    def initial_state(self, batch: int) -> "State":
        """The learned c_0, h_0^enc and h_0^dec (with both cells' states), for `batch` images."""
        ...

    def read(
        self, image: jax.Array, error: jax.Array, h_dec: jax.Array
    ) -> tuple[jax.Array, Window | None]:
        """Eq. 4: a flat glimpse `[batch, features]`, and the window unless Eq. 17 is used."""
        ...

    def encode(self, carry: Carry, inputs: jax.Array) -> tuple[Carry, jax.Array]:
        """Eq. 5: the next carry and h^enc_t; inputs are the glimpse and h^dec_{t-1}."""
        ...

    def posterior(self, h_enc: jax.Array) -> Distribution:
        """Eq. 1-2: Q(Z_t | h^enc_t)."""
        ...

    def decode(self, carry: Carry, latent: jax.Array) -> tuple[Carry, jax.Array]:
        """Eq. 7: the next carry and h^dec_t."""
        ...

    def write(self, h_dec: jax.Array) -> tuple[jax.Array, Window | None]:
        """Eq. 8: what is added to the canvas, and the window unless Eq. 18 is used."""
        ...

    def prior(self, h_dec: jax.Array) -> Distribution:
        """P(Z_t), given h^dec_{t-1}; the paper's does not depend on it: N(0, 1)."""
        return Normal(jnp.zeros((), h_dec.dtype), jnp.zeros((), h_dec.dtype))

    def likelihood(self, canvas: jax.Array) -> Likelihood:
        """D(X | c_T) of Eq. 9; the paper's is Bernoulli."""
        return Bernoulli(canvas)


@runtime_checkable
class ConditionalModel(Model, Protocol):
    """A model conditional on features of each image, which its functions see.

    Those that `encode` is given stand after h^dec_{t-1}, those of `decode` after the latents, those
    of `prior` after h^dec_{t-1}.
    """

    @property
    def condition_size(self) -> int:
        """How many features; 0: none, as in the paper."""
        ...


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
    """What one step hands to the next."""

    canvas: Float[Array, "batch height width channels"]  #: c_t, logits
    encoder: Carry  #: the encoder's
    decoder: Carry  #: the decoder's
    h_dec: Float[Array, "batch units"]  #: h^dec_t


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class DrawOutput:
    """What happened at every step. Fields not computed by a function are None."""

    canvases: Float[Array, "*T batch height width channels"]  #: c_1..c_T, logits
    write_windows: Window | None  #: fields [T, batch]; None without attention
    images: Float[Array, "batch height width channels"] | None = None  #: means of Eq. 16
    read_windows: Window | None = None  #: fields [T, batch]; None without attention
    latents: Float[Array, "*T batch Z"] | None = None  #: z_1..z_T
    posterior: Distribution | None = None  #: Q(Z_t | h^enc_t), fields [T, batch, Z]
    kl: Float[Array, "*T batch"] | None = None  #: nats, Eq. 10 (or its estimate)
    log_ratio: Float[Array, "*T batch"] | None = None  #: log p(z_t) - log q(z_t | h^enc_t), nats


def step(
    model: Model,
    state: State,
    image: Float[Array, "batch height width channels"],
    noise: Float[Array, "batch Z"],
    condition: Float[Array, "batch features"] | None = None,
) -> tuple[State, DrawOutput]:
    """One step of Eq. 3-8.

    Args:
      model: the learned functions.
      state: c_{t-1} and the cells' states.
      image: x, values in [0, 1].
      noise: standard normal; zeros give the posterior's mean.
      condition: of a conditional model; None: of others.

    Returns:
      The next state, and a `DrawOutput` of this step alone (fields without the axis T).
    """
    error = image - model.likelihood(state.canvas).mean  # Eq. 3
    glimpse, read_window = model.read(image, error, state.h_dec)  # Eq. 4
    inputs = _beside(jnp.concatenate([glimpse, state.h_dec], axis=-1), condition)
    encoder, h_enc = model.encode(state.encoder, inputs)  # Eq. 5
    posterior: Any = model.posterior(h_enc)  # Eq. 1-2
    prior = model.prior(_beside(state.h_dec, condition))
    latent = posterior.sample(noise)  # Eq. 6
    decoder, h_dec = model.decode(state.decoder, _beside(latent, condition))  # Eq. 7
    change, write_window = model.write(h_dec)
    canvas = state.canvas + change  # Eq. 8
    log_ratio = prior.log_prob(latent) - posterior.log_prob(latent)
    output = DrawOutput(
        canvas,
        of_each(write_window, canvas.shape[0]),
        read_windows=of_each(read_window, canvas.shape[0]),
        latents=latent,
        posterior=posterior,
        # The KL where it has a closed form (Eq. 10), else its estimate at the sample.
        kl=posterior.kl(prior) if hasattr(posterior, "kl") else -log_ratio,
        log_ratio=log_ratio,
    )
    return State(canvas, encoder, decoder, h_dec), output


def generation_step(
    model: Model,
    state: State,
    *,
    noise: Float[Array, "batch Z"] | None = None,
    latents: Float[Array, "batch Z"] | None = None,
    condition: Float[Array, "batch features"] | None = None,
) -> tuple[State, DrawOutput]:
    """One step of Eq. 13-15, the decoder alone.

    Args:
      model: the learned functions.
      state: c_{t-1} and the decoder's state.
      noise: standard normal, from which the prior draws z_t.
      latents: z_t itself, in place of noise.
      condition: of a conditional model; None: of others.

    Returns:
      The next state, and a `DrawOutput` of this step alone, of canvas, write window and latents.
    """
    if latents is None:
        latents = model.prior(_beside(state.h_dec, condition)).sample(cast(Array, noise))  # Eq. 13
    decoder, h_dec = model.decode(state.decoder, _beside(latents, condition))  # Eq. 14
    change, write_window = model.write(h_dec)
    canvas = state.canvas + change  # Eq. 15
    output = DrawOutput(canvas, of_each(write_window, canvas.shape[0]), latents=latents)
    return State(canvas, state.encoder, decoder, h_dec), output


def of_each(window: Any, batch: int) -> Any:
    """A window whose fields that are one number, the same for all images, are `[batch]` as well."""

    def of_all(field: Any) -> Any:
        one = jnp.shape(field) in ((), (1,))
        return jnp.broadcast_to(field, (batch,)) if one else field

    return jax.tree.map(of_all, window)


def glimpse_count(model: Any, number: Any) -> int:
    """How many glimpses are asked for; None: as many as the model takes."""
    number = model.num_glimpses if number is None else number
    if number < 1 or number != int(number):
        raise ValueError(f"num_glimpses must be at least 1 and whole, got {number}")
    return int(number)


def infer(
    model: Model, images: Images, noise: Noise, *, condition: Condition | None = None
) -> DrawOutput:
    """Draws images with the encoder looking at them: T steps of Eq. 3-8.

    Args:
      model: the learned functions.
      images: x, values in [0, 1].
      noise: standard normal, one draw per step, image and latent; T is its length.
      condition: `[batch, features]`, of a conditional model.

    Returns:
      A `DrawOutput` with every field.

    Raises:
      ValueError: if images, noise or condition do not fit the model or each other.
    """
    images, noise, condition, state = _checked(model, images, noise, condition)

    def body(state: State, noise: jax.Array) -> tuple[State, DrawOutput]:
        return step(model, state, images, noise, condition)

    return _with_images(model, *jax.lax.scan(body, state, noise))


def reconstruct(
    model: Model,
    images: Images,
    num_glimpses: int | None = None,
    *,
    condition: Condition | None = None,
) -> DrawOutput:
    """`infer` with the posterior's mean at each step (the model's T); deterministic.

    Its `kl` is None if the posterior has none in closed form: the mean is no sample.
    """
    check_images(images)
    noise = jnp.zeros((glimpse_count(model, num_glimpses), len(images), model.latent_size))
    output = infer(model, images, noise, condition=condition)
    return output if hasattr(output.posterior, "kl") else dataclasses.replace(output, kl=None)


def complete(
    model: Model,
    images: Images,
    known: Bool[Array | np.ndarray, "batch height width #channels"],
    noise: Noise,
    *,
    condition: Condition | None = None,
) -> DrawOutput:
    """Draws images of which some pixels are known: `infer` that fills in the others as it goes.

    At every step the encoder sees the known pixels and, elsewhere, the drawing itself: the mean
    of its canvas c_{t-1}. The error image (Eq. 3) is thus zero where nothing is known. Rezende et
    al. ("Stochastic backpropagation", 2014) fill in missing pixels by rounds of inference and
    reconstruction; here the steps of one drawing are the rounds. It is no draw from
    p(unknown | known), which has no closed form: the posterior of Eq. 1-2 was trained on whole
    images, and the more is unknown, the further this is from what it was trained on.

    Args:
      model: the learned functions.
      images: values in [0, 1], of unknown pixels too, where any will do.
      known: where `images` is given. All true is `infer`.
      noise: standard normal, one draw per step, image and latent. Different noise gives different
        completions; T is its length.
      condition: `[batch, features]`, of a conditional model.

    Returns:
      A `DrawOutput` with every field. The canvas covers known pixels too: they are the model's own
      rendering of what it saw. `kl` and `log_ratio` are of the filled-in image of each step.

    Raises:
      ValueError: if `known` is not booleans of a shape that fits `images`, or as `infer`.
    """
    images, noise, condition, state = _checked(model, images, noise, condition)
    known = jnp.asarray(known)
    if known.dtype != bool:  # a probability is no answer
        raise ValueError(f"known must be booleans, got {known.dtype}")
    if known.shape[:-1] != images.shape[:-1] or known.shape[-1] not in (1, images.shape[-1]):
        raise ValueError(
            f"known must have shape {list(images.shape)}, or one channel, got {list(known.shape)}"
        )

    def body(state: State, noise: jax.Array) -> tuple[State, DrawOutput]:
        seen = jnp.where(known, images, model.likelihood(state.canvas).mean)
        return step(model, state, seen, noise, condition)

    return _with_images(model, *jax.lax.scan(body, state, noise))


def generate(
    model: Model,
    noise: Noise | None = None,
    *,
    latents: Float[Array | np.ndarray, "t batch Z"] | None = None,
    condition: Condition | None = None,
) -> DrawOutput:
    """Draws with the decoder alone, Eq. 13-16.

    Args:
      model: the learned functions; `read`, `encode` and `posterior` are not called.
      noise: standard normal, from which latents are drawn by the prior. Under the paper's prior,
        N(0, 1), noise and latents are the same.
      latents: given z_1, z_2, ..., of the first steps; noise draws those after them. Those of
        `infer` draw its images again, and their first part alone is a lossy code of them.
      condition: `[batch, features]`, of a conditional model.

    Returns:
      A `DrawOutput` with canvases, images, write windows and latents.

    Raises:
      ValueError: if noise, latents or condition do not fit the model or each other, or both of the
        first are missing.
    """
    steps = {
        name: check_noise(model, given, name)
        for name, given in (("latents", latents), ("noise", noise))
        if given is not None
    }
    if not steps:
        raise ValueError("generate needs noise or latents")
    batches = {values.shape[1] for values in steps.values()}
    if len(batches) > 1:
        raise ValueError(f"noise and latents must have one batch size, got {sorted(batches)}")
    state, outputs = model.initial_state(*batches), []
    condition = _checked_condition(model, condition, state)
    state = vary_like(state, (steps, condition))

    def body(state: State, values: dict[str, jax.Array]) -> tuple[State, DrawOutput]:
        return generation_step(model, state, **values, condition=condition)

    for name, values in steps.items():
        state, output = jax.lax.scan(body, state, {name: values})
        outputs.append(output)
    output = jax.tree.map(lambda *parts: jnp.concatenate(parts), *outputs)
    return _with_images(model, state, output)


def sample(
    model: Model,
    noise: Noise,
    *,
    chunk: int | None = None,
    condition: Condition | None = None,
) -> Float[Array, "batch height width channels"]:
    """The images of `generate` alone, in the memory of one canvas per image in place of T.

    Args:
      model: the learned functions; `read`, `encode` and `posterior` are not called.
      noise: standard normal, from which latents are drawn by the prior.
      chunk: how many images are drawn at once; None: all. On a CPU some hundred are faster than a
        thousand, since they stay in its cache.
      condition: `[batch, features]`, of a conditional model.

    Returns:
      Means in [0, 1], Eq. 16.

    Raises:
      ValueError: if `chunk` is not positive, or as `generate`.
    """
    noise = check_noise(model, noise, "noise")
    if chunk is not None and chunk < 1:
        raise ValueError(f"chunk must be positive, got {chunk}")

    steps, batch, size = noise.shape
    condition = _checked_condition(model, condition, model.initial_state(batch))

    def images(noise_and_condition: tuple[jax.Array, jax.Array | None]) -> jax.Array:
        noise, condition = noise_and_condition

        def body(state: State, noise: jax.Array) -> tuple[State, None]:
            return generation_step(model, state, noise=noise, condition=condition)[0], None

        state = vary_like(model.initial_state(noise.shape[1]), (noise, condition))
        return model.likelihood(jax.lax.scan(body, state, noise)[0].canvas).mean

    if chunk is None or batch <= chunk:
        return images((noise, condition))
    whole = batch - batch % chunk
    chunks = jnp.swapaxes(noise[:, :whole].reshape(steps, -1, chunk, size), 0, 1)
    split = None if condition is None else condition[:whole].reshape(-1, chunk, condition.shape[1])
    drawn = jax.lax.map(images, (chunks, split))
    drawn = drawn.reshape(whole, *drawn.shape[2:])
    if whole == batch:
        return drawn
    rest = noise[:, whole:], None if condition is None else condition[whole:]
    return jnp.concatenate([drawn, images(rest)])


def loss(
    model: Model,
    images: Images,
    noise: Noise,
    *,
    remat: bool = False,
    clip_ratio: float | None = None,
    condition: Condition | None = None,
) -> tuple[Float[Array, " batch"], Float[Array, " batch"]]:
    """L^x and L^z of Eq. 9-10 with one sample, each in nats per image, `[batch]`.

    Their sum is the negative bound of Eq. 12. Arguments as for `infer`, and `clip_ratio`: an image
    whose gradient is longer than this many times the median of the batch has it scaled down to
    that; and `remat`: recompute the steps in the backward pass (both `drawjax.scan.scan`). The
    losses stay as they are. Differentiable in reverse mode only.
    """
    images, noise, condition, state = _checked(model, images, noise, condition)

    def body(state: State, noise: jax.Array) -> tuple[State, Any]:
        state, output = step(model, state, images, noise, condition)
        return state, output.kl  # canvases would be kept in memory, all T of them

    state, kl = scan(
        body, state, noise, remat=remat, clip_ratio=clip_ratio, images=(images, condition)
    )
    return -model.likelihood(state.canvas).log_prob(images), jnp.sum(kl, axis=0)


def importance_weighted_bound(
    model: Model,
    images: Images,
    keys: Array,
    *,
    num_samples: int,
    chunk: int = 50,
    condition: Condition | None = None,
) -> tuple[Float[Array, " batch"], Float[Array, " batch"]]:
    """The K-sample bound on log p(x) of Burda et al. (2016), in memory of `chunk` samples.

    Args:
      model: the learned functions.
      images: `[batch, height, width, channels]`.
      keys: a PRNG key per image, `[batch]`. Sample k of an image uses `fold_in(key, k)`, so its
        value depends neither on `chunk` nor on the other images.
      num_samples: K.
      chunk: how many samples per image are held in memory at once.
      condition: `[batch, features]`, of a conditional model.

    Returns:
      A lower bound on log p(x), which in expectation grows with K, and the mean of the same K
      samples' log-weights, which in expectation is minus the loss of Eq. 12, the bound for K = 1;
      nats per image, `[batch]` each.

    Raises:
      ValueError: if `num_samples` or `chunk` is not positive, or images do not fit the model or
        keys the images.
    """
    if num_samples < 1 or chunk < 1:
        raise ValueError(f"num_samples and chunk must be positive, got {num_samples} and {chunk}")
    batch, chunk = len(images), min(chunk, num_samples)
    keys = check_keys(keys, batch)
    shape = model.num_glimpses, model.latent_size
    no_noise = jnp.zeros((shape[0], batch, shape[1]))
    images, _, condition, _ = _checked(model, images, no_noise, condition)
    rows, conditions = jax.tree.map(lambda x: jnp.repeat(x, chunk, axis=0), (images, condition))

    def body(state: State, noise: jax.Array) -> tuple[State, Any]:
        state, output = step(model, state, rows, noise, conditions)
        return state, output.log_ratio  # as in `loss`, without the canvases

    def add_chunk(totals: tuple[jax.Array, jax.Array], first: jax.Array) -> tuple[Any, None]:
        weight, log_weight = totals
        indices = first + jnp.arange(chunk)
        folded = jax.vmap(lambda key: jax.vmap(functools.partial(jax.random.fold_in, key))(indices))
        noise = jax.vmap(lambda key: jax.random.normal(key, shape, images.dtype), out_axes=1)(
            folded(keys).reshape(-1)
        )
        state = vary_like(model.initial_state(batch * chunk), (rows, noise, conditions))
        state, log_ratios = jax.lax.scan(body, state, noise)
        logs = jnp.sum(log_ratios, axis=0) + model.likelihood(state.canvas).log_prob(rows)
        logs = logs.reshape(batch, chunk)
        # The last chunk may reach beyond K; what lies there weighs nothing.
        inside = jnp.broadcast_to(indices < num_samples, logs.shape)
        more = jax.nn.logsumexp(logs, axis=1, where=inside)
        return (jnp.logaddexp(weight, more), log_weight + jnp.sum(logs, axis=1, where=inside)), None

    start = (jnp.full((batch,), -jnp.inf, images.dtype), jnp.zeros((batch,), images.dtype))
    start = vary_like(start, (images, keys))
    (weight, log_weight), _ = jax.lax.scan(add_chunk, start, jnp.arange(0, num_samples, chunk))
    return weight - math.log(num_samples), log_weight / num_samples


def class_features(
    labels: Int[Array | np.ndarray, "batch *several"], num_classes: int
) -> Float[Array, "batch num_classes"]:
    """Classes as a condition: one-hot, or the sum of several labels per image.

    A label outside of 0 to `num_classes - 1` gives zeros.
    """
    one_hot = jax.nn.one_hot(jnp.asarray(labels), num_classes, dtype=jnp.float32)
    return one_hot if one_hot.ndim == 2 else jnp.sum(one_hot, axis=1)


def _beside(inputs: jax.Array, condition: jax.Array | None) -> jax.Array:
    return inputs if condition is None else jnp.concatenate([inputs, condition], axis=-1)


def _with_images(model: Model, state: State, output: DrawOutput) -> DrawOutput:
    return dataclasses.replace(output, images=model.likelihood(state.canvas).mean)


def _checked(
    model: Model, images: Any, noise: Any, condition: Any
) -> tuple[jax.Array, jax.Array, jax.Array | None, State]:
    """Images, noise, condition in the canvas's type, and a first state, if they go together."""
    noise = check_noise(model, noise, "noise")
    state = model.initial_state(noise.shape[1])
    check_images(images, model.likelihood(state.canvas).mean.shape[1:])
    if images.shape[0] != noise.shape[1]:
        raise ValueError(
            "images [batch, ...] and noise [T, batch, Z] must have one batch size, got "
            f"{images.shape[0]} and {noise.shape[1]}"
        )
    images = jnp.asarray(images, state.canvas.dtype)
    condition = _checked_condition(model, condition, state)
    return images, noise, condition, vary_like(state, (images, noise, condition))


def _checked_condition(model: Model, condition: Any, state: State) -> jax.Array | None:
    """A condition in the canvas's type, if it fits the model."""
    check_condition(model, condition, len(state.canvas))
    return None if condition is None else jnp.asarray(condition, state.canvas.dtype)


def _is_floating(values: Any) -> bool:
    return jnp.issubdtype(values.dtype, jnp.floating)


def check_noise(model: Model, noise: Any, name: str) -> jax.Array:
    """Noise or latents in the canvas's type, if they fit the model."""
    noise = jnp.asarray(noise)
    if noise.ndim != 3 or 0 in noise.shape or noise.shape[2] != model.latent_size:
        raise ValueError(
            f"{name} must have shape [T, batch, {model.latent_size}], T and batch at least 1, got "
            f"{list(noise.shape)}"
        )
    return noise.astype(jax.eval_shape(lambda: model.initial_state(1)).canvas.dtype)


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


def check_condition(model: Model, condition: Any, batch: int) -> None:
    """Raises ValueError unless a condition fits a model and so many images."""
    size = model.condition_size if isinstance(model, ConditionalModel) else 0
    if size == 0 and condition is None:
        return
    if size == 0:
        raise ValueError("this model is unconditional, got a condition")
    got = type(condition).__name__
    if isinstance(condition, jax.Array | np.ndarray):
        if condition.shape == (batch, size) and _is_floating(condition):
            return
        got = f"{list(condition.shape)} {condition.dtype}"
    raise ValueError(f"condition must be an array of floats [{batch}, {size}], got {got}")


def known_values(values: jax.Array | np.ndarray) -> np.ndarray | None:
    """The values of an array where they are known: outside of `jit`, and all on this process."""
    if isinstance(values, jax.core.Tracer):
        return None
    if isinstance(values, jax.Array) and not values.is_fully_addressable:
        return None
    return np.asarray(values)  # in NumPy, since inside `jit` JAX would trace what is done with it


def check_classes(name: str, labels: jax.Array | np.ndarray, num_classes: int) -> None:
    """Raises ValueError for a label that is known and none of the classes."""
    values = known_values(labels)
    if values is not None and len(wrong := values[(values < 0) | (values >= num_classes)].ravel()):
        raise ValueError(f"{name} must be classes 0 to {num_classes - 1}, got {wrong[0]}")


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
    if not (_is_floating(images) or images.dtype == bool):
        raise ValueError(
            f"images must be floats in [0, 1] (divide bytes by 255), got {images.dtype}"
        )
    values = known_values(images)
    if values is not None and values.size:
        low, high = values.min(), values.max()
        if not (low >= -_ROUNDING and high <= 1 + _ROUNDING):
            raise ValueError(f"images must lie in [0, 1], got values from {low!s} to {high!s}")
