"""Memory and time of a training step with and without `remat`, at 32, 64 and 256 steps.

Memory is what the compiled program asks for besides its arguments.
"""

from typing import Any

from benchmarks import problem, timing
from drawjax.modules import DrawConfig


def measure() -> list[dict[str, Any]]:
    rows = []
    for steps in (32, 64, 256):
        programs = {
            remat: problem.training_step(DrawConfig(num_glimpses=steps, remat=remat), 100)
            for remat in (False, True)
        }
        times = timing.compare({str(k): run for k, (run, _) in programs.items()}, rounds=4)
        for remat, (_, program) in programs.items():
            rows.append(
                {
                    "steps": steps,
                    "remat": str(remat),
                    "MB": program.memory_analysis().temp_size_in_bytes / 1e6,
                    "ms": 1e3 * times[str(remat)].fastest,
                }
            )
    return rows


if __name__ == "__main__":
    timing.main(measure, __doc__)
