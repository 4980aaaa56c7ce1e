"""An experiment from its config to its figures: load, build, start, train, evaluate, draw.

`train` is what the experiments call, and what a program calls with a model, images or an optimizer
of its own:

>>> drawjax.train(config, model=MyDraw, dataset=images, optimizer=optax.adam(1e-3))
"""

import contextlib
import dataclasses
import functools
import json
import logging
import pathlib
from collections.abc import Callable, Collection, Sequence
from typing import Any

import jax
import optax

from drawjax import data, modules, report
from drawjax.config import ClassificationConfig, GenerationConfig, RecipeConfig
from drawjax.progress import announced
from drawjax.recipes.classification import Classification
from drawjax.recipes.generation import Generation
from drawjax.recipes.initialization import initial_params, with_model_of
from drawjax.recipes.recipe import Recipe
from drawjax.recipes.saved import with_saved
from drawjax.training import Diverged, RunError, RunWriter, hosts, mesh, read_best, train_points
from drawjax.training.run import flatten

__all__ = ["load_run", "recipe_of", "train", "train_all"]

_log = logging.getLogger(__name__)

_RECIPES: dict[type[RecipeConfig], tuple[type[Recipe], Callable[..., Any]]] = {
    GenerationConfig: (Generation, modules.Draw),
    ClassificationConfig: (Classification, modules.Ram),
}
_OPTIMIZER = {  # what is the optimizer's own business
    f"train.{name}"
    for name in ("learning_rate", "warmup_steps", "decay_fraction", "clip_norm", "weight_decay")
}


def train(
    config: RecipeConfig,
    *,
    model: Callable[..., Any] | None = None,
    dataset: Any = None,
    optimizer: optax.GradientTransformation | None = None,
) -> dict[str, Any]:
    """Trains, or goes on training, then evaluates on the test set and draws the figures.

    A finished run is left as it is, but for what is missing or newly asked for.

    Args:
      config: a `GenerationConfig` or a `ClassificationConfig`: what to do, and where.
      model: makes the model, `model(config.model, image_shape, key=key)`: a subclass of
        `drawjax.Draw` or `drawjax.Ram`, or what else follows `drawjax.draw.Model` or
        `drawjax.ram.Model` and is an NNX module or a pytree of arrays. None: `Draw` or `Ram`.
      dataset: the images: arrays (see `drawjax.data.load`), or the name of the set that is used
        where `config.data.name` is None.
      optimizer: any Optax transformation; it takes the place of gradient clipping, Adam, weight
        decay and the learning rate's schedule. None: as `config.train` says.

    Returns:
      What it wrote to `results.json`.

    Raises:
      Diverged: if the loss was not finite for too long.
      RunError: if the run cannot be started, continued or saved as asked.
      ValueError: if the images or the config cannot be used.
    """
    (outcome,) = train_all([config], model=model, dataset=dataset, optimizer=optimizer)
    if isinstance(outcome, Diverged):
        raise outcome
    return outcome


def recipe_of(
    config: RecipeConfig, images: data.ImageSet, model: Callable[..., Any] | None = None
) -> Recipe:
    """The recipe of a config on its images, with `Draw` or `Ram` where no model is given."""
    recipe_class, _ = _RECIPES[type(config)]
    return recipe_class(config, images, _model_class(config, model))


def _model_class(config: RecipeConfig, model: Callable[..., Any] | None) -> Callable[..., Any]:
    return model or _RECIPES[type(config)][1]


def load_run(folder: str | pathlib.Path, *, model: Callable[..., Any] | None = None) -> Any:
    """The model of a run, with the parameters of its best checkpoint.

    Args:
      folder: the run's.
      model: the model's class, if the run trained one of its own.

    Returns:
      A `drawjax.Draw`, a `drawjax.Ram` or one of `model`.

    Raises:
      RunError: if there is no such run, it has no checkpoint yet, or it trained another class.
    """
    path = pathlib.Path(folder) / "data.json"
    fields = pathlib.Path(folder) / "config.json"
    if not fields.exists():
        raise RunError(f"{folder} holds no run: there is no config.json")
    looks = "model.num_classes" in json.loads(fields.read_text())
    config = (ClassificationConfig if looks else GenerationConfig)(workdir=str(folder))
    config = with_saved(config)
    model = _model_class(config, model)
    if _name(model) != config.model_class:
        raise RunError(f"{folder} trained a {config.model_class}, got {_name(model)}")
    image_shape = tuple(json.loads(path.read_text())["image_shape"])
    graph, like = modules.abstract(model, config.model, image_shape)
    params, _ = read_best(folder, like)
    return modules.merge(graph, params)


def train_all(
    configs: Sequence[Any],
    *,
    model: Callable[..., Any] | None = None,
    dataset: Any = None,
    optimizer: optax.GradientTransformation | None = None,
    given: Collection[str] = (),
) -> list[dict[str, Any] | Diverged]:
    """As `train`, for points of a sweep that can be trained side by side (`training.sweeps`).

    With several processes all of them train; the first alone evaluates and draws.

    Args:
      configs: one for each point.
      model: as for `train`.
      dataset: as for `train`.
      optimizer: as for `train`.
      given: fields that the user named, `model.hidden_size`: a ValueError where one would be
        ignored, for what a model was trained with or for an optimizer of one's own.
    """
    training = configs[0].mode == "train"
    model = _model_class(configs[0], model)
    configs = [dataclasses.replace(config, model_class=_name(model)) for config in configs]
    if not training:
        asked = configs
        configs = [with_model_of(c) if _untrained(c) else with_saved(c) for c in configs]
        for wanted, config in zip(asked, configs, strict=True):
            _check_given(given, wanted, config)
    elif optimizer is not None and (unused := _OPTIMIZER & set(given)):
        raise ValueError(f"{min(unused)} does nothing beside an optimizer of one's own")

    # 1. The data, once for all points, and the model on it.
    load = functools.cache(functools.partial(_load, dataset))
    recipes = [recipe_of(config, load(config.data), model) for config in configs]

    # 2. What cannot be trained leaves no folder behind.
    if training:
        mesh.check([config.train for config in configs])
    inits = []
    for recipe in recipes:
        data.check_batch_size(recipe.images.train, recipe.config.train.batch_size)
        recipe.check()
        inits.append(_initial(recipe, training))

    with contextlib.ExitStack() as stack:
        runs = [
            stack.enter_context(RunWriter(c.workdir, c, keep=c.train.keep_checkpoints))
            for c in configs
        ]
        for recipe, run in zip(recipes, runs, strict=True):
            hosts.on_first(functools.partial(_report, recipe, run.workdir))

        # 3. Train, from the newest checkpoint on, or from `init_from` or fresh parameters.
        outcomes: list[Any] = [None] * len(configs)
        if training:
            tasks = [
                recipe.task(init_params=init, optimizer=optimizer)
                for recipe, init in zip(recipes, inits, strict=True)
            ]
            tasks[0].show = _Shown(recipes, runs)
            outcomes = train_points(tasks[0], [config.train for config in configs], runs)

        # 4. Evaluate the best checkpoint, and draw.
        results: list[Any] = []
        for recipe, run, init, outcome in zip(recipes, runs, inits, outcomes, strict=True):
            if isinstance(outcome, Diverged):
                note = f"Diverged: {outcome}."
                hosts.on_first(functools.partial(_report, recipe, run.workdir, note))
                results.append(outcome)
                continue
            best, validation = init, {}
            if training or not _untrained(recipe.config):
                best, validation = run.restore_best(recipe.abstract_params)
            best = jax.device_put(jax.device_get(best))  # placed as in training: compiled once
            results.append(_finish(recipe, run, best, validation) if hosts.is_first() else {})
        hosts.wait_for_first()
    return results


def _load(dataset: Any, config: data.DataConfig) -> data.ImageSet:
    """The images, and a line for each thing that a reader of a result must know of them."""
    images = data.load(dataset, config)
    for note in images.notes:
        _log.info("%s", note)
    return images


def _initial(recipe: Recipe, training: bool) -> Any:
    """Parameters from `init_from`, or None where there is a checkpoint to go on from, or none."""
    config = recipe.config
    if config.init_from is None or _has(config, "checkpoints" if training else "best"):
        return None
    return initial_params(config.init_from, config, recipe.abstract_params)


def _finish(
    recipe: Recipe, run: RunWriter, params: Any, validation: dict[str, float]
) -> dict[str, Any]:
    """Evaluates and draws, into the run's folder, what is missing there or asked for."""
    config, folder = recipe.config, run.workdir
    path = folder / "results.json"
    there = json.loads(path.read_text()) if path.exists() else {}
    finished = there.get("steps") == config.train.steps
    results = there
    if config.mode != "draw":
        done = there if finished and config.mode == "train" else {}
        results = {
            "data": recipe.images.name,
            "binarization": getattr(config.data, "binarization", "none"),
            "notes": list(recipe.images.notes),
            "validation": validation,
            **recipe.test(params, done),
            "parameters": modules.parameter_count(params),
            "image_shape": list(recipe.image_shape),
            "steps": config.train.steps,
            "seconds": there["seconds"] if finished else round(run.seconds, 1),
            "device": there["device"] if finished else mesh.devices(),
        }
        path.write_text(json.dumps(results, indent=2) + "\n")
        _log.info("%s", recipe.summary(results))
    if results != there or config.mode == "draw" or not (folder / "loss.png").exists():
        with announced("drawing figures"):
            recipe.draw(params, folder, final=True)
        report.write_report([folder])
    else:
        _log.info("this run is finished; --mode evaluate or --mode draw does either again")
    _log.info("done: %s", folder)
    return results


class _Shown:
    """Keeps the reports of runs up to date while they train, for `Task.show`."""

    def __init__(self, recipes: Sequence[Recipe], runs: Sequence[RunWriter]):
        self._recipes = {run.workdir: recipe for recipe, run in zip(recipes, runs, strict=True)}

    def __call__(self, folder: pathlib.Path, params: Any) -> None:
        if params is not None:
            self._recipes[folder].draw(params, folder, final=False)
        report.write_report([folder])


def _untrained(config: RecipeConfig) -> bool:
    """Whether parameters to start from are all there is, so that they are evaluated or drawn."""
    return config.mode != "train" and config.init_from is not None and not _has(config, "best")


def _check_given(given: Collection[str], asked: RecipeConfig, trained: RecipeConfig) -> None:
    """Refuses what would be ignored."""
    wanted, values = flatten(asked), flatten(trained)
    for name in sorted(set(given) & values.keys()):
        if wanted[name] != values[name]:
            source = trained.init_from if _untrained(trained) else trained.workdir
            raise ValueError(
                f"{name} is {values[name]} in {source}, which --mode {asked.mode} takes as it was "
                f"trained; got {wanted[name]}"
            )


def _has(config: RecipeConfig, what: str) -> bool:
    """Whether a run's folder holds checkpoints of a kind."""
    return any(pathlib.Path(config.workdir, what).glob("[0-9]*"))


def _name(model: Callable[..., Any]) -> str:
    return getattr(model, "__qualname__", type(model).__qualname__)


def _report(recipe: Recipe, folder: pathlib.Path, *notes: str) -> None:
    """Says which data is used, before the first step is taken, and what else is to be known."""
    images = recipe.images
    counts = {split: len(getattr(images, split)) for split in ("train", "validation", "test")}
    report.save_data(
        folder, images.name, counts, [*images.notes, *notes], mesh.devices(),
        image_shape=recipe.image_shape,
    )  # fmt: skip
    report.write_report([folder])
