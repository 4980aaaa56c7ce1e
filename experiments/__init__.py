"""The experiments of the paper, one command each: `python -m experiments.NAME`."""

import sys

from drawjax import huge_pages

if sys.argv[0] == "-m":  # as Python has it while it looks for the module to run
    huge_pages.use()
