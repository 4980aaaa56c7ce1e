"""Models conditional on a class, or on other features."""

import base64
import dataclasses
import functools
import io
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import drawjax
from drawjax import data, draw, figures, modules, sample
from drawjax.config import DrawConfig, GenerationConfig, GenerationDataConfig
from drawjax.data.placing import pair
from drawjax.generation import Generation
from tests.commands import exit_code

pytestmark = pytest.mark.usefixtures("strict")

SHAPE = (6, 5, 1)
SIZES = {"num_glimpses": 3, "hidden_size": 6, "latent_size": 2, "read_size": 2, "write_size": 2}
CLASSES = DrawConfig(**SIZES, num_classes=4, prior="learned")
KEY = jax.random.key(0)


def _random(config=CLASSES):
    """A model whose every parameter is random and not small."""
    graph, params = modules.abstract(modules.Draw, config, SHAPE)
    rng = np.random.default_rng(0)
    return modules.merge(
        graph, jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape), "float32"), params)
    )


@pytest.fixture(scope="module")
def model():
    return _random()


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(1).uniform(size=(2, *SHAPE)).astype(np.float32)


def test_one_class_for_all_is_the_class_of_each_and_its_features(model):
    features = np.tile(np.eye(4, dtype=np.float32)[3], (2, 1))
    drawn = [model.generate(2, key=KEY, condition=c).images for c in (3, [3, 3], features)]
    np.testing.assert_array_equal(drawn[0], drawn[1])
    np.testing.assert_array_equal(drawn[0], drawn[2])
    other = model.generate(2, key=KEY, condition=1).images
    assert np.abs(drawn[0] - other).max() > 1e-3


def test_several_classes_an_image_are_a_sum_without_an_order(model):
    drawn = [model.generate(1, key=KEY, condition=np.array([c])).images for c in ([1, 2], [2, 1])]
    np.testing.assert_array_equal(*drawn)
    np.testing.assert_array_equal(draw.class_features(np.array([[1, 1]]), 4), [[0, 2, 0, 0]])


def test_each_convenience_draws_by_the_class(model, images):
    known = np.zeros((2, *SHAPE[:2], 1), bool)
    latents = np.ones((1, 2, 2), np.float32)
    calls = {
        "infer": lambda c: model.infer(images, key=KEY, condition=c).images,
        "reconstruct": lambda c: model.reconstruct(images, condition=c).images,
        "complete": lambda c: model.complete(images, known, key=KEY, condition=c).images,
        "from_latents": lambda c: model.from_latents(latents, key=KEY, condition=c).images,
        "losses": lambda c: model.losses(images, key=KEY, condition=c),
    }
    for name, call in calls.items():
        both = call([0, 1])
        np.testing.assert_array_equal(both[0], call([0, 2])[0], err_msg=name)
        assert np.abs(both[1] - call([0, 2])[1]).max() > 1e-4, name


def test_samples_in_chunks_have_their_own_conditions(model):
    noise = jax.random.normal(KEY, (3, 5, 2))
    features = draw.class_features(np.array([0, 1, 2, 3, 0]), 4)
    whole = draw.sample(model, noise, condition=features)
    np.testing.assert_allclose(draw.sample(model, noise, chunk=2, condition=features), whole, 1e-5)
    np.testing.assert_allclose(draw.generate(model, noise, condition=features).images, whole, 1e-5)


def test_the_bound_of_one_sample_is_the_loss_by_the_same_condition(model, images):
    images = jnp.asarray(images > 0.5, jnp.float32)
    keys = jax.random.split(KEY, 2)
    features = draw.class_features(np.array([3, 1]), 4)
    bound, _ = draw.importance_weighted_bound(
        model, images, keys, num_samples=1, condition=features
    )
    noise = jax.vmap(lambda k: jax.random.normal(jax.random.fold_in(k, 0), (3, 2)), out_axes=1)
    output = draw.infer(model, images, noise(keys), condition=features)
    likelihood = model.likelihood(output.canvases[-1]).log_prob(images)
    np.testing.assert_allclose(bound, likelihood + output.log_ratio.sum(0), rtol=1e-5)


def test_a_gradient_reaches_features_of_ones_own(images):
    model = _random(DrawConfig(**SIZES, condition_size=3))
    noise = jax.random.normal(KEY, (3, 2, 2))
    images = jnp.asarray(images)

    def loss(features):
        return sum(part.sum() for part in draw.loss(model, images, noise, condition=features))

    def by_lax_scan(features):
        output = draw.infer(model, images, noise, condition=features)
        likelihood = model.likelihood(output.canvases[-1])
        return output.kl.sum() - likelihood.log_prob(images).sum()

    features = jnp.asarray([[0.5, 1.0, -1.0], [2.0, 0.0, 0.3]])
    expected = jax.grad(by_lax_scan)(features)
    assert np.abs(expected).min() > 1e-2
    np.testing.assert_allclose(jax.grad(loss)(features), expected, rtol=1e-4)


def test_what_is_no_condition_of_the_model_is_one_line(model, images):
    plain, own = _random(DrawConfig(**SIZES)), _random(DrawConfig(**SIZES, condition_size=3))
    cases = [
        (plain, 1, "is unconditional"),
        (model, None, "condition=0 to 3"),
        (model, 4, "classes 0 to 3, got 4"),
        (model, [0, -1], "classes 0 to 3"),
        (model, [0, 1, 2], "a class for each of 2"),
        (model, np.ones((2, 3), np.float32), r"floats \[2, 4\], got \[2, 3\] float32"),
        (model, True, r"\[2, 4\], got bool"),
        (model, np.eye(4, dtype=int)[[1, 2]], "features as floats; got one-hot integers"),
        (own, 1, r"\[2, 3\], got int"),
        (own, np.ones((2, 3), int), "got .* int64"),
        (own, None, "got NoneType"),
    ]
    for given, condition, message in cases:
        with pytest.raises(ValueError, match=message):
            given.generate(2, key=KEY, condition=condition)
        with pytest.raises(ValueError, match=message):
            given.losses(images, key=KEY, condition=condition)
    with pytest.raises(ValueError, match="do not go together"):
        DrawConfig(num_classes=2, condition_size=2)


def test_classes_work_inside_of_jit(model):
    inside = jax.jit(lambda c: model.generate(2, key=KEY, condition=c).images)(np.array([1, 2]))
    np.testing.assert_allclose(
        inside, model.generate(2, key=KEY, condition=[1, 2]).images, rtol=1e-5
    )


def _set(labels, count=8):
    pixels = np.random.default_rng(0).integers(0, 256, (count, 4, 4, 1), np.uint8)
    labels = np.full(count, -1) if labels is None else np.arange(count) % labels
    splits = dict.fromkeys(("train", "validation", "test"), pixels)
    return data.from_arrays(**splits, labels=dict.fromkeys(splits, labels))


def _config(**of_data):
    return GenerationConfig(
        model=dataclasses.replace(CLASSES, write_size=2),
        data=GenerationDataConfig(binarization="dynamic", **of_data),
        samples=4,
    )


def test_a_set_brings_its_labels(tmp_path):
    experiment = Generation(_config(), _set(4))
    batch = _set(4).train.__getitems__([0, 1, 6])
    keys = jax.random.split(KEY, 3)
    _, condition, _ = experiment.inputs(batch, keys, experiment.constants)
    np.testing.assert_array_equal(condition, np.eye(4)[[0, 1, 2]])
    for images, message in (
        (_set(None), "have no label in train"),
        (_set(5), "0 to 3, got 0 to 4"),
    ):
        with pytest.raises(ValueError, match=message):
            Generation(_config(), images)
    with pytest.raises(ValueError, match=r"model\.condition_size"):
        Generation(GenerationConfig(model=DrawConfig(**SIZES, condition_size=2)), _set(4))


def test_a_pair_is_drawn_by_the_classes_of_both():
    images = _set(4)
    config = _config(pair_size=9).data
    pool = data.pool(config, images.train)
    keys = jax.random.split(KEY, 3)
    labels = data.seen_labels(config, images.train.labels[:3], keys, pool)
    assert labels.shape == (3, 2)
    # The partner is found in what is seen: the image of that number, beside the first, gives it.
    seen = data.preprocess(
        dataclasses.replace(config, binarization="none"), images.train.images[:3], keys, pool,
        training=True,
    )  # fmt: skip
    for k in range(3):
        place_key, _ = jax.random.split(keys[k])
        candidates = [n for n in range(8) if n % 4 == int(labels[k, 1])]
        matches = [
            np.array_equal(
                pair(place_key, pool["image"][k], pool["image"][n : n + 1], size=9), seen[k]
            )
            for n in candidates
        ]
        assert sum(matches) == 1


def test_a_saved_model_of_classes_is_the_same(model, tmp_path):
    drawjax.save_pretrained(model, tmp_path / "m")
    loaded = drawjax.load_pretrained(tmp_path / "m")
    assert loaded.config.num_classes == 4
    np.testing.assert_array_equal(
        loaded.generate(1, key=KEY, condition=2).images,
        model.generate(1, key=KEY, condition=2).images,
    )


def test_sample_draws_a_class_or_a_row_of_each(model, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    drawjax.save_pretrained(model, "m")
    command = functools.partial(exit_code, sample.sample, sample.SampleConfig())
    drawn = []
    monkeypatch.setattr(
        modules.Draw,
        "generate",
        lambda self, num, **given: drawn.append(given["condition"]) or 1 / 0,
    )
    for flags in ([], ["--label", "3"], ["--label", "1", "2"]):
        with pytest.raises(ZeroDivisionError):
            sample.sample(
                sample.SampleConfig(model="m", num=9, label=tuple(map(int, flags[1:])) or None)
            )
    np.testing.assert_array_equal(drawn[0], [0, 0, 1, 1, 2, 2, 3, 3, 0])
    np.testing.assert_array_equal(drawn[1], [[3]] * 9)
    np.testing.assert_array_equal(drawn[2], [[1, 2]] * 9)
    monkeypatch.undo()
    assert command(["--model", str(tmp_path / "m"), "--label", "4"]) == 1
    assert "classes 0 to 3, got 4" in capsys.readouterr().err
    drawjax.save_pretrained(_random(DrawConfig(**SIZES)), tmp_path / "plain")
    assert command(["--model", str(tmp_path / "plain"), "--label", "4"]) == 1
    assert "is unconditional" in capsys.readouterr().err


def test_a_run_tells_the_loss_of_each_class(tmp_path):
    experiment = Generation(_config(), _set(4))
    params = experiment.init(KEY)
    results = experiment.test(params, {})["test"]
    assert list(results["loss_by_class"]) == ["0", "1", "2", "3"]
    assert np.mean(list(results["loss_by_class"].values())) == pytest.approx(results["loss"])
    plain = dataclasses.replace(_config(), model=DrawConfig(**SIZES))
    assert (
        "loss_by_class"
        not in Generation(plain, _set(None)).test(Generation(plain, _set(None)).init(KEY), {})[
            "test"
        ]
    )


def test_the_loss_of_pairs_is_of_no_class(tmp_path):
    experiment = Generation(_config(pair_size=9), _set(4))
    assert "loss_by_class" not in experiment.test(experiment.init(KEY), {})["test"]


@pytest.mark.parametrize(
    ("count", "classes", "columns"),
    [(64, 10, 6), (100, 10, 10), (100, 4, 10), (12, 10, 1), (9, 1, 3)],
)
def test_a_grid_has_a_row_of_each_class(count, classes, columns):
    labels, found = figures.class_rows(count, classes)
    assert found == columns
    assert set(labels) == set(range(classes))
    assert all(len(set(row)) == 1 for row in np.split(labels, range(columns, count, columns)))


def test_fewer_samples_than_classes_are_each_of_another():
    labels, columns = figures.class_rows(5, 10)
    np.testing.assert_array_equal(labels, np.arange(5))
    assert columns == 3


def test_figures_show_each_class(tmp_path):
    config = dataclasses.replace(_config(), samples=16)
    experiment = Generation(config, _set(4))
    params = experiment.init(KEY)
    noise = jax.random.normal(experiment.figures_key, (3, 16, 2))
    features = draw.class_features(np.repeat(np.arange(4), 4), 4)
    expected = draw.generate(experiment.bound(params), noise, condition=features)
    experiment.draw(params, tmp_path, final=False)
    drawing = json.loads((tmp_path / "prior.drawing.json").read_text())
    sprite = base64.b64decode(drawing["sprite"].partition(",")[2])
    last = np.asarray(Image.open(io.BytesIO(sprite)))[-4:]  # a row of images, one of each class
    np.testing.assert_allclose(
        last.reshape(4, 4, 4).swapaxes(0, 1), 255 * expected.images[::4, ..., 0], atol=0.51
    )
