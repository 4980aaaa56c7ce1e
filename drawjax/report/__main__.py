"""`python -m drawjax.report RUN...`: rebuilds a run's report, or compares several in one page."""

import dataclasses
import pathlib

import tyro

from drawjax import cli
from drawjax.config import Checked, option
from drawjax.report.page import write_report

DESCRIPTION = "Writes a run's report anew, or compares several runs in one page."


@dataclasses.dataclass(frozen=True)
class ReportConfig(Checked):
    """Which runs."""

    _prefix = "--"

    runs: tyro.conf.Positional[tuple[pathlib.Path, ...]] = option(tyro.MISSING, path=True)
    """Folders of runs, or of a sweep, all of whose points are compared."""
    out: pathlib.Path | None = option(None, path=True)
    """File to write; None: report.html in the folder, comparison.html in the folder that several
    have in common."""


def report(config: ReportConfig) -> None:
    """Writes the page, and prints where it is."""
    print(write_report(config.runs, config.out))


if __name__ == "__main__":
    cli.command(report, ReportConfig(), description=DESCRIPTION)
