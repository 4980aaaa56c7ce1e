import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from drawjax import modules, ram
from tests import oracle

pytestmark = pytest.mark.usefixtures("strict")

SHAPE = (7, 9, 2)
CONFIG = modules.RamConfig(num_glimpses=3, hidden_size=5, read_size=3, num_classes=4)


CONFIGS = {
    "paper": CONFIG,
    "scales": dataclasses.replace(CONFIG, num_scales=2),
    "conv": dataclasses.replace(CONFIG, read_size=5, num_scales=2, glimpse_features=3),
}


@pytest.mark.slow
@pytest.mark.usefixtures("promoting")
def test_the_last_view_is_the_whole_image_made_small(x64):
    config = dataclasses.replace(CONFIG, last_view=3)
    image = np.random.default_rng(0).uniform(size=(9, 9, 2))
    model = modules.Ram(config, image.shape, key=jax.random.key(0))
    small = np.asarray(jax.image.resize(image, (3, 3, 2), "linear", antialias=True))
    hidden = np.random.default_rng(1).normal(size=5)
    view = np.maximum(small.ravel() @ model.view.kernel[...] + model.view.bias[...], 0)
    expected = (hidden + view) @ model.classes.kernel[...] + model.classes.bias[...]
    np.testing.assert_allclose(
        model.logits(jnp.asarray(hidden[None]), jnp.asarray(image[None]))[0], expected, atol=1e-6
    )


def _model(config=CONFIG, seed=0):
    """A model whose every parameter is random and not small."""
    graph, params = modules.abstract(modules.Ram, config, SHAPE)
    rng = np.random.default_rng(seed)
    params = jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape) * 0.4), params)
    images = jnp.asarray(rng.uniform(size=(4, *SHAPE)))
    return graph, params, images, jnp.array([0, 1, 3, 3])


@pytest.mark.slow
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_classification_matches_the_paper_in_float64(x64, config):
    graph, params, images, labels = _model(config)
    output = jax.jit(lambda x: ram.classify(modules.merge(graph, params), x))(images)
    loss, wrong = ram.loss(modules.merge(graph, params), images, labels)
    windows = output.windows
    for k in range(4):
        expected, logits, nats = oracle.classify(
            jax.tree.map(np.asarray, params), np.asarray(images[k]), int(labels[k]), 3,
            config.read_size, config.num_scales,
        )  # fmt: skip
        np.testing.assert_allclose(output.logits[k], logits, atol=1e-11)
        np.testing.assert_allclose(loss[k], nats, atol=1e-11)
        assert float(wrong[k]) == (np.argmax(logits) != int(labels[k]))
        for row, t in zip(expected, range(3), strict=True):
            # In the oracle's order: center x, center y, stride, variance, intensity.
            field = (windows.center_x, windows.center_y, windows.stride, windows.variance,
                     windows.intensity)  # fmt: skip
            np.testing.assert_allclose([f[t, k] for f in field], row, atol=1e-11)


@pytest.mark.slow
@pytest.mark.parametrize(
    "config", [CONFIG, dataclasses.replace(CONFIG, num_scales=2, glimpse_features=2, last_view=3)]
)
def test_gradients_match_finite_differences(x64, config):
    graph, params, images, labels = _model(config)

    def total(params):
        return jnp.mean(ram.loss(modules.merge(graph, params), images, labels)[0])

    check_grads(jax.jit(total), (params,), order=1, modes=["rev"], atol=1e-5, rtol=1e-5)


def test_classify_works_in_forward_mode(x64):
    graph, params, images, _ = _model()

    def total(params):
        output = ram.classify(modules.merge(graph, params), images)
        return jnp.sum(output.glimpse_logits) + jnp.sum(output.windows.center_x)

    check_grads(jax.jit(total), (params,), order=1, modes=["fwd"], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_the_logits_of_each_glimpse_are_those_of_a_run_that_ends_there(x64, config):
    graph, params, images, _ = _model(dataclasses.replace(config, last_view=3))
    model = modules.merge(graph, params)
    output = ram.classify(model, images)
    for t in range(3):
        shorter = ram.classify(model, images, t + 1)
        np.testing.assert_allclose(output.glimpse_logits[t], shorter.logits, atol=1e-12)
    np.testing.assert_array_equal(output.glimpse_logits[-1], output.logits)
    assert np.abs(np.diff(output.glimpse_logits, axis=0)).min() > 1e-6


@pytest.mark.parametrize("method", ["initial_state", "read", "recur", "logits"])
def test_no_override_is_ignored(method):
    def refuse(self, *args):
        raise NotImplementedError(method)

    model = type("Other", (modules.Ram,), {method: refuse})(CONFIG, SHAPE, key=jax.random.key(0))
    with pytest.raises(NotImplementedError, match=method):
        model.classify(np.zeros((2, *SHAPE), np.float32))


@pytest.mark.usefixtures("own_errors")
def test_inputs_are_checked_by_name():
    model = modules.Ram(CONFIG, SHAPE, key=jax.random.key(0))
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\], got values from 0.0 to 7"):
        model.classify(np.full((2, *SHAPE), 7.0) * np.eye(9)[:7, :, None])
    with pytest.raises(ValueError, match="num_glimpses must be at least 1 and whole, got 0"):
        ram.classify(model, np.zeros((2, *SHAPE), np.float32), 0)
    with pytest.raises(ValueError, match=r"num_glimpses must be at least 1 and whole, got 2\.5"):
        ram.classify(model, np.zeros((2, *SHAPE), np.float32), 2.5)
    with pytest.raises(ValueError, match="images must not be empty"):
        ram.loss(model, np.zeros((0, *SHAPE), np.float32), np.zeros(0, int))
    with pytest.raises(ValueError, match=r"\[batch, 7, 9, 2\], got \[2, 7, 8, 2\]"):
        ram.loss(model, np.zeros((2, 7, 8, 2), np.float32), np.zeros(2, int))
    with pytest.raises(ValueError, match=r"\[batch, 7, 9, 2\], got \[2, 7, 8, 2\]"):
        model.classify(np.zeros((2, 7, 8, 2), np.float32))
    images = np.zeros((2, *SHAPE), np.float32)
    for labels, message in (
        ([0, -1], "classes 0 to 3, got -1"),
        ([4, 0], "classes 0 to 3, got 4"),
        ([1], r"whole numbers \[2\], got \[1\]"),
        ([0.0, 1.0], r"whole numbers \[2\], got \[2\] float"),
    ):
        for given in (np.array(labels), jnp.asarray(labels)):
            with pytest.raises(ValueError, match=message):
                ram.loss(model, images, given)
