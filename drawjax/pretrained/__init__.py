"""Trained models that come with the package, as a config and an archive of arrays.

```
NAME.json   kind and sizes of the model, image shape, SHA-256 of the weights, where they come from
NAME.npz    the parameters, float16, by their path; read without pickle
```

`python -m drawjax.pretrained RUN NAME` makes both out of a finished run's best checkpoint. Models
of your own are folders (`save_pretrained`).
"""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Mapping
from typing import Any, Literal, overload

import jax
import numpy as np

from drawjax import modules
from drawjax.config import nearest
from drawjax.modules import Draw, Ram
from drawjax.pretrained import folder as folders
from drawjax.pretrained.folder import save_pretrained

__all__ = [
    "available",
    "check",
    "describe",
    "load",
    "load_pretrained",
    "save",
    "save_pretrained",
]

_Precision = Literal["float32", "bfloat16"] | None
_HERE = pathlib.Path(__file__).parent


@overload
def load_pretrained(
    name: Literal["mnist", "mnist_static", "mnist_no_attention", "two_digits", "cifar10"],
    *,
    precision: _Precision = None,
) -> Draw: ...


@overload
def load_pretrained(name: Literal["ram4", "ram8"], *, precision: _Precision = None) -> Ram: ...


@overload
def load_pretrained(name: str | pathlib.Path, *, precision: _Precision = None) -> Draw | Ram: ...


def load_pretrained(name: str | pathlib.Path, *, precision: _Precision = None) -> Draw | Ram:
    """A trained model: one that comes with the package, of a folder, or of a hub.

    Args:
      name: `mnist`, `mnist_static`, `mnist_no_attention`, `two_digits` or `cifar10`, which draw;
        `ram4` or `ram8`, which name the class of cluttered digits: docs/results.md says how good
        each is. Or a folder that `save_pretrained` wrote, or `OWNER/NAME` of the Hugging Face hub,
        for which `huggingface_hub` has to be installed.
      precision: type of the matrix products' inputs; None: the one it was trained with.

    Returns:
      A `drawjax.Draw` or a `drawjax.Ram`, ready for use: `model.generate(16, key=key).images`.

    Raises:
      ValueError: if there is no such model, or it cannot be read; the message names the nearest.
    """
    if str(name) in available():
        return load(str(name), precision=precision)
    if pathlib.Path(name).is_dir():
        return folders.load_folder(pathlib.Path(name), precision)
    if str(name).count("/") == 1:
        return folders.load_folder(folders.download(str(name)), precision)
    return load(str(name), precision=precision)


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


def describe(name: str, folder: pathlib.Path = _HERE) -> Mapping[str, Any]:
    """What is known of a model: kind, config, image_shape, provenance (data, test figures, commit).

    Raises:
      ValueError: if there is no such model; the message names the nearest.
    """
    names = available(folder=folder)
    if name not in names:
        near, listed = nearest(name, names), ", ".join(names)
        raise ValueError(f"no pretrained model {name!r}{near}; there are: {listed}")
    return json.loads((folder / f"{name}.json").read_text())


def check(name: str, folder: pathlib.Path = _HERE) -> None:
    """Raises ValueError unless a model's weights have the checksum that its description gives."""
    description, weights = describe(name, folder), folder / f"{name}.npz"
    if hashlib.sha256(weights.read_bytes()).hexdigest() != description["sha256"]:
        raise ValueError(f"{weights} is damaged: its SHA-256 is not the one in {name}.json")


def load(name: str, folder: pathlib.Path = _HERE, *, precision: _Precision = None) -> Draw | Ram:
    """As `load_pretrained`, from any folder.

    Args:
      name: one of `available(folder=folder)`.
      folder: where its two files lie.
      precision: as for `load_pretrained`.

    Raises:
      ValueError: if there is no such model, or its weights are not those that its description gives
        the checksum of.
    """
    check(name, folder)
    description, weights = describe(name, folder), folder / f"{name}.npz"
    with np.load(weights, allow_pickle=False) as arrays:
        return folders.model_of(description, arrays, precision)


def save(
    name: str, model: Draw | Ram, provenance: Mapping[str, Any], folder: pathlib.Path = _HERE
) -> pathlib.Path:
    """Writes a model's two files; returns its weights' path.

    Raises:
      ValueError: if the model is of a class of your own, whose code would not come along, or a
        parameter is too large for float16.
    """
    kind = folders.kind_of(model)
    _, params = modules.split(model)
    arrays = {
        folders.name(path): np.asarray(leaf, np.float16)
        for path, leaf in jax.tree.leaves_with_path(params)
    }
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise ValueError("a parameter is too large for float16")
    weights = folder / f"{name}.npz"
    np.savez_compressed(weights, allow_pickle=False, **arrays)
    description = {
        "kind": kind,
        "config": dataclasses.asdict(model.config),
        "image_shape": list(model.image_shape),
        "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "provenance": dict(provenance),
    }
    (folder / f"{name}.json").write_text(json.dumps(description, indent=2) + "\n")
    return weights
