"""The run report: one self-contained HTML file that opens offline.

Training keeps `report.html` of a run up to date, and a page that is open follows it.
`python -m drawjax.report RUN...` writes it anew, or compares several runs, or the points of a
sweep, in one page.
"""

from drawjax.report.page import write_report

__all__ = ["write_report"]
