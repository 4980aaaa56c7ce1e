"""The experiments of the paper, one command each: `python -m experiments.NAME`."""
