import dataclasses
import json
import pathlib

import jax
import numpy as np
import optax
import pytest

import drawjax
from drawjax import data
from drawjax.config import GenerationConfig
from drawjax.modules import DrawConfig
from drawjax.recipes.runner import train_all
from drawjax.training import Diverged, TrainConfig
from drawjax.training.metrics import read_metrics

CONFIG = GenerationConfig(
    data=data.GenerationDataConfig(binarization="dynamic", dir="nowhere"),
    model=DrawConfig(num_glimpses=2, hidden_size=8, latent_size=4, read_size=2, write_size=3),
    train=TrainConfig(steps=4, batch_size=8, log_every=2, eval_every=2, checkpoint_every=2),
    samples=9,
)


def _point(folder, **train):
    changed = dataclasses.replace(CONFIG.train, **train)
    return dataclasses.replace(CONFIG, workdir=str(folder), train=changed)


@pytest.mark.slow
def test_points_leave_what_each_alone_does(tmp_path):
    changes = [{"seed": 0}, {"seed": 1, "learning_rate": 3e-3}]
    points = [_point(tmp_path / f"point{i}", **change) for i, change in enumerate(changes)]
    results = train_all(points, dataset="mnist")
    alone = _point(tmp_path / "alone", **changes[1])
    expected = drawjax.train(alone, dataset="mnist")
    assert results[0]["test"]["loss"] != results[1]["test"]["loss"]
    assert results[1]["test"]["loss"] == pytest.approx(expected["test"]["loss"], rel=1e-4)
    for point, result in zip(points, results, strict=True):
        folder = pathlib.Path(point.workdir)
        assert json.loads((folder / "results.json").read_text()) == result
    one, other = (
        {path.name for path in pathlib.Path(config.workdir).iterdir()}
        for config in (alone, points[1])
    )
    assert one == other
    curves = [[e["loss"] for e in read_metrics(c.workdir)] for c in (alone, points[1])]
    np.testing.assert_allclose(*curves, rtol=1e-4)


@pytest.mark.slow
def test_a_point_that_diverges_has_no_results(tmp_path):
    points = [_point(tmp_path / "whole"), _point(tmp_path / "wild", learning_rate=1e38)]
    points = [
        dataclasses.replace(p, train=dataclasses.replace(p.train, max_skipped=1, warmup_steps=0))
        for p in points
    ]
    results = train_all(points, dataset="mnist")
    assert results[0]["test"]["images"] == 500
    assert isinstance(results[1], Diverged)
    assert not (tmp_path / "wild" / "results.json").exists()
    pages = [(tmp_path / name / "report.html").read_text() for name in ("wild", "whole")]
    assert ["Diverged: no finite loss" in page for page in pages] == [True, False]
    with pytest.raises(Diverged):
        drawjax.train(points[1], dataset="mnist")


IMAGES = (np.random.default_rng(0).uniform(size=(50, 6, 5)) > 0.6).astype(np.float32)


def _small(folder, **changes):
    config = _point(folder)
    model = DrawConfig(num_glimpses=2, hidden_size=8, latent_size=4, read_size=2, write_size=3)
    return dataclasses.replace(config, model=model, samples=4, **changes)


@pytest.mark.slow
def test_a_finished_run_keeps_what_it_wrote(tmp_path, caplog):
    config = _small(tmp_path / "run")
    results = drawjax.train(config, dataset=IMAGES)
    folder = tmp_path / "run"
    before = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.png")}
    text = (folder / "results.json").read_text()
    with caplog.at_level("INFO"):
        assert drawjax.train(config, dataset=IMAGES) == results
    assert "this run is finished" in caplog.text
    assert (folder / "results.json").read_text() == text
    assert {path.name: path.stat().st_mtime_ns for path in folder.glob("*.png")} == before
    # What is newly asked for is added, and the rest stays.
    more = dataclasses.replace(config, importance_samples=2)
    added = drawjax.train(more, dataset=IMAGES)
    assert added["test"]["importance_samples"] == 2
    assert {**added, "test": results["test"]} == {**results}
    assert added["test"]["loss"] == results["test"]["loss"]
    # More steps make it unfinished.
    longer = dataclasses.replace(config, train=dataclasses.replace(config.train, steps=5))
    longer = dataclasses.replace(
        longer, train=dataclasses.replace(longer.train, decay_fraction=0.0)
    )
    with pytest.raises(drawjax.training.RunError, match="learning rate"):
        drawjax.train(longer, dataset=IMAGES)


def test_an_optimizer_of_ones_own_takes_the_place_of_ours(tmp_path):
    config = _small(tmp_path / "run")
    drawjax.train(config, dataset=IMAGES, optimizer=optax.sgd(0.0))
    entries = read_metrics(tmp_path / "run")
    assert not any("learning_rate" in entry for entry in entries)
    (loss, other) = (e["loss"] for e in entries if e["split"] == "validation")
    # A rate of zero: nothing is learned. The average of equal parameters rounds.
    assert loss == pytest.approx(other, rel=1e-6)
    model = drawjax.load_run(tmp_path / "run")
    assert model.generate(2, key=jax.random.key(0)).images.shape == (2, 6, 5, 1)


def test_a_rate_given_beside_an_optimizer_of_ones_own_is_an_error(tmp_path):
    config = _small(tmp_path / "run")
    own = {"dataset": IMAGES, "optimizer": optax.sgd(0.0)}
    with pytest.raises(ValueError, match=r"train.clip_norm does nothing beside an optimizer"):
        train_all([config], given={"train.steps", "train.clip_norm"}, **own)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (IMAGES[0], r"train images must be \[n, height, width\] or .*, got \[6, 5\]"),
        (IMAGES * 255, r"must lie in \[0, 1\], got 0 to 255"),
        (IMAGES.astype(np.int64), "must be uint8, bool or floats, got int64"),
        ({"train": IMAGES, "valid": IMAGES}, r"train, validation, test, got \['valid'\]"),
        ({"train": IMAGES, "test": IMAGES[:, :5]}, "images of one shape"),
        (IMAGES[:5], "--train.batch-size"),
        (None, "name a set with --data.name"),
    ],
)
def test_arrays_that_are_no_images_leave_no_folder(dataset, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        drawjax.train(_small(tmp_path / "run"), dataset=dataset)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_arrays_with_parts_of_their_own_are_taken_as_they_are(tmp_path):
    parts = {"train": IMAGES, "validation": IMAGES[:12], "test": np.uint8(255 * IMAGES[:9])}
    results = drawjax.train(_small(tmp_path / "run"), dataset=parts)
    assert results["test"]["images"] == 9
    assert results["validation"]["images"] == 12
    assert results["notes"] == []
