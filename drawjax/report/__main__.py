"""`python -m drawjax.report RUN...`: rebuilds a run's report, or compares several in one page."""

import dataclasses
import pathlib

import tyro

from drawjax import cli
from drawjax.report.page import write_report

DESCRIPTION = "Writes a run's report anew, or compares several runs in one page."


@dataclasses.dataclass(frozen=True)
class ReportConfig:
    """Which runs."""

    runs: tyro.conf.Positional[tuple[pathlib.Path, ...]] = tyro.MISSING
    """Folders of runs, or of a sweep, all of whose points are compared."""
    out: pathlib.Path | None = None
    """File to write; None: report.html in the folder, comparison.html in the folder that several
    have in common."""


def report(config: ReportConfig) -> None:
    """Writes the page, and prints where it is."""
    print(write_report(config.runs, config.out))


if __name__ == "__main__":
    cli.command(report, ReportConfig(), description=DESCRIPTION)
