"""The parameters of DRAW, as Flax NNX modules: the only room with Flax in it.

NNX is a container here. Build a module, `split` it once, let the plain pytree of arrays travel
through `jax.jit`, `jax.grad` and Optax, and `merge` it inside the traced function:

>>> model = Draw(DrawConfig(), image_shape=(28, 28, 1), key=jax.random.key(0))
>>> graph, params = split(model)
>>> networks = merge(graph, params)       # inside jit; goes into drawjax.draw.infer
"""

import dataclasses
import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx

from drawjax import attention, fast, hoist
from drawjax.attention import Window
from drawjax.networks import State

__all__ = [
    "LSTM",
    "Dense",
    "Draw",
    "DrawConfig",
    "Ram",
    "RamConfig",
    "merge",
    "parameter_count",
    "split",
]


@dataclasses.dataclass(frozen=True)
class DrawConfig:
    """Sizes of a DRAW network; the defaults are the MNIST row of Table 3."""

    num_glimpses: int = 64
    """T, how many glimpses are taken and how often the canvas is written to."""
    hidden_size: int = 256
    """Units of the encoder's and of the decoder's LSTM."""
    latent_size: int = 100
    """Z, latent variables a step."""
    read_size: int | None = 2
    """N of the read window, filters a side; None reads the whole image (Eq. 17)."""
    write_size: int | None = 5
    """N of the write window, filters a side; None writes the whole canvas (Eq. 18)."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Type of the matrix products' inputs; sums, states and losses stay float32."""
    remat: bool = False
    """Recompute steps in the backward pass in blocks of about sqrt(steps): less memory, slower."""
    clip_ratio: float | None = None
    """In training, scale down an image's gradient that is longer than so many times the median of
    its batch; None: none. Over many steps on large images a few would drown the others."""

    def __post_init__(self):
        if self.clip_ratio is not None and not self.clip_ratio > 0:
            raise ValueError(f"clip_ratio must be positive, got {self.clip_ratio}")
        for field in ("num_glimpses", "hidden_size", "latent_size", "read_size", "write_size"):
            value = getattr(self, field)
            if value is not None and value < 1:
                raise ValueError(f"{field} must be at least 1, got {value}")


class Dense(nnx.Module):
    """W(h) of the paper: a linear map with a bias, `[..., inputs] -> [..., outputs]`."""

    def __init__(self, inputs: int, outputs: int, *, key: jax.Array, scale: float = 1.0, dtype):
        init = jax.nn.initializers.variance_scaling(scale**2, "fan_in", "truncated_normal")
        self.kernel = nnx.Param(init(key, (inputs, outputs), jnp.float32))
        self.bias = nnx.Param(jnp.zeros((outputs,), jnp.float32))
        self.dtype = dtype

    def __call__(self, inputs: jax.Array) -> jax.Array:
        """W(h), `[..., outputs]`."""
        return _product(inputs, self.kernel[...], self.dtype) + self.bias[...]


class LSTM(nnx.Module):
    """An LSTM cell with forget gates (Gers et al. 2000) and one kernel for all that comes in.

    The kernel's rows are the inputs followed by the hidden vector; its columns are the input,
    forget, cell and output gates. Forget gates start open (bias 1).
    """

    def __init__(self, inputs: int, units: int, *, key: jax.Array, dtype):
        input_key, hidden_key = jax.random.split(key)
        from_inputs = jax.nn.initializers.lecun_normal()(input_key, (inputs, 4 * units))
        from_hidden = jnp.concatenate(
            [
                jax.nn.initializers.orthogonal()(gate_key, (units, units))
                for gate_key in jax.random.split(hidden_key, 4)
            ],
            axis=1,
        )
        self.kernel = nnx.Param(jnp.concatenate([from_inputs, from_hidden]))
        self.bias = nnx.Param(jnp.zeros((4 * units,)).at[units : 2 * units].set(1.0))
        self.dtype = dtype

    def __call__(
        self, carry: tuple[jax.Array, jax.Array], inputs: jax.Array
    ) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
        """Takes `(c, h)`, each `[batch, units]`, and inputs; returns the next `(c, h)` and h."""
        cell, hidden = carry
        joined = jnp.concatenate([inputs, hidden], axis=-1)
        gates = _product(joined, self.kernel[...], self.dtype) + self.bias[...]
        enter, forget, new, leave = jnp.split(gates, 4, axis=-1)
        cell = jax.nn.sigmoid(forget) * cell + jax.nn.sigmoid(enter) * jnp.tanh(new)
        hidden = jax.nn.sigmoid(leave) * jnp.tanh(cell)
        return (cell, hidden), hidden


class Draw(nnx.Module):
    """The learned functions of DRAW (`drawjax.networks.Networks`).

    Args:
      config: sizes.
      image_shape: `(height, width, channels)`.
      key: PRNG key for the initial parameters.
    """

    def __init__(self, config: DrawConfig, image_shape: tuple[int, int, int], *, key: jax.Array):
        height, width, channels = image_shape
        for name, size in (("read_size", config.read_size), ("write_size", config.write_size)):
            if size is not None and size > max(height, width):
                raise ValueError(
                    f"{name} must be at most the image's longer side, {max(height, width)}, "
                    f"got {size}"
                )
        self.config = config
        self.image_shape = (height, width, channels)
        keys = iter(jax.random.split(key, 8))
        dtype = jnp.dtype(config.precision)
        units, latents = config.hidden_size, config.latent_size
        pixels = height * width * channels
        glimpse = 2 * (pixels if config.read_size is None else config.read_size**2 * channels)
        patch = pixels if config.write_size is None else config.write_size**2 * channels

        self.encoder = LSTM(glimpse + units, units, key=next(keys), dtype=dtype)
        self.decoder = LSTM(latents, units, key=next(keys), dtype=dtype)
        self.mean = Dense(units, latents, key=next(keys), dtype=dtype)
        self.log_scale = Dense(units, latents, key=next(keys), dtype=dtype)
        self.patch = Dense(units, patch, key=next(keys), dtype=dtype)
        self.read_window, self.write_window = (
            None
            if size is None
            else _window_head(units, image_shape, size, writes, key=next(keys), dtype=dtype)
            for size, writes in ((config.read_size, False), (config.write_size, True))
        )
        self.initial_canvas = nnx.Param(jnp.zeros(image_shape))
        self.initial_encoder = nnx.Param(jnp.zeros((2, units)))
        self.initial_decoder = nnx.Param(jnp.zeros((2, units)))

    def initial_state(self, batch: int) -> State:
        """See `drawjax.networks.Networks`."""

        def repeat(param: nnx.Param) -> jax.Array:
            return jnp.broadcast_to(param[...], (batch, *param.shape))

        def carry(param: nnx.Param) -> tuple[jax.Array, jax.Array]:
            both = repeat(param)
            return both[:, 0], both[:, 1]

        decoder = carry(self.initial_decoder)
        return State(
            repeat(self.initial_canvas), carry(self.initial_encoder), decoder, h_dec=decoder[1]
        )

    def read(
        self, image: jax.Array, error: jax.Array, h_dec: jax.Array
    ) -> tuple[jax.Array, Window | None]:
        """Eq. 27, or Eq. 17 without a read window."""
        both = jnp.concatenate([image, error], axis=-1)
        size = self.config.read_size
        if size is None or self.read_window is None:
            return both.reshape(both.shape[0], -1), None
        window = attention.window_from_logits(
            self.read_window(h_dec), self.image_shape[:2], size
        )  # Eq. 21
        patches = attention.read(both, window, size)
        return patches.reshape(patches.shape[0], -1), window

    def encode(self, carry: Any, inputs: jax.Array) -> tuple[Any, jax.Array]:
        """Eq. 5."""
        return self.encoder(carry, inputs)

    def posterior(self, h_enc: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Eq. 1-2."""
        return self.mean(h_enc), self.log_scale(h_enc)

    def decode(self, carry: Any, latent: jax.Array) -> tuple[Any, jax.Array]:
        """Eq. 7."""
        return self.decoder(carry, latent)

    def write(self, h_dec: jax.Array) -> tuple[jax.Array, Window | None]:
        """Eq. 28-29, or Eq. 18 without a write window."""
        height, width, channels = self.image_shape
        patch = self.patch(h_dec)
        size = self.config.write_size
        if size is None or self.write_window is None:
            return patch.reshape(-1, height, width, channels), None
        window = attention.window_from_logits(self.write_window(h_dec), (height, width), size)
        patch = patch.reshape(-1, size, size, channels)  # w_t of Eq. 28
        return attention.write(patch, window, (height, width)), window

    @property
    def product_dtype(self) -> Any:
        """See `drawjax.networks.Hoistable`."""
        return jnp.bfloat16 if self.config.precision == "bfloat16" else None

    def weights(self) -> hoist.Weights:
        """See `drawjax.networks.Hoistable`; the products of `drawjax.fast.Fast`."""
        layers = {
            "encoder": [self.encoder],
            "decoder": [self.decoder],
            "posterior": [self.mean, self.log_scale],
            "read": [self.read_window],
            "write": [self.patch, self.write_window],
        }
        present = {name: [layer for layer in row if layer] for name, row in layers.items()}
        return {
            name: (
                jnp.concatenate([layer.kernel[...] for layer in row], axis=1),
                jnp.concatenate([layer.bias[...] for layer in row]),
            )
            for name, row in present.items()
            if row
        }

    def bind(self, linear: hoist.Linear) -> fast.Fast:
        """See `drawjax.networks.Hoistable`."""
        return fast.Fast(
            linear,
            image_shape=self.image_shape,
            read_size=self.config.read_size,
            write_size=self.config.write_size,
        )


@dataclasses.dataclass(frozen=True)
class RamConfig:
    """Sizes of a Differentiable RAM; the defaults are Table 3's row for cluttered MNIST."""

    num_glimpses: int = 8
    """T, how many glimpses are taken."""
    hidden_size: int = 256
    """Units of the LSTM."""
    read_size: int = 12
    """N of the read window, filters a side."""
    num_classes: int = 10
    """How many classes there are."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Type of the matrix products' inputs; sums, states and losses stay float32."""

    def __post_init__(self):
        for field in ("num_glimpses", "hidden_size", "read_size", "num_classes"):
            if getattr(self, field) < 1:
                raise ValueError(f"{field} must be at least 1, got {getattr(self, field)}")


class Ram(nnx.Module):
    """The learned functions of a Differentiable RAM (`drawjax.ram.Networks`).

    Args:
      config: sizes.
      image_shape: `(height, width, channels)`.
      key: PRNG key for the initial parameters.
    """

    def __init__(self, config: RamConfig, image_shape: tuple[int, int, int], *, key: jax.Array):
        self.config = config
        height, width, channels = image_shape
        self.image_shape = (height, width, channels)
        dtype = jnp.dtype(config.precision)
        cell, window, classes = jax.random.split(key, 3)
        inputs = config.read_size**2 * channels
        self.cell = LSTM(inputs, config.hidden_size, key=cell, dtype=dtype)
        self.read_window = _window_head(
            config.hidden_size, image_shape, config.read_size, False, key=window, dtype=dtype
        )
        self.classes = Dense(config.hidden_size, config.num_classes, key=classes, dtype=dtype)
        self.initial = nnx.Param(jnp.zeros((2, config.hidden_size)))

    def initial_state(self, batch: int) -> tuple[Any, jax.Array]:
        """See `drawjax.ram.Networks`."""
        cell, hidden = (
            jnp.broadcast_to(part, (batch, part.shape[-1])) for part in self.initial[...]
        )
        return (cell, hidden), hidden

    def read(self, image: jax.Array, hidden: jax.Array) -> tuple[jax.Array, Window]:
        """Eq. 21 and 27."""
        size = self.config.read_size
        window = attention.window_from_logits(self.read_window(hidden), self.image_shape[:2], size)
        return attention.read(image, window, size), window

    def recur(self, carry: Any, patch: jax.Array) -> tuple[Any, jax.Array]:
        """One step of the LSTM."""
        return self.cell(carry, patch.reshape(patch.shape[0], -1))

    def logits(self, hidden: jax.Array) -> jax.Array:
        """Unnormalized log-probabilities."""
        return self.classes(hidden)


def _window_head(
    units: int,
    image_shape: tuple[int, int, int],
    size: int,
    writes: bool,
    *,
    key: jax.Array,
    dtype: Any,
) -> Dense:
    """The W of Eq. 21, which starts with a window that a gradient can use.

    With zero biases the window spans the image with filters of one pixel, so that most pixels are
    neither seen nor written, and writing spreads each number over a whole stride: DRAW then learns
    to use its latents only after thousands of steps. So the biases start with a grid of three
    quarters of the image, filters half a stride wide, and intensities that let a patch of ones add
    about one to the canvas and make the read patch, an average, count. The weights are a tenth of
    the usual, to keep it there at first.
    """
    head = Dense(units, 5, key=key, scale=0.1, dtype=dtype)
    log_span = math.log(0.75)
    stride = math.exp(log_span) * max(max(image_shape[:2]) - 1, 1) / max(size - 1, 1)
    log_intensity = -2 * math.log(stride) if writes else 2.0
    log_variance = 2 * math.log(stride / 2)
    head.bias[...] = jnp.array([0.0, 0.0, log_variance, log_span, log_intensity], jnp.float32)
    return head


def split(module: nnx.Module) -> tuple[nnx.GraphDef, Any]:
    """Takes a module apart into its structure and a plain nested dict of arrays."""
    graph, state = nnx.split(module)
    return graph, nnx.to_pure_dict(state)


def merge(graph: nnx.GraphDef, params: Any) -> Any:
    """Binds parameters to a structure again; cheap enough for the inside of a traced function."""
    return nnx.merge(graph, params)


def _product(inputs: jax.Array, kernel: jax.Array, dtype: Any) -> jax.Array:
    # "float32" leaves wider types alone: under x64 the products are float64.
    return hoist.product(inputs, kernel, dtype if dtype == jnp.bfloat16 else None)


def parameter_count(params: Any) -> int:
    """How many numbers a pytree of arrays holds."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))
