"""The command line that experiments share: presets, flags, sweeps, several processes.

Flags are read before JAX is loaded, so that `--help` and a wrong flag need not wait for it.
"""

import contextlib
import dataclasses
import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn, TypeVar

import tyro

from drawjax import command, flags
from drawjax.config import RecipeConfig

__all__ = ["Options", "experiment", "main"]

Config = TypeVar("Config")


@dataclasses.dataclass(frozen=True)
class Options:
    """What a command can do with any experiment."""

    sweep: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """FIELD=VALUE,VALUE,...: run once for each value, with several --sweep for each combination.
    Points that differ only in numbers (rate, seed, clipping, decay) train side by side."""
    sweep_index: int | None = None
    """Run this point of the sweep alone, counted from 0; for a scheduler's array jobs."""
    sweep_parallel: int | None = None
    """Train at most so many points side by side; None: all that can be."""
    debug_nans: bool = False
    """Stop at the operation that makes the first NaN; slow."""
    coordinator: str | None = None
    """HOST:PORT of process 0, where one run has several processes; None: as the scheduler (SLURM,
    GKE, Cloud TPU, Open MPI) says."""
    processes: int | None = None
    """How many processes the run has."""
    process: int | None = None
    """Which of them this is, from 0."""


def main(
    presets: Mapping[str, RecipeConfig],
    *,
    model: Callable[..., Any] | None = None,
    dataset: Any = None,
    optimizer: Any = None,
    description: str | None = None,
    argv: Sequence[str] | None = None,
) -> NoReturn:
    """The command line of an experiment; ends the process.

    Args:
      presets: configs by name, for `--preset`; flags replace their values. The first is the
        default.
      model: as for `drawjax.train`.
      dataset: as for `drawjax.train`.
      optimizer: as for `drawjax.train`.
      description: what `--help` says first.
      argv: the arguments; None: the process's.
    """

    def run(configs: Sequence[RecipeConfig]) -> Sequence[Any]:
        with _extra():
            from drawjax.runner import train_all

        return train_all(
            configs, model=model, dataset=dataset, optimizer=optimizer, given=flags.given(argv)
        )

    experiment(presets, run, argv, description=description)


def experiment(
    presets: Mapping[str, Config],
    run: Callable[[Sequence[Config]], Sequence[Any]],
    argv: Sequence[str] | None = None,
    *,
    description: str | None = None,
) -> NoReturn:
    """Runs an experiment as the command line asks, alone or as a sweep, and ends the process.

    Args:
      presets: as in `flags.parse`.
      run: does what configs say. It is given several only in a sweep, and then such as can be
        trained side by side; it returns one result a config, `Diverged` among them.
      argv: the arguments; None: the process's.
      description: what `--help` says first.
    """
    command.main(lambda: _experiment(presets, run, argv, description), leave=_leave)


@contextlib.contextmanager
def _extra() -> Iterator[None]:
    """Names what is missing of the extra that training needs."""
    try:
        yield
    except ModuleNotFoundError as error:
        if str(error.name).startswith("drawjax"):
            raise
        flags.fail(f"training needs {error.name}: pip install 'drawjax[train]'")


def _leave(code: int) -> None:
    hosts = sys.modules.get("drawjax.training.hosts")
    if hosts is not None:
        hosts.leave(code)


def _experiment(
    presets: Mapping[str, Config],
    run: Callable[[Sequence[Config]], Sequence[Any]],
    argv: Sequence[str] | None,
    description: str | None,
) -> None:
    config, options = flags.parse(presets, argv, description=description, options=Options())

    with _extra():
        import jax

        from drawjax.training import Diverged, hosts, sweeps

    try:
        points = sweeps.expand(config, options.sweep)
        if options.sweep_index is not None:
            if not options.sweep:
                raise ValueError("--sweep-index picks a point of a --sweep, and there is none")
            points = [sweeps.pick(points, options.sweep_index)]
        if options.sweep_parallel is not None and not options.sweep:
            raise ValueError("--sweep-parallel is of the points of a --sweep, and there is none")
        groups = sweeps.grouped(points, options.sweep_parallel)
    except ValueError as error:
        flags.fail(str(error))

    hosts.connect(options.coordinator, options.processes, options.process)
    if not hosts.is_first():
        logging.getLogger().setLevel(logging.WARNING)
    if options.debug_nans:  # else as JAX_DEBUG_NANS says
        jax.config.update("jax_debug_nans", True)
    if options.sweep:
        sweeps.run(config, options.sweep, groups, run)
        return
    (outcome,) = run([config])
    if isinstance(outcome, Diverged):
        raise outcome
