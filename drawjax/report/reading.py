"""What the report shows of a run, read from the run's folder."""

import base64
import math
import pathlib
from collections.abc import Collection, Sequence
from typing import Any

from PIL import Image, UnidentifiedImageError

from drawjax.files import read_json, read_metrics

_PICTURES = {
    "samples.png": (
        "Samples",
        "Images drawn from the prior. Once the run is done, a column set apart holds the training "
        "image nearest to the sample beside it.",
    ),
    "reconstructions.png": (
        "Reconstructions",
        "Test images, and to the right of each what the model makes of it.",
    ),
    "glimpses.png": (
        "Glimpses",
        "Where the model looked, a green window on the image, and beside it the patch it saw.",
    ),
}
_QUANTITIES = {  # of results and validation metrics: name, unit
    "error": ("Error", "%"),
    "loss": ("Loss", "nats per image"),
    "reconstruction": ("Reconstruction loss", "nats per image"),
    "latent": ("Latent loss (KL)", "nats per image"),
    "importance_weighted": ("Importance-weighted loss", "nats per image"),
    "bits_per_dimension": ("Discretized bound", "bits per dimension"),
    "images": ("Images", ""),
}
# Of the entries of metrics.jsonl, what is no curve.
_NO_CURVE = {"step", "split", "images", "standard_error", "images_per_second", "skipped"}
_MOST_POINTS = 1_000  # of a curve


def read_run(folder: pathlib.Path) -> dict[str, Any]:
    """All that the page shows of one run.

    Raises:
      ValueError: if a file of it cannot be read, or the folder is something else's.
    """
    config = _json(folder / "config.json")
    if "train.steps" not in config:
        raise ValueError(f"{folder} holds no run: its config.json has no train.steps")
    metrics = read_metrics(folder)
    written = _json(folder / "results.json")
    results = _current(written, metrics)
    gone_on = bool(written) and not results
    started = _json(folder / "data.json")
    data = {**started, **results}
    done = max((entry["step"] for entry in metrics), default=0)
    steps = config["train.steps"]
    # After each glimpse the test error, and its standard error.
    glimpses = "error_by_glimpse", "error_by_glimpse_standard_error"
    errors = zip(*(results.get("test", {}).get(name, ()) for name in glimpses), strict=True)
    skipped = int(sum(entry.get("skipped", 0) for entry in metrics))
    notes = list(dict.fromkeys([*results.get("notes", []), *started.get("notes", [])]))
    if skipped:
        notes.append(f"{skipped:,} training steps without a finite loss or gradient were skipped.")
    return {
        "name": folder.resolve().name,
        "step": done,
        "steps": steps,
        "finished": bool(results) and (done >= steps or not metrics),
        "facts": _facts(data),
        "notes": notes,
        "numbers": _numbers(results, metrics),
        "by_glimpse": [(number, *pair) for number, pair in enumerate(errors, start=1)],
        "metrics": {split: _curves(metrics, split) for split in ("train", "validation")},
        "drawings": [
            _json(path)
            for path in sorted(folder.glob("*.drawing.json"))
            if not (gone_on and path.name == "test.drawing.json")
        ],
        "pictures": _pictures(folder, without=("reconstructions.png",) if gone_on else ()),
        "config": {name: str(value) for name, value in config.items()},
    }


def is_run(folder: pathlib.Path) -> bool:
    """Whether a folder's config.json is a run's."""
    try:
        return "train.steps" in _json(folder / "config.json")
    except (OSError, ValueError):  # of whatever else
        return False


def _current(results: dict[str, Any], metrics: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A run's results, if they are of its best parameters: it may have gone on after them."""
    if not isinstance(results.get("test", {}), dict):  # of a custom `test`
        del results["test"]
    losses = [entry.get("loss", math.nan) for entry in metrics if entry["split"] == "validation"]
    best = min(filter(math.isfinite, losses), default=None)
    measured = (results.get("validation") or {}).get("loss")
    return results if best in (None, measured) else {}


def _facts(data: dict[str, Any]) -> list[tuple[str, str]]:
    """What is known of the data and the machine, each with its name."""

    def counts(of: dict[str, int]) -> str:
        return ", ".join(f"{split} {count:,}" for split, count in of.items())

    def time(seconds: float) -> str:
        minutes, seconds = divmod(round(seconds), 60)
        return f"{minutes // 60} h {minutes % 60:02} min {seconds:02} s"

    shown = {
        "data": ("Data set used", str),
        "counts": ("Images", counts),
        "image_shape": ("Image", lambda of: "{1} x {0} pixels, {2} channel(s)".format(*of)),
        "parameters": ("Parameters", "{:,}".format),
        "device": ("Device", str),
        "seconds": ("Time of the run", time),
    }
    return [(title, say(data[name])) for name, (title, say) in shown.items() if name in data]


def _numbers(results: dict[str, Any], metrics: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A table: `columns`, and `rows` of a name, a unit and a text for each column."""
    columns: dict[str, dict[str, Any]] = {}
    evaluated = [entry for entry in metrics if entry["split"] == "validation"]
    if results.get("validation"):
        columns["Validation, best"] = results["validation"]
    elif evaluated:
        columns[f"Validation, step {evaluated[-1]['step']:,}"] = evaluated[-1]
    if "test" in results:
        columns["Test"] = results["test"] | {
            f"{prefix}{name}": value
            for name, value in results.get("discretized", {}).items()
            for prefix in ["bits_per_dimension_" if name == "standard_error" else ""]
        }
    rows = []
    for name, (title, unit) in _QUANTITIES.items():
        cells = [_with_error(name, values) for values in columns.values()]
        if name == "importance_weighted" and "importance_samples" in columns.get("Test", {}):
            test = columns["Test"]
            title += f", {test['importance_samples']:,} samples"
            if test.get("importance_images", test["images"]) < test["images"]:
                title += f", first {test['importance_images']:,} images"
        if any(cells):
            rows.append([title, unit, *cells])
    for label, loss in results.get("test", {}).get("loss_by_class", {}).items():
        said = _with_error("loss", {"loss": loss})
        rows.append([f"Loss of class {label}", "nats", *[""] * (len(columns) - 1), said])
    return {"columns": list(columns), "rows": rows}


def _with_error(name: str, values: dict[str, Any]) -> str:
    """A value with its standard error, to two digits of the latter: `98.27 ± 1.24`."""
    if name not in values:
        return ""
    value = values[name]
    if isinstance(value, int):
        return f"{value:,}"
    if value is None or not math.isfinite(value):
        return "not finite"
    plain = "error" if "error" in values else "loss"
    error = values.get("standard_error" if name == plain else f"{name}_standard_error")
    if not error or not math.isfinite(error):
        return f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:.4g}"
    digits = max(0, 1 - math.floor(math.log10(error)))
    return f"{value:,.{digits}f} ± {error:.{digits}f}"


def _curves(metrics: Sequence[dict[str, Any]], split: str) -> dict[str, list[Any]]:
    """Columns of the entries of a split; of many entries some, spread evenly, with the last."""
    entries = [entry for entry in metrics if entry["split"] == split]
    every = math.ceil(len(entries) / _MOST_POINTS) or 1
    entries = entries[::-1][::every][::-1]
    columns = {"step": [entry["step"] for entry in entries]}
    names = dict.fromkeys(name for entry in entries for name in entry)
    for name in [name for name in names if name not in _NO_CURVE]:
        values = [entry.get(name) for entry in entries]
        if any(value is not None for value in values):
            columns[name] = [value and float(f"{value:.6g}") for value in values]
    return columns


def _pictures(folder: pathlib.Path, without: Collection[str]) -> list[dict[str, Any]]:
    pictures = []
    for name, (title, description) in _PICTURES.items():
        if name in without:
            continue
        try:
            with Image.open(folder / name) as image:
                width, height = image.size
        except (FileNotFoundError, UnidentifiedImageError):  # none, or it is being written
            continue
        content = base64.b64encode((folder / name).read_bytes()).decode()
        pictures.append(
            {
                "title": title,
                "description": description,
                "source": f"data:image/png;base64,{content}",
                "width": width,
                "height": height,
            }
        )
    return pictures


def _json(path: pathlib.Path) -> dict[str, Any]:
    return read_json(path) if path.exists() else {}
