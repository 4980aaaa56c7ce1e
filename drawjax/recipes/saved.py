"""What a run's folder says of the run: its config, read back into dataclasses."""

import dataclasses
import json
import pathlib
from typing import Any, TypeVar, cast

from drawjax.recipes.work import RecipeConfig
from drawjax.training import RunError
from drawjax.training.run import FREE

__all__ = ["with_saved"]


Config = TypeVar("Config", bound=RecipeConfig)


def with_saved(config: Config) -> Config:
    """Replaces what a config says of a run by what the run in `config.workdir` was started with.

    Args:
      config: names the run in `workdir`.

    Returns:
      The config with the saved fields, but for those of `drawjax.training.run.FREE` at its top
      level, and `data.dir` where it is given.

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
            if field.name in flat and field.name not in FREE:
                own[field.name] = flat[field.name]
            continue
        prefix = f"{field.name}."
        values = {key.removeprefix(prefix): flat[key] for key in flat if key.startswith(prefix)}
        if field.name == "data":
            values["dir"] = getattr(value, "dir", None) or values.get("dir")
        try:
            own[field.name] = dataclasses.replace(cast(Any, value), **values)
        except TypeError as error:
            raise RunError(f"{path} is of another version of the program: {error}") from None
    return dataclasses.replace(config, **own)
