import os
import pathlib
import re
import subprocess
import sys

import pytest

from drawjax import cli
from drawjax.training import Diverged
from tests.commands import said_line
from tests.training.toy import ToyConfig

ROOT = pathlib.Path(__file__).parents[1]
PRESETS = {"toy": ToyConfig(), "wide": ToyConfig(width=64)}


@pytest.mark.parametrize(("arguments", "message"), [
    (["--train.stepz", "3"], "error: unknown flag --train.stepz; did you mean --train.steps?"),
    (["--sweeep=x"], "error: unknown flag --sweeep; did you mean --sweep?"),
    (["--preset", "wid"], "error: unknown preset 'wid'; did you mean wide?; presets: toy, wide"),
    (["--preset"], "error: unknown preset ''; presets: toy, wide"),
    (["--train.steps", "0"], "error: train.steps must lie in 1..2147483647, got 0"),
    (["--train.steps", "x"], "error: Error parsing --train.steps: invalid literal"),
    (["--train.steps"], "error: Missing value for argument '--train.steps'"),
    (["--sweep", "train.sed=1"], "error: --sweep over an unknown field, 'train.sed'"),
    (["--sweep", "train.seed=1,2", "--sweep-index", "2"], "error: --sweep-index must lie in 0..1"),
    (["--sweep-index", "2"], "error: --sweep-index picks a point of a --sweep, and there is none"),
    (["--sweep-parallel", "2"], "error: --sweep-parallel is of the points of a --sweep, and there"),
    (["--sweep", "train.seed=1,2", "--sweep-parallel", "0"], "error: --sweep-parallel must be at"),
])  # fmt: skip
def test_a_bad_flag_is_one_line_and_exit_code_2(arguments, message, capsys):
    def never(configs):
        raise AssertionError("nothing should run")

    with pytest.raises(SystemExit) as stop:
        cli.run_experiment(PRESETS, never, arguments)
    assert stop.value.code == 2
    assert said_line(capsys).startswith(message)


def test_help_explains_every_flag_with_its_default(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.run_experiment(PRESETS, lambda configs: [], ["--help"], description="What it does.")
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert "What it does." in text
    assert "--preset {toy,wide}" in text
    words = " ".join(text.replace("│", " ").split())
    for flag, said in {
        "--train.learning-rate": "Adam's rate after warm-up. (default: 0.05)",
        "--train.batch-size": "Images per step, over all devices and hosts together. (default: 8)",
        "--sweep": "each combination",
        "--debug-nans": "first NaN",
        "--coordinator": "(default: None)",
    }.items():
        assert flag in words
        assert said in words
    # Without an explanation a default stands alone behind the flag's type.
    for line in text.splitlines():
        assert not line.strip("│ ").endswith("STR (default: toy)") or "--workdir" not in line


def test_the_fields_that_arguments_name_are_given():
    arguments = ["--model.hidden-size=3", "--train.seed", "-1", "--no-debug-nans", "--data.no-x"]
    assert cli.given(arguments) >= {"model.hidden_size", "train.seed", "debug_nans", "data.x"}
    assert cli.given(["--sweep", "train.seed=0,1", "--sweep=train.steps=2"]) == {
        "train.seed", "train.steps",
    }  # fmt: skip
    assert not cli.given(["x", "-1"])


@pytest.mark.parametrize("arguments", [
    ["--train.seed", "5", "--sweep", "train.seed=0,1"],
    ["--sweep=train.seed=0,1", "--train.seed=5"],
    ["--sweep", "debug_nans=True", "--no-debug-nans"],
])  # fmt: skip
def test_a_field_is_not_both_given_and_swept(arguments, capsys):
    with pytest.raises(SystemExit):
        cli.run_experiment(PRESETS, lambda configs: [], arguments)
    said = capsys.readouterr().err
    assert re.fullmatch(r"error: --(train.seed|debug-nans) is given twice\n", said)


def test_a_result_that_diverged_is_exit_code_3(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.run_experiment(PRESETS, lambda configs: [Diverged("no")], [])
    assert stop.value.code == 3


def test_a_sweep_hands_over_what_can_train_points(tmp_path):
    seen = []

    def run(configs):
        seen.append([(c.width, c.train.seed) for c in configs])
        return [{}] * len(configs)

    sweep = ["--sweep", "width=4,5", "--sweep", "train.seed=0,1", "--workdir", str(tmp_path)]
    for more in ([], ["--sweep-index", "2"], ["--sweep-parallel", "1"]):
        with pytest.raises(SystemExit) as stop:
            cli.run_experiment(PRESETS, run, [*sweep, *more])
        assert stop.value.code == 0
    assert seen == [
        [(4, 0), (4, 1)], [(5, 0), (5, 1)],
        [(5, 0)],
        [(4, 0)], [(4, 1)], [(5, 0)], [(5, 1)],
    ]  # fmt: skip


def _toy(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "tests.training.toy", *map(str, arguments)],
        cwd=ROOT, capture_output=True, text=True, env={**os.environ, **environment}, timeout=300,
    )  # fmt: skip


@pytest.mark.slow
def test_the_log_of_a_run_is_its_own(tmp_path):
    done = _toy("--workdir", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    for line in done.stderr.splitlines():
        assert " step " in line or " compiling the training step" in line, f"not of ours: {line}"
    assert len(done.stderr.splitlines()) == 11


@pytest.mark.slow
def test_a_full_disk_is_one_line(small_disk):
    done = _toy(
        "--workdir", str(small_disk / "run"), "--train.checkpoint-every", "1",
        "--train.keep-checkpoints", "30", "--width", "4000",
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith("No space left on device")
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_help_waits_for_no_heavy_library():
    program = (
        "import sys\n"
        "from drawjax import cli\n"
        "heavy = {'torch', 'tensorboardX', 'orbax.checkpoint', 'matplotlib', 'flax', 'grain',"
        " 'tensorflow', 'tensorflow_datasets'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


@pytest.mark.parametrize("module", ["experiments.mnist_generation", "drawjax.report"])
@pytest.mark.parametrize("arguments", [("--help",), ("--nope",)])
def test_flags_are_read_before_jax_is_loaded(module, arguments):
    code = (
        "import runpy, sys\n"
        f"sys.argv = ['command', *{arguments!r}]\n"
        "try:\n"
        f"    runpy.run_module({module!r}, run_name='__main__')\n"
        "except SystemExit:\n"
        "    print(sorted({'jax', 'flax', 'grain', 'optax'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
