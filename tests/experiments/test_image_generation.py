"""The experiment for any images: what it chooses, and that flags replace it."""

import dataclasses
import json
import logging
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from drawjax import cli, data, runner
from drawjax.config import DrawConfig, GenerationConfig, GenerationDataConfig, TrainConfig
from drawjax.data.picture_folder import folder_set
from drawjax.data.sources import from_arrays
from drawjax.training import RunError
from experiments.image_generation import PRESETS, _asked, _presets, _size, fitted, run


def _fitted(images, caplog):
    config = dataclasses.replace(PRESETS["images"], data=GenerationDataConfig(binarization="none"))
    caplog.clear()
    with caplog.at_level(logging.INFO):
        config = fitted(data.load(from_arrays(images), config.data), config)
    return config, caplog.text


def test_what_is_chosen_suits_the_images(caplog):
    rng = np.random.default_rng(0)
    letters = 255 * (rng.uniform(size=(200, 28, 28)) > 0.7).astype(np.uint8)
    config, said = _fitted(letters, caplog)
    assert (config.data.binarization, config.model.likelihood) == ("dynamic", "bernoulli")
    assert "160 training images of 28x28 in gray, black and white" in said
    assert config.train.batch_size == 64

    photos = rng.integers(0, 256, size=(40, 60, 44, 3), dtype=np.uint8)
    config, said = _fitted(photos, caplog)
    assert (config.data.binarization, config.model.likelihood) == ("none", "discretized_logistic")
    assert "32 training images of 44x60 in color, intensities" in said
    assert config.train.batch_size == 16
    assert config.model.read_size == config.model.write_size == 12

    tiny = rng.integers(0, 256, size=(8, 3, 3), dtype=np.uint8)
    assert _fitted(tiny, caplog)[0].model.read_size == 3


@pytest.mark.parametrize(
    ("flags", "likelihood", "binarization", "sharp"),
    [
        ([], "discretized_logistic", "none", None),
        (["--data.binarization", "threshold"], "bernoulli", "threshold", True),
        (["--model.likelihood", "bernoulli"], "bernoulli", "dynamic", True),
        (["--data.binarization=none"], "discretized_logistic", "none", False),
        (["--model.likelihood", "gaussian"], "gaussian", "none", False),
    ],
)
def test_a_flag_brings_what_goes_with_it(flags, likelihood, binarization, sharp, caplog):
    (config, _), asked = _asked(flags)
    assert (config.model.likelihood, config.data.binarization) == (likelihood, binarization)
    assert asked is sharp
    if sharp is not None:
        noise = np.random.default_rng(0).integers(0, 256, (8, 6, 6), np.uint8)
        chosen = fitted(data.load(from_arrays(noise), PRESETS["images"].data), config, sharp=sharp)
        assert (chosen.model.likelihood == "bernoulli") == sharp


def test_flags_that_do_not_go_together_are_refused(capsys):
    with pytest.raises(SystemExit):
        _asked(["--model.likelihood", "gaussian", "--data.binarization", "static"])
    assert "likelihood gaussian needs data.binarization none" in capsys.readouterr().err


def _write(folder, count=12, side=20):
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    for i in range(count):
        pixels = rng.integers(0, 256, size=(side + i % 2, side, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")


def test_pieces_are_cut_out_of_whole_pictures(tmp_path):
    for number, side in enumerate((100, 100, 90)):
        Image.fromarray(np.full((side, side), number, np.uint8)).save(tmp_path / f"{number}.png")
    assert _size(str(tmp_path)) == 32
    assert _size(str(tmp_path), crop=64) == 64
    (tmp_path / "2.png").unlink()
    assert _size(str(tmp_path)) == 32
    assert _size(str(tmp_path), crop=64) is None


def test_a_folder_that_has_changed_is_another_set(tmp_path):
    _write(tmp_path / "my pictures")
    where = str(tmp_path / "my pictures"), str(tmp_path / "sets")
    name = folder_set(*where, 8)
    assert folder_set(*where, 8) == name
    assert folder_set(*where, 9) != name
    _write(tmp_path / "my pictures", count=13)
    assert folder_set(*where, 8) != name
    assert len(list((tmp_path / "sets").glob("pictures_*"))) == 3
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        folder_set("nowhere", str(tmp_path))


def test_a_run_goes_on_where_its_pictures_have_moved(tmp_path):
    def open_run(pictures):
        config = GenerationConfig(
            workdir=str(tmp_path / "run"), samples=4, eval_batch_size=1,
            data=GenerationDataConfig(
                folder=str(tmp_path / pictures), dir=str(tmp_path / "sets"), size=8
            ),
            model=DrawConfig(num_glimpses=2, hidden_size=4, latent_size=2),
            train=TrainConfig(steps=1, batch_size=2, decay_fraction=0.0),
        )  # fmt: skip
        runner._open(runner.experiment_of(config, data.load(None, config.data))).close()

    _write(tmp_path / "here")
    open_run("here")
    (tmp_path / "here").rename(tmp_path / "there")
    open_run("there")
    _write(tmp_path / "there", count=13)
    with pytest.raises(RunError, match=r"holds another run .* data\.train: 10 there, 11 now"):
        open_run("there")


def test_a_name_and_a_folder_are_one_too_many(tmp_path):
    with pytest.raises(ValueError, match=r"data\.name is mnist and data\.folder .*; give one"):
        GenerationDataConfig(name="mnist", folder=str(tmp_path))


@pytest.mark.slow
def test_from_a_folder_to_drawings_in_one_command(tmp_path):
    _write(tmp_path / "pictures", count=40)

    def run(*flags):
        return subprocess.run(
            [sys.executable, "-m", "drawjax", "train", "image_generation", "--workdir", "run",
             "--samples", "4", "--model.num-glimpses", "2", "--model.hidden-size", "8", *flags],
            capture_output=True, text=True, cwd=tmp_path,
            env={**os.environ, "TFDS_DATA_DIR": str(tmp_path / "sets")},
        )  # fmt: skip

    for flags, message in (
        ((), "error: which images? give --data.folder FOLDER or --data.name SET"),
        (("--data.folder", "nowhere"), "error: there is no folder 'nowhere'"),
    ):
        refused = run(*flags)
        assert refused.returncode == 1
        assert refused.stderr.strip() == message
    done = run("--data.folder", "pictures", "--train.steps", "2", "--model.latent-size", "3")
    assert done.returncode == 0, done.stderr
    assert "several sizes: the middle square of each, 32 x 32 pixels" in done.stderr
    assert "bits per dimension" in done.stderr
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["model.likelihood"] == "discretized_logistic"
    assert config["model.latent_size"] == 3
    assert (tmp_path / "run" / "samples.png").exists()
    again = run("--mode", "draw")
    assert again.returncode == 0, again.stderr


def test_a_sweep_over_what_the_model_is_fitted_to_is_refused(tmp_path, capsys):
    _write(tmp_path / "pictures")
    arguments = ["--data.folder", str(tmp_path / "pictures"), "--sweep", "data.size=16,64"]
    with pytest.raises(SystemExit):
        run(arguments)
    assert "error: --sweep data.size: a model is fitted to one form" in capsys.readouterr().err
    arguments[-1] = "data.pair_size=40,60"
    with pytest.raises(SystemExit):
        run(arguments)
    assert "error: --sweep data.pair_size: a model is fitted" in capsys.readouterr().err


@pytest.mark.parametrize("flags", [
    ["--data.binarization", "threshold"], ["--model.likelihood", "bernoulli"], [],
])  # fmt: skip
def test_flags_that_trained_a_run_may_stand_beside_another_mode(flags):
    arguments = ["--mode", "evaluate", *flags]
    presets = _presets(arguments)
    cli.parse(presets, arguments, options=cli.Options(), raises=True)
