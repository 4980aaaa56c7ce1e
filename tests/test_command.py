import os
import pathlib
import signal
import subprocess
import sys

import pytest
from PIL import Image

from drawjax import cli
from drawjax.training import Diverged, Interrupted, RunError
from tests.commands import said_line


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "unbuffered"),
    [
        ("experiments.mnist_generation", ""),
        ("experiments.mnist_generation", "1"),
        ("experiments.attention_zoom", ""),
        ("drawjax.data.prepare", ""),
        ("drawjax.report", ""),
        ("benchmarks.step", ""),
        ("drawjax", "1"),
    ],
)
def test_a_reader_that_leaves_ends_a_command_quietly(command, unbuffered):
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", command, "--help"],
        stdout=writer, stderr=subprocess.PIPE, text=True, timeout=120,
        env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
        cwd=pathlib.Path(__file__).parents[1],
    )  # fmt: skip
    os.close(writer)
    assert done.stderr == ""
    assert done.returncode == 141


@pytest.mark.parametrize(("error", "code", "message"), [
    (RunError("the disk is\nfull"), 1, "error: the disk is full"),
    (ValueError("the batch"), 1, "error: the batch"),
    (FileNotFoundError(2, "No such file", "x.png"), 1, "error: [Errno 2] No such file: 'x.png'"),
    (Diverged("no finite loss"), 3, "error: no finite loss"),
    (KeyboardInterrupt(), 130, "error: stopped"),
    (Interrupted(signal.SIGTERM), 143, "error: stopped by SIGTERM; the run is saved"),
    (Interrupted(signal.SIGINT), 130, "error: stopped by SIGINT; the run is saved"),
])  # fmt: skip
def test_errors_a_user_can_mend_are_one_line_with_an_exit_code(error, code, message, capsys):
    def fail():
        raise error

    with pytest.raises(SystemExit) as stop:
        cli.run_command(fail)
    assert stop.value.code == code
    assert said_line(capsys).startswith(message)


def test_a_fault_of_ours_shows_its_traceback(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.run_command(lambda: 1 / 0)
    assert stop.value.code == 1
    said = capsys.readouterr().err
    assert said.startswith("Traceback")
    assert said.splitlines()[-1] == "error: ZeroDivisionError('division by zero')"


def _shell(line, **environment):
    return subprocess.run(
        ["bash", "-c", line], capture_output=True, text=True, timeout=120,
        env=os.environ | environment, cwd=pathlib.Path(__file__).parents[1],
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&- <&-"])
def test_closed_files_stop_no_run(tmp_path, closed):
    done = _shell(f"{sys.executable} -m tests.training.toy --workdir {tmp_path / 'run'} {closed}")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "results.json").exists()
    assert "error" not in (tmp_path / "run" / "metrics.jsonl").read_text()


@pytest.mark.slow
def test_an_output_that_is_full_is_one_line(tmp_path):
    done = _shell(f"{sys.executable} -m experiments.mnist_generation --help > /dev/full")
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert done.stderr.endswith("No space left on device\n")
    assert done.stderr.count("\n") == 1
    done = _shell(f"{sys.executable} -m tests.training.toy --workdir {tmp_path}/a 2> /dev/full")
    assert done.returncode == 0


@pytest.mark.slow
def test_a_device_that_is_not_there_is_one_line():
    done = _shell(f"{sys.executable} -m drawjax.sample --num 1", JAX_PLATFORMS="cuda")
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if "drawing 1 images" not in line]
    assert line == "error: JAX finds none of the devices that JAX_PLATFORMS=cuda names"


_NO_HOME = """
import os, pwd, runpy, sys
os.environ.pop("HOME", None)
def nobody(number): raise KeyError(number)
pwd.getpwuid = nobody
sys.argv.pop(0)
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("command", [
    ["experiments.attention_zoom"], ["drawjax.data.prepare", "mine", "--from-folder", "pictures"],
    ["tests.training.toy"], ["experiments.mnist_generation", "--help"],
])  # fmt: skip
def test_commands_do_without_a_home(tmp_path, command):
    (tmp_path / "pictures").mkdir()
    for number in range(3):
        Image.new("L", (8, 8), 50 * number).save(tmp_path / f"pictures/{number}.png")
    done = subprocess.run(
        [sys.executable, "-c", _NO_HOME, *command], capture_output=True, text=True, cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if name != "TFDS_DATA_DIR"}
        | {"PYTHONPATH": str(pathlib.Path(__file__).parents[1])},
    )  # fmt: skip
    if command[0] == "drawjax.data.prepare":
        assert done.returncode == 1
        assert done.stderr.splitlines()[-1].startswith("error: there is no home folder; name one")
    else:
        assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_the_c_locale_changes_nothing(tmp_path):
    (tmp_path / "bilder").mkdir()
    for number in range(3):
        Image.new("L", (8, 8), 50 * number).save(tmp_path / f"bilder/ü{number}.png")
    (tmp_path / "bilder" / "ö.txt").write_text("")
    line = (
        f"{sys.executable} -m drawjax.data.prepare mine --from-folder {tmp_path}/bilder --data-dir"
    )
    for locale in ({"LC_ALL": "C"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}):
        done = _shell(f"{line} {tmp_path}/sets{len(locale)}", **locale)
        assert done.returncode == 0, done.stderr
        assert "left out 1" in done.stderr
