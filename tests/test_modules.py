import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.flatten_util import ravel_pytree

from drawjax import draw, modules

pytestmark = pytest.mark.usefixtures("strict")

SIZES = {
    "attention": ((8, 8, 1), 2, 3),
    "color": ((7, 9, 3), 3, 2),
    "one filter": ((9, 7, 1), 1, 1),
    "no attention": ((7, 9, 3), None, None),
    "read only": ((8, 6, 1), 3, None),
}


@pytest.fixture
def plain(monkeypatch):
    """Runs functions with a plain `jax.lax.scan` in place of ours."""

    def lax_scan(body, state, xs, **_):
        return jax.lax.scan(body, state, xs)

    def run(function, *args):
        with monkeypatch.context() as patch:
            patch.setattr(draw, "scan", lax_scan)
            return function(*args)

    return run


def _problem(
    image_shape, read_size, write_size, dtype, steps=6, batch=4, model=modules.Draw, **options
):
    config = modules.DrawConfig(
        num_glimpses=steps,
        hidden_size=11,
        latent_size=5,
        read_size=read_size,
        write_size=write_size,
        **options,
    )
    graph, params = modules.abstract(model, config, image_shape)
    rng = np.random.default_rng(0)
    # Not the initial parameters, whose zero biases would hide a lost gradient.
    params = jax.tree.map(
        lambda leaf: jnp.asarray(0.3 * rng.normal(size=leaf.shape), dtype), params
    )
    images = jax.random.uniform(jax.random.key(2), (batch, *image_shape), dtype)
    noise = jax.random.normal(jax.random.key(3), (steps, batch, config.latent_size), dtype)
    return graph, params, images, noise


def _value_and_grad(graph, remat=False):
    def objective(params, images, noise):
        model = modules.merge(graph, params)
        reconstruction, latent = draw.loss(model, images, noise, remat=remat)
        return jnp.sum(reconstruction + latent)

    return jax.jit(jax.value_and_grad(objective, argnums=(0, 1, 2)))


def _factors(graph, params, images, noise):
    """The factor of each image that explains a gradient clipped at 0.5."""

    def total(params, images, noise, ratio=None):
        model = modules.merge(graph, params)
        return jnp.sum(jnp.stack(draw.loss(model, images, noise, clip_ratio=ratio)))

    value, clipped = jax.jit(jax.value_and_grad(total), static_argnums=3)(
        params, images, noise, 0.5
    )
    np.testing.assert_allclose(value, total(params, images, noise))
    gradient = jax.jit(jax.grad(total))
    alone = [gradient(params, images[i : i + 1], noise[:, i : i + 1]) for i in range(len(images))]
    # One factor an image, the same for each parameter: three numbers that explain all of them.
    columns = np.stack([ravel_pytree(gradient)[0] for gradient in alone], axis=1)
    target = np.asarray(ravel_pytree(clipped)[0])
    factors, *_ = np.linalg.lstsq(columns, target)
    np.testing.assert_allclose(columns @ factors, target, atol=1e-9 * np.abs(target).max())
    return factors


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(28, 28), (0, 9, 1), (2, 9, 9, 1)])
@pytest.mark.usefixtures("own_errors")
def test_what_is_no_image_shape_is_named(shape):
    for model, config in ((modules.Draw, modules.DrawConfig()), (modules.Ram, modules.RamConfig())):
        with pytest.raises(ValueError, match=r"must be \(height, width, channels\), got "):
            model(config, shape, key=jax.random.key(0))


def test_clipping_images_scales_what_each_adds(x64):
    factors = _factors(*_problem(*SIZES["attention"], jnp.float64, batch=3))
    assert 0 < factors.min() < 0.9
    assert factors.max() <= 1 + 1e-9


@pytest.mark.slow
def test_clipping_is_right_where_products_stay_in_the_loop(x64):
    # The image's length is that of the deferred products; all of its gradient is scaled.
    class Own(modules.Draw):
        def __init__(self, *args, key):
            super().__init__(*args, key=key)
            self.gain = nnx.Param(jnp.full((11,), 0.9))

        def encode(self, carry, inputs):
            carry, hidden = super().encode(carry, inputs)
            return carry, hidden * self.gain[...][None]

    factors = _factors(*_problem(*SIZES["attention"], jnp.float64, 6, 3, model=Own))
    assert 0 < factors.min() < 0.9


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "remat"), [*((case, False) for case in SIZES), ("attention", True)]
)
def test_our_scan_equals_a_plain_one_in_float64(x64, plain, case, remat):
    graph, *inputs = _problem(*SIZES[case], jnp.float64)
    ours = _value_and_grad(graph, remat)(*inputs)
    chex.assert_trees_all_close(
        ours, plain(_value_and_grad(graph), *inputs), rtol=1e-10, atol=1e-11
    )


@pytest.mark.slow
def test_our_scan_equals_a_plain_one_in_float32(plain):
    graph, *inputs = _problem(*SIZES["color"], jnp.float32)
    ours = _value_and_grad(graph)(*inputs)
    chex.assert_trees_all_close(ours, plain(_value_and_grad(graph), *inputs), rtol=2e-4, atol=2e-4)


@pytest.mark.slow
def test_our_scan_equals_a_plain_one_in_bfloat16(plain):
    graph, *inputs = _problem(*SIZES["attention"], jnp.float32, precision="bfloat16")
    value, gradients = _value_and_grad(graph)(*inputs)
    plain_value, plain_gradients = plain(_value_and_grad(graph), *inputs)
    np.testing.assert_allclose(value, plain_value, rtol=1e-4)
    # Rounding to 8 bits happens at the same places but not of the same sums.
    for gradient, other in zip(
        jax.tree.leaves(gradients), jax.tree.leaves(plain_gradients), strict=True
    ):
        assert gradient.dtype == jnp.float32
        assert jnp.linalg.norm(gradient - other) < 0.02 * jnp.linalg.norm(other)


@pytest.mark.slow
def test_gradients_of_many_models_at_once():
    graph, params, images, noise = _problem(*SIZES["attention"], jnp.float32)
    many = jax.tree.map(lambda leaf: jnp.stack([leaf, 0.5 * leaf]), params)
    gradient = _value_and_grad(graph)
    side_by_side = jax.vmap(gradient, (0, None, None))(many, images, noise)
    for i in range(2):
        alone = gradient(jax.tree.map(lambda leaf, i=i: leaf[i], many), images, noise)
        chex.assert_trees_all_close(
            jax.tree.map(lambda leaf, i=i: leaf[i], side_by_side), alone, rtol=1e-4, atol=1e-5
        )


@pytest.mark.slow
@pytest.mark.parametrize("chunk", [2, 3, 9])
def test_sample_equals_the_last_canvas_of_generate(chunk):
    graph, params, _, noise = _problem(*SIZES["attention"], jnp.float32)
    model = modules.merge(graph, params)
    actual = draw.sample(model, noise, chunk=chunk)
    np.testing.assert_allclose(actual, draw.generate(model, noise).images, rtol=1e-5, atol=1e-6)


def test_sample_refuses_an_empty_chunk():
    graph, params, _, noise = _problem(*SIZES["attention"], jnp.float32)
    with pytest.raises(ValueError, match="chunk must be positive, got 0"):
        draw.sample(modules.merge(graph, params), noise, chunk=0)


def _small():
    config = modules.DrawConfig(3, 8, 4, 3, 2)
    return modules.Draw(config, (6, 5, 1), key=jax.random.key(0))


@pytest.mark.slow
def test_methods_are_one_line_each_and_say_what_comes_out():
    model, key = _small(), jax.random.key(1)
    drawn = model.generate(2, key=key)
    assert drawn.images.shape == (2, 6, 5, 1)
    assert drawn.canvases.shape == (3, 2, 6, 5, 1)
    inferred = model.infer(drawn.images, key=key)
    assert inferred.latents.shape == inferred.posterior.mean.shape == (3, 2, 4)
    assert inferred.posterior.log_scale.shape == (3, 2, 4)
    again = model.from_latents(inferred.latents)
    np.testing.assert_allclose(again.images, inferred.images, rtol=1e-5)
    assert model.losses(drawn.images, key=key).shape == (2,)
    np.testing.assert_allclose(
        model.reconstruct(drawn.images).latents, model.reconstruct(drawn.images).posterior.mean
    )
    known = jnp.zeros((2, 6, 5, 1), bool)
    assert model.complete(drawn.images, known, key=key).images.shape == (2, 6, 5, 1)


@pytest.mark.parametrize("latents", [jnp.zeros(4), [0.0] * 4, np.zeros((3, 4))])
def test_latents_have_three_axes(latents, own_errors):
    with pytest.raises(ValueError, match=r"latents must have shape \[T, batch, 4\], "):
        _small().from_latents(latents)


def test_methods_compile_once_a_shape():
    traced = []

    class Counted(modules.Draw):
        def write(self, h_dec):
            traced.append(1)
            return super().write(h_dec)

    model = Counted(modules.DrawConfig(3, 8, 4, 3, 2), (6, 5, 1), key=jax.random.key(0))
    model.generate(2, key=jax.random.key(0))
    count = len(traced)
    model.generate(2, key=jax.random.key(1))
    twin = Counted(modules.DrawConfig(3, 8, 4, 3, 2), (6, 5, 1), key=jax.random.key(5))
    twin.generate(2, key=jax.random.key(1))
    assert len(traced) == count
    model.generate(3, key=jax.random.key(1))
    assert len(traced) > count


def test_a_model_shows_itself_in_a_few_lines():
    for text in (repr(_small()), str(_small())):
        assert text.startswith("Draw(num_glimpses=3, hidden_size=8")
        assert "image_shape=(6, 5, 1)" in text and "parameters" in text
        assert len(text) < 300


def test_abstract_parameters_are_those_of_a_model():
    model = _small()
    graph, params = modules.split(model)
    other, shapes = modules.abstract(modules.Draw, model.config, (6, 5, 1))
    assert other == graph
    assert jax.tree.map(jnp.shape, shapes) == jax.tree.map(jnp.shape, params)


def test_a_window_larger_than_the_image_is_refused():
    with pytest.raises(ValueError, match=r"write_size must be at most .* 6, got 7"):
        modules.Draw(modules.DrawConfig(write_size=7), (6, 5, 1), key=jax.random.key(0))


class Masked(modules.Draw):
    """A mask, a table and a counter beside what is trained."""

    def __init__(self, config, image_shape, *, key, keep=0.5):
        super().__init__(config, image_shape, key=key)
        self.mask = np.arange(config.latent_size) < keep * config.latent_size  # NumPy, booleans
        self.table = nnx.Variable(jax.random.uniform(key, (config.latent_size,)))
        self.counter = nnx.Param(jnp.array(3))  # an integer has no gradient, whatever its kind

    def decode(self, carry, latent):
        kept = jnp.where(jnp.asarray(self.mask), latent, self.table[...]) * self.counter[...]
        return super().decode(carry, kept)


def test_what_is_no_parameter_travels_unchanged():
    config, key = modules.DrawConfig(3, 8, 4, 3, 2), jax.random.key(0)
    model, noise = Masked(config, (6, 5, 1), key=key), jax.random.normal(key, (3, 2, 4))
    graph, params = modules.split(model)
    _, of_draw = modules.split(modules.Draw(config, (6, 5, 1), key=key))
    assert jax.tree.structure(params) == jax.tree.structure(of_draw)  # the sort of what is trained
    assert modules.parameter_count(params) == modules.parameter_count(of_draw)
    images = jnp.ones((2, 6, 5, 1))

    def loss(params):
        return jnp.sum(jnp.stack(draw.loss(modules.merge(graph, params), images, noise)))

    gradient = jax.jit(jax.grad(loss))(params)
    chex.assert_tree_all_finite(gradient)
    with jax.default_prng_impl("rbg"):
        again = modules.merge(*modules.abstract(Masked, config, (6, 5, 1))[:1], params)
    np.testing.assert_array_equal(again.mask, model.mask)
    np.testing.assert_array_equal(
        again.generate(2, key=key).images, model.generate(2, key=key).images
    )
    # Models that differ in a constant alone are two programs.
    other = Masked(config, (6, 5, 1), key=key, keep=1.0)
    assert modules.split(other)[0] != graph
    assert modules.split(Masked(config, (6, 5, 1), key=key))[0] == graph
    assert np.abs(other.generate(2, key=key).images - again.generate(2, key=key).images).max() > 0


def test_leaves_of_other_pytrees_that_are_no_floats_are_constants():
    model = {"weights": jnp.ones(3), "mask": np.array([True, False]), "steps": 4}
    graph, params = modules.split(model)
    assert list(params) == ["['weights']"]
    assert hash(graph) == hash(modules.split(model)[0])
    chex.assert_trees_all_equal(modules.merge(graph, params), model)


@pytest.mark.parametrize(
    ("part", "name"), [(nnx.Dropout(0.5, rngs=nnx.Rngs(0)), "RngCount"),
                       (nnx.BatchNorm(3, rngs=nnx.Rngs(0)), "BatchStat")],
)  # fmt: skip
def test_parts_that_change_as_they_run_are_refused_by_name(part, name):
    model = _small()
    model.part = part
    for call in (modules.split, lambda model: model.generate(2, key=jax.random.key(0))):
        with pytest.raises(ValueError, match=rf"part\..* is {name}, .*nnx\.LayerNorm"):
            call(model)


def test_a_method_edited_after_its_first_use_runs():
    class Mine(modules.Draw):
        def write(self, h_dec):
            change, window = super().write(h_dec)
            return change + 0.0, window

    model, key = Mine(_small().config, (6, 5, 1), key=jax.random.key(0)), jax.random.key(1)
    before = model.generate(2, key=key).images

    def other(self, h_dec):
        change, window = modules.Draw.write(self, h_dec)
        return change + 1.0, window

    Mine.write = other
    after = model.generate(2, key=key).images
    assert (after > before).all()
    # As notebooks' autoreload does: the old function with new code.
    other.__code__ = (lambda self, h_dec: modules.Draw.write(self, h_dec)).__code__
    np.testing.assert_allclose(model.generate(2, key=key).images, before, rtol=1e-6)


@pytest.mark.usefixtures("promoting")
def test_parameters_in_bfloat16_run_in_float32():
    graph, params, images, noise = _problem(*SIZES["attention"], jnp.float32)
    narrow = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params)
    wide = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), narrow)
    (value, gradient), (expected, exact) = (
        _value_and_grad(graph)(values, images, noise) for values in (narrow, wide)
    )
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    for one, other in zip(jax.tree.leaves(gradient[0]), jax.tree.leaves(exact[0]), strict=True):
        assert one.dtype == jnp.bfloat16
        assert jnp.linalg.norm(one - other) < 0.01 * jnp.linalg.norm(other)
    drawn = draw.generate(modules.merge(graph, narrow), noise)
    assert drawn.images.dtype == jnp.float32
