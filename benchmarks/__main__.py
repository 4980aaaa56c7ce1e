"""Runs every benchmark, one process each, and prints their tables."""

import subprocess
import sys

NAMES = (
    "step", "generate", "glimpse", "scaling", "remat", "startup", "saving", "input", "presets",
    "precision",
)  # fmt: skip

if __name__ == "__main__":
    for name in NAMES:
        if "--json" not in sys.argv:
            print(f"\n## {name}\n", flush=True)
        subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *sys.argv[1:]], check=True)
