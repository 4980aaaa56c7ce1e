import json
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from drawjax.files import read_metrics
from tests.training import on_eight, toy

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def eight(tmp_path_factory):
    """A folder of runs on eight devices, one of them begun and one ended on a single one."""
    assert jax.device_count() == 1
    folder = tmp_path_factory.mktemp("eight")
    toy.run([on_eight.config(folder / "whole1")])
    toy.run([on_eight.config(folder / "from1to8", steps=15)])
    done = subprocess.run(
        [sys.executable, "-m", "tests.training.on_eight", str(folder)],
        cwd=ROOT, capture_output=True, text=True, timeout=500,
        env={
            **os.environ, "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
        },
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    toy.run([on_eight.config(folder / "from8to1")])
    return folder, json.loads((folder / "told.json").read_text())


def _losses(folder):
    return [(e["step"], e["split"], e["loss"]) for e in read_metrics(folder)]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["whole8", "from8to1", "from1to8", "point0"])
def test_eight_devices_give_the_curve_of_one(eight, name):
    folder, _ = eight
    one = _losses(folder / "whole1")
    # That a run had fifteen steps at first adds an evaluation at its then last step.
    other = [entry for entry in _losses(folder / name) if entry[:2] != (15, "validation")]
    assert [entry[:2] for entry in one] == [entry[:2] for entry in other]
    np.testing.assert_allclose([e[2] for e in one], [e[2] for e in other], rtol=1e-4)
    if name != "point0":
        with (
            np.load(folder / "whole1" / "final.npz") as a,
            np.load(folder / name / "final.npz") as b,
        ):
            for array in a:
                np.testing.assert_allclose(a[array], b[array], rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_parameters_lie_where_they_should(eight):
    _, told = eight
    everywhere = [str(PartitionSpec()), 8]
    assert told["data"] == {name: everywhere for name in ("in", "bias", "out")}


@pytest.mark.slow
def test_points_and_batch_share_the_devices(eight):
    _, told = eight
    assert told["3 points"] == {"point": 1, "data": 8}
    assert told["4 points"] == {"point": 4, "data": 2}
    assert told["8 points"] == {"point": 8, "data": 1}


@pytest.mark.slow
def test_what_does_not_divide_is_named(eight):
    _, told = eight
    assert told["refused"] == (
        "train.batch_size must divide over 8 devices, got 12; there are 8 devices"
    )
