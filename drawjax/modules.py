"""The parameters of DRAW, as Flax NNX modules.

A model is a container of parameters whose methods are the paper's equations; subclass one to change
an equation. Its conveniences (`generate`, `reconstruct`, `losses`, ...) are one line each:

>>> model = Draw(DrawConfig(), image_shape=(28, 28, 1), key=jax.random.key(0))
>>> images = model.generate(16, key=jax.random.key(1)).images        # [16, 28, 28, 1]

For training, `split` it once, let the plain pytree of arrays travel through `jax.jit`, `jax.grad`
and Optax, and `merge` it inside the traced function:

>>> graph, params = split(model)
>>> model = merge(graph, params)       # inside jit; goes into drawjax.draw.loss

Axes: `T` steps, `batch` images, `N` filters per side, `Z` latents, `units` of a cell.
"""

import dataclasses
import functools
import math
import types
from collections.abc import Sequence
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Shaped

from drawjax import attention, draw, ram
from drawjax.attention import Window
from drawjax.cells import LSTM, Cell, Dense, GlimpseNet, widened
from drawjax.config import PRNG, DrawConfig, RamConfig
from drawjax.draw import DrawOutput, State
from drawjax.objective import Bernoulli, DiscretizedLogistic, Gaussian, Likelihood, Normal
from drawjax.ram import RamOutput

__all__ = [
    "Draw",
    "DrawConfig",
    "Ram",
    "RamConfig",
    "Structure",
    "abstract",
    "merge",
    "parameter_count",
    "split",
]

Condition = int | Sequence[int] | Shaped[Array | np.ndarray, "*shape"]  # classes, or features
_FIRST_LOG_SCALE = -2.0  # of a likelihood, in units of the whole range
_LEAST_LOG_SCALE = -7.0  # a quarter of a level of 256; narrower, and gradients grow without bound


class Draw(nnx.Module):
    """The learned functions of DRAW (`drawjax.draw.Model`), Eq. 1-8 and 17-29.

    `read`, `encode`, `posterior`, `decode`, `write`, `prior` and `likelihood` are what every
    function runs, in training, evaluation and drawing: override one, or put another cell in place
    of `encoder` or `decoder`, to change the model. The methods after them are conveniences over
    `drawjax.draw`, compiled once a shape.

    Args:
      config: sizes.
      image_shape: `(height, width, channels)`.
      key: PRNG key for the initial parameters.

    Raises:
      ValueError: if `image_shape` is not three positive sizes, or a window larger than the image.
    """

    encoder: Cell  #: RNN^enc
    decoder: Cell  #: RNN^dec

    def __init__(self, config: DrawConfig, image_shape: tuple[int, int, int], *, key: jax.Array):
        height, width, channels = _image_shape(image_shape)
        for name, size in (("read_size", config.read_size), ("write_size", config.write_size)):
            if size is not None and size > max(height, width):
                raise ValueError(
                    f"{name} must be at most the image's longer side, {max(height, width)}, "
                    f"got {size}"
                )
        self.config = config
        self.image_shape = (height, width, channels)
        keys = iter(jax.random.split(key, 8))
        dtype = config.dtype
        units, latents, given = config.hidden_size, config.latent_size, self.condition_size
        self._canvas_shape = (height, width, self.canvas_channels)
        patch = math.prod(self._canvas_shape)
        if config.write_size is not None:
            patch = config.write_size**2 * self._canvas_shape[2]

        pixels = height * width if config.read_size is None else config.read_size**2
        glimpse = 2 * pixels * channels  # of the image and of the error image
        self.encoder = LSTM(glimpse + units + given, units, key=next(keys), dtype=dtype)
        self.decoder = LSTM(latents + given, units, key=next(keys), dtype=dtype)
        self.mean = Dense(units, latents, key=next(keys), dtype=dtype)
        self.log_scale = Dense(units, latents, key=next(keys), dtype=dtype)
        self.patch = Dense(units, patch, key=next(keys), dtype=dtype)
        self.read_window, self.write_window = (
            None
            if size is None
            else _window_head(units, image_shape, size, writes, key=next(keys), dtype=dtype)
            for size, writes in ((config.read_size, False), (config.write_size, True))
        )
        self.initial_canvas = nnx.Param(jnp.zeros(self._canvas_shape, jnp.float32))
        if config.prior == "learned":
            # Zeros, whatever the key: it starts as N(0, 1).
            zeros = functools.partial(
                Dense, units + given, latents, key=key, scale=0.0, dtype=dtype
            )
            self.prior_mean, self.prior_log_scale = zeros(), zeros()
        if config.likelihood_scale == "canvas":
            self.initial_canvas[..., channels:] = _FIRST_LOG_SCALE
        elif config.has_scale:
            shape = self.image_shape if config.likelihood_scale == "pixel" else (channels,)
            self.pixel_log_scale = nnx.Param(jnp.full(shape, _FIRST_LOG_SCALE, jnp.float32))

    @property
    def num_glimpses(self) -> int:
        """T, steps of a drawing."""
        return self.config.num_glimpses

    @property
    def latent_size(self) -> int:
        """Z, latent variables per step."""
        return self.config.latent_size

    @property
    def condition_size(self) -> int:
        """Features that it is conditional on: the classes, or others; 0: none."""
        return self.config.num_classes or self.config.condition_size or 0

    @property
    def canvas_channels(self) -> int:
        """Channels of the canvas: as the image has, and as many again if a scale is drawn on it."""
        return self.image_shape[2] * (2 if self.config.likelihood_scale == "canvas" else 1)

    def initial_state(self, batch: int) -> State:
        """The learned c_0, h_0^enc and h_0^dec, for `batch` images."""
        canvas = widened(self.initial_canvas[...])
        canvas = jnp.broadcast_to(canvas[None], (batch, *self._canvas_shape))
        encoder, _ = self.encoder.initial_state(batch)
        decoder, h_dec = self.decoder.initial_state(batch)
        return State(canvas, encoder, decoder, h_dec)

    def read(
        self, image: jax.Array, error: jax.Array, h_dec: jax.Array
    ) -> tuple[jax.Array, Window | None]:
        """Eq. 27, or Eq. 17 without a read window: a flat glimpse `[batch, features]`."""
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

    def posterior(self, h_enc: jax.Array) -> draw.Distribution:
        """Eq. 1-2."""
        return Normal(self.mean(h_enc), self.log_scale(h_enc))

    def decode(self, carry: Any, latent: jax.Array) -> tuple[Any, jax.Array]:
        """Eq. 7."""
        return self.decoder(carry, latent)

    def write(self, h_dec: jax.Array) -> tuple[jax.Array, Window | None]:
        """Eq. 28-29, or Eq. 18 without a write window."""
        height, width, channels = self._canvas_shape
        patch = self.patch(h_dec)
        size = self.config.write_size
        if size is None or self.write_window is None:
            return patch.reshape(-1, height, width, channels), None
        window = attention.window_from_logits(self.write_window(h_dec), (height, width), size)
        patch = patch.reshape(-1, size, size, channels)  # w_t of Eq. 28
        return attention.write(patch, window, (height, width)), window

    def prior(self, h_dec: jax.Array) -> draw.Distribution:
        """P(Z_t): N(0, 1), or learned, given h^dec_{t-1} and any condition."""
        if self.config.prior == "standard":
            return draw.Model.prior(self, h_dec)
        return Normal(self.prior_mean(h_dec), self.prior_log_scale(h_dec))

    def likelihood(self, canvas: jax.Array) -> Likelihood:
        """D(X | c_T) of Eq. 9."""
        if not self.config.has_scale:
            return Bernoulli(canvas)
        if self.config.likelihood_scale == "canvas":
            canvas, log_scale = jnp.split(canvas, 2, axis=-1)
        else:
            log_scale = self.pixel_log_scale[...]
        kind = DiscretizedLogistic if self.config.likelihood == "discretized_logistic" else Gaussian
        return kind(canvas, jnp.maximum(log_scale, _LEAST_LOG_SCALE))

    def generate(
        self, num: int, *, key: jax.Array, condition: Condition | None = None
    ) -> DrawOutput:
        """Draws `num` images from the prior; `.images` is `[num, height, width, channels]`.

        Args:
          num: how many.
          key: PRNG key of the noise.
          condition: here and below, of a model that draws by one: a class for all images, a class
            or several for each, `[num]` or `[num, several]`, or features
            `[num, condition_size]`, for example a mixture of `drawjax.draw.class_features`.

        Raises:
          ValueError: if `num` is not positive, or the condition does not fit the model.
        """
        if num < 1:
            raise ValueError(f"num must be at least 1, got {num}")
        features = self._features(condition, num)
        return _call(draw.generate, self, self._noise(num, key), condition=features)

    def from_latents(
        self,
        latents: draw.Noise,
        *,
        key: jax.Array | None = None,
        condition: Condition | None = None,
    ) -> DrawOutput:
        """Draws images from given latents z_1, z_2, ..., those of `infer` or others.

        Args:
          latents: `[t, batch, Z]`, of all steps or of the first ones.
          key: PRNG key of the steps after them, whose latents the prior draws; None: the drawing
            ends with the latents.
          condition: as for `generate`.
        """
        latents = draw.check_noise(self, latents, "latents")
        noise, batch = None, latents.shape[1]
        rest = self.num_glimpses - len(latents)
        if key is not None and rest > 0:
            noise = self._noise(batch, key)[-rest:]
        features = self._features(condition, batch)
        return _call(draw.generate, self, noise, latents=latents, condition=features)

    def infer(
        self, images: draw.Images, *, key: jax.Array, condition: Condition | None = None
    ) -> DrawOutput:
        """Encodes images and draws them: `.latents`, `.posterior.mean`, `.posterior.log_scale`.

        These are `[T, batch, Z]` each; `.kl`, in nats, is `[T, batch]`.
        """
        features = self._with_images(images, condition)
        return _call(draw.infer, self, images, self._noise(len(images), key), condition=features)

    def reconstruct(self, images: draw.Images, *, condition: Condition | None = None) -> DrawOutput:
        """`infer` with the posterior's mean at each step; `.images` are the reconstructions."""
        features = self._with_images(images, condition)
        return _call(draw.reconstruct, self, images, condition=features)

    def complete(
        self,
        images: draw.Images,
        known: Bool[Array | np.ndarray, "batch height width #channels"],
        *,
        key: jax.Array,
        condition: Condition | None = None,
    ) -> DrawOutput:
        """Draws images of which some pixels are known (`drawjax.draw.complete`)."""
        features = self._with_images(images, condition)
        noise = self._noise(len(images), key)
        return _call(draw.complete, self, images, known, noise, condition=features)

    def losses(
        self, images: draw.Images, *, key: jax.Array, condition: Condition | None = None
    ) -> Float[Array, " batch"]:
        """Minus the bound of Eq. 12 with one sample, nats per image."""
        features = self._with_images(images, condition)
        noise = self._noise(len(images), key)
        reconstruction, latent = _call(draw.loss, self, images, noise, condition=features)
        return reconstruction + latent

    def _with_images(self, images: Any, condition: Any) -> Any:
        """The features beside images, once these are checked."""
        draw.check_images(images)
        return self._features(condition, len(images))

    def _features(self, condition: Any, batch: int) -> Any:
        """A condition as `draw` takes it, of classes if they are whole numbers."""
        classes = self.config.num_classes
        if condition is None and classes is not None:
            raise ValueError(f"this model is class-conditional: give condition=0 to {classes - 1}")
        known = not isinstance(condition, jax.core.Tracer)
        given: Any = np.asarray(condition) if known else condition
        if classes is None or not jnp.issubdtype(given.dtype, jnp.integer):
            draw.check_condition(self, condition, batch)
            return condition
        labels = jnp.broadcast_to(given, (batch,)) if given.ndim == 0 else given
        if labels.ndim > 2 or len(labels) != batch:
            raise ValueError(f"condition must have a class for each of {batch}, got {given}")
        draw.check_classes("condition", given, classes)
        # Many labels per image, all 0 but one that is 1, are none.
        one_hot = known and classes > 2 and given.shape[1:] == (classes,) and batch > 0
        if one_hot and (given.max(1) == 1).all() and (given.sum(1) == 1).all():
            raise ValueError(
                "condition must be classes, or features as floats; got one-hot integers"
            )
        return draw.class_features(labels, classes)

    def _noise(self, batch: int, key: jax.Array) -> jax.Array:
        return jax.random.normal(key, (self.num_glimpses, batch, self.latent_size))

    def __repr__(self) -> str:
        return _summary(self)

    __str__ = __repr__


class Ram(nnx.Module):
    """The learned functions of a Differentiable RAM (`drawjax.ram.Model`), Sec. 4.1.

    Args:
      config: sizes.
      image_shape: `(height, width, channels)`.
      key: PRNG key for the initial parameters.
    """

    def __init__(self, config: RamConfig, image_shape: tuple[int, int, int], *, key: jax.Array):
        self.config = config
        height, width, channels = _image_shape(image_shape)
        self.image_shape = (height, width, channels)
        dtype, units, size = config.dtype, config.hidden_size, config.read_size
        cell, window, classes, conv, view = jax.random.split(key, 5)
        patch = (size, size, config.num_scales * channels)
        self.conv = (
            None
            if config.glimpse_features is None
            else GlimpseNet(patch, config.glimpse_features, key=conv, dtype=dtype)
        )
        patch = patch if self.conv is None else self.conv.shape
        self.cell = LSTM(math.prod(patch), units, key=cell, dtype=dtype)
        self.read_window = _window_head(units, image_shape, size, False, key=window, dtype=dtype)
        self.classes = Dense(units, config.num_classes, key=classes, dtype=dtype)
        self.view = (
            None
            if config.last_view is None
            else Dense(config.last_view**2 * channels, units, key=view, dtype=dtype)
        )

    @property
    def num_glimpses(self) -> int:
        """T, how many glimpses are taken."""
        return self.config.num_glimpses

    def initial_state(self, batch: int) -> tuple[Any, jax.Array]:
        """The learned initial carry of the cell, and its hidden vector, for `batch` images."""
        return self.cell.initial_state(batch)

    def read(
        self, image: jax.Array, hidden: jax.Array, window: Window | None = None
    ) -> tuple[jax.Array, Window]:
        """Eq. 21 and 27, or Eq. 27 alone by a given window."""
        size, scales = self.config.read_size, self.config.num_scales
        if window is None:
            shape, logits = self.image_shape[:2], self.read_window(hidden)
            window = attention.window_from_logits(logits, shape, size)
        if scales == 1:
            return attention.read(image, window, size), window
        patches = attention.read_scales(image, window, size, scales)
        # [batch, scales, N, N, channels] -> [batch, N, N, scales * channels]
        return jnp.moveaxis(patches, 1, -2).reshape(len(image), size, size, -1), window

    def recur(self, carry: Any, patch: jax.Array) -> tuple[Any, jax.Array]:
        """One step of the LSTM, after the convolutional network if there is one."""
        features = patch if self.conv is None else self.conv(patch)
        return self.cell(carry, features.reshape(len(patch), -1))

    def logits(self, hidden: jax.Array, image: jax.Array) -> jax.Array:
        """Unnormalized log-probabilities, `[batch, classes]`."""
        if self.view is not None and self.config.last_view is not None:
            side = self.config.last_view
            shape = (len(image), side, side, image.shape[-1])
            small = jax.image.resize(image, shape, "linear", antialias=True)
            hidden = hidden + jax.nn.relu(self.view(small.reshape(len(image), -1)))
        return self.classes(hidden)

    def classify(self, images: draw.Images) -> RamOutput:
        """Looks at images and names their classes; `.logits` is `[batch, classes]`."""
        draw.check_images(images)
        return _call(ram.classify, self, images)

    def __repr__(self) -> str:
        return _summary(self)

    __str__ = __repr__


def _image_shape(given: Any) -> tuple[int, int, int]:
    shape = tuple(given)
    if len(shape) != 3 or min(shape) < 1:
        raise ValueError(f"image_shape must be (height, width, channels), got {given}")
    return shape


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


class Structure:
    """What a model is besides its parameters: its classes, sizes and constants.

    Hashable, for the static arguments of `jax.jit`; constants count by their values.
    """

    def __init__(self, tree: Any, constants: dict[Any, Any]):
        self.tree = tree
        self.constants = constants

    def _key(self) -> tuple[Any, ...]:
        arrays, layout = jax.tree.flatten(self.constants)
        arrays = map(np.asarray, arrays)
        values = ((array.shape, str(array.dtype), array.tobytes()) for array in arrays)
        return self.tree, layout, *values

    def __hash__(self) -> int:
        return hash(self.tree)  # equal ones have equal hashes; constants need not be read for it

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Structure) and self._key() == other._key()


def split(model: Any) -> tuple[Structure, Any]:
    """Takes a model apart into its structure, which is hashable, and a plain dict of arrays.

    Args:
      model: an NNX module, or any pytree of arrays (a registered dataclass, a Flax struct, an
        Equinox module whose leaves are arrays).

    Returns:
      The structure and the parameters, which are what is trained: of an NNX module each
      `nnx.Param` of floats, of another pytree each leaf of floats. All others, such as masks,
      tables and other kinds of `nnx.Variable`, are constants and part of the structure.

    Raises:
      ValueError: if a part of the model changes as it runs (`nnx.Dropout` with its `rngs`,
        `nnx.BatchNorm`): every function of a model here is pure.
    """
    if not isinstance(model, nnx.Module):
        leaves, tree = jax.tree.flatten_with_path(model)
        named = {jax.tree_util.keystr(path): leaf for path, leaf in leaves}
        params = {name: leaf for name, leaf in named.items() if _is_float(leaf)}
        return Structure(tree, {n: leaf for n, leaf in named.items() if n not in params}), params
    graph, params, rest = nnx.split(
        model, lambda _, value: isinstance(value, nnx.Param) and _is_float(value), ...
    )
    for path, value in nnx.to_flat_state(rest):
        if isinstance(value, nnx.RngState | nnx.BatchStat):
            raise ValueError(
                f"{'.'.join(map(str, path))} is {type(value).__name__}, which changes as a model "
                "runs: draw from the noise that DRAW is given in place of nnx.Dropout's, and "
                "normalize with nnx.LayerNorm in place of nnx.BatchNorm"
            )
    return Structure(graph, nnx.to_pure_dict(rest)), nnx.to_pure_dict(params)


def merge(graph: Structure, params: Any) -> Any:
    """Binds parameters to a structure again; cheap enough for the inside of a traced function."""
    if isinstance(graph.tree, jax.tree_util.PyTreeDef):
        unnamed = jax.tree.unflatten(graph.tree, range(graph.tree.num_leaves))
        paths, _ = jax.tree.flatten_with_path(unnamed)
        leaves = {**params, **graph.constants}
        return jax.tree.unflatten(graph.tree, [leaves[jax.tree_util.keystr(p)] for p, _ in paths])
    return nnx.merge(graph.tree, params, graph.constants)


def abstract(model: Any, config: Any, image_shape: tuple[int, int, int]) -> tuple[Structure, Any]:
    """Structure and parameter shapes of a model, as `split` gives them, without computing any.

    A model with constants is made once with the key 0 to have them.

    Args:
      model: `Draw`, `Ram` or what else makes a model of `(config, image_shape, key=key)`.
      config: its config.
      image_shape: `(height, width, channels)`.
    """
    graphs = []

    def make(key: jax.Array) -> Any:
        graph, params = split(model(config, image_shape, key=key))
        graphs.append(graph)
        return params

    key = jax.random.key(0, impl=PRNG)
    params = jax.eval_shape(make, key)
    graph = graphs[-1]
    if graph.constants:
        with jax.ensure_compile_time_eval():
            graph, _ = split(model(config, image_shape, key=key))
    return graph, params


def parameter_count(params: Any) -> int:
    """How many numbers a pytree of arrays holds."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))


def _is_float(leaf: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(leaf), jnp.floating)


def _call(function: Any, model: Any, *inputs: Any, **named: Any) -> Any:
    """A function of a model and arrays, compiled once for what the model is and runs."""
    return _compiled(function, *split(model), _methods(model), *inputs, **named)


@functools.partial(jax.jit, static_argnums=(0, 1, 3))
def _compiled(
    function: Any, graph: Structure, params: Any, methods: Any, *inputs: Any, **named: Any
) -> Any:
    del methods  # a part of what a program is kept under
    return function(merge(graph, params), *inputs, **named)


def _methods(model: nnx.Module) -> frozenset[Any]:
    """The functions of a model's classes, with their code: a notebook replaces either."""
    classes = {base for _, part in nnx.iter_modules(model) for base in type(part).__mro__}
    functions = [getattr(f, "fget", f) for base in classes for f in vars(base).values()]
    return frozenset((f, f.__code__) for f in functions if isinstance(f, types.FunctionType))


def _summary(model: Any) -> str:
    count = parameter_count(split(model)[1])
    config = ", ".join(f"{k}={v!r}" for k, v in dataclasses.asdict(model.config).items())
    name = type(model).__name__
    return f"{name}({config},\n  image_shape={model.image_shape})  # {count:,} parameters"
