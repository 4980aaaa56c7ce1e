"""The page: run folders in, one HTML file out."""

import importlib.resources
import logging
import os
import pathlib
import time
from collections.abc import Sequence

from drawjax.files import to_json, write_atomically
from drawjax.report.reading import is_run, read_run

_log = logging.getLogger(__name__)

_PARTS = ("page.css", "chart.js", "player.js", "page.js")


def write_report(
    workdirs: str | pathlib.Path | Sequence[str | pathlib.Path],
    path: str | pathlib.Path | None = None,
    *,
    points: bool = True,
) -> pathlib.Path:
    """Writes the report of one run, or of several in one page.

    Args:
      workdirs: a folder, or several, of runs, or of sweeps, which stand for their points.
      path: file to write; default: `report.html` in the folder, or `comparison.html` in the one
        that several folders have in common.
      points: whether runs inside of a run's folder, as points of a sweep are, are shown with it.

    Returns:
      The file.

    Raises:
      FileNotFoundError: if a folder holds no run.
      ValueError: if there are no folders, or a file of a run cannot be read.
    """
    if isinstance(workdirs, str | pathlib.Path):
        workdirs = [workdirs]
    if not workdirs:
        raise ValueError("name a run's folder, or several")
    folders = [pathlib.Path(workdir).expanduser() for workdir in workdirs]
    if path is None:
        path = folders[0] / "report.html"
        if len(folders) > 1:
            common = os.path.commonpath([folder.absolute() for folder in folders])
            path = pathlib.Path(common) / "comparison.html"
    path = pathlib.Path(path).expanduser()
    shown = [run for folder in folders for run in (_points(folder) if points else [folder])]
    shown = list(dict.fromkeys(run.resolve() for run in shown))
    runs = [read_run(run) for run in shown]
    if len({run["name"] for run in runs}) < len(runs):  # told apart by where they are
        common = os.path.commonpath(shown)
        runs = [
            run | {"name": os.path.relpath(folder, common)}
            for run, folder in zip(runs, shown, strict=True)
        ]
    # "</script" would end the element that holds the data, and "<!--" hide its end.
    data = to_json({"runs": runs, "written": time.time()}).replace("<", "\\u003c")
    here = importlib.resources.files("drawjax.report")
    page = here.joinpath("page.html").read_text("utf-8")
    for part in _PARTS:
        page = page.replace(f"@{part}@", here.joinpath(part).read_text("utf-8"))
    write_atomically(path, page.replace("@DATA@", data))
    return path


def _points(folder: pathlib.Path) -> list[pathlib.Path]:
    """The run that a folder is, and the runs in it."""
    inner = [path.parent for path in sorted(folder.glob("*/config.json"))]
    points = [point for point in inner if is_run(point)]
    if (folder / "config.json").exists():
        return [folder, *points]
    if others := [point.name for point in inner if point not in points]:
        _log.info("left out of %s, no runs: %s", folder, ", ".join(others))
    if not points:
        raise FileNotFoundError(f"{folder} holds no run: there is no config.json")
    return points
