"""Runs of the toy on eight virtual devices; started by test_mesh.py, which compares them with one.

`XLA_FLAGS=--xla_force_host_platform_device_count=8 python -m tests.training.on_eight FOLDER`
"""

import dataclasses
import json
import pathlib
import sys

import jax

from drawjax.training import RunError, train_points
from drawjax.training.run import RunWriter
from drawjax.training.step import Program, make_mesh
from tests.training import toy

# Wide enough for the mesh to split the kernel; no decay, so that steps may be added.
CONFIG = toy.ToyConfig(
    width=4096, train=dataclasses.replace(toy.CONFIG, decay_fraction=0.0, learning_rate=1e-3)
)


def config(folder, **train):
    """The config of a run in a folder."""
    changed = dataclasses.replace(CONFIG.train, **train)
    return dataclasses.replace(CONFIG, workdir=str(folder), train=changed)


def _layout(program):
    state = program.initial()
    return {
        name: [str(leaf.sharding.spec), len(leaf.sharding.device_set)]
        for name, leaf in state.params.items()
    }


def main(folder: pathlib.Path) -> None:
    """Does all that test_mesh.py asks about."""
    assert jax.device_count() == 8
    told = {}
    try:
        Program(toy.task(), [config("", batch_size=12).train])
    except ValueError as error:
        told["refused"] = str(error)
    told["data"] = _layout(Program(toy.task(CONFIG), [CONFIG.train]))
    for points in (3, 4, 8):
        told[f"{points} points"] = dict(make_mesh(16, points=points).shape)

    toy.run([config(folder / "whole8")])
    toy.run([config(folder / "from8to1", steps=15)])
    toy.run([config(folder / "from1to8")])  # goes on with what one device left
    points = [config(folder / f"point{seed}", seed=seed) for seed in range(4)]
    runs = [RunWriter(point.workdir, point) for point in points]
    try:
        train_points(toy.task(CONFIG), [point.train for point in points], runs)
    except RunError as error:
        told["points"] = str(error)
    for run in runs:
        run.close()
    (folder / "told.json").write_text(json.dumps(told))


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
