"""Parameters somebody trained before, to start training from or to evaluate as they are."""

import dataclasses
import pathlib
from typing import Any

import jax
import numpy as np

from drawjax import modules, pretrained
from drawjax.recipes.config import with_saved
from drawjax.training import Run

__all__ = ["initial_params", "with_model_of"]


def with_model_of(config: Any) -> Any:
    """A config with the sizes of the model that its `init_from` names.

    Raises:
      ValueError: if it names neither a pretrained model of the config's kind nor a run's folder.
      RunError: if the folder holds no run.
    """
    source = config.init_from
    if not pathlib.Path(source).is_dir():
        model = pretrained.load(source)
        if not isinstance(model.config, type(config.model)):
            raise ValueError(f"init_from {source} is a model for another kind of experiment")
        return dataclasses.replace(config, model=model.config)
    theirs = with_saved(dataclasses.replace(config, workdir=source))
    return dataclasses.replace(config, model=theirs.model)


def initial_params(source: str, config: Any, like: Any) -> Any:
    """Parameters to start from.

    Args:
      source: a pretrained model's name, or the folder of a run, whose best checkpoint is taken.
      config: the config of the run that is to start; a run named by `source` is of its kind.
      like: parameters as the run needs them, or their shapes.

    Returns:
      Parameters in the structure of `like`.

    Raises:
      ValueError: if there is neither such a model nor such a folder, or its parameters have other
        names or shapes than `like`; the message names the first that differ.
      RunError: if the folder holds no checkpoint that can be read, or another process uses it.
    """
    if pathlib.Path(source).is_dir():
        theirs = with_saved(dataclasses.replace(config, workdir=source))
        with Run(source, theirs) as run:
            found, _ = run.restore_best(like)
    else:
        found = modules.split(pretrained.load(source))[1]
    there, here = _shapes(found), _shapes(like)
    for name in sorted(there.keys() | here.keys()):
        if there.get(name) != here.get(name):
            raise ValueError(
                f"init_from {source} is of another size: {name} is "
                f"{_shown(there.get(name))} there, {_shown(here.get(name))} here"
            )
    # On the host, from where they go to whatever devices the run is on.
    return jax.tree.map(lambda leaf, new: np.asarray(leaf, new.dtype), found, like)


def _shapes(params: Any) -> dict[str, list[int]]:
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): list(leaf.shape)
        for path, leaf in jax.tree.leaves_with_path(params)
    }


def _shown(shape: list[int] | None) -> str:
    return "missing" if shape is None else str(shape)
