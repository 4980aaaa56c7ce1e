"""`python -m drawjax.pretrained RUN NAME --commit COMMIT`: a finished run's model, to ship."""

import dataclasses
import pathlib
import re

import tyro

from drawjax import cli
from drawjax.config import Checked, option
from drawjax.files import read_json
from drawjax.pretrained import save_pretrained
from drawjax.runner import load_run
from drawjax.training import RunError
from drawjax.training.run import best_metrics, read_config


@dataclasses.dataclass(frozen=True)
class ExportConfig(Checked):
    """What to export."""

    run: tyro.conf.Positional[pathlib.Path] = option(tyro.MISSING, path=True)
    """Folder of the run."""
    name: tyro.conf.Positional[str] = tyro.MISSING
    """What to call the model."""
    commit: str = tyro.MISSING
    """Commit of the code that trained it."""
    folder: pathlib.Path | None = option(None, path=True)
    """Where the model's folder is made; None: in the package."""


def export(config: ExportConfig) -> None:
    """Writes the model of a finished run's best checkpoint to a folder, and prints its path."""
    if not re.fullmatch(r"\w[\w.-]*", config.name):
        raise ValueError(f"NAME must be a plain name, such as mnist, got {config.name!r}")
    path = config.run / "results.json"
    if not path.exists():
        raise RunError(f"{config.run} holds no finished run: there is no {path.name}")
    results = read_json(path)
    if results.get("validation") != best_metrics(config.run):
        raise RunError(
            f"{config.run} went on after {path.name} was written; train it to its end, or give "
            "--mode evaluate"
        )
    started_from = read_config(config.run).get("init_from")
    provenance = {**results, "init_from": started_from, "commit": config.commit}
    folder = (config.folder or pathlib.Path(__file__).parent) / config.name
    save_pretrained(load_run(config.run), folder, provenance=provenance, dtype="float16")
    print(folder)


if __name__ == "__main__":
    cli.command(export, ExportConfig(), description=__doc__)
