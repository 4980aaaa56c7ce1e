import json
import re

import jax.numpy as jnp
import numpy as np
import pytest

from drawjax import attention, report


@pytest.fixture
def run(tmp_path):
    """A run's folder as training leaves it, with a value that is no JSON and one that is HTML."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.json").write_text(
        json.dumps({"workdir": "</script><b>", "train.steps": 200, "model.units": 8})
    )
    entries = [
        {"step": 100, "split": "train", "loss": 5.0, "gradient_norm": float("nan")},
        {"step": 100, "split": "validation", "loss": 4.0},
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    (folder / "results.json").write_text(
        json.dumps({"data": "a set", "device": "1 x cpu", "notes": [], "test": {"loss": 3.25}})
    )
    return folder


def _data(path):
    page = path.read_text("utf-8")
    found = re.search(r'<script id="data" type="application/json">(.*?)</script>', page, re.DOTALL)
    return json.loads(found[1])


def _drawing(folder, **options):
    frames = np.random.default_rng(0).uniform(size=(3, 2, 5, 4, 1))
    window = attention.Window(*(jnp.full((3, 2), v) for v in (2.0, 3.0, 1.5, 4.0, 1.0)))
    report.save_drawing(
        folder / "prior.drawing.json", frames, title="t", description="d", write=(window, 5),
        **options,
    )  # fmt: skip


def test_the_page_holds_the_run_and_nothing_from_elsewhere(run):
    _drawing(run, kl=[1.0, 2.0, 3.0])
    path = report.write_report([run])
    (data,) = _data(path)
    assert data["status"].startswith("100 of 200 training steps")
    assert data["numbers"] == [["loss", "3.25"]]
    assert data["kl"] == [1.0, 2.0, 3.0]
    assert "gradient_norm" not in data["metrics"][0]
    assert ["workdir", "</script><b>"] in data["config"]
    page = path.read_text("utf-8")
    assert not re.search(r'(src|href)\s*=\s*"?https?:', page)


def test_windows_are_centre_half_side_and_deviation(run):
    _drawing(run)
    (data,) = _data(report.write_report([run]))
    (drawing,) = data["drawings"]
    assert drawing["write"][2][1] == [2.0, 3.0, 3.0, 2.0]  # (5 - 1)/2 strides of 1.5; sqrt(4)
    assert drawing["read"] is None
    assert (drawing["steps"], drawing["count"]) == (3, 2)


def test_several_runs_share_a_page(run, tmp_path, capsys):
    page = tmp_path / "both.html"
    assert report.main([str(run), str(run), "--out", str(page)]) == 0
    assert len(_data(page)) == 2
    assert capsys.readouterr().out.strip() == str(page)


def test_a_folder_without_a_run_is_named(tmp_path, capsys):
    assert report.main([str(tmp_path)]) == 1
    assert "holds no run" in capsys.readouterr().err
    assert not (tmp_path / "report.html").exists()
