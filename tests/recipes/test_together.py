import dataclasses
import json
import pathlib

import numpy as np
import pytest

from drawjax import data
from drawjax.modules import DrawConfig
from drawjax.recipes import generation
from drawjax.recipes.generation import GenerationConfig
from drawjax.training import Diverged, TrainConfig
from drawjax.training.metrics import read_metrics

CONFIG = GenerationConfig(
    data=data.DataConfig(binarization="dynamic", dir="nowhere"),
    model=DrawConfig(num_glimpses=2, hidden_size=8, latent_size=4, read_size=2, write_size=3),
    train=TrainConfig(steps=4, batch_size=8, log_every=2, eval_every=2, checkpoint_every=2),
    samples=9,
)


def _point(folder, **train):
    changed = dataclasses.replace(CONFIG.train, **train)
    return dataclasses.replace(CONFIG, workdir=str(folder), train=changed)


def test_points_leave_what_each_alone_does(tmp_path):
    changes = [{"seed": 0}, {"seed": 1, "learning_rate": 3e-3}]
    points = [_point(tmp_path / f"point{i}", **change) for i, change in enumerate(changes)]
    results = generation.run_points(points, "mnist")
    alone = _point(tmp_path / "alone", **changes[1])
    expected = generation.run(alone, "mnist")
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


def test_a_point_that_diverges_has_no_results(tmp_path):
    points = [_point(tmp_path / "whole"), _point(tmp_path / "wild", learning_rate=1e38)]
    points = [
        dataclasses.replace(p, train=dataclasses.replace(p.train, max_skipped=1, warmup_steps=0))
        for p in points
    ]
    results = generation.run_points(points, "mnist")
    assert results[0]["test"]["images"] == 500
    assert isinstance(results[1], Diverged)
    assert not (tmp_path / "wild" / "results.json").exists()
    pages = [(tmp_path / name / "report.html").read_text() for name in ("wild", "whole")]
    assert ["Diverged: no finite loss" in page for page in pages] == [True, False]
    with pytest.raises(Diverged):
        generation.run(points[1], "mnist")
