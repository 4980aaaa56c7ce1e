"""`python -m drawjax.report RUN...`."""

import argparse
import sys
from collections.abc import Sequence

from drawjax.pipes import readers_may_leave
from drawjax.report.page import write_report


@readers_may_leave()
def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m drawjax.report",
        description="Rebuilds the report of a run, or compares several runs in one page.",
    )
    parser.add_argument(
        "runs", nargs="+", metavar="RUN",
        help="folder of a run, or of a sweep: all its points are compared",
    )  # fmt: skip
    parser.add_argument(
        "--out",
        help="file to write (default: report.html in the folder; comparison.html in the folder "
        "that several have in common)",
    )
    arguments = parser.parse_args(argv)
    try:
        path = write_report(arguments.runs, arguments.out)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
