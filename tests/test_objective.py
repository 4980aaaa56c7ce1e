import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from drawjax import objective
from drawjax.objective import Bernoulli, DiscretizedLogistic, Gaussian, Likelihood, Normal

pytestmark = pytest.mark.usefixtures("strict")


def test_reconstruction_is_the_bernoulli_log_likelihood_worked_by_hand():
    # Means 0.8 and 0.5: -log 0.8 for a one, -log 0.5 for a zero.
    logits = jnp.array([np.log(4.0), 0.0]).reshape(1, 2, 1)
    loss = objective.reconstruction_loss(logits, jnp.array([1.0, 0.0]).reshape(1, 2, 1))
    np.testing.assert_allclose(loss, -np.log(0.8) - np.log(0.5), rtol=1e-6)


def test_reconstruction_takes_intensities_and_sums_colors(x64):
    rng = np.random.default_rng(0)
    logits, images = rng.normal(size=(4, 5, 6, 3)), rng.uniform(size=(4, 5, 6, 3))
    means = 1 / (1 + np.exp(-logits))
    expected = -(images * np.log(means) + (1 - images) * np.log(1 - means)).sum((1, 2, 3))
    loss = objective.reconstruction_loss(jnp.asarray(logits), jnp.asarray(images))
    np.testing.assert_allclose(loss, expected, rtol=1e-12)


def test_reconstruction_is_finite_for_huge_logits():
    logits = jnp.array([1e4, -1e4, 1e4]).reshape(1, 3, 1)
    images = jnp.array([1.0, 0.0, 0.0]).reshape(1, 3, 1)
    value, gradient = jax.value_and_grad(
        lambda logits: objective.reconstruction_loss(logits, images)
    )(logits)
    np.testing.assert_allclose(value, 1e4)
    chex.assert_tree_all_finite(gradient)


def test_kl_worked_by_hand():
    # One latent N(1, 2^2): (1 + 4 - 1)/2 - log 2; one latent equal to the prior: nothing.
    kl = objective.gaussian_kl(jnp.array([1.0, 0.0]), jnp.array([np.log(2.0), 0.0]))
    np.testing.assert_allclose(kl, 2 - np.log(2), rtol=1e-6)


def test_kl_agrees_with_monte_carlo(x64):
    mean, log_scale = jnp.array([0.7, -1.2, 0.1]), jnp.array([-0.5, 0.3, -1.0])
    noise = jax.random.normal(jax.random.key(0), (200_000, 3))
    latents = mean[None] + jnp.exp(log_scale)[None] * noise
    ratios = objective.gaussian_log_density(latents, mean[None], log_scale[None])
    ratios -= objective.gaussian_log_density(latents)
    error = np.std(ratios) / np.sqrt(len(ratios))
    assert abs(np.mean(ratios) - objective.gaussian_kl(mean, log_scale)) < 4 * error


def test_a_normal_has_no_kl_to_another_kind_of_prior():
    other = type("Laplace", (), {"mean": jnp.zeros(()), "log_scale": jnp.zeros(())})()
    with pytest.raises(ValueError, match="to a Normal prior, got a Laplace"):
        Normal().kl(other)


def test_kl_is_never_negative_near_the_prior():
    log_scale = jnp.linspace(-1e-3, 1e-3, 1001)[:, None]
    assert np.all(np.asarray(objective.gaussian_kl(jnp.zeros_like(log_scale), log_scale)) >= 0)


def test_log_density_is_the_normal_distributions(x64):
    value = objective.gaussian_log_density(jnp.array([1.0]), jnp.array([3.0]), jnp.array([0.5]))
    expected = -0.5 * np.log(2 * np.pi) - 0.5 - 0.5 * (2 / np.exp(0.5)) ** 2
    np.testing.assert_allclose(value, expected, rtol=1e-12)


@pytest.mark.slow
def test_gradients(x64):
    rng = np.random.default_rng(0)
    logits, images = rng.normal(size=(2, 3, 3, 1)), rng.uniform(size=(2, 3, 3, 1))
    check_grads(
        lambda logits: objective.reconstruction_loss(jnp.asarray(logits), jnp.asarray(images)),
        (logits,), order=2,
    )  # fmt: skip
    check_grads(
        lambda mean, scale: objective.gaussian_kl(jnp.asarray(mean), jnp.asarray(scale)),
        (rng.normal(size=(2, 3)), rng.normal(size=(2, 3))), order=2,
    )  # fmt: skip


@pytest.mark.usefixtures("own_errors")
def test_wrong_shapes_are_named():
    with pytest.raises(ValueError, match=r"\[2, 4, 4, 1\] and \[2, 4, 4, 3\]"):
        objective.reconstruction_loss.__wrapped__(jnp.zeros((2, 4, 4, 1)), jnp.zeros((2, 4, 4, 3)))


@pytest.mark.slow
def test_the_discretized_logistic_is_a_distribution_over_256_levels(x64):
    levels = jnp.arange(256) / 255
    for mean in (0.0, 0.3, 1.0):
        for scale in (1e-3, 0.05, 2.0):
            masses = [
                jnp.exp(-objective.discretized_logistic_loss(
                    jnp.full((1, 1, 1), mean), level.reshape(1, 1, 1), jnp.log(jnp.array([scale]))
                ))
                for level in levels
            ]  # fmt: skip
            np.testing.assert_allclose(sum(masses), 1, rtol=1e-9)


def test_the_discretized_logistic_worked_by_hand(x64):
    # Level 51/255 = 0.2 around mean 0.2: sigmoid(d) - sigmoid(-d) with d = (0.5/255)/scale.
    value = objective.discretized_logistic_loss(
        jnp.full((1, 1, 1), 0.2), jnp.full((1, 1, 1), 0.2), jnp.log(jnp.array([0.01]))
    )
    d = 0.5 / 255 / 0.01
    np.testing.assert_allclose(value, -np.log(np.tanh(d / 2)), rtol=1e-9)


def test_the_discretized_logistic_is_finite_far_from_the_mean():
    loss = objective.discretized_logistic_loss(
        jnp.full((1, 1, 1), 0.0), jnp.full((1, 1, 1), 200 / 255), jnp.array([-7.0])
    )
    assert np.isfinite(loss)


# Distributions of the formulas above.

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


@pytest.mark.parametrize("kind", [DiscretizedLogistic, Gaussian])
@pytest.mark.parametrize("shape", [(3,), (4, 5, 3), (2, 4, 5, 3)])
def test_a_scale_of_any_shape_is_sampled_by(kind, shape):
    canvas = jnp.zeros((2, 4, 5, 3))
    drawn = [
        kind(canvas, jnp.broadcast_to(jnp.float32(-1.5), s)).sample(jax.random.key(0))
        for s in (shape, canvas.shape)
    ]
    np.testing.assert_array_equal(*drawn)


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
