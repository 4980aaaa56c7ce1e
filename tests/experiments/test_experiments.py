"""Every experiment's command, for a few steps on tiny sets, and one on real records.

What real records hold is for tests/data/test_sources.py to see.
"""

import importlib
import json
import os
import pathlib
import subprocess
import sys

import pytest
from PIL import Image

from drawjax import cli, modules
from experiments import mnist_generation
from tests.data.tiny_sets import write_tiny_set

TINY_DRAW = ("--model.num-glimpses", "2", "--model.hidden-size", "8", "--model.latent-size", "2")
SHORT = (
    "--train.steps", "2", "--train.batch-size", "8", "--train.log-every", "1",
    "--train.eval-every", "1",
)  # fmt: skip
DRAWINGS = {
    "samples.png", "drawing.png", "drawing.gif", "reconstructions.png", "loss.png", "report.html",
    "metrics.jsonl",
}  # fmt: skip

# experiment: flags, the set it uses, what it leaves
COMMANDS = {
    "mnist_generation": ((*TINY_DRAW, "--samples", "4"), "binarized_mnist", DRAWINGS),
    "two_digit_mnist_generation": ((*TINY_DRAW, "--samples", "4"), "mnist", DRAWINGS),
    "cifar10_generation": ((*TINY_DRAW, "--samples", "4"), "cifar10", DRAWINGS),
    "svhn_generation": ((*TINY_DRAW, "--samples", "4"), "svhn_numbers", DRAWINGS),
    "cluttered_mnist_classification": (
        ("--model.num-glimpses", "2", "--model.hidden-size", "8"), "mnist",
        {"glimpses.png", "glimpses.drawing.json", "loss.png", "report.html", "metrics.jsonl"},
    ),
}  # fmt: skip


def _run(experiment, *flags, data_dir=None):
    environment = {name: value for name, value in os.environ.items() if name != "TFDS_DATA_DIR"}
    environment["TFDS_DATA_DIR"] = str(data_dir or "nowhere")
    return subprocess.run(
        [sys.executable, "-m", f"experiments.{experiment}", *flags],
        capture_output=True, text=True, env=environment, timeout=600, stdin=subprocess.DEVNULL,
        cwd=pathlib.Path(__file__).parents[2],
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("experiment", COMMANDS)
def test_an_experiment_runs_by_its_default_shortened(experiment, tmp_path):
    flags, name, leaves = COMMANDS[experiment]
    data_dir = pathlib.Path(os.environ.get("TFDS_DATA_DIR", "nowhere"))
    if name != "binarized_mnist" or not (data_dir / name).is_dir():
        data_dir = tmp_path / "sets"
        write_tiny_set(data_dir, name)
    workdir = tmp_path / "run"
    done = _run(experiment, *flags, *SHORT, "--workdir", str(workdir), data_dir=data_dir)
    assert done.returncode == 0, done.stderr
    results = json.loads((workdir / "results.json").read_text())
    assert results["data"] == name
    assert results["test"]["images"] >= 32
    assert leaves <= {path.name for path in workdir.iterdir()}
    if experiment == "cifar10_generation":
        assert 0 < results["discretized"]["bits_per_dimension"] < 12


@pytest.mark.slow
def test_attention_zoom_looks_at_any_image(tmp_path):
    Image.new("RGB", (40, 70), (200, 30, 60)).save(tmp_path / "photo.jpg")
    for flags in ((), ("--image", str(tmp_path / "photo.jpg"))):
        done = _run("attention_zoom", "--workdir", str(tmp_path / "zoom"), *flags)
        assert done.returncode == 0, done.stderr
        with Image.open(tmp_path / "zoom" / "zoom.png") as picture:
            assert picture.width > picture.height / 2
    (tmp_path / "text.png").write_text("no picture")
    done = _run("attention_zoom", "--image", str(tmp_path / "text.png"), "--workdir", str(tmp_path))
    assert done.returncode == 1
    assert done.stderr.strip().endswith("text.png cannot be read: not a picture")


@pytest.mark.slow
def test_bad_input_is_one_line_and_leaves_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TFDS_DATA_DIR", "nowhere")
    workdir = tmp_path / "run"
    cases = {
        ("--model.raed-size", "2"): (2, "did you mean --model.read-size?"),
        ("--preset", "demmo"): (2, "did you mean demo?"),
        ("--data.name", "mnist"): (1, "python -m drawjax.data.prepare mnist"),
        ("--preset", "demo", "--train.batch-size", "5000"): (1, "4,000 training images, got 5000"),
        ("--preset", "demo", "--model.write-size", "29"): (
            1,
            "at most the image's longer side, 28",
        ),
        ("--preset", "demo", "--data.pieces", "2"): (2, "unknown flag --data.pieces"),
        ("--preset", "demo", "--data.crop", "29"): (1, "data.crop must be at most 28"),
        ("--mode", "evaluate"): (1, "holds no run"),
        ("--mode", "draw", "--init-from", "mnist", "--model.precision", "float32"): (
            1,
            "model.precision is bfloat16 in mnist",
        ),
    }
    for flags, (code, message) in cases.items():
        with pytest.raises(SystemExit) as stop:
            cli.main(
                mnist_generation.PRESETS, dataset="binarized_mnist",
                argv=[*flags, "--workdir", str(workdir)],
            )  # fmt: skip
        said = capsys.readouterr().err
        assert stop.value.code == code, said
        assert message in said.splitlines()[-1]
        assert "Traceback" not in said
        assert not workdir.exists(), flags


SHAPES = {
    "mnist_generation": (28, 28, 1),
    "cluttered_mnist_classification": (100, 100, 1),
    "two_digit_mnist_generation": (60, 60, 1),
    "cifar10_generation": (32, 32, 3),
    "svhn_generation": (54, 54, 3),
}


@pytest.mark.parametrize("experiment", SHAPES)
def test_every_preset_has_a_folder_and_a_model_that_fits(experiment):
    presets = importlib.import_module(f"experiments.{experiment}").PRESETS
    assert len({config.workdir for config in presets.values()}) == len(presets)
    model = modules.Ram if experiment.startswith("cluttered") else modules.Draw
    for config in presets.values():
        _, params = modules.abstract(model, config.model, SHAPES[experiment])
        assert modules.parameter_count(params) > 0
