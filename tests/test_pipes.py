import os
import pathlib
import subprocess
import sys

import pytest


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
