"""What is measured, by hand: `python -m benchmarks`, or `python -m benchmarks.NAME [--json]`."""
