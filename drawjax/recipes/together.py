"""Training and what comes after it, for one config or several that train side by side."""

import contextlib
import dataclasses
import functools
import logging
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax

from drawjax import data, report
from drawjax.data import DataConfig, ImageSet
from drawjax.recipes import saved
from drawjax.recipes.starting import starting_params, with_starting_model
from drawjax.recipes.work import RecipeConfig, Work
from drawjax.training import Diverged, Run, hosts, mesh, train_together

__all__ = ["loader", "only", "run_together"]

_log = logging.getLogger(__name__)

Config = TypeVar("Config", bound=RecipeConfig)
AnyWork = TypeVar("AnyWork", bound=Work)


def loader(default_set: str) -> Callable[[DataConfig], ImageSet]:
    """What loads sets, each of them once, and logs what is to be known of them.

    Args:
      default_set: the set of a config that names none.
    """

    @functools.cache
    def load(config: DataConfig) -> ImageSet:
        images = data.load(config, default_set)
        for note in images.notes:
            _log.info("%s", note)
        return images

    return load


def only(outcomes: Sequence[dict[str, Any] | Diverged]) -> dict[str, Any]:
    """The results of a single config; raises what ended it."""
    (outcome,) = outcomes
    if isinstance(outcome, Diverged):
        raise outcome
    return outcome


def run_together(
    configs: Sequence[Config],
    bind: Callable[[Config], AnyWork],
    finish: Callable[[AnyWork, Run, Any, dict[str, float], float], dict[str, Any]],
) -> list[dict[str, Any] | Diverged]:
    """Trains configs in one program, each into its own folder, then finishes one after another.

    With several processes all of them train; the first alone evaluates and draws.

    Args:
      configs: if several, `drawjax.training.sweeps` says what they may differ in.
      bind: config -> a model bound to its data.
      finish: (bound, run, best parameters, their validation metrics, seconds of training) ->
        results; evaluates and draws.

    Returns:
      For each config its results, or why there are none.
    """
    training = configs[0].mode == "train"
    if not training:
        configs = [
            with_starting_model(config) if _without_run(config) else saved.with_saved(config)
            for config in configs
        ]
    bound = [bind(config) for config in configs]
    if training:  # what cannot be trained leaves no folder behind
        mesh.check([config.train for config in configs])
    for work in bound:
        data.check_batch_size(work.images.train, work.config.train.batch_size)
        jax.eval_shape(work.init, jax.random.key(0))
    bound = [_with_start(work) if training or _without_run(work.config) else work for work in bound]
    for work in bound:
        if work.start is not None and not _saved(work.config, "checkpoints"):
            work.start()  # if it cannot be read, this leaves no folder behind either
    started = time.monotonic()
    with contextlib.ExitStack() as stack:
        runs = [
            stack.enter_context(Run(config.workdir, config, keep=config.train.keep_checkpoints))
            for config in configs
        ]
        for work, run in zip(bound, runs, strict=True):
            hosts.on_first(functools.partial(_report, work, run.workdir))
        outcomes: list[Any] = [None] * len(configs)
        if training:
            trains = [config.train for config in configs]
            outcomes = train_together(bound[0].task(), trains, runs)
        seconds = (time.monotonic() - started) / len(configs)
        results: list[dict[str, Any] | Diverged] = []
        for work, run, outcome in zip(bound, runs, outcomes, strict=True):
            if isinstance(outcome, Diverged):
                diverged = f"Diverged: {outcome}."
                hosts.on_first(functools.partial(_report, work, run.workdir, diverged))
                results.append(outcome)
                continue
            if not training and work.start is not None:
                best, validation = work.start(), {}
            else:
                best, validation = run.restore_best(work.init(jax.random.key(0)))
            only = hosts.is_first()
            results.append(finish(work, run, best, validation, seconds) if only else {})
        hosts.wait_for_first()
    return results


def _without_run(config: RecipeConfig) -> bool:
    """Whether parameters to start from are all there is, so that they are evaluated or drawn."""
    return config.mode != "train" and config.init_from is not None and not _saved(config, "best")


def _saved(config: RecipeConfig, what: str) -> bool:
    """Whether a run's folder holds checkpoints of a kind."""
    return any(pathlib.Path(config.workdir, what).glob("[0-9]*"))


def _with_start(work: AnyWork) -> AnyWork:
    """The same with the parameters that its config says training starts from."""
    source = work.config.init_from
    if source is None:
        return work

    @functools.cache
    def start():
        return starting_params(source, work.config, work.init(jax.random.key(0)))

    return dataclasses.replace(work, start=start)


def _report(work: Work, folder: pathlib.Path, *notes: str) -> None:
    """Says which data is used, before the first step is taken, and what else is to be known."""
    images = work.images
    counts = {split: len(getattr(images, split)) for split in ("train", "validation", "test")}
    report.save_data(folder, images.name, counts, [*images.notes, *notes], mesh.devices())
    report.write_report([folder])
