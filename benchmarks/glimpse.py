"""`attention.read` and its gradient on 256 images of 100x100, 12x12 patches, against grid_sample.

`torch.nn.functional.grid_sample` takes as many bilinear samples from the same places; gradients
reach the image and the place in both. A Gaussian filter also looks at the whole image, which
bilinear sampling does not. Then crops, grids and pasting beside ops of JAX that do the same, with
gradients to pixels and place, and the temporary memory of each program.
"""

import functools
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


def _crops(seen: jax.Array, boxes: jax.Array, filters: Any) -> jax.Array:
    return attention.read(seen, attention.window_from_box(boxes, PATCH), PATCH, filters=filters)


def _crops_translated(seen: jax.Array, boxes: jax.Array) -> jax.Array:
    def one(image: jax.Array, box: jax.Array) -> jax.Array:
        scale = PATCH / (box[3:1:-1] - box[1::-1])
        shape = (PATCH, PATCH, image.shape[-1])
        return jax.image.scale_and_translate(
            image, shape, (0, 1), scale, -box[1::-1] * scale, "linear"
        )

    return jax.vmap(jax.vmap(one, in_axes=(None, 0)))(seen[:, 0], boxes)


def _grid(seen: jax.Array, theta: jax.Array) -> jax.Array:
    window = attention.window_from_affine(theta, PATCH, seen.shape[2:4])
    return attention.read(seen, window, PATCH, filters="bilinear")


def _grid_mapped(seen: jax.Array, theta: jax.Array) -> jax.Array:
    window = attention.window_from_affine(theta, PATCH, seen.shape[2:4])
    y, x = attention.filter_grid(window, PATCH)

    def one(image: jax.Array, y: jax.Array, x: jax.Array) -> jax.Array:
        return jax.scipy.ndimage.map_coordinates(image[..., 0], [y - 1, x - 1], order=1)

    return jax.vmap(jax.vmap(one, in_axes=(None, 0, 0)))(seen[:, 0], y, x)


def _pasted(patch: jax.Array, boxes: jax.Array) -> jax.Array:
    window = attention.window_from_box(boxes, PATCH)
    return attention.paste(patch, window, (SIZE, SIZE))


def _pasted_translated(patch: jax.Array, boxes: jax.Array) -> jax.Array:
    def one(patch: jax.Array, box: jax.Array) -> jax.Array:
        scale = (box[3:1:-1] - box[1::-1]) / PATCH
        shape = (SIZE, SIZE, patch.shape[-1])
        return jax.image.scale_and_translate(patch, shape, (0, 1), scale, box[1::-1], "linear")

    return jax.vmap(jax.vmap(one))(patch, boxes)


def _beside_jax() -> list[dict[str, Any]]:
    """Each op and its gradients beside the one of JAX that does the same."""
    images = jax.random.uniform(jax.random.key(0), (32, 1, SIZE, SIZE, 1))
    patches = jax.random.uniform(jax.random.key(1), (32, 8, PATCH, PATCH, 1))
    first = jax.random.uniform(jax.random.key(2), (32, 8, 2), maxval=SIZE / 2)
    boxes = jnp.concatenate([first, first + SIZE / 2], axis=-1)
    theta = jnp.eye(2, 3) / 2 + 0.1 * jax.random.normal(jax.random.key(3), (32, 8, 2, 3))
    translated = ("jax.image.scale_and_translate", _crops_translated)
    pairs = [
        ("8 boxes of 32 images, triangle", functools.partial(_crops, filters="triangle"),
         *translated, images, boxes),
        ("the same, Gaussian", functools.partial(_crops, filters="gaussian"),
         *translated, images, boxes),
        ("8 affine grids of 32 images, bilinear", _grid, "map_coordinates", _grid_mapped,
         images, theta),
        ("256 patches pasted", _pasted, "jax.image.scale_and_translate", _pasted_translated,
         patches, boxes),
    ]  # fmt: skip
    rows = []
    for work, ours, name, theirs, pixels, places in pairs:
        programs = {}
        for key, function in (("ours", ours), ("theirs", theirs)):
            total = jax.value_and_grad(lambda p, q, f=function: jnp.sum(f(p, q) ** 2), (0, 1))
            programs[key] = jax.jit(total).lower(pixels, places).compile()
        times = timing.compare(
            {key: functools.partial(run, pixels, places) for key, run in programs.items()},
            rounds=20,
        )
        memory = {
            key: run.memory_analysis().temp_size_in_bytes / 2**20 for key, run in programs.items()
        }
        rows.append(
            {"op and gradients": work, "beside": name, "ms ": 1e3 * times["ours"].fastest,
             "its ms": 1e3 * times["theirs"].fastest,
             "times it": times["theirs"].fastest / times["ours"].fastest,
             "MiB": memory["ours"], "its MiB": memory["theirs"]}
        )  # fmt: skip
    return rows


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
    return _beside_jax() + [
        {
            "glimpse and gradient": name,
            "ms": 1e3 * timed.fastest,
            "median ms": 1e3 * timed.median,
            "processor ms": 1e3 * timed.processor,
            **timing.ratios(times, name, "torch grid_sample"),
        }
        for name, timed in times.items()
    ]


if __name__ == "__main__":
    timing.main(measure, __doc__)
