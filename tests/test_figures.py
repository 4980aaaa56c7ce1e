import math

import matplotlib.image
import numpy as np

from drawjax import figures


def _entries(first):
    train = [{"split": "train", "step": step, "loss": 100 - step} for step in range(1, 101)]
    train[0]["loss"] = first
    return [*train, {"split": "validation", "step": 50, "loss": math.nan}]


def test_curves_are_not_flattened_by_the_first_steps(tmp_path):
    pictures = []
    for first in (99.0, 1e6):
        path = tmp_path / f"{first}.png"
        figures.save_curves(path, _entries(first), names=("loss",))
        pictures.append(matplotlib.image.imread(path))
    assert np.mean(pictures[0] != pictures[1]) < 0.01


def test_a_run_without_steps_has_empty_panels(tmp_path):
    figures.save_curves(tmp_path / "none.png", [])
    assert (tmp_path / "none.png").stat().st_size > 1_000
