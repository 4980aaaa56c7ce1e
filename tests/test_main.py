"""The command `drawjax`: each command under its name, and a wheel that holds all of them."""

import configparser
import importlib.metadata
import os
import pathlib
import subprocess
import sys

import pytest

import drawjax
from drawjax import cli, pretrained
from drawjax.explore.drawing import Models
from tests.explore.serving import save_model

ROOT = pathlib.Path(__file__).parents[1]


def _run(*arguments, cwd=None):
    return subprocess.run(
        [sys.executable, "-m", "drawjax", *arguments], capture_output=True, text=True, cwd=cwd
    )


def test_commands_and_experiments_are_listed(capsys):
    for arguments in ([], ["--help"]):
        with pytest.raises(SystemExit) as stop:
            cli.drawjax(arguments)
        assert not stop.value.code
        said = capsys.readouterr().out
        assert all(f"  {name} " in said for name in cli._COMMANDS)
    with pytest.raises(SystemExit):
        cli.drawjax(["train"])
    said = capsys.readouterr().out
    for path in (ROOT / "experiments").glob("[a-z]*.py"):
        assert path.stem in said
    with pytest.raises(SystemExit):
        cli.drawjax(["--version"])
    assert capsys.readouterr().out.strip() == drawjax.__version__
    assert drawjax.__version__ == importlib.metadata.version("drawjax")


@pytest.mark.parametrize(("arguments", "message"), [
    (["trian"], "unknown command 'trian'; did you mean train?; there are: train, sample"),
    (["train", "mnist_generatoin"], "'mnist_generatoin'; did you mean mnist_generation?"),
])  # fmt: skip
def test_a_wrong_name_is_one_line(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.drawjax(arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def _said(capsys, *arguments):
    """The exit code of a command in this process, and what it wrote."""
    with pytest.raises(SystemExit) as stop:
        cli.drawjax(arguments)
    said = capsys.readouterr()
    return stop.value.code or 0, said.out + said.err


def test_models_are_listed_with_their_figures(capsys):
    code, said = _said(capsys, "models")
    assert code == 0
    for name in pretrained.available():
        assert f"\n{name} " in said
    assert " 80.95 +- 0.22 nats" in said
    assert " % wrong" in said


def test_models_of_the_package_are_listed_whatever_folder_is_here(tmp_path, monkeypatch, capsys):
    save_model(tmp_path, "mnist")
    monkeypatch.chdir(tmp_path)
    assert "\nmnist  " in (said := _said(capsys, "models")[1])
    assert " 80.95 +- 0.22 nats" in said
    assert next(known for known in Models().describe() if known["name"] == "mnist")["steps"] == 64


def test_an_experiment_runs_by_its_name(tmp_path, capsys):
    run = _run("train", "attention_zoom", "--preset", "demo", "--workdir", "zoom", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert (tmp_path / "zoom" / "zoom.png").exists()
    assert _said(capsys, "train", "attention-zoom", "--help")[0] == 0


def test_help_names_the_command_that_was_given(capsys):
    assert "usage: drawjax sample" in _said(capsys, "sample", "--help")[1]
    assert _run("train", "mnist_generation", "--model.hiden-size", "3").stderr == (
        "error: unknown flag --model.hiden-size; did you mean --model.hidden-size?\n"
    )


@pytest.mark.slow
def test_a_shell_completes_commands_experiments_and_flags(tmp_path):
    script = tmp_path / "drawjax.sh"
    script.write_text(_run("--tyro-print-completion", "bash").stdout)
    ask = """source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _tyro_drawjax
             echo "${COMPREPLY[@]}" """
    for words, expected in (
        (["drawjax", "exp"], "explore export"),
        (["drawjax", "train", "svhn"], "svhn-generation"),
        (["drawjax", "train", "svhn-generation", "--model.read"], "--model.read-size"),
        (["drawjax", "train", "svhn-generation", "--preset", "d"], "demo"),
    ):
        run = subprocess.run(
            ["bash", "-c", ask, "bash", script, *words], capture_output=True, text=True, check=True
        )
        assert run.stdout.strip() == expected


def test_what_is_missing_is_named_with_the_extra_that_brings_it(tmp_path):
    (tmp_path / "grain.py").write_text("raise ModuleNotFoundError('none', name='grain')")
    path = {"PYTHONPATH": str(tmp_path)}
    for command in (["train", "mnist_generation"], ["prepare", "mnist"]):
        run = subprocess.run(
            [sys.executable, "-m", "drawjax", *command],
            capture_output=True, text=True, env={**os.environ, **path},
        )  # fmt: skip
        assert run.returncode == 2
        (line,) = run.stderr.splitlines()
        assert line.endswith("needs grain: pip install 'drawjax[train]'")


def test_all_packages_are_in_the_wheel():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    listed = set(config["options"]["packages"].split())
    there = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for path in (ROOT / "drawjax").rglob("*")
        if path.is_file()
        and "__pycache__" not in path.parts
        # Data of `drawjax.pretrained`: a folder for each model.
        and not (path.parent / "model.safetensors").exists()
    }
    assert listed == there | {"drawjax.experiments"}
