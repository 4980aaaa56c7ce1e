"""How a training step grows with the number of steps and with the batch, and when it is ready.

Linear or better: ms a unit of work does not grow down the column. The time to make
and compile it stays flat.
"""

import time
from typing import Any

from benchmarks import problem, timing
from drawjax.modules import DrawConfig

SIZES = [(steps, 100) for steps in (16, 32, 64, 128, 256)] + [
    (64, batch) for batch in (25, 50, 200, 400)
]


def measure() -> list[dict[str, Any]]:
    rows = []
    for steps, batch in SIZES:
        start = time.perf_counter()
        step, _ = problem.training_step(DrawConfig(num_glimpses=steps), batch)
        ready = time.perf_counter() - start
        timed = timing.compare({"step": step}, rounds=5)["step"]
        rows.append(
            {
                "steps": steps,
                "batch": batch,
                "ms": 1e3 * timed.fastest,
                "us a step and image": 1e6 * timed.fastest / steps / batch,
                "make and compile s": ready,
            }
        )
    return rows


if __name__ == "__main__":
    timing.main(measure, __doc__)
