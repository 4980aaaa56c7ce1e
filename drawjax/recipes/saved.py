"""What a run's folder says of the run: its config, read back into dataclasses."""

import dataclasses
import json
import pathlib
from collections.abc import Sequence
from typing import Any, ClassVar, Protocol, TypeVar

from drawjax.training import RunError

__all__ = ["with_saved"]


class _Config(Protocol):
    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def workdir(self) -> str: ...


Config = TypeVar("Config", bound=_Config)


def with_saved(config: Config, names: Sequence[str]) -> Config:
    """Replaces parts of a config by those that the run in `config.workdir` was started with.

    Args:
      config: a frozen dataclass with a field `workdir`.
      names: its fields to replace, each a dataclass.

    Returns:
      The config with the saved parts.

    Raises:
      RunError: if there is no run, or its config has other fields than this version's.
    """
    path = pathlib.Path(config.workdir) / "config.json"
    if not path.exists():
        raise RunError(f"{config.workdir} holds no run: there is no {path.name}")
    flat: dict[str, Any] = json.loads(path.read_text())
    parts = {}
    for name in names:
        part = getattr(config, name)
        prefix = f"{name}."
        values = {key.removeprefix(prefix): flat[key] for key in flat if key.startswith(prefix)}
        try:
            parts[name] = dataclasses.replace(part, **values)
        except TypeError as error:
            raise RunError(f"{path} is of another version of the program: {error}") from None
    return dataclasses.replace(config, **parts)
