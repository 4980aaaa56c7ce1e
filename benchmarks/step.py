"""One training step: Table 3's MNIST row, batch 100, against a PyTorch eager port.

The whole step counts: loss, gradient, clipping, Adam, and for drawjax the moving average too.
"""

from typing import Any

from benchmarks import problem, timing
from drawjax.modules import DrawConfig

BATCH = 100


def torch_step() -> Any:
    """The same step of the PyTorch port."""
    import numpy as np
    import torch

    from benchmarks.torch_port import TorchDraw, train_step

    torch.manual_seed(0)
    model = TorchDraw()
    optimiser = torch.optim.Adam(model.parameters(), 1e-3)
    images = torch.from_numpy(np.array(problem.images(BATCH))[..., 0])
    return lambda: train_step(model, optimiser, images, 5.0)


def measure() -> list[dict[str, Any]]:
    configs = {name: DrawConfig(precision=name) for name in ("float32", "bfloat16")}
    functions = {name: problem.training_step(config, BATCH)[0] for name, config in configs.items()}
    functions |= {f"matmul {name}": timing.matmul(name) for name in configs}
    if timing.has_torch():
        functions["torch"] = torch_step()
    times = timing.compare(functions, rounds=8)
    rows = []
    for name, timed in times.items():
        if name.startswith("matmul"):
            continue
        row = {
            "step": name,
            "ms": 1e3 * timed.fastest,
            "median ms": 1e3 * timed.median,
            "processor ms": 1e3 * timed.processor,
            "images/s": BATCH / timed.fastest,
        }
        if name in configs:
            flops, peak = problem.model_flops(configs[name], BATCH), times[f"matmul {name}"]
            row["model GFLOP/s"] = flops / timed.fastest / 1e9
            row["matmul GFLOP/s"] = timing.matmul_flops() / peak.fastest / 1e9
            row["share"] = row["model GFLOP/s"] / row["matmul GFLOP/s"]
            if "torch" in times:
                row["times torch"] = times["torch"].fastest / timed.fastest
                row["times torch (processor)"] = times["torch"].processor / timed.processor
        rows.append(row)
    return rows


if __name__ == "__main__":
    timing.main(measure, __doc__)
