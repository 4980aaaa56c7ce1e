"""Parameters somebody trained before, to start training from or to evaluate as they are."""

import dataclasses
import logging
import pathlib
from typing import Any

import jax
import numpy as np

from drawjax import modules, pretrained
from drawjax.pretrained.folder import WEIGHTS
from drawjax.recipes.saved import with_saved
from drawjax.training import RunError, read_best

__all__ = ["initial_params", "with_model_of"]

_log = logging.getLogger(__name__)

# A model trained without them starts with zeros here, which is what it had: N(0, 1).
_OF_A_PRIOR = ("prior_mean", "prior_log_scale")


def with_model_of(config: Any) -> Any:
    """A config with the sizes of the model that its `init_from` names.

    Raises:
      ValueError: if it names neither a pretrained model of the config's kind nor a run's folder.
      RunError: if the folder holds no run.
    """
    source = config.init_from
    if not _is_run(source):
        model = pretrained.load_pretrained(source)
        if not isinstance(model.config, type(config.model)):
            raise ValueError(f"init_from {source} is a model for another kind of experiment")
        return dataclasses.replace(config, model=model.config)
    theirs = with_saved(dataclasses.replace(config, workdir=source))
    return dataclasses.replace(config, model=theirs.model)


def initial_params(source: str, config: Any, like: Any) -> Any:
    """Parameters to start from.

    Args:
      source: a pretrained model, or the folder of a run, whose best checkpoint is taken.
      config: the config of the run that is to start; a run named by `source` is of its kind.
      like: parameters as the run needs them, or their shapes.

    Returns:
      Parameters in the structure of `like`. A learned prior that the source lacks starts as
      N(0, 1).

    Raises:
      ValueError: if there is neither such a model nor such a folder, or its parameters have other
        names or shapes than `like`; the message names the first that differ.
      RunError: if the folder holds no checkpoint that can be read, or another process uses it.
    """
    if _is_run(source):
        theirs = with_saved(dataclasses.replace(config, workdir=source))
        has_prior = getattr(theirs.model, "prior", None) != "standard"
        try:
            found, _ = read_best(source, like if has_prior else _without_prior(like))
        except RunError:
            _check_same_model(source, theirs.model, config.model)
            raise
    else:
        found = modules.split(pretrained.load_pretrained(source))[1]
    if set(like) - set(found) == set(_OF_A_PRIOR):
        _log.info("%s has no learned prior: it starts as N(0, 1)", source)
        zeros = {name: _zeros(like[name]) for name in _OF_A_PRIOR}
        found = {name: found[name] if name in found else zeros[name] for name in like}
    there, here = _shapes(found), _shapes(like)
    for name in sorted(there.keys() | here.keys()):
        if there.get(name) != here.get(name):
            raise ValueError(
                f"init_from {source} is of another size: {name} is "
                f"{_shown(there.get(name))} there, {_shown(here.get(name))} here"
            )
    # On the host, from where they go to whatever devices the run is on.
    return jax.tree.map(lambda leaf, new: np.asarray(leaf, new.dtype), found, like)


def _is_run(source: str) -> bool:
    folder = pathlib.Path(source)
    return folder.is_dir() and not (folder / WEIGHTS).exists()


def _check_same_model(source: str, theirs: Any, ours: Any) -> None:
    for field in dataclasses.fields(theirs):
        there, here = getattr(theirs, field.name), getattr(ours, field.name, None)
        if there != here:
            raise ValueError(
                f"init_from {source} is another model: {field.name} is {there} there, {here} here"
            )


def _without_prior(params: Any) -> Any:
    return {name: value for name, value in params.items() if name not in _OF_A_PRIOR}


def _zeros(like: Any) -> Any:
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), like)


def _shapes(params: Any) -> dict[str, list[int]]:
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): list(leaf.shape)
        for path, leaf in jax.tree.leaves_with_path(params)
    }


def _shown(shape: list[int] | None) -> str:
    return "missing" if shape is None else str(shape)
