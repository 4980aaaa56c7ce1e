"""`attention.read` and its gradient on 256 images of 100x100, 12x12 patches, against grid_sample.

`torch.nn.functional.grid_sample` takes as many bilinear samples from the same places; gradients
reach the image and the place in both. A Gaussian filter also looks at the whole image, which
bilinear sampling does not.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks import timing
from drawjax import attention

IMAGES, SIZE, PATCH = 256, 100, 12


def by_grid_sample(count: int, side: int, patch: int) -> Callable[[], Any]:
    """PyTorch's op and its gradient on `count` images, where PyTorch would run it."""
    import torch
    from torch.nn import functional

    device = "cuda" if torch.cuda.is_available() else "cpu"
    image = torch.rand(count, 1, side, side, device=device, requires_grad=True)
    theta = torch.zeros(count, 2, 3, device=device)
    theta[:, 0, 0] = theta[:, 1, 1] = 0.5
    theta.requires_grad_()

    def run() -> Any:
        image.grad = theta.grad = None
        grid = functional.affine_grid(theta, [count, 1, patch, patch], align_corners=False)
        seen = functional.grid_sample(image, grid, align_corners=False)
        (seen**2).sum().backward()
        if device == "cuda":
            torch.cuda.synchronize()
        return theta.grad.cpu().numpy()

    return run


def measure() -> list[dict[str, Any]]:
    image = jax.random.uniform(jax.random.key(0), (IMAGES, SIZE, SIZE, 1))
    logits = 0.3 * jax.random.normal(jax.random.key(1), (IMAGES, 5)) - jnp.array([0, 0, 0, 0.7, 0])

    @jax.jit
    def gradient(image: jax.Array, logits: jax.Array) -> Any:
        def total(image: jax.Array, logits: jax.Array) -> jax.Array:
            window = attention.window_from_logits(logits, (SIZE, SIZE), PATCH)
            return jnp.sum(attention.read(image, window, PATCH) ** 2)

        return jax.value_and_grad(total, argnums=(0, 1))(image, logits)

    functions = {"attention.read": lambda: gradient(image, logits)}
    if timing.has_torch():
        functions["torch grid_sample"] = by_grid_sample(IMAGES, SIZE, PATCH)
    times = timing.compare(functions, rounds=30)
    return [
        {
            "glimpse and gradient": name,
            "ms": 1e3 * timed.fastest,
            "median ms": 1e3 * timed.median,
            "times torch": times["torch grid_sample"].fastest / timed.fastest
            if "torch grid_sample" in times
            else None,
            "processor ms": 1e3 * timed.processor,
            "times torch (processor)": times["torch grid_sample"].processor / timed.processor
            if "torch grid_sample" in times
            else None,
        }
        for name, timed in times.items()
    ]


if __name__ == "__main__":
    timing.main(measure, __doc__)
