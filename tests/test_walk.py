"""The way of a command to the loss stays short, and CONTRIBUTING.md shows it as it is."""

import json
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[1]


def test_from_a_command_to_the_first_likelihood_each_file_stands_once():
    done = subprocess.run(
        [sys.executable, "-m", "tests.walk"], capture_output=True, text=True, cwd=ROOT, timeout=300
    )
    assert done.returncode == 0, done.stderr
    walk = json.loads(done.stdout)
    assert len(walk["entered"]) <= 26, walk["entered"]
    assert len(walk["stack"]) <= 9, walk["stack"]
    assert len(set(walk["stack"])) == len(walk["stack"]), walk["stack"]
    shown = " -> ".join(f"`{path}`" for path in walk["stack"])
    assert shown in " ".join((ROOT / "CONTRIBUTING.md").read_text().split())
