"""An experiment from its config to its figures: load, build, start, train, evaluate, draw.

`train` is what the experiments call, and what a program calls with a model, images, an optimizer or
a loss of its own:

>>> drawjax.train(config, model=MyDraw, dataset=images, optimizer=optax.adam(1e-3))
"""

import contextlib
import dataclasses
import functools
import logging
import pathlib
from collections.abc import Callable, Collection, Sequence
from typing import Any, TypeVar, cast

import jax
import numpy as np
import optax

from drawjax import data, modules, pretrained, report
from drawjax.classification import Classification
from drawjax.config import (
    ClassificationConfig,
    ExperimentConfig,
    GenerationConfig,
    flatten,
    from_flat,
)
from drawjax.experiment import Experiment
from drawjax.files import read_back, read_json, to_json, write_atomically
from drawjax.generation import Generation
from drawjax.training import Diverged, RunError, RunWriter, hosts, train_points
from drawjax.training.checkpoints import checksum, difference
from drawjax.training.run import (
    has_best,
    has_checkpoints,
    read_best,
    read_config,
    read_record,
)
from drawjax.training.step import check_optimizer, make_mesh

__all__ = ["experiment_of", "load_run", "train", "train_all"]

_log = logging.getLogger(__name__)

Config = TypeVar("Config", bound=ExperimentConfig)

_EXPERIMENTS: dict[type[ExperimentConfig], type[Experiment]] = {
    GenerationConfig: Generation,
    ClassificationConfig: Classification,
}
_OPTIMIZER = {  # what is the optimizer's own business
    f"train.{name}"
    for name in ("learning_rate", "warmup_steps", "decay_fraction", "clip_norm", "weight_decay")
}
# What the shape of the images depends on, and so the model.
_SHAPES = {f"data.{name}" for name in ("size", "crop", "pair_size", "clutter_size")}
# What evaluation alone looks at; of generation, pictures look for the nearest training images too.
_TESTED: dict[type[Experiment], set[str]] = {
    Generation: {"importance_samples", "importance_images"},
    Classification: {"eval_batch_size"},
}
# Where the images lie, which says nothing of what they are: the run's record has a digest of them.
_PLACES = ("dir", "folder")
# A model trained without them starts with zeros here, which is what it had: N(0, 1).
_OF_A_PRIOR = ("prior_mean", "prior_log_scale")


def train(
    config: ExperimentConfig,
    *,
    model: Callable[..., Any] | None = None,
    dataset: Any = None,
    optimizer: optax.GradientTransformation | None = None,
    experiment: type[Experiment] | None = None,
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
        decay and the learning rate's schedule. None: as `config.train` says. A run that goes on
        sees whether the state has the same structure, not whether the rate is the same.
      experiment: a subclass of `drawjax.generation.Generation` or
        `drawjax.classification.Classification`, with another loss or other metrics; None: the one
        of the config.

    Returns:
      What it wrote to `results.json`; of several processes, empty on all but the first.

    Raises:
      Diverged: if the loss was not finite for too long.
      Interrupted: after SIGINT (Ctrl-C), SIGTERM, SIGHUP or SIGUSR1, once the run is saved.
      RunError: if the run cannot be started, continued or saved as asked.
      ValueError: if the images or the config cannot be used.
    """
    (outcome,) = train_all(
        [config], model=model, dataset=dataset, optimizer=optimizer, experiment=experiment
    )
    if isinstance(outcome, Diverged):
        raise outcome
    return outcome


def train_all(
    configs: Sequence[Any],
    *,
    model: Callable[..., Any] | None = None,
    dataset: Any = None,
    optimizer: optax.GradientTransformation | None = None,
    experiment: type[Experiment] | None = None,
    given: Collection[str] = (),
) -> list[dict[str, Any] | Diverged]:
    """As `train`, for points of a sweep that can be trained side by side (`drawjax.sweeps`).

    With several processes all of them train; the first alone evaluates and draws.

    Args:
      configs: one for each point.
      model: as for `train`.
      dataset: as for `train`.
      optimizer: as for `train`.
      experiment: as for `train`.
      given: fields that the user named, `model.hidden_size`: a ValueError where one would be
        ignored, for what a model was trained with or for a custom optimizer.
    """
    for config in configs:
        _kind(config)
    training = configs[0].mode == "train"
    # Asked before the run's own config is read, which names where its parameters came from, too.
    elsewhere = [_starts_elsewhere(config) for config in configs]
    if not training:
        asked, configs = configs, []
        for wanted, other in zip(asked, elsewhere, strict=True):
            config = _with_model_of(wanted) if other else _as_trained(wanted)
            _check_given(given, wanted, config, untrained=other)
            configs.append(config)
        tested = _TESTED[_kind(configs[0])]
        if configs[0].mode == "draw" and (unused := tested & set(given)):
            raise ValueError(f"{min(unused)} does nothing with --mode draw; give --mode evaluate")
    elif optimizer is not None and (unused := _OPTIMIZER & set(given)):
        raise ValueError(f"{min(unused)} does nothing beside a custom optimizer")

    # 1. The data, once for all points, and the model on it: what cannot be trained leaves no
    # folder behind.
    load = functools.cache(functools.partial(_load, dataset))
    tasks = [
        experiment_of(config, load(config.data), model, optimizer=optimizer, experiment=experiment)
        for config in configs
    ]
    if training:
        check_optimizer(optimizer)
        make_mesh(configs[0].train.batch_size, points=len(configs))
        for task in tasks:
            data.check_batch_size(task.images.train, task.config.train.batch_size)
    for task, other in zip(tasks, elsewhere, strict=True):
        task.init_params = _initial_params(task) if other else None

    with contextlib.ExitStack() as stack:
        # 2. The runs' folders: locked, and of no other config, model or data than before.
        runs = [stack.enter_context(_open(task)) for task in tasks]
        for task, run in zip(tasks, runs, strict=True):
            hosts.on_first(functools.partial(_write_data, task, run.workdir))

        # 3. Train, from the newest checkpoint on, or from `init_from` or fresh parameters.
        outcomes: list[Any] = [None] * len(configs)
        if training:
            by_folder = {run.workdir: task for run, task in zip(runs, tasks, strict=True)}

            def show(folder: pathlib.Path, params: Any) -> None:
                if params is not None:
                    _draw(by_folder[folder], params, folder, final=False)
                report.write_report(folder, points=False)

            trained = [config.train for config in configs]
            outcomes = train_points(tasks[0], trained, runs, show=show)

        # 4. Evaluate the best checkpoint, and draw.
        seconds = [run.seconds for run in runs]  # what follows is no part of a run's time
        results: list[Any] = []
        for task, run, outcome, took in zip(tasks, runs, outcomes, seconds, strict=True):
            if training and not isinstance(outcome, Diverged) and not has_best(run.workdir):
                outcome = Diverged("no validation gave a finite loss")
            if isinstance(outcome, Diverged):
                note = f"Diverged: {outcome}."
                hosts.on_first(functools.partial(_write_data, task, run.workdir, note))
                hosts.on_first(functools.partial(report.write_report, run.workdir, points=False))
                results.append(outcome)
                continue
            params, validation = task.init_params, {}
            if training or params is None:
                params, validation = read_best(run.workdir, task.abstract_params)
            params = jax.device_put(jax.device_get(params))  # placed as in training: compiled once
            result = _finish(task, run, params, validation, took) if hosts.is_first() else {}
            results.append(result)
            # The next point begins with a collective, which would give up after some minutes.
            hosts.wait_for_first()
    return results


def load_run(
    folder: str | pathlib.Path,
    *,
    model: Callable[..., Any] | None = None,
    config: Any = None,
) -> Any:
    """The model of a run, with the parameters of its best checkpoint. Changes nothing in it.

    Args:
      folder: the run's.
      model: the model's class, if the run trained one of its own.
      config: a config of the model, if it has a class of its own; with the run's values in it.

    Returns:
      A `drawjax.Draw`, a `drawjax.Ram` or one of `model`.

    Raises:
      RunError: if there is no such run, it has no checkpoint yet, or it trained another class.
    """
    folder = pathlib.Path(folder).expanduser()
    kind = GenerationConfig if _draws(read_config(folder)) else ClassificationConfig
    run: Any = kind(workdir=str(folder))
    if config is not None:
        run = dataclasses.replace(run, model=config)
    model = model or _EXPERIMENTS[type(run)].default_model
    trained = read_record(folder).get("model_class")
    if trained is None:
        raise RunError(f"{folder} holds no run: run.json does not name the model_class it trained")
    if _name(model) != trained:
        raise RunError(f"{folder} trained a {trained}, got {_name(model)}")
    return _read_model(folder, _as_trained(run), model)


def experiment_of(
    config: ExperimentConfig,
    images: data.ImageSet,
    model: Callable[..., Any] | None = None,
    *,
    optimizer: optax.GradientTransformation | None = None,
    experiment: type[Experiment] | None = None,
) -> Experiment:
    """The experiment of a config on its images, with `Draw` or `Ram` where no model is given.

    Raises:
      ValueError: if there is no such model of such images, or `experiment` is of other configs.
    """
    kind = _kind(config)
    chosen: Any = kind if experiment is None else experiment
    if not (isinstance(chosen, type) and issubclass(chosen, kind)):
        raise ValueError(
            f"experiment must be a subclass of {kind.__name__} for a {type(config).__name__}, got "
            f"{_name(chosen)}"
        )
    return chosen(config, images, model, optimizer=optimizer)


def _kind(config: Any) -> type[Experiment]:
    """The experiment that a config is of."""
    for of, kind in _EXPERIMENTS.items():
        if isinstance(config, of):
            return kind
    names = " or a ".join(of.__name__ for of in _EXPERIMENTS)
    raise ValueError(f"config must be a {names}, got a {type(config).__name__}")


def _load(dataset: Any, config: data.DataConfig) -> data.ImageSet:
    """The images, and a line for each thing that a reader of a result must know of them."""
    images = data.load(dataset, config)
    if hosts.is_first():
        for note in images.notes:
            _log.warning("%s", note)  # seen in Python as well, where nobody asked for a log
    return images


def _open(experiment: Experiment) -> RunWriter:
    config = experiment.config
    record = {
        "experiment_class": _name(type(experiment)),
        "model_class": _name(experiment.model),
        "image_shape": list(experiment.image_shape),
        **experiment.images.facts(),
    }
    free = {*_OPTIMIZER, "train.steps"} if experiment.optimizer is not None else ()
    keep = config.train.keep_checkpoints
    return RunWriter(config.workdir, config, record=record, free=free, keep=keep)


def _finish(
    experiment: Experiment,
    run: RunWriter,
    params: Any,
    validation: dict[str, float],
    seconds: float,
) -> dict[str, Any]:
    """Evaluates and draws, into the run's folder, what is missing there or asked for."""
    config, folder = experiment.config, run.workdir
    before = _read_results(folder)
    # Fewer than the config's where it was stopped before its end; None for others' parameters.
    steps = max(run.steps(), default=None)
    # Of these parameters: a run may have been evaluated before its end, or by others' parameters.
    which = {"steps": steps, "validation": read_back(validation)}
    if steps is None:
        which["checksum"] = checksum(params)
    finished = which == {name: before.get(name) for name in which}
    # "figures" is added once they are drawn: a run that is killed before draws when it goes on.
    figures = {"figures": steps}
    if hasattr(config, "samples"):
        figures["samples"] = config.samples
    if config.mode == "draw":
        results = before
        experiment.draw(params, folder, final=True)
        drawn = bool(before)
    else:
        results = {
            "data": experiment.images.name,
            "binarization": getattr(config.data, "binarization", "none"),
            "notes": list(experiment.images.notes),
            "validation": validation,
            **experiment.test(params, before if finished and config.mode == "train" else {}),
            "parameters": modules.parameter_count(params),
            "image_shape": list(experiment.image_shape),
            **which,
            "seconds": round(seconds, 1),
            "device": hosts.devices(),
        }
        if finished:
            results |= {name: before[name] for name in ("seconds", "device") if name in before}
        kept, test = before.get("test"), results.get("test")
        if finished and isinstance(kept, dict) and isinstance(test, dict):
            # Hours, that nobody asks to lose.
            weighted = {n: value for n, value in kept.items() if n.startswith("importance_")}
            results["test"] = weighted | test
        _say(experiment, results)
        complete = config.mode == "train" and (folder / "report.html").exists()
        if complete and read_back({**results, **figures}) == before:
            _log.info("this run is finished; --mode evaluate or --mode draw does either again")
            _log.info("done: %s", folder)
            return before
        _write_results(folder, results)
        _log.info("drawing figures")
        drawn = _draw(experiment, params, folder, final=True)
    if drawn:
        results = {**results, **figures}
        _write_results(folder, results)
    report.write_report(folder, points=False)
    _log.info("done: %s", folder)
    return results


def _say(experiment: Experiment, results: dict[str, Any]) -> None:
    """Logs how good the model is; a custom `test` may lack what that says."""
    try:
        _log.info("%s", experiment.summary(results))
    except Exception as error:
        _log.warning("there is no summary of the results: %r", error)


def _draw(experiment: Experiment, params: Any, folder: pathlib.Path, *, final: bool) -> bool:
    """Draws; a failure keeps nobody from the numbers, and is said."""
    try:
        experiment.draw(params, folder, final=final)
    except Exception as error:  # a custom model may raise any
        _log.warning("the figures cannot be drawn: %s", " ".join(str(error).split()))
        return False
    return True


def _read_results(folder: pathlib.Path) -> dict[str, Any]:
    """What a run's results.json says; a torn one is quarantined, and says nothing."""
    path = folder / "results.json"
    try:
        return read_json(path) if path.exists() else {}
    except ValueError:
        aside = path.rename(path.with_name(path.name + ".broken"))
        _log.warning("%s cannot be read; quarantined as %s", path, aside.name)
        return {}


def _write_results(folder: pathlib.Path, results: dict[str, Any]) -> None:
    write_atomically(folder / "results.json", to_json(results, indent=2) + "\n")


def _write_data(experiment: Experiment, folder: pathlib.Path, *notes: str) -> None:
    """Writes data.json: the data really used, which the config does not say, and the devices."""
    _read_results(folder)  # a torn file would keep the report from being written
    training = experiment.config.mode == "train"
    if not training and (folder / "data.json").exists():
        return  # what it says of the training stays
    images = experiment.images
    if experiment.optimizer is not None and training:
        fields = ", ".join(sorted(_OPTIMIZER))
        notes = (f"The optimizer is the program's own: {fields} are not used.", *notes)
    said = {
        "data": images.name,
        "counts": {split: len(part) for split, part in images.parts.items()},
        "notes": [*images.notes, *notes],
        "device": hosts.devices(),
        "image_shape": experiment.image_shape,
    }
    write_atomically(folder / "data.json", to_json(said) + "\n")


# What a run was, read back from its folder.


def _as_trained(config: Config) -> Config:
    """Replaces what a config says of a run by what the run in `config.workdir` was started with.

    Harmless fields at its top level stay, and where the images lie, if it says so.

    Raises:
      RunError: if there is no run, or its config has other fields than this version's.
    """
    flat, own = read_config(config.workdir), flatten(config)
    if _draws(flat) != _draws(own):
        raise RunError(f"{config.workdir} is a run of another kind of experiment")
    kept = {field.name for field in dataclasses.fields(config) if field.metadata.get("harmless")}
    kept |= {f"data.{name}" for name in _PLACES if own.get(f"data.{name}")}
    if unknown := sorted(name for name in flat if "." in name and name not in own):
        raise RunError(
            f"{config.workdir} has {unknown[0]}, which is no field of a {type(config).__name__}: "
            "it is of another version of drawjax, or its model has a config of its own"
        )
    return from_flat(config, {n: v for n, v in flat.items() if n in own and n not in kept})


def _draws(fields: Collection[str]) -> bool:
    """Whether a flat config is of generation."""
    return "data.binarization" in fields


def _config_of_source(config: Config, source: str) -> Config:
    """What the run in another folder was started with; a config's own images are not of it."""
    elsewhere = {name: None for name in _PLACES if hasattr(config.data, name)}
    data = dataclasses.replace(config.data, **elsewhere)
    return _as_trained(dataclasses.replace(config, workdir=source, data=data))


def _with_model_of(config: Config) -> Config:
    """A config with the sizes of the model that its `init_from` names."""
    source = cast(str, config.init_from)
    if pretrained.is_run(source):
        theirs = _config_of_source(config, source).model
    else:
        theirs = pretrained.load_pretrained(source).config
    if not isinstance(theirs, type(config.model)):
        raise ValueError(f"init_from {source} is a model for another kind of experiment")
    return dataclasses.replace(config, model=theirs)


def _initial_params(experiment: Experiment) -> Any:
    """Parameters of the config's `init_from`.

    A learned prior that the source lacks starts as N(0, 1).

    Raises:
      ValueError: if `init_from` names neither a model nor a run, or one of other parameters than
        the config's model; the message names the first that differ.
      RunError: if the run holds no checkpoint that can be read.
    """
    config, like = experiment.config, experiment.abstract_params
    source = cast(str, config.init_from)
    if pretrained.is_run(source):
        model = _read_model(source, _config_of_source(config, source), experiment.model)
    else:
        model = pretrained.load_pretrained(source)
    found = modules.split(model)[1]
    if set(like) - set(found) == set(_OF_A_PRIOR):
        _log.info("%s has no learned prior: it starts as N(0, 1)", source)
        zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), like)
        found = {**found, **{name: zeros[name] for name in _OF_A_PRIOR}}
    if differ := difference(found, like):
        raise ValueError(f"init_from {source} is another model: {differ}")
    # On the host, from where they go to whatever devices the run is on.
    return jax.tree.map(lambda leaf, new: np.asarray(leaf, new.dtype), found, like)


def _read_model(folder: str | pathlib.Path, config: Any, model: Callable[..., Any]) -> Any:
    shape = read_record(folder).get("image_shape")
    if not isinstance(shape, list):
        raise RunError(f"{folder} holds no run: run.json does not say the image_shape")
    graph, like = modules.abstract(model, config.model, tuple(shape))
    return modules.merge(graph, read_best(folder, like)[0])


def _starts_elsewhere(config: ExperimentConfig) -> bool:
    """Whether parameters of `init_from` are wanted: there are none of the run's own."""
    begun = has_checkpoints(config.workdir) or (config.mode != "train" and has_best(config.workdir))
    return config.init_from is not None and not begun


def _check_given(
    given: Collection[str], asked: ExperimentConfig, trained: ExperimentConfig, *, untrained: bool
) -> None:
    """Refuses what would be ignored."""
    wanted, values = flatten(asked), flatten(trained)
    for name in sorted(set(given) & values.keys()):
        of_training = name.startswith("train.") and name != "train.seed"  # which draws the figures
        if of_training and untrained:
            raise ValueError(f"{name} does nothing with --mode {asked.mode} of {asked.init_from}")
        if wanted[name] != values[name]:
            source = trained.init_from if untrained else trained.workdir
            other = f" (with --init-from {source} and another --workdir it would be taken)"
            if untrained or not name.startswith("data.") or name in _SHAPES:
                other = ""
            raise ValueError(
                f"{name} is {values[name]} in {source}, which --mode {asked.mode} takes as it was "
                f"trained; got {wanted[name]}{other}"
            )


def _name(model: Callable[..., Any]) -> str:
    return getattr(model, "__qualname__", type(model).__qualname__)
