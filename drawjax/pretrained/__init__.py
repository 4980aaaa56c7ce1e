"""Trained models as folders: those that come with the package, and those that you save.

```
NAME/config.json         kind and sizes of the model, image shape, where it comes from, and the
                         SHA-256 of the other file
NAME/model.safetensors   the parameters by their path, and once more what model they are of
NAME/README.md           a card for people and hubs, which nothing reads; yours once you edit it
```

Each of the first two says what the other has to be, so that files of two models never load as one.
`python -m drawjax.pretrained RUN NAME --commit COMMIT` adds the model of a finished run to the
package.
"""

import contextlib
import dataclasses
import hashlib
import importlib
import importlib.metadata
import json
import logging
import os
import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal, overload

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy

import drawjax
from drawjax import modules
from drawjax.config import nearest
from drawjax.files import write_together
from drawjax.modules import Draw, DrawConfig, Ram, RamConfig
from drawjax.pretrained.card import card

__all__ = ["available", "describe", "is_run", "load_pretrained", "push_to_hub", "save_pretrained"]

_log = logging.getLogger(__name__)

_Precision = Literal["float32", "bfloat16"] | None
FOLDER = pathlib.Path(__file__).parent  # of the package's models
_CONFIG, _WEIGHTS, _README = "config.json", "model.safetensors", "README.md"
_KINDS: dict[str, tuple[Any, Any]] = {"draw": (Draw, DrawConfig), "ram": (Ram, RamConfig)}
_FIELDS = {"kind": str, "config": dict, "image_shape": list, "provenance": dict}  # of config.json
_TYPES = {"F16": "float16", "F32": "float32"}  # of stored parameters, by safetensors' names


@overload
def load_pretrained(
    name: Literal[
        "mnist",
        "mnist_static",
        "mnist_no_attention",
        "mnist_classes",
        "two_digits",
        "cifar10",
        "svhn",
    ],
    *,
    precision: _Precision = None,
) -> Draw: ...


@overload
def load_pretrained(name: Literal["ram4", "ram8"], *, precision: _Precision = None) -> Ram: ...


@overload
def load_pretrained(name: str | os.PathLike, *, precision: _Precision = None) -> Draw | Ram: ...


def load_pretrained(name: str | os.PathLike, *, precision: _Precision = None) -> Draw | Ram:
    """A trained model: of a folder, of the package, or of a hub.

    Args:
      name: what is found first of: the folder of a run (its best checkpoint is taken); a folder
        that `save_pretrained` wrote; a model that comes with the package, `mnist`, `mnist_static`,
        `mnist_no_attention`, `mnist_classes`, `two_digits`, `cifar10` or `svhn`, which draw, `ram4`
        or `ram8`, which classify cluttered digits (docs/results.md says how good each is);
        `OWNER/NAME` of the Hugging Face hub, for which `huggingface_hub` has to be installed; it is
        not asked where a folder `OWNER` is here.
      precision: type of the inputs of matrix products; None: the one it was trained with.

    Returns:
      A `drawjax.Draw` or a `drawjax.Ram`, ready for use: `model.generate(16, key=key).images`.

    Raises:
      ValueError: if there is no such model, or its files cannot be read, are damaged, or are not
        those of one model; the message names the file, and the first parameter that differs.
      RunError: if the run has no checkpoint yet, or trained a class of your own
        (`drawjax.load_run(folder, model=...)` takes it).
    """
    # Reading a run imports all of training, which the others do without.
    model = drawjax.load_run(_path(name)) if is_run(name) else _read(_find(name))
    if precision is None:
        return model
    config = dataclasses.replace(model.config, precision=precision)
    graph, _ = modules.abstract(type(model), config, model.image_shape)
    return modules.merge(graph, modules.split(model)[1])


def save_pretrained(
    model: Draw | Ram,
    folder: str | os.PathLike,
    *,
    provenance: Mapping[str, Any] | None = None,
    dtype: Literal["float32", "float16"] = "float32",
) -> None:
    """Writes a model to a folder, from which `drawjax.load_pretrained(folder)` takes it.

    Its README.md is written too, unless there is one that somebody edited.

    Args:
      model: a `drawjax.Draw` or a `drawjax.Ram`, for example of `drawjax.load_run`.
      folder: made if need be; what it holds of an earlier model is replaced once the new files are
        complete.
      provenance: what else its config.json is to say: data, figures, commit. Whatever JSON can
        hold; numbers of NumPy and JAX, arrays and paths are taken, too. The README.md takes
        `data`, `license` and `test` from it.
      dtype: of the parameters in the file; float16 takes half the space.

    Raises:
      ValueError: before any file is touched: if the model or its config is of a class of your own,
        whose code would not come along, its parameters are not those of its config or not finite,
        the provenance cannot be written, or the folder is a run's.
    """
    if not os.fspath(folder):
        raise ValueError("the folder's name is empty")
    folder = _path(folder)
    if is_run(folder):
        raise ValueError(f"{folder} has a {_CONFIG} alone, as a run has; name another folder")
    if dtype not in _TYPES.values():
        raise ValueError(f"dtype must be one of {', '.join(_TYPES.values())}, got {dtype!r}")
    of = {
        "kind": _kind(model),
        "config": dataclasses.asdict(model.config),
        "image_shape": list(model.image_shape),
    }
    _, like = modules.abstract(type(model), model.config, model.image_shape)
    _, params = modules.split(model)
    arrays = {_name(path): np.asarray(leaf) for path, leaf in jax.tree.leaves_with_path(params)}
    found = {name: f"{array.dtype}{list(array.shape)}" for name, array in arrays.items()}
    _check_parameters(found, like, "the model")
    with np.errstate(over="ignore"):  # said below, by name
        arrays = {name: array.astype(dtype) for name, array in arrays.items()}
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise ValueError(f"parameter {name} is not finite in {dtype}")
    weights = safetensors.numpy.save(arrays, metadata={"drawjax": _to_json(of)})
    description = {
        "library": "drawjax",
        "version": importlib.metadata.version("drawjax"),
        **of,
        "sha256": hashlib.sha256(weights).hexdigest(),
        "provenance": dict(provenance or {}),
    }
    config = _to_json(description, indent=2) + "\n"
    files: dict[pathlib.Path, str | bytes] = {folder / _WEIGHTS: weights}
    readme = folder / _README
    try:
        ours = readme.read_text() == card(_read_description(folder))
    except (OSError, ValueError):
        ours = not os.path.lexists(readme)
    if ours:
        files[readme] = card(json.loads(config))
    folder.mkdir(parents=True, exist_ok=True)
    # The config comes last: alone it would be a run's. Between the two no model loads.
    write_together({**files, folder / _CONFIG: config})


def push_to_hub(folder: str | os.PathLike, name: str) -> None:
    """Uploads a folder that `save_pretrained` wrote to the Hugging Face hub, as `OWNER/NAME`.

    Raises:
      ValueError: if the folder holds no whole model, huggingface_hub is not installed, or the hub
        refuses; it wants you to be logged in.
    """
    _read(_path(folder))
    files = [_CONFIG, _WEIGHTS, _README]
    _on_hub("create_repo", name, exist_ok=True)
    _on_hub("upload_folder", repo_id=name, folder_path=_path(folder), allow_patterns=files)


def available(kind: str | None = None, folder: str | os.PathLike = FOLDER) -> list[str]:
    """Names of the models that come with the package.

    Args:
      kind: "draw" or "ram" for models of that kind alone.
      folder: where to look instead, for folders that `save_pretrained` wrote.
    """
    names = sorted(path.parent.name for path in _path(folder).glob(f"*/{_WEIGHTS}"))
    if kind is None:
        return names
    return [name for name in names if _read_description(_path(folder) / name)["kind"] == kind]


def describe(name: str | os.PathLike) -> Mapping[str, Any]:
    """What is known of a model: kind, config, image_shape, provenance (data, test figures, commit).

    Args:
      name: as for `load_pretrained`, but for a run.

    Raises:
      ValueError: if there is no such model, or its config.json cannot be read.
    """
    return _read_description(_find(name))


def is_run(folder: str | os.PathLike) -> bool:
    """Whether a folder is a run's: it has a config.json, of no model, and no weights beside it."""
    config = _path(folder) / _CONFIG
    if not os.fspath(folder) or not os.path.exists(config):
        return False
    if os.path.exists(config.with_name(_WEIGHTS)):
        return False
    try:
        return "kind" not in json.loads(config.read_bytes())
    except (OSError, TypeError, ValueError):
        return True  # `load_run` says what is wrong with it


def _path(folder: str | os.PathLike) -> pathlib.Path:
    return pathlib.Path(os.path.expanduser(folder))


def _find(name: str | os.PathLike) -> pathlib.Path:
    """The folder of a model's two files, downloaded if need be."""
    text, folder, names = os.fspath(name), _path(name), available()
    if text and os.path.exists(folder / _WEIGHTS):
        return folder
    if text in names:
        return FOLDER / text
    missing = (
        f"no model {text!r}{nearest(text, names)}: no folder {os.path.abspath(folder)} of a run "
        f"or with {_CONFIG} and {_WEIGHTS}; of the package there are {', '.join(names)}"
    )
    if re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", text):
        if os.path.isdir(folder.parent):  # `models/mine`, misspelled, is no business of a hub
            raise ValueError(f"{missing}; no hub is asked, as {folder.parent} is a folder here")
        try:
            files = [_CONFIG, _WEIGHTS]
            return pathlib.Path(_on_hub("snapshot_download", text, allow_patterns=files))
        except ValueError as error:
            missing += f"; {error}"
    raise ValueError(missing)


def _on_hub(function: str, *arguments: Any, **options: Any) -> Any:
    try:
        return getattr(importlib.import_module("huggingface_hub"), function)(*arguments, **options)
    except ModuleNotFoundError:
        raise ValueError("for the Hugging Face hub: pip install huggingface_hub") from None
    except Exception as error:  # of its many kinds, and of the network
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(f"the Hugging Face hub says: {reason}") from error


def _read(folder: pathlib.Path) -> Draw | Ram:
    """The model in a folder, its two files held to each other."""
    description, path = _read_description(folder), folder / _WEIGHTS
    with _reading(folder / _CONFIG):
        model_class, config_class = _KINDS[description["kind"]]
        config, shape = config_class(**description["config"]), tuple(description["image_shape"])
        graph, like = modules.abstract(model_class, config, shape)
    with _reading(path):
        content = path.read_bytes()
        stored = dict(safetensors.deserialize(content))
    found = {
        name: f"{_TYPES.get(array['dtype'], array['dtype'])}{array['shape']}"
        for name, array in stored.items()
    }
    _check_parameters(found, like, str(path))
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    saved_with = header.get("__metadata__", {}).get("drawjax")
    if saved_with is None and "sha256" not in description:
        _log.warning("%s is of drawjax 0.1.0, which did not record what its weights are of", folder)
    elif hashlib.sha256(content).hexdigest() != description.get("sha256"):
        raise ValueError(
            f"{path} is damaged, or another model's: its SHA-256 is not the one in {_CONFIG}"
        )
    else:
        theirs, ours = _flat(json.loads(saved_with or "{}")), _flat(description)
        for name in sorted(theirs.keys() | ours.keys()):
            then, now = theirs.get(name, "missing"), ours.get(name, "missing")
            if then != now:
                raise ValueError(
                    f"{folder / _CONFIG} is not the one that {_WEIGHTS} was saved with: {name} is "
                    f"{now}, and was {then}"
                )

    def parameter(path: Any, leaf: Any) -> jax.Array:
        array = stored[_name(path)]
        values = np.frombuffer(array["data"], _TYPES[array["dtype"]])
        return jnp.asarray(values.reshape(array["shape"]), leaf.dtype)

    return modules.merge(graph, jax.tree.map_with_path(parameter, like))


def _read_description(folder: pathlib.Path) -> dict[str, Any]:
    path = folder / _CONFIG
    with _reading(path):
        description = json.loads(path.read_bytes().decode())
    for name, kind in _FIELDS.items():
        found = description.get(name) if isinstance(description, dict) else None
        if not isinstance(found, kind):
            raise ValueError(f"{path} is no model's: its {name} is {found!r}")
    return description


@contextlib.contextmanager
def _reading(path: pathlib.Path) -> Iterator[None]:
    """Names the file in whatever is wrong with it, down to a kind of model that is not known."""
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, safetensors.SafetensorError) as error:
        reason = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
        raise ValueError(f"{path} cannot be read: {reason}") from error


def _flat(description: Mapping[str, Any]) -> dict[str, Any]:
    """What parameters are of, on one level."""
    of = {name: description.get(name) for name in ("kind", "image_shape")}
    return {**of, **description.get("config", {})}


def _check_parameters(found: Mapping[str, str], like: Any, where: str) -> None:
    """Raises ValueError, naming the first that is not, unless all are those of a config's model."""
    wanted = {_name(path): list(leaf.shape) for path, leaf in jax.tree.leaves_with_path(like)}
    for name in sorted(found.keys() | wanted.keys()):
        there = found.get(name, "missing")
        if name not in wanted:
            raise ValueError(f"{where} has a parameter {name}, which its config's model has not")
        if there not in [f"{kind}{wanted[name]}" for kind in _TYPES.values()]:
            raise ValueError(
                f"{where} is not of its config's model: parameter {name} is {there}, "
                f"not float32{wanted[name]}"
            )


def _kind(model: Any) -> str:
    got = type(model).__name__
    for kind, (model_class, config_class) in _KINDS.items():
        if type(model) is model_class:
            if type(model.config) is config_class:
                return kind
            got += f" of a {type(model.config).__name__}"
    raise ValueError(f"only Draw and Ram of their own configs can be saved so, got a {got}")


def _name(path: Any) -> str:
    """What a parameter is called in a file."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _to_json(value: Any, indent: int | None = None) -> str:
    try:
        return json.dumps(value, indent=indent, allow_nan=False, default=_plain)
    except (TypeError, ValueError) as error:
        raise ValueError(f"config.json cannot hold the model's provenance: {error}") from error


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray | jax.Array):
        return np.asarray(value).tolist()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f"{value!r} is a {type(value).__name__}")
