"""Exports a model: `drawjax export --model mnist mnist.onnx`."""

import dataclasses
import pathlib
from typing import Literal

import tyro

from drawjax import cli
from drawjax.config import Checked, option


@dataclasses.dataclass(frozen=True)
class ExportConfig(Checked):
    """What to export, and where to."""

    _prefix = "--"

    file: tyro.conf.Positional[pathlib.Path] = option(tyro.MISSING, path=True)
    """File to write."""
    model: str = "mnist"
    """A model's name, a folder that `drawjax.save_pretrained` wrote, or a run's."""
    function: Literal["generate", "step", "reconstruct", "complete", "classify"] | None = None
    """What it computes; None: generate, or classify for a classifier."""
    format: Literal["onnx", "stablehlo"] | None = None
    """None: by the suffix of FILE."""


DESCRIPTION = "Writes what a model computes to a file that runs without drawjax: StableHLO or ONNX."


def export(config: ExportConfig) -> None:
    """Writes the file, and prints where it is."""
    # Heavy imports, which `--help` need not wait for.
    from drawjax import exports, pretrained

    model = pretrained.load_pretrained(config.model)
    exports.export(model, config.file, function=config.function, format=config.format)
    print(config.file)


if __name__ == "__main__":
    cli.command(export, ExportConfig(), description=DESCRIPTION)
