"""What DRAW's equations need to be given: its learned functions, and how they are scanned.

`Networks` is what `drawjax.draw` takes as an argument; `drawjax.modules.Draw` is one. Axes: `T`
steps, `batch` images, `height`, `width`, `channels`, `Z` latents.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, Protocol, cast

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from drawjax import hoist
from drawjax.attention import Window

__all__ = ["Hoistable", "Networks", "State", "scan"]

Carry = Any  # what a recurrent cell hands on to its next step, e.g. the (c, h) of an LSTM


class Networks(Protocol):
    """The learned functions of DRAW. `h` is a hidden vector `[batch, units]`."""

    def initial_state(self, batch: int) -> "State":
        """The learned c_0, h_0^enc and h_0^dec (with both cells' states), for `batch` images."""
        ...

    def read(
        self, image: jax.Array, error: jax.Array, h_dec: jax.Array
    ) -> tuple[jax.Array, Window | None]:
        """Eq. 4: a flat glimpse `[batch, features]`, and the window unless Eq. 17 is used."""
        ...

    def encode(self, carry: Carry, inputs: jax.Array) -> tuple[Carry, jax.Array]:
        """Eq. 5: the next carry and h^enc_t."""
        ...

    def posterior(self, h_enc: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Eq. 1-2: mu_t and log sigma_t, each `[batch, Z]`."""
        ...

    def decode(self, carry: Carry, latent: jax.Array) -> tuple[Carry, jax.Array]:
        """Eq. 7: the next carry and h^dec_t."""
        ...

    def write(self, h_dec: jax.Array) -> tuple[jax.Array, Window | None]:
        """Eq. 8: what is added to the canvas, and the window unless Eq. 18 is used."""
        ...


class Hoistable(Networks, Protocol):
    """Networks that name their matrix products, so that `drawjax.hoist` can speed up training.

    `scan` takes the fast road for networks with these members, and a plain `jax.lax.scan` for all
    others; values and gradients agree up to rounding.
    """

    product_dtype: Any  #: the type in which the products are computed; None: as they come

    def weights(self) -> hoist.Weights:
        """Kernel and bias of every product, by name."""
        ...

    def bind(self, linear: hoist.Linear) -> Networks:
        """The same functions with the products taken from `linear(name, inputs)`."""
        ...


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
    """What one step hands to the next."""

    canvas: Float[Array, "batch height width channels"]  #: c_t, logits
    encoder: Carry  #: includes h^enc_t
    decoder: Carry  #: includes h^dec_t
    h_dec: Float[Array, "batch units"]  #: h^dec_t


def scan(
    body: Callable[[Networks, State, jax.Array], tuple[State, Any]],
    networks: Networks,
    noise: jax.Array,
    *,
    remat: bool = False,
    clip_ratio: float | None = None,
) -> tuple[State, Any]:
    """Scans `body(networks, state, noise_t)` from the networks' initial state.

    Args:
      body: one step; its second result is stacked.
      networks: the learned functions; if they are `Hoistable`, the fast road is taken.
      noise: `[T, batch, Z]`.
      remat: recompute the steps in the backward pass in blocks of about sqrt(T).
      clip_ratio: see `drawjax.hoist.scan`; with `remat`, of every block by itself.

    Returns:
      The last state, and what the steps gave beside it, `[T, ...]`.

    Raises:
      ValueError: if there is a `clip_ratio` and the networks are not `Hoistable`.
    """
    if hasattr(networks, "bind"):
        hoistable = cast(Hoistable, networks)
        run = functools.partial(
            hoist.scan,
            lambda linear, *args: body(hoistable.bind(linear), *args),
            hoistable.weights(),
            dtype=hoistable.product_dtype,
            clip_ratio=clip_ratio,
        )
    else:
        if clip_ratio is not None:
            raise ValueError("clip_ratio needs networks that name their products (Hoistable)")
        run = functools.partial(jax.lax.scan, functools.partial(body, networks))
    state = networks.initial_state(noise.shape[1])
    if not remat:
        return run(state, noise)
    steps = noise.shape[0]
    block = max(1, round(math.sqrt(steps)))
    whole = steps - steps % block
    run_block = jax.checkpoint(run)
    state, outputs = jax.lax.scan(
        run_block, state, noise[:whole].reshape(-1, block, *noise.shape[1:])
    )
    outputs = jax.tree.map(lambda leaf: leaf.reshape(whole, *leaf.shape[2:]), outputs)
    if whole == steps:
        return state, outputs
    state, rest = run_block(state, noise[whole:])
    return state, jax.tree.map(lambda a, b: jnp.concatenate([a, b]), outputs, rest)
