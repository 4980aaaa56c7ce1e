"""The inner functions of a DRAW step with gradients written by hand, for training.

Same values as `drawjax.attention` and the cell of `drawjax.modules`, in fewer and better shaped
operations: the gradient of a filter or of a gate is taken from its value, so that no exponential
is computed twice, and every small product is laid out with its contracted axis last on the left.
What the gradients need is marked to be kept (`drawjax.hoist.keep`). Reverse mode only.

Axes: `batch` images, `N` filters a side, `height`, `width`, `channels`, `units` of a cell.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from drawjax import attention, hoist
from drawjax.attention import Window

__all__ = ["filterbanks", "lstm", "read", "write"]


def filterbanks(
    window: Window, image_shape: tuple[int, int], patch_size: int
) -> tuple[Float[Array, "batch N height"], Float[Array, "batch N width"]]:
    """`drawjax.attention.filterbanks` for a batch of windows, Eq. 19-20 and 25-26.

    The windows are to come from `window_from_logits`, which limits their variance.
    """
    height, width = image_shape
    means_y, means_x = attention.filter_means(window, patch_size)
    rows = _filters(means_y, window.variance, height)
    return rows, _filters(means_x, window.variance, width)


def read(
    image: Float[Array, "batch height width channels"],
    rows: Float[Array, "batch N height"],
    columns: Float[Array, "batch N width"],
) -> Float[Array, "batch N N channels"]:
    """F_Y x F_X^T, the patch of Eq. 27 before its intensity."""
    batch, height, width, channels = image.shape
    count = rows.shape[1]
    lines = _times(rows, image.reshape(batch, height, width * channels))
    lines = jnp.swapaxes(lines.reshape(batch, count, width, channels), 2, 3)
    patch = _times_transposed(lines.reshape(batch, count * channels, width), columns)
    return jnp.swapaxes(patch.reshape(batch, count, channels, count), 2, 3)


def write(
    patch: Float[Array, "batch N N channels"],
    rows: Float[Array, "batch N height"],
    columns: Float[Array, "batch N width"],
) -> Float[Array, "batch height width channels"]:
    """F_Y^T w F_X, the image of Eq. 29 before its intensity."""
    batch, count, _, channels = patch.shape
    height, width = rows.shape[2], columns.shape[2]
    patch = jnp.swapaxes(patch, 2, 3).reshape(batch, count * channels, count)
    lines = jnp.swapaxes(_times(patch, columns).reshape(batch, count, channels, width), 2, 3)
    image = _transposed_times(rows, lines.reshape(batch, count, width * channels))
    return image.reshape(batch, height, width, channels)


@jax.custom_vjp
def lstm(
    gates: Float[Array, "*batch 4*units"], cell: Float[Array, "*batch units"]
) -> tuple[Float[Array, "*batch units"], Float[Array, "*batch units"]]:
    """The next cell state and hidden vector from an LSTM's gates before their squashing."""
    return _lstm_forward(gates, cell)[0]


def _lstm_forward(gates, cell):
    # sigmoid(x) = tanh(x / 2) / 2 + 1 / 2, so one tanh squashes all four.
    slope, shift = _squash(gates)
    gates = hoist.keep(jnp.tanh(slope * gates) * slope + shift)
    enter, forget, new, leave = jnp.split(gates, 4, axis=-1)
    squashed = hoist.keep(jnp.tanh(forget * cell + enter * new))
    return (forget * cell + enter * new, leave * squashed), (gates, cell, squashed)


def _lstm_backward(residuals, gradients):
    gates, cell, squashed = residuals
    to_cell, to_hidden = gradients
    enter, forget, new, leave = jnp.split(gates, 4, axis=-1)
    to_cell = to_cell + to_hidden * leave * (1 - squashed * squashed)
    to_gates = jnp.concatenate(
        [
            to_cell * new * (enter * (1 - enter)),
            to_cell * cell * (forget * (1 - forget)),
            to_cell * enter * (1 - new * new),
            to_hidden * squashed * (leave * (1 - leave)),
        ],
        axis=-1,
    )
    return to_gates, to_cell * forget


lstm.defvjp(_lstm_forward, _lstm_backward)


def _squash(gates: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Slope and shift of each gate: sigmoids but for the third, the new value."""
    is_new = jnp.arange(gates.shape[-1]) // (gates.shape[-1] // 4) == 2
    return (
        jnp.where(is_new, 1.0, 0.5).astype(gates.dtype),
        jnp.where(is_new, 0.0, 0.5).astype(gates.dtype),
    )


def _filters(
    means: Float[Array, "batch N"], variance: Float[Array, " batch"], size: int
) -> Float[Array, "batch N {size}"]:
    """Normalized Gaussians over pixels 1..size; means and variance within limits."""

    def offsets(means: jax.Array) -> tuple[jax.Array, jax.Array]:
        means = means[..., None]
        pixels = jnp.arange(1, size + 1, dtype=means.dtype)
        nearest = jnp.clip(jnp.round(means), 1, size)
        return pixels - nearest, pixels + nearest - 2 * means

    @jax.custom_vjp
    def filters(means: jax.Array, variance: jax.Array) -> jax.Array:
        return forward(means, variance)[0]

    def forward(means: jax.Array, variance: jax.Array):
        left, right = offsets(means)
        weights = jnp.exp(left * right * (-0.5 / variance)[:, None, None])
        weights = hoist.keep(weights / jnp.sum(weights, axis=-1, keepdims=True))
        return weights, (weights, means, variance)

    def backward(residuals, gradient):
        weights, means, variance = residuals
        # The gradient of a softmax sums to zero over the pixels, so (a - mu) / sigma^2 may be
        # taken from the nearest pixel, as the exponent is: no digits are lost far off the image.
        gradient = weights * gradient
        gradient = gradient - weights * jnp.sum(gradient, axis=-1, keepdims=True)
        left, right = offsets(means)
        gradient = gradient * left
        to_means = jnp.sum(gradient, axis=-1) / variance[:, None]
        to_variance = jnp.sum(gradient * right, axis=(-2, -1)) / (2 * variance * variance)
        return to_means, to_variance

    filters.defvjp(forward, backward)
    return filters(means, variance)


# Batched products `[batch, i, k]` of small matrices. Each gradient is again a product that
# contracts the last axis of its left side, and transposes only the smaller one to get there.


def _nn(left: jax.Array, right: jax.Array) -> jax.Array:
    return jax.lax.dot_general(left, right, (((2,), (1,)), ((0,), (0,))))


def _nt(left: jax.Array, right: jax.Array) -> jax.Array:
    return jax.lax.dot_general(left, right, (((2,), (2,)), ((0,), (0,))))


def _swap(matrix: jax.Array) -> jax.Array:
    # The barrier keeps XLA from folding the transpose into a product it then has no kernel for.
    return jax.lax.optimization_barrier(jnp.swapaxes(matrix, 1, 2))


@jax.custom_vjp
def _times(left: jax.Array, right: jax.Array) -> jax.Array:
    """The product left @ right, `left` the smaller."""
    return _nn(left, right)


_times.defvjp(
    lambda left, right: (_nn(left, right), (left, right)),
    lambda saved, g: (_nt(g, saved[1]), _nn(_swap(saved[0]), g)),
)


@jax.custom_vjp
def _times_transposed(left: jax.Array, right: jax.Array) -> jax.Array:
    """The product left @ right^T."""
    return _nt(left, right)


_times_transposed.defvjp(
    lambda left, right: (_nt(left, right), (left, right)),
    lambda saved, g: (_nn(g, saved[1]), _nn(_swap(g), saved[0])),
)


@jax.custom_vjp
def _transposed_times(left: jax.Array, right: jax.Array) -> jax.Array:
    """The product left^T @ right."""
    return _nn(_swap(left), right)


_transposed_times.defvjp(
    lambda left, right: (_nn(_swap(left), right), (left, right)),
    lambda saved, g: (_nt(saved[1], g), _nn(saved[0], g)),
)
