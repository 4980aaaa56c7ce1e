import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from drawjax import draw, modules

SIZES = {
    "attention": ((8, 8, 1), 2, 3),
    "color": ((7, 9, 3), 3, 2),
    "one filter": ((9, 7, 1), 1, 1),
    "no attention": ((7, 9, 3), None, None),
    "read only": ((8, 6, 1), 3, None),
}


class Unhoisted:
    """The same networks without what the fast road asks for: a plain `lax.scan`."""

    def __init__(self, networks):
        for name in ("initial_state", "read", "encode", "posterior", "decode", "write"):
            setattr(self, name, getattr(networks, name))


def _problem(image_shape, read_size, write_size, dtype, steps=6, batch=4, **options):
    config = modules.DrawConfig(
        num_glimpses=steps,
        hidden_size=11,
        latent_size=5,
        read_size=read_size,
        write_size=write_size,
        **options,
    )
    graph, params = modules.split(modules.Draw(config, image_shape, key=jax.random.key(0)))
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    # Away from the initial parameters, whose zero biases would hide a lost gradient.
    leaves = [
        leaf.astype(dtype) + 0.2 * jax.random.normal(key, leaf.shape, dtype)
        for leaf, key in zip(leaves, keys, strict=True)
    ]
    images = jax.random.uniform(jax.random.key(2), (batch, *image_shape), dtype)
    noise = jax.random.normal(jax.random.key(3), (steps, batch, config.latent_size), dtype)
    return graph, tree.unflatten(leaves), images, noise


def _value_and_grad(graph, wrap, remat=False):
    def objective(params, images, noise):
        networks = wrap(modules.merge(graph, params))
        reconstruction, latent = draw.loss(networks, images, noise, remat=remat)
        return jnp.sum(reconstruction + latent)

    return jax.jit(jax.value_and_grad(objective, argnums=(0, 1, 2)))


def test_clipping_images_scales_what_each_adds(x64):
    graph, params, images, noise = _problem(*SIZES["attention"], jnp.float64, batch=3)

    def total(params, images, noise, ratio=None):
        networks = modules.merge(graph, params)
        return jnp.sum(jnp.stack(draw.loss(networks, images, noise, clip_ratio=ratio)))

    value, clipped = jax.value_and_grad(total)(params, images, noise, 0.5)
    np.testing.assert_allclose(value, total(params, images, noise))
    alone = [
        jax.grad(total)(params, images[i : i + 1], noise[:, i : i + 1]) for i in range(len(images))
    ]
    # One factor an image, the same for each parameter: three numbers that explain all of them.
    columns = np.stack([ravel_pytree(gradient)[0] for gradient in alone], axis=1)
    target = np.asarray(ravel_pytree(clipped)[0])
    factors, *_ = np.linalg.lstsq(columns, target)
    np.testing.assert_allclose(columns @ factors, target, atol=1e-9 * np.abs(target).max())
    assert 0 < factors.min() < 0.9
    assert factors.max() <= 1 + 1e-9
    with pytest.raises(ValueError, match="networks that name their products"):
        draw.loss(Unhoisted(modules.merge(graph, params)), images, noise, clip_ratio=2.0)


@pytest.mark.parametrize(
    ("case", "remat"), [*((case, False) for case in SIZES), ("attention", True)]
)
def test_fast_step_equals_reference_in_float64(x64, case, remat):
    graph, *inputs = _problem(*SIZES[case], jnp.float64)
    fast = _value_and_grad(graph, lambda networks: networks, remat)(*inputs)
    plain = _value_and_grad(graph, Unhoisted)(*inputs)
    chex.assert_trees_all_close(fast, plain, rtol=1e-10, atol=1e-11)


def test_fast_step_equals_reference_in_float32():
    graph, *inputs = _problem(*SIZES["color"], jnp.float32)
    fast = _value_and_grad(graph, lambda networks: networks)(*inputs)
    plain = _value_and_grad(graph, Unhoisted)(*inputs)
    chex.assert_trees_all_close(fast, plain, rtol=2e-4, atol=2e-5)


def test_fast_step_equals_reference_in_bfloat16():
    graph, *inputs = _problem(*SIZES["attention"], jnp.float32, precision="bfloat16")
    value, gradients = _value_and_grad(graph, lambda networks: networks)(*inputs)
    plain_value, plain_gradients = _value_and_grad(graph, Unhoisted)(*inputs)
    np.testing.assert_allclose(value, plain_value, rtol=1e-4)
    # Rounding to 8 bits happens at the same places but not of the same sums.
    for gradient, plain in zip(
        jax.tree.leaves(gradients), jax.tree.leaves(plain_gradients), strict=True
    ):
        assert gradient.dtype == jnp.float32
        assert jnp.linalg.norm(gradient - plain) < 0.02 * jnp.linalg.norm(plain)


def test_traces_equal_reference():
    graph, params, images, noise = _problem(*SIZES["color"], jnp.float32)
    networks = modules.merge(graph, params)
    for road in (
        jax.jit(lambda wrap: draw.infer(wrap(networks), images, noise), static_argnums=0),
        jax.jit(lambda wrap: draw.generate(wrap(networks), noise), static_argnums=0),
    ):
        chex.assert_trees_all_close(
            road(lambda networks: networks), road(Unhoisted), rtol=1e-4, atol=1e-5
        )


def test_gradients_of_many_models_at_once():
    graph, params, images, noise = _problem(*SIZES["attention"], jnp.float32)
    many = jax.tree.map(lambda leaf: jnp.stack([leaf, 0.5 * leaf]), params)
    gradient = _value_and_grad(graph, lambda networks: networks)
    together = jax.vmap(gradient, (0, None, None))(many, images, noise)
    for i in range(2):
        alone = gradient(jax.tree.map(lambda leaf, i=i: leaf[i], many), images, noise)
        chex.assert_trees_all_close(
            jax.tree.map(lambda leaf, i=i: leaf[i], together), alone, rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("chunk", [None, 1, 2, 3, 4, 9])
def test_sample_equals_the_last_canvas_of_generate(chunk):
    graph, params, _, noise = _problem(*SIZES["attention"], jnp.float32)
    networks = modules.merge(graph, params)
    actual = draw.sample(networks, noise, chunk=chunk)
    expected = jax.nn.sigmoid(draw.generate(Unhoisted(networks), noise).canvases[-1])
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


def test_sample_refuses_an_empty_chunk():
    graph, params, _, noise = _problem(*SIZES["attention"], jnp.float32)
    with pytest.raises(ValueError, match="chunk must be positive, got 0"):
        draw.sample(modules.merge(graph, params), noise, chunk=0)
