"""A run's config, read back from its folder."""

import dataclasses
import json
import pathlib
from typing import Any, TypeVar, cast

from drawjax.config import RecipeConfig
from drawjax.training import RunError

__all__ = ["with_saved"]

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
