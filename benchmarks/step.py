"""One training step: Table 3's MNIST row, batch 100, against a port to PyTorch, eager and compiled.

The whole step counts: loss, gradient, clipping, Adam, and for drawjax the moving average too.
`torch.compile` is the port's loss and gradient by TorchInductor, which needs a C++ compiler and
some minutes. Goals: 1.8 times eager PyTorch, and ahead of the compiled one.
`2 devices` is the same with half of the batch on each of two devices, which on a CPU are made of
its cores: XLA_FLAGS=--xla_force_host_platform_device_count=2 does so for any command.
"""

import shutil
from typing import Any

import jax

from benchmarks import problem, timing
from drawjax.modules import DrawConfig

BATCH = 100


def torch_step(*, compiled: bool = False) -> Any:
    """The same step of the PyTorch port."""
    import numpy as np
    import torch

    from benchmarks.torch_port import TorchDraw, train_step

    torch.manual_seed(0)
    model = TorchDraw(DrawConfig(), problem.IMAGE_SHAPE)
    if compiled:
        model.compile()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    images = torch.from_numpy(np.array(problem.images(BATCH)).swapaxes(2, 3))
    return lambda: train_step(model, optimizer, images, 5.0)


def measure() -> list[dict[str, Any]]:
    configs = {name: DrawConfig(precision=name) for name in ("float32", "bfloat16")}
    if jax.config.jax_num_cpu_devices < 2:
        jax.config.update("jax_num_cpu_devices", 2)
    configs |= {f"{name}, 2 devices": config for name, config in configs.items()}
    functions = {
        name: problem.training_step(config, BATCH, devices=1 + name.endswith("2 devices"))[0]
        for name, config in configs.items()
        if len(jax.devices()) > 1 or not name.endswith("2 devices")
    }
    functions |= {f"matmul {name}": timing.matmul(name) for name in ("float32", "bfloat16")}
    if timing.has_torch():
        functions["torch"] = torch_step()
        if shutil.which("g++") is not None:
            functions["torch.compile"] = torch_step(compiled=True)
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
            flops = problem.model_flops(configs[name], BATCH)
            peak = times[f"matmul {configs[name].precision}"]
            row["model GFLOP/s"] = flops / timed.fastest / 1e9
            row["matmul GFLOP/s"] = timing.MATMUL_FLOPS / peak.fastest / 1e9
            row["share"] = row["model GFLOP/s"] / row["matmul GFLOP/s"]
            for port in ("torch", "torch.compile"):
                row |= timing.ratios(times, name, port)
        rows.append(row)
    return rows


if __name__ == "__main__":
    timing.main(measure, __doc__)
