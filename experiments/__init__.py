"""The experiments of the paper, one command each: `python -m experiments.NAME`."""

import sys

from drawjax.__main__ import use_huge_pages

if sys.argv[0] == "-m":  # as Python has it while it looks for the module to run
    use_huge_pages()
