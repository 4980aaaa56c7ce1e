"""The run report: one self-contained HTML file that opens offline.

`python -m drawjax.report RUN...` rebuilds `report.html` of a run, or compares several runs in one
page. Training writes it too, at every evaluation.
"""

import argparse
import base64
import importlib.resources
import io
import json
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from PIL import Image

from drawjax.attention import Window
from drawjax.pipes import readers_may_leave
from drawjax.training.metrics import read_metrics

__all__ = ["main", "save_drawing", "write_report"]

_PICTURES = {
    "samples.png": (
        "Samples",
        "Images drawn from the prior. Where a column stands apart, it holds the training image "
        "nearest to the sample beside it.",
    ),
    "reconstructions.png": ("Reconstructions", "Test images, then what the model makes of them."),
    "glimpses.png": ("Glimpses", "Where the model looked, and the patches it saw."),
}


def save_drawing(
    path: str | pathlib.Path,
    frames: Float[np.ndarray, "T count height width channels"],
    *,
    title: str,
    description: str,
    write: tuple[Window, int] | None,
    read: tuple[Window, int] | None = None,
    kl: Sequence[float] | None = None,
) -> None:
    """Writes what the report's player needs of drawing sequences, as JSON.

    Args:
      path: JSON file to write; the report takes all `*.drawing.json` of a folder.
      frames: values in [0, 1].
      title: a line above the player.
      description: for those who do not see the picture.
      write: write windows, fields `[T, count]`, and their N; None without.
      read: read windows alike.
      kl: nats of each step, mean over images.
    """
    steps, count, height, width, channels = frames.shape
    pixels = np.clip(np.round(255 * frames), 0, 255).astype(np.uint8)
    sheet = pixels.transpose(0, 2, 1, 3, 4).reshape(steps * height, count * width, channels)
    buffer = io.BytesIO()
    Image.fromarray(sheet[..., 0] if channels == 1 else sheet).save(buffer, "PNG", optimize=True)
    drawing = {
        "title": title,
        "description": description,
        "steps": steps,
        "count": count,
        "height": height,
        "width": width,
        "sprite": _data_url(buffer.getvalue(), "png"),
        "write": _rectangles(write),
        "read": _rectangles(read),
        "kl": None if kl is None else [float(value) for value in kl],
    }
    pathlib.Path(path).write_text(json.dumps(drawing))


def write_report(
    workdirs: Sequence[str | pathlib.Path], path: str | pathlib.Path | None = None
) -> pathlib.Path:
    """Writes the report of one run, or of several in one page.

    Args:
      workdirs: folders of runs.
      path: file to write; default: `report.html` in the first folder.

    Returns:
      The file.

    Raises:
      FileNotFoundError: if a folder holds no run.
    """
    runs = [_run(pathlib.Path(workdir)) for workdir in workdirs]
    path = pathlib.Path(path or pathlib.Path(workdirs[0]) / "report.html")
    page = importlib.resources.files("drawjax").joinpath("report_page.html").read_text("utf-8")
    # "</" would end the script element that holds the data.
    data = json.dumps(runs, allow_nan=False).replace("</", "<\\/")
    draft = path.with_suffix(".tmp")
    draft.write_text(page.replace("@DATA@", data), "utf-8")
    draft.replace(path)
    return path


@readers_may_leave()
def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m drawjax.report",
        description="Rebuilds the report of a run, or compares several runs in one page.",
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folder of a run")
    parser.add_argument("--out", help="file to write (default: report.html in the first folder)")
    arguments = parser.parse_args(argv)
    try:
        print(write_report(arguments.runs, arguments.out))
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _run(folder: pathlib.Path) -> dict[str, Any]:
    """All that the page shows of one run."""
    if not (folder / "config.json").exists():
        raise FileNotFoundError(f"{folder} holds no run: there is no config.json")
    config = json.loads((folder / "config.json").read_text())
    metrics = [_finite(entry) for entry in read_metrics(folder)]
    results = _json(folder / "results.json")
    drawings = [_json(path) for path in sorted(folder.glob("*.drawing.json"))]
    done = max((entry["step"] for entry in metrics), default=0)
    status = f"{done:,} of {config.get('train.steps', 0):,} training steps."
    if results:
        status += f" Data: {results['data']}. {results['device']}."
    return {
        "name": folder.resolve().name,
        "status": status,
        "notes": results.get("notes", []),
        "numbers": [
            [name.replace("_", " "), f"{value:,.4g}" if isinstance(value, float) else f"{value:,}"]
            for name, value in results.get("test", {}).items()
        ],
        "metrics": metrics,
        "kl": next((drawing["kl"] for drawing in drawings if drawing["kl"]), None),
        "drawings": drawings,
        "pictures": [
            {
                "title": title,
                "description": description,
                "source": _data_url((folder / name).read_bytes(), "png"),
            }
            for name, (title, description) in _PICTURES.items()
            if (folder / name).exists()
        ],
        "config": [[name, str(value)] for name, value in config.items()],
    }


def _json(path: pathlib.Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.exists() else {}


def _finite(entry: dict[str, Any]) -> dict[str, Any]:
    """JSON has no NaN; such values are left out."""
    return {k: v for k, v in entry.items() if not isinstance(v, float) or np.isfinite(v)}


def _rectangles(windows: tuple[Window, int] | None) -> list[list[list[float]]] | None:
    """Centre x and y, half the side and the standard deviation, in pixels, `[T][count][4]`."""
    if windows is None or windows[0] is None:
        return None
    window, size = windows
    fields = (
        window.center_x,
        window.center_y,
        (size - 1) / 2 * np.asarray(window.stride),
        np.sqrt(window.variance),
    )
    return np.round(np.stack([np.asarray(field) for field in fields], -1), 2).tolist()


def _data_url(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


if __name__ == "__main__":
    sys.exit(main())
