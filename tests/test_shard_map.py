"""Inside of `jax.shard_map`, with its checks, functions of a model are what they are without it.

A process of two virtual devices does it: `python -m tests.test_shard_map`.
"""

import functools
import os
import pathlib
import subprocess
import sys

import chex
import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from drawjax import draw, gaze, modules, ram
from drawjax.attention import window_from_logits

SIZES = {"num_glimpses": 3, "hidden_size": 8, "read_size": 3}
DRAWS = modules.DrawConfig(**SIZES, latent_size=4, write_size=2, prior="learned")
LOOKS = modules.RamConfig(**SIZES)
SHAPE = (6, 5, 1)
ONE, EACH, STEPS = PartitionSpec(), PartitionSpec("data"), PartitionSpec(None, "data")


@pytest.mark.slow
def test_two_devices_give_what_one_does():
    done = subprocess.run(
        [sys.executable, "-m", "tests.test_shard_map"], capture_output=True, text=True,
        cwd=pathlib.Path(__file__).parents[1],
        env={
            **os.environ, "JAX_ENABLE_X64": "1", "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        },
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def main() -> None:
    assert jax.device_count() == 2
    mesh = jax.make_mesh((2,), ("data",))
    key = functools.partial(jax.random.fold_in, jax.random.key(0))
    graph, params = modules.split(modules.Draw(DRAWS, SHAPE, key=key(0)))
    ram_graph, ram_params = modules.split(modules.Ram(LOOKS, SHAPE, key=key(1)))
    params, ram_params = jax.tree.map(lambda p: jnp.asarray(p, float) + 0.1, (params, ram_params))
    images = jnp.round(jax.random.uniform(key(2), (4, *SHAPE), float))
    noise = jax.random.normal(key(3), (3, 4, 4), float)
    labels, keys = jnp.arange(4), jax.random.split(key(4), 4)

    def on_both(function, *given, specs, out, expected=None):
        expected = function(*given) if expected is None else expected
        placed = [
            jax.tree.map(lambda leaf, spec=spec: jax.device_put(leaf, NamedSharding(mesh, spec)), x)
            for spec, x in zip(specs, given, strict=True)
        ]
        mapped = jax.shard_map(function, mesh=mesh, in_specs=tuple(specs), out_specs=out)
        chex.assert_trees_all_close(jax.jit(mapped)(*placed), expected, rtol=1e-6, atol=1e-9)

    def losses(params, images, noise, **options):
        return draw.loss(modules.merge(graph, params), images, noise, **options)

    def gradient(params, images, noise, **options):
        return jax.grad(lambda p: sum(map(jnp.sum, losses(p, images, noise, **options))))(params)

    for remat in (False, True):
        options = {"specs": (ONE, EACH, STEPS), "out": EACH}
        on_both(functools.partial(losses, remat=remat), params, images, noise, **options)
        on_both(
            functools.partial(gradient, remat=remat), params, images, noise,
            **options | {"out": ONE},
        )  # fmt: skip
    # The median is that of a device's own images.
    clipped = functools.partial(gradient, clip_ratio=1.0)
    halves = [clipped(params, images[i : i + 2], noise[:, i : i + 2]) for i in (0, 2)]
    on_both(
        clipped, params, images, noise, specs=(ONE, EACH, STEPS), out=ONE,
        expected=jax.tree.map(jnp.add, *halves),
    )  # fmt: skip

    def drawn(params, images, noise):
        model = modules.merge(graph, params)
        return (
            draw.infer(model, images, noise).canvases,
            draw.complete(model, images, images > 0.5, noise).canvases,
            draw.generate(model, noise, latents=noise[:1]).canvases,
        )

    on_both(drawn, params, images, noise, specs=(ONE, EACH, STEPS), out=STEPS)

    def of_images(params, images, noise, keys):
        model = modules.merge(graph, params)
        return (
            draw.sample(model, noise),
            draw.sample(model, noise, chunk=1),
            draw.reconstruct(model, images).images,
            draw.importance_weighted_bound(model, images, keys, num_samples=3, chunk=2),
        )

    on_both(of_images, params, images, noise, keys, specs=(ONE, EACH, STEPS, EACH), out=EACH)

    def looking(params, images, labels):
        return jnp.sum(ram.loss(modules.merge(ram_graph, params), images, labels)[0])

    def seen(params, images):
        return ram.classify(modules.merge(ram_graph, params), images).logits

    def covered(windows):
        return gaze.coverage(windows, 3, SHAPE[:2])

    windows = window_from_logits(jax.random.normal(key(5), (3, 4, 5), float), SHAPE[:2], 3)
    on_both(covered, windows, specs=(STEPS,), out=EACH)

    given = ram_params, images, labels
    on_both(jax.grad(looking), *given, specs=(ONE, EACH, EACH), out=ONE)
    on_both(seen, ram_params, images, specs=(ONE, EACH), out=EACH)


if __name__ == "__main__":
    main()
