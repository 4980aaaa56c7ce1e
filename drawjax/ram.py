"""The Differentiable RAM, Sec. 4.1 of Gregor et al. (2015): attention for classification.

An LSTM looks at an image through the read window of Eq. 27, step by step, and a softmax over its
last hidden vector predicts the class. There is no decoder and no canvas; the window of step t comes
from the hidden vector of step t - 1. Pure functions; the model comes in as an argument.

* `classify`: images -> logits, windows and patches of every glimpse, by a plain `jax.lax.scan`.
* `loss`: what training differentiates; its weight gradients are taken out of the loop
  (`drawjax.scan`).

Axes: `T` glimpses, `batch` images, `height`, `width`, `channels`, `classes`.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from drawjax.attention import Window
from drawjax.draw import Images, check_classes, check_images, glimpse_count, of_each
from drawjax.scan import scan, vary_like

__all__ = ["Model", "Policy", "RamOutput", "State", "classify", "loss"]


@runtime_checkable
class Model(Protocol):
    """The learned functions. `hidden` is `[batch, units]`."""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """`(height, width, channels)` of the images it looks at."""
        ...

    @property
    def num_glimpses(self) -> int:
        """T, how many glimpses are taken."""
        ...

    def initial_state(self, batch: int) -> tuple[Any, jax.Array]:
        """The learned initial carry of the cell, and its hidden vector, for `batch` images."""
        ...

    def read(
        self, image: jax.Array, hidden: jax.Array, window: Window | None = None
    ) -> tuple[jax.Array, Window]:
        """Eq. 21 and 27: the patch `[batch, N, N, channels]` and its window.

        Patches of several scales lie in the channels, the finest first. A `window` is a policy's,
        in place of the one that the hidden vector asks for.
        """
        ...

    def recur(self, carry: Any, patch: jax.Array) -> tuple[Any, jax.Array]:
        """The next carry and hidden vector."""
        ...

    def logits(self, hidden: jax.Array, image: jax.Array) -> jax.Array:
        """Unnormalized log-probabilities, `[batch, classes]`, of the last hidden vector."""
        ...


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
    """What is known before a glimpse."""

    glimpse: Int[Array, ""]  #: the number of the glimpse to come, from 0
    images: Float[Array, "batch height width channels"]
    carry: Any  #: the cell's
    hidden: Float[Array, "batch units"]
    centers: Float[Array, "T batch 2"]  #: x and y of earlier windows in pixels; NaN from now on


Policy = Callable[[State], Window]
"""Where to look next: windows with fields `[batch]`, or one for all; `drawjax.gaze` has some."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class RamOutput:
    """What was looked at, and what came of it."""

    logits: Float[Array, "batch classes"]  #: after the last glimpse
    glimpse_logits: Float[Array, "*T batch classes"]  #: after each; the last are `logits`
    windows: Window  #: fields [T, batch]
    patches: Float[Array, "*T batch N N channels"]


def classify(
    model: Model,
    images: Images,
    num_glimpses: int | None = None,
    *,
    policy: Policy | None = None,
) -> RamOutput:
    """Looks at images T times, then names a class.

    Args:
      model: the learned functions.
      images: values in [0, 1].
      num_glimpses: T, at least 1; None: the model's.
      policy: where to look; None: where the model asks to.

    Returns:
      Class logits after the last glimpse and after each, and the windows and patches.

    Raises:
      ValueError: if `num_glimpses` is not positive, or images are no batch of images.
    """
    images, state, glimpses = _checked(model, images, num_glimpses)
    centers = None
    if policy is not None:
        centers = jnp.full((*glimpses.shape, len(images), 2), jnp.nan, images.dtype)
        centers = vary_like(centers, images)

    def body(state: Any, glimpse: jax.Array) -> tuple[Any, Any]:
        (carry, hidden), centers = state
        chosen = None
        if policy is not None:
            chosen = policy(State(glimpse, images, carry, hidden, centers))
            chosen = of_each(chosen, images.shape[0])
            center = jnp.stack([chosen.center_x, chosen.center_y], axis=-1)
            centers = centers.at[glimpse].set(center.astype(centers.dtype))
        state, window, patch = _look(model, images, (carry, hidden), chosen)
        return (state, centers), (window, patch, state[1])

    ((_, hidden), _), (windows, patches, hiddens) = jax.lax.scan(body, (state, centers), glimpses)
    # Of the last glimpse apart, so that where no other logits are asked for none are computed.
    logits = jax.lax.map(lambda hidden: model.logits(hidden, images), hiddens)
    return RamOutput(model.logits(hidden, images), logits, windows, patches)


def loss(
    model: Model,
    images: Images,
    labels: Int[Array | np.ndarray, " batch"],
    num_glimpses: int | None = None,
) -> tuple[Float[Array, " batch"], Float[Array, " batch"]]:
    """Cross-entropy in nats after the last glimpse, and whether the class is wrong (0 or 1).

    Arguments and errors as for `classify`, and `labels`: a class per image, whole numbers from 0
    on; others raise ValueError, outside of `jit`. Returns two arrays `[batch]`. Differentiable in
    reverse mode only.
    """
    images, state, glimpses = _checked(model, images, num_glimpses)

    def body(state: tuple[Any, jax.Array], _: jax.Array) -> tuple[tuple[Any, jax.Array], None]:
        return _look(model, images, state)[0], None

    (_, hidden), _ = scan(body, state, glimpses)
    logits = model.logits(hidden, images)
    labels = _checked_labels(labels, logits)
    cross_entropy = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return cross_entropy, jnp.asarray(jnp.argmax(logits, axis=-1) != labels, logits.dtype)


def _checked_labels(labels: Any, logits: jax.Array) -> jax.Array:
    """Labels as an array, if they are classes of these logits."""
    batch, classes = logits.shape
    given = labels if isinstance(labels, jax.Array) else np.asarray(labels)
    if given.shape != (batch,) or not jnp.issubdtype(given.dtype, jnp.integer):
        raise ValueError(
            f"labels must be whole numbers [{batch}], got {list(given.shape)} {given.dtype}"
        )
    check_classes("labels", given, classes)
    return jnp.asarray(given)


def _look(
    model: Model, images: jax.Array, state: tuple[Any, jax.Array], chosen: Window | None = None
) -> tuple[Any, Window, jax.Array]:
    """One glimpse: the next carry and hidden vector, the window and the patch."""
    carry, hidden = state
    # A custom model may know of no policies.
    given = () if chosen is None else (chosen,)
    patch, window = model.read(images, hidden, *given)
    return model.recur(carry, patch), of_each(window, images.shape[0]), patch


def _checked(
    model: Model, images: Any, num_glimpses: int | None
) -> tuple[jax.Array, tuple[Any, jax.Array], jax.Array]:
    """Images in the hidden vector's type, the initial state, and the numbers of the glimpses."""
    check_images(images, model.image_shape)
    if not len(images):
        raise ValueError("images must not be empty")
    num_glimpses = glimpse_count(model, num_glimpses)
    state = model.initial_state(images.shape[0])
    images = jnp.asarray(images, state[1].dtype)
    return images, vary_like(state, images), jnp.arange(num_glimpses)
