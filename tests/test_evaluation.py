"""How trained models are measured: by image, whatever the batch size, machine and interruptions."""

import dataclasses
import functools
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from drawjax import data, draw, evaluation, modules, objective, ram
from drawjax.classification import Classification
from drawjax.config import (
    ClassificationConfig,
    ClutterDataConfig,
    DrawConfig,
    GenerationConfig,
    GenerationDataConfig,
    RamConfig,
)
from drawjax.generation import Generation, noise

CONFIG = GenerationConfig(
    data=GenerationDataConfig(binarization="dynamic"),
    model=DrawConfig(num_glimpses=3, hidden_size=8, latent_size=4, read_size=2, write_size=3),
    samples=9,
)
GRAY = dataclasses.replace(
    CONFIG,
    data=GenerationDataConfig(binarization="none"),
    model=dataclasses.replace(CONFIG.model, likelihood="intensities"),
)


def experiment_and_params(config, count=100):
    """An experiment on small random images, all of them in each split, and fresh parameters."""
    pixels = np.random.default_rng(0).integers(0, 256, (count, 8, 7), np.uint8)
    images = {split: pixels for split in ("train", "validation", "test")}
    experiment = Generation(config, data.load(images, config.data))
    return experiment, experiment.init(jax.random.key(0))


def importance(experiment, params, num_samples, count, source=None, folder=None):
    """The importance-weighted bound on the first test images."""
    source = source or experiment.images.test
    return evaluation.importance_weighted(
        experiment.bound(params),
        functools.partial(experiment.inputs, pool=experiment.pool(source)),
        source, experiment.evaluation_key, num_samples=num_samples, count=count, folder=folder,
    )  # fmt: skip


def seen_and_drawn(experiment, params, count):
    """The first test images as the model sees them, and what it infers from them."""
    source = experiment.images.test
    batch, _ = next(data.eval_batches(source, batch_size=count))
    keys = data.image_keys(experiment.evaluation_key, batch["index"])
    seen, _, noise_keys = experiment.inputs(batch, keys, experiment.pool(source))
    model = experiment.bound(params)
    return seen, draw.infer(model, seen, noise(model, noise_keys))


@pytest.mark.parametrize("changes", [{}, {"pair_size": 12}], ids=["dynamic", "pairs"])
def test_evaluation_does_not_depend_on_the_batch_size(changes):
    config = dataclasses.replace(CONFIG, data=dataclasses.replace(CONFIG.data, **changes))
    found = []
    for size in (11, 4):
        experiment, params = experiment_and_params(
            dataclasses.replace(config, eval_batch_size=size), 11
        )
        found.append(experiment.evaluate(params, experiment.images.test))
    assert [value["images"] for value in found] == [11] * 2
    assert found[1]["loss"] == pytest.approx(found[0]["loss"], rel=1e-5)
    # Images differ from each other, and the first is the same in a smaller set.
    seen = np.asarray(experiment.first_images(experiment.images.test, 11)[0])
    assert len({image.tobytes() for image in seen}) == 11
    if not changes:
        few, _ = experiment_and_params(config, 3)
        np.testing.assert_array_equal(few.first_images(few.images.test, 3)[0], seen[:3])


def test_both_bounds_are_of_the_same_images_and_noise(tmp_path):
    config = dataclasses.replace(CONFIG, importance_samples=1, workdir=str(tmp_path))
    experiment, params = experiment_and_params(config, 30)
    test = experiment.test(params, {})["test"]
    assert test["importance_images"] == 30
    # With one sample the bound is log p(x, z) - log q(z | x) of the noise that the loss is of.
    seen, output = seen_and_drawn(experiment, params, 30)
    loss = objective.reconstruction_loss(output.canvases[-1], seen)
    assert test["loss"] == pytest.approx(float(jnp.mean(loss + output.kl.sum(0))), rel=1e-5)
    single = loss - output.log_ratio.sum(0)
    assert test["importance_weighted"] == pytest.approx(float(jnp.mean(single)), rel=1e-5)


def test_fewer_images_are_taken_out_of_what_is_known(tmp_path):
    experiment, params = experiment_and_params(CONFIG)
    importance(experiment, params, 3, 40, folder=tmp_path)
    before = (tmp_path / "importance.npz").read_bytes()
    importance(experiment, params, 3, 5, folder=tmp_path)
    assert (tmp_path / "importance.npz").read_bytes() == before
    longer = dataclasses.replace(CONFIG.model, num_glimpses=CONFIG.model.num_glimpses + 1)
    other, _ = experiment_and_params(dataclasses.replace(CONFIG, model=longer))
    estimate = importance(other, params, 3, 5, folder=tmp_path)  # of the same parameters
    assert estimate == importance(other, params, 3, 5)


def test_what_was_not_finite_is_said_when_it_is_read_back():
    experiment, params = experiment_and_params(CONFIG)
    lost = dict.fromkeys(("loss", "latent", "standard_error"))
    results = experiment.test(params, {"test": {"reconstruction": 1.0, "images": 2, **lost}})
    assert "nan nats" in experiment.summary(results)


def test_an_importance_weighted_bound_that_was_stopped_goes_on(tmp_path):
    experiment, params = experiment_and_params(CONFIG)
    whole = importance(experiment, params, 3, 60)
    importance(experiment, params, 3, 40, folder=tmp_path)
    values = dict(np.load(tmp_path / "importance.npz"))
    values["gain"][:40] += 1000  # to see that they are taken
    np.savez(tmp_path / "importance.npz", **values)
    more = importance(experiment, params, 3, 60, folder=tmp_path)
    assert more["importance_weighted"] == pytest.approx(whole["importance_weighted"], rel=1e-6)
    assert more["importance_gain"] == pytest.approx(whole["importance_gain"] + 2000 / 3, rel=1e-4)
    again = importance(experiment, params, 3, 40, folder=tmp_path)
    assert again["importance_gain"] > 900  # known altogether
    # Of other samples, or other images, nothing is taken.
    assert importance(experiment, params, 2, 40, folder=tmp_path)["importance_gain"] < 900
    inverted = dataclasses.replace(CONFIG, data=dataclasses.replace(CONFIG.data, invert=True))
    other, _ = experiment_and_params(inverted)
    np.savez(tmp_path / "importance.npz", **values)
    assert importance(other, params, 3, 40, folder=tmp_path)["importance_gain"] < 900


_ON_SEVERAL = """
from drawjax import evaluation
from tests.test_evaluation import CONFIG, experiment_and_params, importance

found = importance(*experiment_and_params(CONFIG), 5, 50)
devices = [evaluation._over_devices(size).num_devices for size in (50, 7)]
print(devices, found["importance_weighted"])
"""


@pytest.mark.slow
def test_the_importance_weighted_bound_is_the_same_on_two_devices():
    said = []
    for devices in (1, 2):
        flags = f"--xla_force_host_platform_device_count={devices}"
        done = subprocess.run(
            [sys.executable, "-c", _ON_SEVERAL], capture_output=True, text=True, check=True,
            env={**os.environ, "XLA_FLAGS": flags}, cwd=pathlib.Path(__file__).parents[1],
        )  # fmt: skip
        said.append(done.stdout.rsplit(maxsplit=1))
    assert [devices for devices, _ in said] == ["[1, 1]", "[2, 1]"]
    assert float(said[1][1]) == pytest.approx(float(said[0][1]), rel=1e-6)


def test_the_importance_weighted_bound_is_that_of_the_first_images():
    experiment, params = experiment_and_params(CONFIG)
    many = importance(experiment, params, 20, 50)
    test = experiment.images.test
    first = data.ArraySource(test.images[:50], test.labels[:50])
    assert many == importance(experiment, params, 20, 50, source=first)
    one = importance(experiment, params, 1, 50)
    assert many["importance_gain"] > 9 * many["importance_gain_standard_error"]
    assert one["importance_gain"] == pytest.approx(0, abs=1e-3)
    assert many["importance_images"] == 50


def test_bits_per_dimension_are_those_of_the_emission():
    experiment, params = experiment_and_params(GRAY, 20)
    result = experiment.test(params, {})["discretized"]
    # By hand: the best scale of the grid on these images, and the loss in bits.
    seen, output = seen_and_drawn(experiment, params, 20)
    grid = np.linspace(-6.0, -0.5, 56)
    losses = [
        float(
            jnp.mean(objective.discretized_logistic_loss(output.images, seen, jnp.array([scale])))
        )
        for scale in grid
    ]
    best = int(np.argmin(losses))
    assert result["scales"] == pytest.approx([np.exp(grid[best])], rel=1e-5)
    expected = (losses[best] + float(jnp.mean(output.kl.sum(0)))) / (56 * np.log(2))
    assert result["bits_per_dimension"] == pytest.approx(expected, rel=1e-4)


def test_a_trained_likelihood_gives_its_own_bits_per_dimension():
    model = dataclasses.replace(CONFIG.model, likelihood="discretized_logistic", prior="learned")
    experiment, params = experiment_and_params(dataclasses.replace(GRAY, model=model), 20)
    results = experiment.test(params, {})
    assert list(results) == ["test"]
    seen, output = seen_and_drawn(experiment, params, 20)
    log_scale = experiment.bound(params).pixel_log_scale[...]
    emission = objective.discretized_logistic_loss(output.images, seen, log_scale)
    expected = float(jnp.mean(emission + output.kl.sum(0))) / (56 * np.log(2))
    assert results["test"]["bits_per_dimension"] == pytest.approx(expected, rel=1e-5)
    error = results["test"]["standard_error"] / (56 * np.log(2))
    assert results["test"]["bits_per_dimension_standard_error"] == pytest.approx(error)


def test_one_image_has_no_standard_error():
    assert evaluation.standard_error(np.array([1.0])) is None
    assert evaluation.standard_error(np.array([1.0, 3.0])) == pytest.approx(1.0)
    experiment, params = experiment_and_params(CONFIG, 1)
    results = experiment.test(params, {})
    assert results["test"]["standard_error"] is None
    assert "+-" not in experiment.summary(results)


def test_nearest_images_are_the_nearest():
    config = dataclasses.replace(GRAY, eval_batch_size=20)  # the last batch is filled up
    experiment, _ = experiment_and_params(config, 50)
    images = experiment.images.train.images
    source, seen = data.ArraySource(images, np.arange(50, dtype=np.int32)), images / np.float32(255)
    found, labels = experiment.nearest(seen[[3, 41]] + np.float32(0.001), source)
    np.testing.assert_allclose(found, seen[[3, 41]], rtol=1e-6)
    np.testing.assert_array_equal(labels, [3, 41])


def test_the_model_is_the_one_that_is_asked_for():
    experiment, _ = experiment_and_params(CONFIG, 3)
    assert experiment.model is modules.Draw


def test_a_classifier_tells_its_error_after_each_glimpse():
    config = ClassificationConfig(
        data=ClutterDataConfig(clutter_size=12, pieces=1),
        model=RamConfig(num_glimpses=3, hidden_size=8, read_size=3, num_classes=3),
        eval_batch_size=16,
    )
    digits = np.random.default_rng(0).integers(0, 256, (40, 9, 9), np.uint8)
    labels = dict.fromkeys(("train", "validation", "test"), np.arange(40) % 3)
    images = data.from_arrays(digits, test=digits, validation=digits, labels=labels)
    experiment = Classification(config, images)
    rng = np.random.default_rng(1)  # large weights, so that another glimpse is another class
    params = jax.tree.map(
        lambda p: jnp.asarray(rng.normal(size=p.shape), p.dtype), experiment.abstract_params
    )
    test = experiment.test(params, {})["test"]
    seen, labels, _ = experiment.look(params, images.test, 40)
    for t in range(3):
        named = ram.classify(experiment.bound(params), seen, t + 1).logits.argmax(-1)
        error = np.mean(named != labels)
        assert test["error_by_glimpse"][t] == pytest.approx(100 * error)
        assert test["error_by_glimpse_standard_error"][t] == pytest.approx(
            100 * np.sqrt(error * (1 - error) / 40)
        )
    assert len(set(test["error_by_glimpse"])) == 3
    assert test["error"] == test["error_by_glimpse"][-1]
    assert test["standard_error"] == test["error_by_glimpse_standard_error"][-1]
    assert experiment.evaluate(params, images.test) == {
        name: test[name] for name in ("loss", "error", "standard_error", "images")
    }
