"""`python -m drawjax.pretrained RUN NAME`: a finished run's best checkpoint as a model to ship."""

import dataclasses
import json
import pathlib

import tyro

from drawjax import cli, pretrained
from drawjax.runner import load_run
from drawjax.training import RunError


@dataclasses.dataclass(frozen=True)
class ExportConfig:
    """What to export."""

    run: tyro.conf.Positional[pathlib.Path] = tyro.MISSING
    """Folder of the run."""
    name: tyro.conf.Positional[str] = tyro.MISSING
    """What to call the model."""
    commit: str = tyro.MISSING
    """Commit of the code that trained it."""
    folder: pathlib.Path | None = None
    """Where to; None: the package."""


def export(config: ExportConfig) -> pathlib.Path:
    """Writes the model of a finished run's best checkpoint; returns its weights' path.

    Raises:
      RunError: if the folder holds no finished run.
    """
    path = config.run / "results.json"
    if not path.exists():
        raise RunError(f"{config.run} holds no finished run: there is no {path.name}")
    results = json.loads(path.read_text())
    fields = json.loads((config.run / "config.json").read_text())
    provenance = {**results, "init_from": fields.get("init_from"), "commit": config.commit}
    folder = config.folder or pathlib.Path(__file__).parent
    return pretrained.save(config.name, load_run(config.run), provenance, folder)


if __name__ == "__main__":
    cli.command(export, ExportConfig(), description=__doc__)
