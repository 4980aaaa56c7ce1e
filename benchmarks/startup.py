"""From the default command to its first training step, with an empty and a filled compile cache."""

import os
import pathlib
import subprocess
import sys
import tempfile
import time
from typing import Any

from benchmarks import timing

_LIMIT = 300.0  # seconds to wait for the first step


def _first_step(folder: pathlib.Path, cache: pathlib.Path) -> float:
    """Seconds until the default run has written the metrics of its first step."""
    command = [
        *(sys.executable, "-m", "experiments.mnist_generation"),
        *("--workdir", str(folder), "--train.log-every", "1"),
    ]
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(cache)}
    start = time.perf_counter()
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as process:
        try:
            while time.perf_counter() - start < _LIMIT:
                metrics = folder / "metrics.jsonl"
                if metrics.exists() and metrics.stat().st_size > 0:
                    return time.perf_counter() - start
                if process.poll() is not None:
                    raise RuntimeError(f"{command} ended: {process.stderr.read().decode()[-500:]}")
                time.sleep(0.02)
            raise RuntimeError(f"{command} took no step in {_LIMIT:.0f} s")
        finally:
            process.kill()


def measure() -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        return [
            {"cache": name, "first step s": _first_step(root / f"run{i}", root / "cache")}
            for i, name in enumerate(("empty", "filled", "filled again"))
        ]


if __name__ == "__main__":
    timing.main(measure, __doc__)
