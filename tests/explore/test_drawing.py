import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import drawjax
from drawjax import draw, modules, pretrained
from drawjax.explore.drawing import COUNT, Models
from tests.explore.serving import CONFIG, SHAPE, save_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    save_model(folder)
    looks = modules.RamConfig(num_glimpses=2, hidden_size=5, read_size=3)
    drawjax.save_pretrained(modules.Ram(looks, (9, 9, 1), key=jax.random.key(0)), folder / "looks")
    return folder


@pytest.fixture(scope="module")
def models(folder):
    return Models(folder)


def _noise(seed):
    return jax.random.normal(jax.random.key(seed), (CONFIG.num_glimpses, COUNT, CONFIG.latent_size))


def test_models_that_draw_are_offered_and_classifiers_are_not(models):
    offered = models.describe()
    assert models.left_out == {"looks": "it classifies, and does not draw"}
    assert {model["name"] for model in offered} == {*pretrained.available("draw"), "scribble"}
    assert {
        "name": "scribble",
        "shape": list(SHAPE),
        "steps": 4,
        "data": "nothing",
        "classes": None,
    } in offered
    for name in ("looks", "ram4", "../scribble"):
        with pytest.raises(ValueError, match="no drawing model"):
            models.load(name)


def test_a_model_in_place_of_the_packages_is_said(tmp_path):
    save_model(tmp_path, "mnist")
    models = Models(tmp_path)
    assert models.left_out == {
        "mnist": "it is the package's, and the folder has another of this name"
    }
    assert models.describe()[0]["data"] == "nothing"


def test_a_folder_without_models_is_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no folders of models"):
        Models(tmp_path)


def test_a_model_that_draws_by_features_is_left_out(tmp_path):
    save_model(tmp_path)
    save_model(tmp_path, "features", dataclasses.replace(CONFIG, condition_size=3))
    models = Models(tmp_path)
    assert models.left_out == {
        "features": "it is conditional on features that the page cannot ask for"
    }
    assert [model["name"] for model in models.describe()][:2] == ["scribble", "mnist"]


def test_a_seed_draws_what_the_sampling_command_does(models, folder):
    drawing = models.from_seed("scribble", 7)
    output = drawjax.load_pretrained(folder / "scribble").generate(COUNT, key=jax.random.key(7))
    expected = 255 / (1 + np.exp(-np.asarray(output.canvases)))
    assert drawing.frames.shape == (4, COUNT, *SHAPE)
    np.testing.assert_allclose(drawing.frames.astype(float), expected, atol=0.51)
    window = output.write_windows
    centers = np.mean(drawing.write[..., 0], axis=-1) + 0.5
    np.testing.assert_allclose(centers, window.center_x, rtol=1e-4)
    sides = drawing.write[..., 1, 0] - drawing.write[..., 0, 0]
    np.testing.assert_allclose(sides, 4 * window.stride, rtol=1e-4)  # 5 - 1
    assert drawing.read is None


def test_a_model_of_classes_draws_the_one_that_is_asked_for_or_each(tmp_path):
    config = dataclasses.replace(CONFIG, num_classes=3)
    model = modules.Draw(config, SHAPE, key=jax.random.key(1))
    drawjax.save_pretrained(model, tmp_path / "three")
    models = Models(tmp_path)
    assert [row["classes"] for row in models.describe() if row["name"] == "three"] == [3]
    key = jax.random.key(5)
    for label, condition in ((2, [2] * COUNT), (None, [0, 1, 2])):
        expected = model.generate(len(condition), key=key, condition=condition).images
        drawn = models.from_seed("three", 5, label).frames
        np.testing.assert_allclose(drawn[-1].astype(float), 255 * expected, atol=0.51)
        known = np.zeros(SHAPE[:2], bool)
        frames = models.complete("three", np.zeros(SHAPE, np.uint8), known, 5, label).frames
        assert frames.shape[1] == len(condition)
    with pytest.raises(ValueError, match="classes 0 to 2, got 3"):
        models.from_seed("three", 5, 3)


def test_a_seed_draws_the_same_whatever_the_default_implementation(models):
    known = np.arange(28)[:, None] < np.full(28, 14)

    def frames():
        complete = models.complete("scribble", np.zeros(SHAPE, np.uint8), known, 7)
        return models.from_seed("scribble", 7).frames, complete.frames

    expected = frames()
    with jax.default_prng_impl("rbg"):
        np.testing.assert_array_equal(frames(), expected)


@pytest.mark.slow
def test_completions_are_those_of_draw_complete(models, folder):
    pixels = np.random.default_rng(0).integers(256, size=SHAPE, dtype=np.uint8)
    known = np.arange(28)[:, None] < np.full(28, 14)
    drawing = models.complete("scribble", pixels, known, 7)
    image = jnp.broadcast_to(pixels / np.float32(255), (COUNT, *SHAPE))
    mask = jnp.broadcast_to(known[..., None], (COUNT, *SHAPE))
    output = draw.complete(drawjax.load_pretrained(folder / "scribble"), image, mask, _noise(7))
    expected = 255 / (1 + np.exp(-np.asarray(output.canvases)))
    np.testing.assert_allclose(drawing.frames.astype(float), expected, atol=0.51)
    sides = drawing.read[..., 2, 1] - drawing.read[..., 1, 1]
    np.testing.assert_allclose(sides, output.read_windows.stride, rtol=1e-4)
    other = models.complete("scribble", pixels, np.ones_like(known), 7)
    assert (other.frames != drawing.frames).any()


def test_a_model_without_windows_draws_too(tmp_path):
    save_model(tmp_path, "whole", modules.DrawConfig(2, 5, 3, None, None), (6, 5, 3))
    models = Models(tmp_path)
    drawing = models.complete("whole", np.zeros((6, 5, 3), np.uint8), np.zeros((6, 5), bool), 0)
    assert drawing.frames.shape == (2, COUNT, 6, 5, 3)
    assert drawing.read is drawing.write is None
