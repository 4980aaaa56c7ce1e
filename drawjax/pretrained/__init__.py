"""Trained models that come with the package, as a config and an archive of arrays.

```
NAME.json   kind and sizes of the model, image shape, SHA-256 of the weights, where they come from
NAME.npz    the parameters, float16, by their path; read without pickle
```

`python -m drawjax.pretrained RUN NAME` makes both out of a finished run's best checkpoint.
"""

import dataclasses
import difflib
import hashlib
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from drawjax import modules

__all__ = ["Pretrained", "available", "load", "save", "structure"]

_HERE = pathlib.Path(__file__).parent
_CONFIGS = {"draw": modules.DrawConfig, "ram": modules.RamConfig}


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """A model ready for use: `drawjax.draw.generate(model.networks(), noise)`."""

    name: str
    config: modules.DrawConfig | modules.RamConfig
    image_shape: tuple[int, int, int]  #: (height, width, channels)
    graph: Any  #: structure, as `modules.split` gives it
    params: Any  #: float32 arrays
    provenance: Mapping[str, Any]  #: data set, steps, test figures, commit

    def networks(self, params: Any = None) -> Any:
        """The model with its parameters, or others of the same structure, in it."""
        return modules.merge(self.graph, self.params if params is None else params)


def available(kind: str | None = None, folder: pathlib.Path = _HERE) -> list[str]:
    """Names of the models that come with the package.

    Args:
      kind: "draw" or "ram" for models of that kind alone.
      folder: where their files lie.
    """
    return sorted(
        path.stem
        for path in folder.glob("*.json")
        if kind is None or json.loads(path.read_text())["kind"] == kind
    )


def load(name: str, folder: pathlib.Path = _HERE) -> Pretrained:
    """Loads a model that comes with the package.

    Args:
      name: one of `available()`.
      folder: where its two files lie.

    Raises:
      ValueError: if there is no such model (the message names the nearest), or its weights are not
        those that its description gives the checksum of.
    """
    names = available(folder=folder)
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f"no pretrained model {name!r}{hint}; there are: {', '.join(names)}")
    description = json.loads((folder / f"{name}.json").read_text())
    weights = folder / f"{name}.npz"
    if hashlib.sha256(weights.read_bytes()).hexdigest() != description["sha256"]:
        raise ValueError(f"{weights} is damaged: its SHA-256 is not the one in {name}.json")
    config = _CONFIGS[description["kind"]](**description["config"])
    image_shape = tuple(description["image_shape"])
    graph, like = structure(config, image_shape)
    with np.load(weights, allow_pickle=False) as arrays:
        params = jax.tree.map_with_path(
            lambda path, leaf: jnp.asarray(arrays[_name(path)], leaf.dtype), like
        )
    return Pretrained(name, config, image_shape, graph, params, description["provenance"])


def structure(
    config: modules.DrawConfig | modules.RamConfig, image_shape: tuple[int, int, int]
) -> tuple[Any, Any]:
    """Structure and untrained parameters of a config's model, as `modules.split` gives them."""
    key = jax.random.key(0)
    if isinstance(config, modules.RamConfig):
        return modules.split(modules.Ram(config, image_shape, key=key))
    return modules.split(modules.Draw(config, image_shape, key=key))


def save(
    name: str,
    config: modules.DrawConfig | modules.RamConfig,
    image_shape: tuple[int, int, int],
    params: Any,
    provenance: Mapping[str, Any],
    folder: pathlib.Path = _HERE,
) -> pathlib.Path:
    """Writes a model's two files; returns its weights' path."""
    kind = next(kind for kind, type_ in _CONFIGS.items() if isinstance(config, type_))
    arrays = {
        _name(path): np.asarray(leaf, np.float16)
        for path, leaf in jax.tree.leaves_with_path(params)
    }
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise ValueError("a parameter is too large for float16")
    weights = folder / f"{name}.npz"
    np.savez_compressed(weights, allow_pickle=False, **arrays)
    description = {
        "kind": kind,
        "config": dataclasses.asdict(config),
        "image_shape": list(image_shape),
        "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "provenance": dict(provenance),
    }
    (folder / f"{name}.json").write_text(json.dumps(description, indent=2) + "\n")
    return weights


def _name(path: Sequence[Any]) -> str:
    return "/".join(str(key.key) for key in path)
