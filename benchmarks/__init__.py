"""What is measured, by hand: `python -m benchmarks`, or `python -m benchmarks.NAME [--json]`."""

from drawjax.huge_pages import use_huge_pages

use_huge_pages()
