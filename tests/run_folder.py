"""Folders as training leaves them, from small arrays and without training."""

import json
import pathlib

import numpy as np
from PIL import Image

from drawjax import attention, figures

STEPS, COUNT = 6, 3  # of a drawing


def windows(center_x=5.0) -> attention.Window:
    """The same window at every step and on every image."""
    fields = (center_x, 4.0, 1.5, 0.25, 1.0)
    return attention.Window(*(np.full((STEPS, COUNT), value) for value in fields))


def write_run(
    folder: pathlib.Path,
    *,
    steps: int = 200,
    taken: int = 200,
    attends: bool = True,
    classifies: bool = False,
    channels: int = 1,
    learning_rate: float = 1e-3,
) -> pathlib.Path:
    """Writes a run's folder.

    Args:
      folder: where to.
      steps: training steps in all.
      taken: of which so many are done; if all, the run is finished.
      attends: whether there are windows.
      classifies: a run of the Differentiable RAM instead of DRAW.
      channels: of its images.
      learning_rate: in the config.
    """
    folder.mkdir(parents=True)
    config = {
        "workdir": "</script><b>", "data.name": None, "model.read_size": 2 if attends else None,
        "train.steps": steps, "train.learning_rate": learning_rate,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    values = (
        {"loss": 2.0} if classifies else {"reconstruction": 80.0, "latent": 20.0, "loss": 100.0}
    )
    lines = []
    for step in range(10, taken + 1, 10):
        entry = {name: value * (1 + 10 / step) for name, value in values.items()}
        entry |= {"error": 50.0} if classifies else {}
        rest = {"learning_rate": 1e-3, "gradient_norm": 3.0 + step % 7}
        lines.append({"step": step, "split": "train", **entry, **rest})
        if step % 50 == 0:
            lines.append({"step": step, "split": "validation", **entry, "images": 500,
                          "standard_error": 1.234})  # fmt: skip
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    counts = {"train": 4_000, "validation": 500, "test": 500}
    data = {
        "data": "a set", "counts": counts, "notes": ["Half of it."], "device": "1 x cpu",
        "image_shape": [10, 8, channels],
    }  # fmt: skip
    (folder / "data.json").write_text(json.dumps(data))
    if taken >= steps:
        test = {"images": 500, **values, "standard_error": 1.234}
        if classifies:
            test |= {
                "error": 4.075, "standard_error": 0.198,
                "error_by_glimpse": [80.0, 4.075], "error_by_glimpse_standard_error": [0.4, 0.198],
            }  # fmt: skip
        results = {
            "data": "a set", "device": "1 x cpu", "notes": ["Half of it."], "test": test,
            "validation": lines[-1], "parameters": 1234, "image_shape": [10, 8, channels],
            "seconds": 3725.4,
        }  # fmt: skip
        (folder / "results.json").write_text(json.dumps(results))
    rng = np.random.default_rng(0)
    frames = rng.uniform(size=(STEPS, COUNT, 10, 8, channels)) * 0.3  # darker than the windows
    if classifies:
        figures.save_drawing(
            folder / "glimpses.drawing.json", frames, title="Where the model looks",
            description="3 images.", read=(windows(), 3),
        )  # fmt: skip
    else:
        figures.save_drawing(
            folder / "prior.drawing.json", frames, title="Drawn from the prior",
            description="3 images drawn from noise in 6 steps.",
            write=(windows(), 3) if attends else None,
        )  # fmt: skip
        figures.save_drawing(
            folder / "test.drawing.json", frames, title="Test images redrawn",
            description="3 test images redrawn in 6 steps.", kl=[6.0, 5.0, 4.0, 3.0, 2.0, 1.0],
            write=(windows(), 3) if attends else None,
            read=(windows(center_x=4.0), 3) if attends else None,
            beside=np.ones(frames.shape[1:]),
        )  # fmt: skip
    name = "glimpses.png" if classifies else "samples.png"
    Image.fromarray(rng.integers(0, 255, (900, 900, 3), np.uint8)).save(folder / name)
    return folder
