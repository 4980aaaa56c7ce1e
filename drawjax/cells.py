"""Layers and recurrent cells as Flax NNX modules, whose products `drawjax.scan` can speed up.

A cell holds its learned initial state, so that one can take the place of another in
`drawjax.modules.Draw`. Axes: `batch` images, `inputs` and `units` of a cell.
"""

import math
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from drawjax import scan

__all__ = ["GRU", "LSTM", "Cell", "Conv", "Dense", "GlimpseNet", "Stacked"]


class Dense(nnx.Module):
    """W(h) of the paper: a linear map with a bias, `[..., inputs] -> [..., outputs]`.

    Args:
      inputs: size of what comes in.
      outputs: size of what comes out.
      key: PRNG key for the initial kernel.
      scale: of the initial kernel, relative to the usual (fan-in).
      dtype: the type in which inputs and kernel enter the product; None: as they are.
    """

    def __init__(
        self, inputs: int, outputs: int, *, key: jax.Array, scale: float = 1.0, dtype: Any = None
    ):
        init = jax.nn.initializers.variance_scaling(scale**2, "fan_in", "truncated_normal")
        self.kernel = nnx.Param(init(key, (inputs, outputs), jnp.float32))
        self.bias = nnx.Param(jnp.zeros((outputs,), jnp.float32))
        self.dtype = dtype

    def __call__(self, inputs: jax.Array) -> jax.Array:
        """W(h), `[..., outputs]`."""
        return scan.dense(inputs, self.kernel[...], self.bias[...], dtype=self.dtype)


class Conv(nnx.Module):
    """A 3x3 convolution, group normalization, then ReLU: `[..., height, width, channels]`.

    There are zeros around the image. Computed as one matrix product over 3x3 neighborhoods
    (im2col), so that `drawjax.scan` can take its weight gradient out of the loop. Each of four
    groups of channels is normalized over an image (Wu & He 2018), then scaled and shifted by
    channel.

    Args:
      inputs: channels of what comes in.
      outputs: channels of what comes out; two groups or one where four do not divide them.
      stride: of the pixels that are kept, down and across; the first is kept.
      key: PRNG key for the initial kernel.
      dtype: as for `Dense`.
    """

    def __init__(
        self, inputs: int, outputs: int, *, stride: int = 1, key: jax.Array, dtype: Any = None
    ):
        self.around = Dense(9 * inputs, outputs, key=key, scale=math.sqrt(2), dtype=dtype)
        self.gain = nnx.Param(jnp.ones((outputs,), jnp.float32))
        self.shift = nnx.Param(jnp.zeros((outputs,), jnp.float32))
        self.stride, self.groups = stride, math.gcd(4, outputs)

    def __call__(self, inputs: jax.Array) -> jax.Array:
        """The features, `[..., ceil(height / stride), ceil(width / stride), outputs]`."""
        height, width, _ = inputs.shape[-3:]
        padded = inputs
        for axis in (-3, -2):  # concatenated, since jax2onnx pads no array of any batch size
            edge = jnp.zeros_like(jax.lax.slice_in_dim(padded, 0, 1, axis=axis))
            padded = jnp.concatenate([edge, padded, edge], axis=axis)
        shifted = [
            padded[..., y : y + height : self.stride, x : x + width : self.stride, :]
            for y in range(3)
            for x in range(3)
        ]
        out = self.around(jnp.concatenate(shifted, axis=-1))
        groups = out.reshape(*out.shape[:-1], self.groups, -1)
        normal = jax.nn.standardize(groups, axis=(-4, -3, -1), epsilon=1e-5).reshape(out.shape)
        gain, shift = (jnp.broadcast_to(param[...], out.shape) for param in (self.gain, self.shift))
        return jax.nn.relu(gain * normal + shift)


class GlimpseNet(nnx.Module):
    """Three convolutions of a patch, the last two of which halve it.

    Args:
      shape: `(height, width, channels)` of the patch.
      features: channels of the first; the others have twice as many.
      key: PRNG key for the initial kernels.
      dtype: as for `Dense`.
    """

    def __init__(
        self, shape: tuple[int, int, int], features: int, *, key: jax.Array, dtype: Any = None
    ):
        height, width, channels = shape
        first, second, third = jax.random.split(key, 3)
        self.first = Conv(channels, features, key=first, dtype=dtype)
        self.second = Conv(features, 2 * features, stride=2, key=second, dtype=dtype)
        self.third = Conv(2 * features, 2 * features, stride=2, key=third, dtype=dtype)
        self.shape = (-(-height // 4), -(-width // 4), 2 * features)  # of what comes out

    def __call__(self, patch: jax.Array) -> jax.Array:
        """The features, `[..., *shape]`."""
        return self.third(self.second(self.first(patch)))


@runtime_checkable
class Cell(Protocol):
    """A recurrent cell with a learned initial state."""

    def initial_state(self, batch: int) -> tuple[Any, jax.Array]:
        """The carry before the first step and its hidden vector `[batch, units]`."""
        ...

    def __call__(self, carry: Any, inputs: jax.Array) -> tuple[Any, jax.Array]:
        """The next carry and hidden vector, given inputs `[batch, inputs]`."""
        ...


class LSTM(nnx.Module):
    """An LSTM cell with forget gates (Gers et al. 2000) and one kernel for all that comes in.

    The kernel's rows are the inputs followed by the hidden vector; its columns are the gates i, f,
    g, o. Forget gates start open (bias 1). The carry is `(c, h)`.

    Args:
      inputs: size of what comes in.
      units: size of the cell and of the hidden vector.
      key: PRNG key for the initial kernel.
      dtype: as for `Dense`.
    """

    def __init__(self, inputs: int, units: int, *, key: jax.Array, dtype: Any = None):
        self.gates = _gates(inputs, units, 4, key=key, dtype=dtype)
        forget = jnp.zeros((4 * units,), jnp.float32).at[units : 2 * units].set(1.0)
        self.gates.bias = nnx.Param(forget)
        self.initial = nnx.Param(jnp.zeros((2, units), jnp.float32))

    def initial_state(self, batch: int) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
        """The learned `(c_0, h_0)`, and h_0."""
        cell, hidden = _repeated(self.initial, batch)
        return (cell, hidden), hidden

    def __call__(
        self, carry: tuple[jax.Array, jax.Array], inputs: jax.Array
    ) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
        """The next `(c, h)` and h."""
        cell, hidden = carry
        i, f, g, o = jnp.split(self.gates(jnp.concatenate([inputs, hidden], axis=-1)), 4, axis=-1)
        cell = _sigmoid(f) * cell + _sigmoid(i) * _tanh(g)
        hidden = _sigmoid(o) * _tanh(cell)
        return (cell, hidden), hidden


class GRU(nnx.Module):
    """A gated recurrent unit (Cho et al. 2014); the carry is its hidden vector.

    Args:
      inputs: size of what comes in.
      units: size of the hidden vector.
      key: PRNG key for the initial kernels.
      dtype: as for `Dense`.
    """

    def __init__(self, inputs: int, units: int, *, key: jax.Array, dtype: Any = None):
        gates_key, candidate_key = jax.random.split(key)
        self.gates = _gates(inputs, units, 2, key=gates_key, dtype=dtype)
        self.candidate = _gates(inputs, units, 1, key=candidate_key, dtype=dtype)
        self.initial = nnx.Param(jnp.zeros((1, units), jnp.float32))

    def initial_state(self, batch: int) -> tuple[jax.Array, jax.Array]:
        """The learned h_0, twice."""
        (hidden,) = _repeated(self.initial, batch)
        return hidden, hidden

    def __call__(self, carry: jax.Array, inputs: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The next h, twice."""
        gates = _sigmoid(self.gates(jnp.concatenate([inputs, carry], axis=-1)))
        r, z = jnp.split(gates, 2, axis=-1)
        candidate = _tanh(self.candidate(jnp.concatenate([inputs, r * carry], axis=-1)))
        hidden = (1 - z) * carry + z * candidate
        return hidden, hidden


class Stacked(nnx.Module):
    """Cells on top of each other: each takes the hidden vector of the one before.

    The carry is a tuple of theirs, and the hidden vector that of the last.

    Args:
      cells: from the inputs up.
    """

    def __init__(self, cells: Sequence[Any]):
        self.cells = nnx.List(cells)

    def initial_state(self, batch: int) -> tuple[tuple[Any, ...], jax.Array]:
        """The cells' carries, and the hidden vector of the last."""
        states = [cell.initial_state(batch) for cell in self.cells]
        return tuple(carry for carry, _ in states), states[-1][1]

    def __call__(self, carry: tuple[Any, ...], inputs: jax.Array) -> tuple[Any, jax.Array]:
        """The next carries, and the hidden vector of the last cell."""
        carries = []
        for cell, its_carry in zip(self.cells, carry, strict=True):
            its_carry, inputs = cell(its_carry, inputs)
            carries.append(its_carry)
        return tuple(carries), inputs


def _gates(inputs: int, units: int, count: int, *, key: jax.Array, dtype: Any) -> Dense:
    """A layer of inputs followed by the hidden vector, whose parts are orthogonal at first."""
    input_key, hidden_key = jax.random.split(key)
    from_inputs = jax.nn.initializers.lecun_normal()(
        input_key, (inputs, count * units), jnp.float32
    )
    from_hidden = jnp.concatenate(
        [
            jax.nn.initializers.orthogonal()(gate_key, (units, units), jnp.float32)
            for gate_key in jax.random.split(hidden_key, count)
        ],
        axis=1,
    )
    layer = Dense(1, count * units, key=key, dtype=dtype)
    layer.kernel = nnx.Param(jnp.concatenate([from_inputs, from_hidden]))
    return layer


def widened(values: jax.Array) -> jax.Array:
    """Values as floats of 32 bits at least, which a state has whatever its parameters' type."""
    return values.astype(np.promote_types(values.dtype, np.float32))


def _repeated(rows: Any, batch: int) -> list[jax.Array]:
    """Each row of learned values, for `batch` images, in a type that products leave as it is."""
    rows = widened(rows[...])
    return [jnp.broadcast_to(rows[i : i + 1], (batch, *rows.shape[1:])) for i in range(len(rows))]


@jax.custom_jvp
def _tanh(x: jax.Array) -> jax.Array:
    """The hyperbolic tangent, kept for the backward pass of `drawjax.scan.scan`."""
    return checkpoint_name(jnp.tanh(x), "tanh")


@_tanh.defjvp
def _tanh_jvp(primals, tangents):
    y = _tanh(*primals)
    return y, (1 - y * y) * tangents[0]


def _sigmoid(x: jax.Array) -> jax.Array:
    return 0.5 * _tanh(0.5 * x) + 0.5
