"""`python -m drawjax.pretrained RUN NAME`: a finished run's best checkpoint as a model to ship."""

import argparse
import json
import pathlib
import sys
from collections.abc import Sequence

from drawjax import pretrained
from drawjax.pipes import readers_may_leave
from drawjax.recipes.runner import load_run
from drawjax.training import RunError


def export(workdir: pathlib.Path, name: str, commit: str, folder: pathlib.Path) -> pathlib.Path:
    """Writes the model of a finished run's best checkpoint; returns its weights' path.

    Raises:
      RunError: if the folder holds no finished run.
    """
    path = workdir / "results.json"
    if not path.exists():
        raise RunError(f"{workdir} holds no finished run: there is no {path.name}")
    results = json.loads(path.read_text())
    config = json.loads((workdir / "config.json").read_text())
    provenance = {**results, "init_from": config.get("init_from"), "commit": commit}
    return pretrained.save(name, load_run(workdir), provenance, folder)


@readers_may_leave()
def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m drawjax.pretrained", description=__doc__)
    parser.add_argument("run", type=pathlib.Path, help="folder of the run")
    parser.add_argument("name", help="what to call the model")
    parser.add_argument("--commit", required=True, help="commit of the code that trained it")
    parser.add_argument(
        "--folder", type=pathlib.Path, default=pathlib.Path(__file__).parent,
        help="where to (default: the package)",
    )  # fmt: skip
    arguments = parser.parse_args(argv)
    try:
        path = export(arguments.run, arguments.name, arguments.commit, arguments.folder)
    except (ValueError, OSError, RunError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
