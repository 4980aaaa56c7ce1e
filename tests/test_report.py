import base64
import functools
import io
import json
import math
import re

import numpy as np
import pytest
from PIL import Image

from drawjax import figures, report
from drawjax.report.__main__ import ReportConfig
from drawjax.report.__main__ import report as write_page
from drawjax.report.reading import read_run
from tests.commands import exit_code
from tests.run_folder import windows, write_run

_report = functools.partial(exit_code, write_page, ReportConfig())


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "runs" / "run")


def _data(path):
    page = path.read_text("utf-8")
    found = re.search(r'<script id="data" type="application/json">(.*?)</script>', page, re.DOTALL)
    return json.loads(found[1])["runs"]


def _append(run, **entry):
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(entry) + "\n")


def test_the_page_holds_the_run_and_nothing_from_elsewhere(run):
    path = report.write_report([run])
    (data,) = _data(path)
    assert (data["name"], data["step"], data["steps"]) == ("run", 200, 200)
    assert data["finished"]
    assert data["config"]["workdir"] == "</script><b>"
    assert data["config"]["data.name"] == "None"
    assert {drawing["title"]: drawing["kl"] is None for drawing in data["drawings"]} == {
        "Drawn from the prior": True, "Test images redrawn": False,
    }  # fmt: skip
    assert [(p["title"], p["width"]) for p in data["pictures"]] == [("Samples", 900)]
    page = path.read_text("utf-8")
    assert not re.search(r'(src|href)\s*=\s*"?https?:', page)
    assert not re.search(r"@[a-zA-Z.]+@", page)


def test_numbers_have_their_standard_errors_and_units(run):
    (data,) = _data(report.write_report([run]))
    assert data["numbers"]["columns"] == ["Validation, best", "Test"]
    assert data["numbers"]["rows"][0] == ["Loss", "nats per image", "105.0 ± 1.2", "100.0 ± 1.2"]
    assert data["numbers"]["rows"][-1] == ["Images", "", "500", "500"]
    assert ["Data set used", "a set"] in data["facts"]
    assert ["Images", "train 4,000, validation 500, test 500"] in data["facts"]
    assert ["Time of the run", "1 h 02 min 05 s"] in data["facts"]


def test_importance_samples_and_bits_are_numbers_too(run):
    results = json.loads((run / "results.json").read_text())
    results["test"] |= {"importance_weighted": 98.765, "importance_samples": 5000,
                        "importance_weighted_standard_error": 0.4567}  # fmt: skip
    results["discretized"] = {"bits_per_dimension": 5.4321, "standard_error": 0.0123}
    (run / "results.json").write_text(json.dumps(results))
    (data,) = _data(report.write_report([run]))
    rows = {row[0]: row[1:] for row in data["numbers"]["rows"]}
    assert rows["Importance-weighted loss, 5,000 samples"] == ["nats per image", "", "98.77 ± 0.46"]
    assert rows["Discretized bound"] == ["bits per dimension", "", "5.432 ± 0.012"]
    assert rows["Loss"][-1] == "100.0 ± 1.2"


def test_the_error_of_a_classifier_is_in_percent(tmp_path):
    (data,) = _data(report.write_report([write_run(tmp_path / "run", classifies=True)]))
    assert data["numbers"]["rows"][0] == ["Error", "%", "50.0 ± 1.2", "4.08 ± 0.20"]
    assert data["numbers"]["rows"][1] == ["Loss", "nats per image", "2.1", "2"]
    assert data["by_glimpse"] == [[1, 80.0, 0.4], [2, 4.075, 0.198]]
    assert data["drawings"][0]["read"] is not None


def test_a_run_that_goes_on_shows_its_data_and_its_last_validation(tmp_path):
    (data,) = _data(report.write_report([write_run(tmp_path / "run", taken=120)]))
    assert not data["finished"]
    assert data["numbers"]["columns"] == ["Validation, step 100"]
    assert ["Data set used", "a set"] in data["facts"]
    assert data["notes"] == ["Half of it."]


def test_what_is_no_number_leaves_a_gap_and_a_note(run):
    _append(run, step=210, split="train", loss=math.nan, gradient_norm=math.inf, skipped=7.0)
    drawing = json.loads((run / "test.drawing.json").read_text())
    drawing["kl"][2] = math.nan
    (run / "test.drawing.json").write_text(json.dumps(drawing))
    (data,) = _data(report.write_report([run]))
    assert data["metrics"]["train"]["loss"][-1] is None
    assert data["metrics"]["train"]["gradient_norm"][-1] is None
    assert data["drawings"][1]["kl"][1:4] == [5.0, None, 3.0]
    assert any(note.startswith("7 training steps") for note in data["notes"])


def test_long_curves_are_thinned_and_keep_their_end(run):
    for step in range(210, 40_000, 10):
        _append(run, step=step, split="train", loss=1.0)
    (data,) = _data(report.write_report([run]))
    steps = data["metrics"]["train"]["step"]
    assert 500 <= len(steps) <= 1_000
    assert steps[-1] == 39_990


def test_windows_are_corners(run):
    (data,) = _data(report.write_report([run]))
    prior, test = data["drawings"]
    # (3 - 1)/2 strides of 1.5 around (5, 4), pixel 1's center being 0.5
    assert prior["write"][2][1] == [3.0, 2.0, 6.0, 2.0, 6.0, 5.0, 3.0, 5.0]
    assert prior["read"] is None
    assert test["read"][0][0] == [2.0, 2.0, 5.0, 2.0, 5.0, 5.0, 2.0, 5.0]
    assert (prior["steps"], prior["count"]) == (6, 3)


def test_a_picture_that_is_being_written_is_left_out(run):
    (run / "samples.png").write_bytes(b"\x89PNG")
    (data,) = _data(report.write_report([run]))
    assert data["pictures"] == []


def test_several_runs_share_a_page_beside_their_own(run, capsys):
    other = write_run(run.parent / "other")
    own = report.write_report([run])
    before = own.read_bytes()
    assert _report([str(run), str(other)]) == 0
    page = run.parent / "comparison.html"
    assert capsys.readouterr().out.strip() == str(page)
    assert [data["name"] for data in _data(page)] == ["run", "other"]
    assert own.read_bytes() == before


def test_a_sweep_stands_for_its_points(tmp_path):
    for name in ("seed=0", "seed=1"):
        write_run(tmp_path / "sweep" / name)
    (tmp_path / "sweep" / "sweep.csv").write_text("index\n")
    path = report.write_report([tmp_path / "sweep"])
    assert path == tmp_path / "sweep" / "report.html"
    assert [data["name"] for data in _data(path)] == ["seed=0", "seed=1"]


def test_out_names_the_file(run, tmp_path):
    assert _report([str(run), "--out", str(tmp_path / "page.html")]) == 0
    assert len(_data(tmp_path / "page.html")) == 1


def test_a_folder_without_a_run_is_named(tmp_path, capsys):
    assert _report([str(tmp_path)]) == 1
    assert "holds no run" in capsys.readouterr().err
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize(("config", "said"), [
    ("[]", "config.json must hold an object, got a list"),
    ('{"kind": "draw"}', "holds no run: its config.json has no train.steps"),
])  # fmt: skip
def test_what_is_no_run_is_said(config, said, tmp_path, capsys):
    (tmp_path / "config.json").write_text(config)
    assert _report([str(tmp_path)]) == 1
    assert said in capsys.readouterr().err
    assert not (tmp_path / "report.html").exists()


def test_a_class_whose_loss_is_not_finite_is_said(run):
    results = json.loads((run / "results.json").read_text())
    results["test"]["loss_by_class"] = {"0": 45.5, "1": None}
    (run / "results.json").write_text(json.dumps(results))
    rows = read_run(run)["numbers"]["rows"]
    assert [row[-1] for row in rows if row[0].startswith("Loss of class")] == ["45.5", "not finite"]


def test_a_file_that_cannot_be_read_is_named(run, capsys):
    (run / "results.json").write_text("{")
    assert _report([str(run)]) == 1
    assert f"{run / 'results.json'} cannot be read" in capsys.readouterr().err


def test_a_window_of_one_filter_has_no_extent(tmp_path):
    path = tmp_path / "x.drawing.json"
    frames = np.zeros((6, 3, 4, 4, 3))
    figures.save_drawing(path, frames, title="t", description="d", read=(windows(), 1))
    assert json.loads(path.read_text())["read"][0][0] == [4.5, 3.5] * 4


def _strict(text):
    """As a browser reads it, which knows no NaN."""
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_a_drawing_is_json_whatever_is_not_finite(tmp_path):
    path = tmp_path / "x.drawing.json"
    kl = [math.nan, math.inf, 1.0, 1.0, 1.0, 1.0]
    write = (windows(center_x=math.nan), 3)
    frames = np.zeros((6, 3, 4, 4, 1))
    figures.save_drawing(path, frames, title="t", description="d", write=write, kl=kl)
    drawing = _strict(path.read_text())
    assert drawing["kl"] == [None, None, 1, 1, 1, 1]
    assert drawing["write"][0][0] == [None] * 8


def _sheet(path):
    sprite = json.loads(path.read_text())["sprite"].partition(",")[2]
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(sprite))))


def test_a_drawing_of_bytes_is_shown_as_it_is(tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (6, 3, 4, 5, 1)).astype(np.uint8)
    save = functools.partial(figures.save_drawing, title="t", description="d")
    save(tmp_path / "bytes.json", frames, beside=frames[0])
    save(tmp_path / "floats.json", frames / 255, beside=frames[0] / 255)
    assert (tmp_path / "bytes.json").read_bytes() == (tmp_path / "floats.json").read_bytes()
    assert (_sheet(tmp_path / "bytes.json")[4:8, 5:10] == frames[1, 1, :, :, 0]).all()
    for wrong in (np.full((6, 3, 4, 4, 1), np.nan), np.zeros((6, 3, 4, 4, 2))):
        with pytest.raises(ValueError, match="frames must"):
            save(tmp_path / "wrong.json", wrong)
    assert not (tmp_path / "wrong.json").exists()


@pytest.mark.parametrize("value", [math.nan, math.inf, None])
def test_results_that_are_no_numbers_keep_no_page_from_being_read(run, value):
    results = json.loads((run / "results.json").read_text())
    results["test"] |= {"loss": value, "standard_error": value}
    results["validation"]["standard_error"] = value
    (run / "results.json").write_text(json.dumps(results))
    _append(run, step=210, split="validation", loss=value, standard_error=value)
    page = report.write_report([run]).read_text("utf-8")
    text = re.search(r'<script id="data" type="application/json">(.*?)</script>', page, re.DOTALL)
    (data,) = _strict(text[1])["runs"]
    rows = {row[0]: row[1:] for row in data["numbers"]["rows"]}
    assert rows["Loss"] == ["nats per image", "105", "not finite"]
    assert data["metrics"]["validation"]["loss"][-1] is None


def test_a_folder_may_begin_at_home(run, monkeypatch):
    monkeypatch.setenv("HOME", str(run.parent))
    assert report.write_report(["~/run"], "~/page.html") == run.parent / "page.html"
    assert _report(["~/run", "--out=~/other.html"]) == 0
    assert (run.parent / "other.html").exists()


def test_whatever_else_a_loss_returns_is_a_curve(run):
    _append(run, step=210, split="train", loss=1.0, canvas_norm=2.5)
    _append(run, step=220, split="train", loss=1.0, canvas_norm=3.5)
    (data,) = _data(report.write_report([run]))
    assert data["metrics"]["train"]["canvas_norm"][-2:] == [2.5, 3.5]
    assert "images" not in data["metrics"]["validation"]


def test_results_from_before_a_run_went_on_are_left_out(tmp_path):
    run = write_run(tmp_path / "run")
    results = json.loads((run / "results.json").read_text())
    _append(run, step=200, split="validation", loss=50.0)  # better, and not evaluated yet
    (shown,) = _data(report.write_report([run]))
    assert not shown["finished"]
    assert shown["numbers"]["columns"] == ["Validation, step 200"]
    results["validation"]["loss"] = 50.0
    (run / "results.json").write_text(json.dumps(results))
    (shown,) = _data(report.write_report([run]))
    assert shown["finished"]
    assert shown["numbers"]["columns"] == ["Validation, best", "Test"]


def test_parameters_that_were_only_evaluated_are_no_run_that_begins(tmp_path):
    run = write_run(tmp_path / "run")
    results = json.loads((run / "results.json").read_text())
    (run / "results.json").write_text(json.dumps(results | {"validation": {}}))
    (run / "metrics.jsonl").unlink()
    (shown,) = _data(report.write_report([run]))
    assert shown["finished"]
    assert shown["numbers"]["columns"] == ["Test"]


def test_others_parameters_evaluated_before_a_run_are_not_its_own(tmp_path):
    run = write_run(tmp_path / "run")
    results = json.loads((run / "results.json").read_text())
    (run / "results.json").write_text(json.dumps(results | {"validation": {}}))
    (shown,) = _data(report.write_report([run]))
    assert not shown["finished"]
    assert "Test" not in shown["numbers"]["columns"]


def test_notes_of_the_start_and_of_the_results_are_all_there(run):
    results = json.loads((run / "results.json").read_text())
    (run / "results.json").write_text(json.dumps(results | {"notes": ["old", "both"]}))
    (run / "data.json").write_text(json.dumps({"notes": ["both", "Diverged: at step 7."]}))
    (shown,) = _data(report.write_report([run]))
    assert shown["notes"][:3] == ["old", "both", "Diverged: at step 7."]


def test_runs_of_one_name_are_told_apart_by_their_place(tmp_path):
    folders = [write_run(tmp_path / place / "mnist") for place in ("first", "second")]
    shown = _data(report.write_report(folders))
    assert [run["name"] for run in shown] == ["first/mnist", "second/mnist"]


def test_a_run_named_twice_is_shown_once_and_by_width_and_height(run):
    (shown,) = _data(report.write_report([run, run]))
    assert ["Image", "8 x 10 pixels, 1 channel(s)"] in shown["facts"]


def test_no_text_ends_or_hides_the_data(run):
    config = json.loads((run / "config.json").read_text())
    text = "a <!-- b <script> c </script> d"
    (run / "config.json").write_text(json.dumps(config | {"data.name": text}))
    page = report.write_report([run]).read_text()
    assert text not in page and "<!--" not in page
    assert _data(run / "report.html")[0]["config"]["data.name"] == text


def test_one_path_is_one_folder(run):
    assert report.write_report(str(run)) == run / "report.html"


def test_what_is_no_run_is_left_out_of_a_page_of_many(run, caplog):
    model = run.parent / "model"
    model.mkdir()
    (model / "config.json").write_text('{"kind": "draw"}')
    write_run(run / "seed=1")  # a point of a sweep in the folder of a run
    with caplog.at_level("INFO"):
        path = report.write_report([run.parent])
    assert [data["name"] for data in _data(path)] == ["run"]
    assert f"left out of {run.parent}, no runs: model" in caplog.text
    assert [data["name"] for data in _data(report.write_report([run]))] == ["run", "seed=1"]


def test_pictures_of_the_test_go_with_its_results(run):
    (run / "test.drawing.json").write_text((run / "prior.drawing.json").read_text())
    Image.new("L", (4, 4)).save(run / "reconstructions.png")
    before = read_run(run)
    _append(run, split="validation", step=10**6, loss=1.0)
    after = read_run(run)
    assert len(after["drawings"]) == len(before["drawings"]) - 1
    titles = [{picture["title"] for picture in data["pictures"]} for data in (before, after)]
    assert titles[0] - titles[1] == {"Reconstructions"}


def test_a_loss_of_ten_thousand_nats_is_shown_to_the_nat(run):
    results = json.loads((run / "results.json").read_text())
    results["test"] |= {"latent": 10684.37, "reconstruction": 9684.37}
    (run / "results.json").write_text(json.dumps(results))
    rows = {row[0]: row[-1] for row in read_run(run)["numbers"]["rows"]}
    assert (rows["Latent loss (KL)"], rows["Reconstruction loss"]) == ("10,684", "9684")
