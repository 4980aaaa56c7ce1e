import csv
import dataclasses
import pathlib

import chex
import matplotlib
import numpy as np
import pytest

from drawjax import sweeps
from drawjax.config import GenerationConfig
from drawjax.files import read_metrics, to_json
from drawjax.training import Diverged, RunError, RunWriter, train_points
from tests.training import toy
from tests.training.toy import ToyConfig

CONFIG = ToyConfig(workdir="work")


def test_a_grid_has_a_point_for_each_combination():
    points = sweeps.expand(CONFIG, ["train.learning_rate=1e-3,3e-4", "train.seed=0,1,2"])
    assert [point.index for point in points] == list(range(6))
    assert [(p.config.train.learning_rate, p.config.train.seed) for p in points] == [
        (rate, seed) for rate in (1e-3, 3e-4) for seed in (0, 1, 2)
    ]
    assert points[4].config.workdir == "work/learning_rate=0.0003,seed=1"
    assert points[4].values == {"train.learning_rate": 3e-4, "train.seed": 1}
    assert len({point.config.workdir for point in points}) == 6
    rest = dataclasses.replace(points[4].config, workdir="work", train=CONFIG.train)
    assert rest == CONFIG


def test_no_sweep_is_the_config_itself():
    (point,) = sweeps.expand(CONFIG, [])
    assert point.config == CONFIG


@dataclasses.dataclass(frozen=True)
class _Inner:
    units: int | None = 3
    wide: bool = False
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class _Config:
    workdir: str = "work"
    inner: _Inner = _Inner()
    seed: int = 0
    folder: str = "a"


def test_values_are_read_as_flags_are():
    def values(item, name):
        return [p.values[name] for p in sweeps.expand(_Config(), [item])]

    assert values("inner.units=None,4", "inner.units") == [None, 4]
    assert values("inner.wide=True,False", "inner.wide") == [True, False]
    assert values("--inner.wide = True", "inner.wide") == [True]


def test_folders_have_names_of_their_own():
    points = sweeps.expand(_Config(), ["inner.seed=1,2", "seed=1,2", "folder=/a/b,c"])
    folders = [point.config.workdir for point in points]
    assert folders[0] == "work/inner.seed=1,seed=1,folder=%2Fa%2Fb"
    assert len(set(folders)) == 8
    alike = sweeps.expand(_Config(), ["folder=/a/b,_a_b,a b,%2Fa/b"])
    assert len({point.config.workdir for point in alike}) == 4
    long = sweeps.expand(_Config(), [f"folder={300 * 'a'},{300 * 'a'}b,{300 * 'é'}"])
    names = [pathlib.Path(point.config.workdir).name for point in long]
    assert len(set(names)) == 3
    assert max(len(name.encode()) for name in names) <= 255


@pytest.mark.parametrize(("items", "message"), [
    (["train.sead=1,2"], "over an unknown field, 'train.sead'; did you mean train.seed?"),
    (["workdir=a,b"], "unknown field, 'workdir'"),
    (["nonsense"], "unknown field, 'nonsense'"),
    (["train.seed="], r"train.seed needs values: train.seed=A,B,...; got 'train.seed='"),
    (["train.seed"], "train.seed needs values"),
    (["train.seed=1,,2"], "train.seed needs values"),
    (["train.seed=1", "train.seed=2"], "names train.seed twice"),
    (["train.seed=1,2,01"], "holds a value twice"),
    (["train.seed=1,two"], "train.seed=two: .*invalid literal"),
    (["train.seed=1,-2"], "train.seed=-2: train.seed must lie in 0..2147483647, got -2"),
])  # fmt: skip
def test_bad_sweeps_are_named(items, message):
    with pytest.raises(ValueError, match=message):
        sweeps.expand(CONFIG, items)


def test_points_that_differ_in_traced_numbers_are_grouped():
    points = sweeps.expand(CONFIG, ["train.learning_rate=0.1,0.2", "width=4,5", "train.seed=0,1"])
    groups = sweeps.grouped(points)
    assert [[point.config.width for point in group] for group in groups] == [[4] * 4, [5] * 4]
    assert [len(group) for group in sweeps.grouped(points, most=3)] == [3, 1, 3, 1]
    points = sweeps.expand(CONFIG, ["train.steps=10,20", "train.batch_size=4,8"])
    assert [len(group) for group in sweeps.grouped(points)] == [1] * 4


def test_points_that_would_begin_anew_beside_others_are_grouped_apart(tmp_path):
    config = dataclasses.replace(CONFIG, workdir=str(tmp_path))
    points = sweeps.expand(config, ["train.seed=0,1,2,3,4"])
    for index, step in ((1, config.train.steps), (2, 1), (4, 1)):
        folder = pathlib.Path(points[index].config.workdir) / "checkpoints" / str(step)
        folder.mkdir(parents=True)
        (folder / "_CHECKPOINT_METADATA").touch()
    groups = sweeps.grouped(points)
    assert [[point.index for point in group] for group in groups] == [[0, 3], [1], [2, 4]]


def test_a_point_that_is_not_there():
    points = sweeps.expand(CONFIG, ["train.seed=0,1"])
    assert sweeps.grouped(points, index=1) == [[points[1]]]
    for index in (-1, 2):
        with pytest.raises(ValueError, match=rf"must lie in 0..1, got {index}"):
            sweeps.grouped(points, index=index)


@pytest.mark.slow
def test_a_sweep_trains_all_points_and_compares_them(tmp_path, capsys):
    config = ToyConfig(workdir=str(tmp_path / "sweep"))
    items = ["train.learning_rate=0.05,0.01", "width=4,5"]
    points = sweeps.expand(config, items)
    asked = []

    def action(configs):
        asked.append([(c.train.learning_rate, c.width) for c in configs])
        return toy.run(configs)

    sweeps.run_groups(points, sweeps.grouped(points), action)
    assert asked == [[(0.05, 4), (0.01, 4)], [(0.05, 5), (0.01, 5)]]
    for point in points:
        alone = dataclasses.replace(point.config, workdir=str(tmp_path / str(point.index)))
        with RunWriter(alone.workdir, alone) as run:
            train_points(toy.task(alone), [alone.train], [run])
        one, other = (
            [e["loss"] for e in read_metrics(folder)]
            for folder in (alone.workdir, point.config.workdir)
        )
        np.testing.assert_allclose(one, other, rtol=1e-3)

    with (tmp_path / "sweep" / "sweep.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(float(r["train.learning_rate"]), int(r["width"])) for r in rows] == [
        (0.05, 4), (0.05, 5), (0.01, 4), (0.01, 5),
    ]  # fmt: skip
    for row, point in zip(rows, points, strict=True):
        losses = [
            e["loss"] for e in read_metrics(point.config.workdir) if e["split"] == "validation"
        ]
        assert float(row["validation.loss"]) == pytest.approx(min(losses))
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].split() == ["index", "train.learning_rate", "width", "validation.loss"]
    assert len(printed) == 5
    assert (tmp_path / "sweep" / "sweep.png").stat().st_size > 1000


def test_a_point_that_does_not_fit_the_devices_stops_all_before_any_runs(tmp_path, monkeypatch):
    config = ToyConfig(workdir=str(tmp_path / "sweep"))
    items = ["train.batch_size=8,7"]
    points = sweeps.expand(config, items)

    def make_mesh(batch_size, *, points):
        if batch_size == 7:
            raise ValueError("must divide over 2 devices, got 7")

    monkeypatch.setattr(sweeps, "make_mesh", make_mesh)
    with pytest.raises(ValueError, match="must divide over 2 devices, got 7"):
        sweeps.run_groups(points, sweeps.grouped(points), lambda configs: pytest.fail("ran"))
    assert not (tmp_path / "sweep").exists()


@pytest.mark.parametrize("kind", [ValueError, FileNotFoundError])  # of a set that is not there
def test_a_point_that_cannot_be_run_does_not_stop_the_others(tmp_path, caplog, kind):
    points = sweeps.expand(ToyConfig(workdir=str(tmp_path)), ["width=4,5,6"])
    done = []

    def action(configs):
        if configs[0].width == 5:
            raise kind("width must not be 5")
        done.extend(config.width for config in configs)
        return [{}] * len(configs)

    with pytest.raises(RunError, match="1 of 3 points could not be run: width=5"):
        sweeps.run_groups(points, sweeps.grouped(points), action)
    assert done == [4, 6]
    assert "width must not be 5" in caplog.text
    assert (tmp_path / "sweep.csv").exists()


def test_with_several_processes_an_error_ends_the_sweep(tmp_path, monkeypatch):
    def action(configs):
        raise ValueError("width must not be 4")

    points = sweeps.expand(ToyConfig(workdir=str(tmp_path)), ["width=4,5,6"])
    monkeypatch.setattr(sweeps.jax, "process_count", lambda: 2)
    with pytest.raises(ValueError, match="width must not be 4"):
        sweeps.run_groups(points, sweeps.grouped(points), action)


def test_points_that_are_not_trained_are_groups_of_one():
    points = sweeps.expand(GenerationConfig(mode="evaluate"), ["train.seed=0,1"])
    assert sweeps.grouped(points) == [[points[0]], [points[1]]]
    with pytest.raises(ValueError, match="--sweep-parallel does nothing with --mode evaluate"):
        sweeps.grouped(points, most=2)


def test_torn_results_of_a_point_are_said(tmp_path, caplog):
    points = sweeps.expand(ToyConfig(workdir=str(tmp_path)), ["width=4,5"])
    for point, text in zip(points, ['{"test": {"lo', '{"test": {"loss": 2.0}}'], strict=True):
        folder = pathlib.Path(point.config.workdir)
        folder.mkdir(parents=True)
        (folder / "results.json").write_text(text)
    first, second = sweeps.table(points)
    assert "test.loss" not in first
    assert second["test.loss"] == 2.0
    assert f"{points[0].config.workdir}/results.json cannot be read" in caplog.text


@pytest.mark.slow
def test_one_point_alone_is_compared_with_those_that_are_there(tmp_path):
    config = ToyConfig(workdir=str(tmp_path))
    items = ["train.seed=0,1"]
    points = sweeps.expand(config, items)
    for index in (1, 0):
        sweeps.run_groups(points, [[points[index]]], toy.run)
        rows = sweeps.table(points)
        assert "validation.loss" in rows[1]
        assert ("validation.loss" in rows[0]) == (index == 0)


def test_points_that_diverge_are_named_when_all_are_done(tmp_path, capsys):
    config = ToyConfig(workdir=str(tmp_path))
    items = ["width=4,5", "train.seed=0,1"]
    points = sweeps.expand(config, items)
    done = []

    def action(configs):
        if configs[0].width == 5 and configs[0].train.seed == 1:
            raise ValueError("it cannot")
        done.extend(configs)
        return [{}, Diverged("no")] if configs[0].width == 4 else [Diverged("no")]

    groups = [points[:2], points[2:3], points[3:]]
    said = (
        "2 of 4 points diverged: width=4,seed=1, width=5,seed=0; "
        "1 of 4 points could not be run: width=5,seed=1"
    )
    with pytest.raises(Diverged, match=said):
        sweeps.run_groups(points, groups, action)
    assert len(done) == 3
    assert "diverged" in capsys.readouterr().out
    chex.assert_equal(len((tmp_path / "sweep.csv").read_text().splitlines()), 5)


def _written(workdir, losses):
    workdir.mkdir(parents=True)
    entries = [{"step": n, "split": "validation", "loss": loss} for n, loss in enumerate(losses)]
    (workdir / "metrics.jsonl").write_text("".join(f"{to_json(entry)}\n" for entry in entries))
    return {}


@pytest.mark.parametrize("losses", [(3.0, 2.0, float("nan")), (3.0, float("inf")), (float("nan"),)])
def test_losses_that_are_not_finite_are_left_out_of_the_plot(tmp_path, losses):
    config, items = ToyConfig(workdir=str(tmp_path)), ["train.seed=0,1"]
    points = sweeps.expand(config, items)
    _written(pathlib.Path(points[0].config.workdir), losses)
    _written(pathlib.Path(points[1].config.workdir), (4.0, 3.0, 2.0))
    sweeps.run_groups(points, [points], lambda configs: [{}] * 2)
    assert (tmp_path / "sweep.png").stat().st_size > 1000


def test_the_plot_is_made_whatever_matplotlibrc_says(tmp_path):
    config, items = ToyConfig(workdir=str(tmp_path)), ["train.seed=0,1"]
    points = sweeps.expand(config, items)
    for point in points:
        _written(pathlib.Path(point.config.workdir), (4.0, 3.0))
    with matplotlib.rc_context():
        dict.update(matplotlib.rcParams, {"text.usetex": True})  # as a matplotlibrc sets it
        sweeps.run_groups(points, [points], lambda configs: [{}] * 2)
    assert (tmp_path / "sweep.png").stat().st_size > 1000
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == [
        "sweep.csv", "sweep.png",
    ]  # fmt: skip


def test_a_point_that_diverged_in_another_job_stays_named(tmp_path, capsys):
    points = sweeps.expand(ToyConfig(workdir=str(tmp_path)), ["train.seed=0,1"])
    folder = pathlib.Path(points[0].config.workdir)
    folder.mkdir(parents=True)
    (folder / "data.json").write_text('{"notes": ["Diverged: no."]}')
    sweeps.run_groups(points, [points[1:]], lambda configs: [{}])
    with (tmp_path / "sweep.csv").open() as file:
        assert [row["diverged"] for row in csv.DictReader(file)] == ["True", ""]
    assert "diverged" in capsys.readouterr().out


def test_classes_have_no_columns_on_the_terminal_and_another_sweep_is_said(
    tmp_path, capsys, caplog
):
    for seeds in ("0,1", "2,3"):
        points = sweeps.expand(ToyConfig(workdir=str(tmp_path)), [f"train.seed={seeds}"])
        folder = pathlib.Path(points[0].config.workdir)
        folder.mkdir(parents=True)
        results = {"test": {"loss": 2.0, "loss_by_class": {"0": 1.5}}}
        (folder / "results.json").write_text(to_json(results))
        with caplog.at_level("INFO"):
            sweeps.run_groups(points, [points], lambda configs: [{}, {}])
    said = capsys.readouterr().out
    assert "test.loss" in said and "by_class" not in said
    assert "test.loss_by_class.0" in (tmp_path / "sweep.csv").read_text()
    assert "the table leaves out 2 points of another sweep" in caplog.text
    caplog.clear()
    (tmp_path / "moved").symlink_to(tmp_path)
    points = sweeps.expand(ToyConfig(workdir=str(tmp_path / "moved")), ["train.seed=2,3"])
    with caplog.at_level("INFO"):
        sweeps.run_groups(points, [points], lambda configs: [{}, {}])
    assert "another sweep" not in caplog.text
