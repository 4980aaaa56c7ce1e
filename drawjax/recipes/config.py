"""What the recipes' configs share, and how a run's config is read back from its folder."""

import dataclasses
import json
import pathlib
from typing import Any, Literal, TypeVar, cast

import tyro

from drawjax.data import DataConfig
from drawjax.training import RunError, TrainConfig
from drawjax.training.config import harmless

__all__ = ["RecipeConfig", "with_saved"]


@dataclasses.dataclass(frozen=True)
class RecipeConfig:
    """A run of a recipe, which adds its model."""

    workdir: str = harmless("runs/experiment")
    """The run's folder; a run that was interrupted goes on from there."""
    mode: Literal["train", "evaluate", "draw"] = harmless("train")
    """train: train (or go on), evaluate, draw. evaluate, draw: do so again from the best checkpoint
    of a run; its folder says how it was trained."""
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    model: Any = None
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    init_from: str | None = None
    """A pretrained model's name or folder, or a run's folder, whose parameters training starts
    from; None: fresh ones. evaluate, draw: those of workdir's run, or, if there is none, these."""
    model_class: tyro.conf.Suppress[str] = ""
    """Name of the model's class; set by `drawjax.train`."""


Config = TypeVar("Config", bound=RecipeConfig)


def with_saved(config: Config) -> Config:
    """Replaces what a config says of a run by what the run in `config.workdir` was started with.

    Args:
      config: names the run in `workdir`.

    Returns:
      The config with the saved fields, but for harmless ones at its top level, and `data.dir` where
      it is given.

    Raises:
      RunError: if there is no run, or its config has other fields than this version's.
    """
    path = pathlib.Path(config.workdir) / "config.json"
    if not path.exists():
        raise RunError(f"{config.workdir} holds no run: there is no {path.name}")
    flat: dict[str, Any] = json.loads(path.read_text())
    own: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if not dataclasses.is_dataclass(value):
            if field.name in flat and not field.metadata.get("harmless"):
                own[field.name] = flat[field.name]
            continue
        prefix = f"{field.name}."
        values = {key.removeprefix(prefix): flat[key] for key in flat if key.startswith(prefix)}
        if field.name == "data":
            values["dir"] = getattr(value, "dir", None) or values.get("dir")
        try:
            own[field.name] = dataclasses.replace(cast(Any, value), **values)
        except TypeError as error:
            raise RunError(f"{path} is of another version of drawjax: {error}") from None
    return dataclasses.replace(config, **own)
