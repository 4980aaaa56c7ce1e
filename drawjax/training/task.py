"""What the loop must know of an experiment."""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import jax
import optax

__all__ = ["BatchIterator", "Task"]

PyTree = Any


@runtime_checkable
class BatchIterator(Protocol):
    """Batches as pytrees of NumPy arrays, with a state that can be saved (as Grain's)."""

    def __next__(self) -> PyTree: ...

    def get_state(self) -> dict[str, Any]:
        """Where it is, small enough for JSON."""
        ...

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes on with the batches that would have followed."""
        ...


@dataclasses.dataclass(frozen=True)
class Task:
    """An experiment, as the training loop sees it: no model and no data set."""

    init: Callable[[jax.Array], PyTree]
    """Key -> parameters, a pytree of arrays."""
    loss: Callable[[PyTree, PyTree, jax.Array, PyTree], tuple[jax.Array, dict[str, jax.Array]]]
    """(parameters, batch, key, constants) -> (mean loss, scalars to log); traced under jit."""
    batches: Callable[[int], BatchIterator]
    """Seed -> training batches; with several processes, this process's share of each."""
    evaluate: Callable[[PyTree], dict[str, float]] | None = None
    """Averaged parameters -> validation metrics; `loss` among them picks the best checkpoint."""
    show: Callable[[pathlib.Path, PyTree | None], None] | None = None
    """(run's folder, averaged parameters or None) -> pictures and reports in the folder. Called on
    the first process alone: with parameters after an evaluation, without some seconds later."""
    init_params: PyTree | None = None
    """Parameters that training starts from in place of `init`'s; used only where there is no
    checkpoint to go on from."""
    optimizer: optax.GradientTransformation | None = None
    """Takes the place of gradient clipping, AdamW and its schedule; None: as the config says."""
    constants: PyTree = ()
    """Arrays that stay on the device and are handed to each call of `loss`."""
