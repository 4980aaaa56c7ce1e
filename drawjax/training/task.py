"""What the loop must know of an experiment."""

import abc
from typing import Any, Protocol

import jax
import optax

PyTree = Any


class BatchIterator(Protocol):
    """Batches as pytrees of NumPy arrays, with a state that can be saved (as Grain's)."""

    def __next__(self) -> PyTree: ...

    def get_state(self) -> dict[str, Any]:
        """Where it is, small enough for JSON."""
        ...

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes on with the batches that would have followed."""
        ...


class Task(abc.ABC):
    """An experiment, as the training loop sees it: no model and no data set."""

    init_params: PyTree | None = None
    """Parameters that training starts from in place of `init`'s; used only where there is no
    checkpoint to go on from."""
    optimizer: optax.GradientTransformation | None = None
    """Takes the place of gradient clipping, AdamW and its schedule; None: as the config says. Its
    `update` is handed `value`, `grad` and `value_fn` too, if it takes them."""
    constants: PyTree = ()
    """Arrays that stay on the device and are handed to each call of `loss`."""

    @abc.abstractmethod
    def init(self, key: jax.Array) -> PyTree:
        """Fresh parameters, a pytree of arrays."""

    @abc.abstractmethod
    def loss(
        self, params: PyTree, batch: PyTree, key: jax.Array, constants: PyTree, step: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """A batch's mean loss, and scalars to log; traced under jit.

        `step`, an int32 scalar, counts the steps that were taken before.
        """

    @abc.abstractmethod
    def batches(self, seed: int) -> BatchIterator:
        """Training batches; with several processes, this process's share of each."""

    def validate(self, params: PyTree) -> dict[str, float]:
        """Validation metrics of averaged parameters; the lowest `loss` is the best checkpoint's.

        Empty if the task does not validate.
        """
        return {}
