"""Models as folders that others can load, and that model hubs show.

```
config.json         kind and sizes of the model, image shape, where it comes from
model.safetensors   the parameters, by their path
```
"""

import dataclasses
import importlib
import importlib.metadata
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from drawjax import modules
from drawjax.modules import Draw, DrawConfig, Ram, RamConfig

__all__ = ["KINDS", "WEIGHTS", "download", "kind_of", "load_folder", "model_of", "save_pretrained"]

KINDS: dict[str, tuple[Any, Any]] = {"draw": (Draw, DrawConfig), "ram": (Ram, RamConfig)}
WEIGHTS = "model.safetensors"


def save_pretrained(
    model: Draw | Ram, folder: str | pathlib.Path, *, provenance: Mapping[str, Any] | None = None
) -> None:
    """Writes a model to a folder, from which `drawjax.load_pretrained(folder)` takes it.

    Args:
      model: a `drawjax.Draw` or a `drawjax.Ram`, for example of `drawjax.load_run`.
      folder: made if need be; what it holds of an earlier model is replaced.
      provenance: what else its config.json is to say: data, figures, commit.

    Raises:
      ValueError: if the model is of a class of your own, whose code would not come along.
    """
    from safetensors.numpy import save_file

    description = {
        "library": "drawjax",
        "version": importlib.metadata.version("drawjax"),
        "kind": kind_of(model),
        "config": dataclasses.asdict(model.config),
        "image_shape": list(model.image_shape),
        "provenance": dict(provenance or {}),
    }
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    _, params = modules.split(model)
    arrays = {name(path): np.asarray(leaf) for path, leaf in jax.tree.leaves_with_path(params)}
    save_file(arrays, folder / WEIGHTS)
    (folder / "config.json").write_text(json.dumps(description, indent=2) + "\n")


def load_folder(folder: pathlib.Path, precision: Any = None) -> Draw | Ram:
    """The model that `save_pretrained` wrote to a folder.

    Raises:
      ValueError: if there is none, or it is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        description = json.loads((folder / "config.json").read_text())
        arrays = load_file(folder / WEIGHTS)
        return model_of(description, arrays, precision)
    except FileNotFoundError as error:
        raise ValueError(f"{folder} holds no model: there is no {error.filename}") from None
    except (KeyError, TypeError, json.JSONDecodeError, SafetensorError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(f"the model in {folder} cannot be read ({reason})") from error


def model_of(description: Mapping[str, Any], arrays: Mapping[str, Any], precision: Any) -> Any:
    """A model of its description and its parameters by path."""
    model_class, config_class = KINDS[description["kind"]]
    config = config_class(**description["config"])
    if precision is not None:
        config = dataclasses.replace(config, precision=precision)
    graph, like = modules.abstract(model_class, config, tuple(description["image_shape"]))
    params = jax.tree.map_with_path(
        lambda path, leaf: jnp.asarray(arrays[name(path)], leaf.dtype), like
    )
    return modules.merge(graph, params)


def kind_of(model: Any) -> str:
    """What `KINDS` calls a model.

    Raises:
      ValueError: if the model is of another class.
    """
    for kind, (model_class, _) in KINDS.items():
        if type(model) is model_class:
            return kind
    raise ValueError(f"only Draw and Ram can be saved so, got a {type(model).__name__}")


def download(repository: str) -> pathlib.Path:
    """The folder of a model of the Hugging Face hub, `OWNER/NAME`, downloaded if need be.

    Raises:
      ValueError: if `huggingface_hub` is not installed, or the hub has no such model.
    """
    try:
        hub = importlib.import_module("huggingface_hub")
    except ModuleNotFoundError:
        raise ValueError(
            f"there is no folder {repository}; for a model of the Hugging Face hub: "
            "pip install huggingface_hub"
        ) from None
    try:
        files = ["config.json", WEIGHTS]
        return pathlib.Path(hub.snapshot_download(repository, allow_patterns=files))
    except Exception as error:  # of its many kinds, and of the network
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(f"cannot download {repository}: {reason}") from error


def name(path: Any) -> str:
    """What a parameter is called in a file."""
    return "/".join(str(key.key) for key in path)
