"""The experiments of the paper, one command each: `python -m experiments.NAME`."""

from drawjax.huge_pages import use_huge_pages

use_huge_pages()
