"""DRAW (Gregor et al. 2015) in JAX: a recurrent network that draws images with attention.

`import drawjax.attention` is the glimpse operation on its own and loads nothing but JAX.
"""

import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    __version__: str
    from drawjax import attention
    from drawjax.cli import main
    from drawjax.config import DrawConfig, RamConfig
    from drawjax.exports import export
    from drawjax.modules import Draw, Ram
    from drawjax.pretrained import load_pretrained, save_pretrained
    from drawjax.runner import load_run, train

__all__ = [
    "Draw",
    "DrawConfig",
    "Ram",
    "RamConfig",
    "attention",
    "export",
    "load_pretrained",
    "load_run",
    "main",
    "save_pretrained",
    "train",
]

_MODULES = {
    "Draw": "modules",
    "DrawConfig": "config",
    "Ram": "modules",
    "RamConfig": "config",
    "export": "exports",
    "load_pretrained": "pretrained",
    "load_run": "runner",
    "main": "cli",
    "save_pretrained": "pretrained",
    "train": "runner",
}


def __getattr__(name: str) -> Any:
    # Loaded when asked for: the glimpse operation does without Flax, and it without training.
    if name == "attention":
        return importlib.import_module("drawjax.attention")
    if name == "__version__":
        return importlib.metadata.version("drawjax")
    if name in _MODULES:
        try:
            return getattr(importlib.import_module(f"drawjax.{_MODULES[name]}"), name)
        except ModuleNotFoundError as error:
            if str(error.name).startswith("drawjax"):
                raise
            message = f"drawjax.{name} needs {error.name}: pip install 'drawjax[train]'"
            raise ModuleNotFoundError(message, name=error.name) from None
    raise AttributeError(f"module 'drawjax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
