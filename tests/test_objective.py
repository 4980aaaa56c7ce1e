import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from drawjax import objective


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
    latents = mean + jnp.exp(log_scale) * noise
    ratios = objective.gaussian_log_density(latents, mean, log_scale)
    ratios -= objective.gaussian_log_density(latents)
    error = np.std(ratios) / np.sqrt(len(ratios))
    assert abs(np.mean(ratios) - objective.gaussian_kl(mean, log_scale)) < 4 * error


def test_kl_is_never_negative_near_the_prior():
    log_scale = jnp.linspace(-1e-3, 1e-3, 1001)[:, None]
    assert np.all(np.asarray(objective.gaussian_kl(jnp.zeros_like(log_scale), log_scale)) >= 0)


def test_log_density_is_the_normal_distributions(x64):
    value = objective.gaussian_log_density(jnp.array([1.0]), jnp.array([3.0]), jnp.array([0.5]))
    expected = -0.5 * np.log(2 * np.pi) - 0.5 - 0.5 * (2 / np.exp(0.5)) ** 2
    np.testing.assert_allclose(value, expected, rtol=1e-12)


def test_bounds_add_up():
    np.testing.assert_allclose(
        objective.negative_bound(jnp.array([5.0, 7.0]), jnp.array([[1.0, 2.0], [3.0, 4.0]])),
        [9.0, 13.0],
    )
    log_weights = jnp.log(jnp.array([[1.0, 8.0], [3.0, 2.0]]))
    np.testing.assert_allclose(
        objective.importance_weighted_bound(log_weights), np.log([2.0, 5.0]), rtol=1e-6
    )


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
