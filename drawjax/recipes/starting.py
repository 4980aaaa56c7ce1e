"""Training that starts from parameters somebody trained before, in place of fresh ones."""

import dataclasses
import pathlib
from typing import Any

import jax
import jax.numpy as jnp

from drawjax import pretrained
from drawjax.recipes import saved
from drawjax.training import Run

__all__ = ["starting_params"]


def starting_params(source: str, config: Any, like: Any) -> Any:
    """Parameters to start from.

    Args:
      source: a pretrained model's name, or the folder of a run, whose best checkpoint is taken.
      config: the config of the run that is to start; a run named by `source` is of its kind.
      like: parameters, or their shapes, as the run needs them.

    Returns:
      Parameters in the structure of `like`.

    Raises:
      ValueError: if there is neither such a model nor such a folder, or its parameters have other
        names or shapes than `like`; the message names the first that differ.
      RunError: if the folder holds no checkpoint that can be read, or another process uses it.
    """
    if source in pretrained.available():
        found = pretrained.load(source).params
    elif pathlib.Path(source).is_dir():
        theirs = saved.with_saved(dataclasses.replace(config, workdir=source))
        with Run(source, theirs) as run:
            found, _ = run.restore_best(like)
    else:
        models = ", ".join(pretrained.available())
        raise ValueError(f"start_from {source}: no run's folder, and no model of {models}")
    there, here = _shapes(found), _shapes(like)
    for name in sorted(there.keys() | here.keys()):
        if there.get(name) != here.get(name):
            raise ValueError(
                f"start_from {source} is of another size: {name} is "
                f"{_shown(there.get(name))} there, {_shown(here.get(name))} here"
            )
    return jax.tree.map(lambda leaf, new: jnp.asarray(leaf, new.dtype), found, like)


def _shapes(params: Any) -> dict[str, list[int]]:
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): list(leaf.shape)
        for path, leaf in jax.tree.leaves_with_path(params)
    }


def _shown(shape: list[int] | None) -> str:
    return "missing" if shape is None else str(shape)
