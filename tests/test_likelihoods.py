import jax
import jax.numpy as jnp
import numpy as np
import pytest

from drawjax.likelihoods import Bernoulli, DiscretizedLogistic, Gaussian, Likelihood

LEVELS = np.arange(256) / 255
LOGITS = [-30.0, -3.0, 0.0, 1.7, 30.0]
SCALES = [-7.0, -3.0, 0.0, 2.0]


def _pixels(values):
    """Images of one pixel each."""
    return jnp.asarray(values).reshape(-1, 1, 1, 1)


def _probabilities(likelihood, values):
    """Of each value of one pixel."""
    like = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (len(values), 1, 1, 1)), likelihood)
    return np.exp(like.log_prob(_pixels(values)))


@pytest.mark.parametrize("logit", LOGITS)
def test_bernoulli_sums_to_one(x64, logit):
    both = _probabilities(Bernoulli(_pixels(logit)), [0.0, 1.0])
    np.testing.assert_allclose(both.sum(), 1, rtol=1e-12)
    np.testing.assert_allclose(both[1], 1 / (1 + np.exp(-logit)), rtol=1e-12)


@pytest.mark.parametrize("log_scale", SCALES)
@pytest.mark.parametrize("logit", LOGITS)
def test_the_discretized_logistic_sums_to_one(x64, logit, log_scale):
    likelihood = DiscretizedLogistic(_pixels(logit), _pixels(log_scale))
    np.testing.assert_allclose(_probabilities(likelihood, LEVELS).sum(), 1, rtol=1e-9)


@pytest.mark.parametrize("log_scale", [-7.0, -3.0, 0.0])
@pytest.mark.parametrize("logit", LOGITS)
def test_the_gaussian_integrates_to_one(x64, logit, log_scale):
    likelihood = Gaussian(_pixels(logit), _pixels(log_scale))
    width = np.exp(log_scale)
    values = np.linspace(-8 * width, 8 * width, 10_001) + likelihood.mean.item()
    total = _probabilities(likelihood, values).sum() * (values[1] - values[0])
    np.testing.assert_allclose(total, 1, rtol=1e-9)


@pytest.mark.parametrize("kind", [Bernoulli, DiscretizedLogistic, Gaussian])
def test_samples_are_as_probable_as_it_says(x64, kind):
    count, logit, log_scale = 100_000, 1.5, -5.0
    fields = (_pixels(logit),) if kind is Bernoulli else (_pixels(logit), _pixels(log_scale))
    likelihood = kind(*fields)
    assert isinstance(likelihood, Likelihood)
    many = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (count, 1, 1, 1)), likelihood)
    drawn = np.asarray(many.sample(jax.random.key(0))).ravel()
    if kind is Gaussian:
        np.testing.assert_allclose(drawn.mean(), likelihood.mean.item(), atol=2e-4)
        np.testing.assert_allclose(drawn.std(), np.exp(log_scale), rtol=0.02)
        return
    values = np.array([0.0, 1.0]) if kind is Bernoulli else np.asarray(LEVELS)
    expected = _probabilities(likelihood, values)
    frequency = np.bincount(np.searchsorted(values, drawn - 1e-9), minlength=len(values)) / count
    np.testing.assert_array_less(
        np.abs(frequency - expected), 5 * np.sqrt(expected * (1 - expected) / count) + 1e-4
    )


def test_a_scale_a_channel_is_broadcast_over_images_and_steps(x64):
    rng = np.random.default_rng(0)
    logits, scales = jnp.asarray(rng.normal(size=(3, 2, 4, 5, 3))), jnp.array([-3.0, -2.0, -1.0])
    images = jnp.asarray(rng.integers(0, 256, size=logits.shape) / 255)
    for kind in (DiscretizedLogistic, Gaussian):
        whole = kind(logits, scales).log_prob(images)
        assert whole.shape == (3, 2)
        each = [
            kind(logits[..., c : c + 1], scales[c : c + 1]).log_prob(images[..., c : c + 1])
            for c in range(3)
        ]
        np.testing.assert_allclose(whole, sum(each), rtol=1e-12)


def test_gradients_are_finite_at_the_ends():
    images = _pixels([0.0, 0.5, 1.0])
    for kind in (DiscretizedLogistic, Gaussian):
        for logit in LOGITS:
            gradient = jax.grad(lambda fields, kind=kind: kind(*fields).log_prob(images).sum())(
                (jnp.full_like(images, logit), jnp.full_like(images, -7.0))
            )
            assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
