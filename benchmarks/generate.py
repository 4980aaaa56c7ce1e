"""Generating 1,000 images in 64 steps, against the PyTorch port."""

from typing import Any

import jax

from benchmarks import problem, timing
from drawjax import draw, modules
from drawjax.modules import DrawConfig

IMAGES = 1_000
CHUNK = 500 if jax.default_backend() == "cpu" else None  # what stays in a core's cache


def measure() -> list[dict[str, Any]]:
    functions = {}
    for name in ("float32", "bfloat16"):
        config = DrawConfig(precision=name)
        graph, params = modules.split(
            modules.Draw(config, problem.IMAGE_SHAPE, key=jax.random.key(0))
        )

        @jax.jit
        def generate(params, key, graph=graph, config=config):
            noise = jax.random.normal(key, (config.num_glimpses, IMAGES, config.latent_size))
            return draw.sample(modules.merge(graph, params), noise, chunk=CHUNK)

        functions[name] = lambda generate=generate, params=params: generate(
            params, jax.random.key(0)
        )
    if timing.has_torch():
        import torch

        from benchmarks.torch_port import TorchDraw

        model = TorchDraw(DrawConfig(), problem.IMAGE_SHAPE)
        functions["torch float32"] = lambda: model.generate(torch.randn(64, IMAGES, 100)).numpy()
    times = timing.compare(functions, rounds=7)
    return [
        {
            "generate": name,
            "ms": 1e3 * timed.fastest,
            "images/s": IMAGES / timed.fastest,
            "processor ms": 1e3 * timed.processor,
            **timing.ratios(times, name, "torch float32"),
        }
        for name, timed in times.items()
    ]


if __name__ == "__main__":
    timing.main(measure, __doc__)
