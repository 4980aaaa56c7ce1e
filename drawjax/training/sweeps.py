"""Sweeps: one command over a grid of configs, a folder a point, a table and a plot at the end.

```
WORKDIR/learning_rate=0.001,seed=0/   a run's folder, as of that point alone
WORKDIR/sweep.csv                     a line a point: its values, its results
WORKDIR/sweep.png                     the validation loss of all points over steps
```
"""

import csv
import dataclasses
import hashlib
import io
import itertools
import json
import logging
import math
import pathlib
import sys
import urllib.parse
from collections.abc import Callable, Sequence
from typing import Any

import tyro

from drawjax import cli, figures
from drawjax.config import TrainConfig, flatten, nearest
from drawjax.files import write_atomically
from drawjax.training import hosts
from drawjax.training.errors import Diverged
from drawjax.training.metrics import read_metrics
from drawjax.training.step import check_devices

__all__ = ["Point", "expand", "grouped", "pick", "run_groups", "table"]

_log = logging.getLogger(__name__)

# Fields of TrainConfig that reach the training step as traced numbers (`step.Hyperparams`).
_TRACED = (
    "learning_rate", "warmup_steps", "decay_fraction", "clip_norm", "weight_decay", "ema_decay",
    "seed",
)  # fmt: skip

_LONGEST = 200  # of the 255 bytes that file systems take

_SHOWN = ("validation", "test")  # parts of results.json that the printed table has


@dataclasses.dataclass(frozen=True)
class Point:
    """One config of a sweep."""

    index: int
    config: Any
    values: dict[str, Any]  # of the fields that are swept


def expand(config: Any, sweeps: Sequence[str]) -> list[Point]:
    """The grid of configs that `FIELD=VALUE,VALUE` items span; the last varies fastest.

    Args:
      config: a nested frozen dataclass with a field `workdir`.
      sweeps: the items; none gives the config itself.

    Returns:
      Its points, each with a folder of its own inside the config's.

    Raises:
      ValueError: if a field is unknown or named twice, a list is empty, holds a value twice, or
        holds one that the field cannot take.
    """
    axes: dict[str, list[str]] = {}
    known = [name for name in flatten(config) if name != "workdir"]
    for item in sweeps:
        name, equals, listed = item.partition("=")
        name = name.strip().removeprefix("--").replace("-", "_")
        if name not in known:
            hint = nearest(name, known)
            raise ValueError(f"--sweep over an unknown field, {name or item!r}{hint}")
        texts = [text.strip() for text in listed.split(",")]
        if not equals or not all(texts):
            raise ValueError(f"--sweep {name} needs values: {name}=A,B,...; got {item!r}")
        if name in axes:
            raise ValueError(f"--sweep names {name} twice; list all its values in one")
        axes[name] = texts
    for name, texts in axes.items():
        values = [flatten(_with(config, {name: text}))[name] for text in texts]
        if len(set(map(repr, values))) < len(values):
            raise ValueError(f"--sweep {name} holds a value twice: {','.join(texts)}")
    points = []
    for index, texts in enumerate(itertools.product(*axes.values())):
        point = _with(config, dict(zip(axes, texts, strict=True)))
        values = {name: flatten(point)[name] for name in axes}
        if axes:
            folder = pathlib.Path(config.workdir) / _folder(values)
            point = dataclasses.replace(point, workdir=str(folder))
        points.append(Point(index, point, values))
    return points


def pick(points: Sequence[Point], index: int) -> Point:
    """One point of a sweep.

    Raises:
      ValueError: if there are not so many.
    """
    if not 0 <= index < len(points):
        raise ValueError(f"--sweep-index must lie in 0..{len(points) - 1}, got {index}")
    return points[index]


def grouped(points: Sequence[Point], most: int | None = None) -> list[list[Point]]:
    """Points that can be trained side by side: they differ in traced numbers alone.

    Args:
      points: of one sweep.
      most: the largest group wanted; None: no limit.

    Raises:
      ValueError: if `most` is less than one.
    """
    if most is not None and most < 1:
        raise ValueError(f"--sweep-parallel must be at least 1, got {most}")
    groups: dict[str, list[Point]] = {}
    for point in points:
        fields = flatten(point.config)
        traced = {f"train.{name}" for name in _TRACED} | {"workdir"}
        if not isinstance(getattr(point.config, "train", None), TrainConfig):
            traced = set()
        rest = {name: value for name, value in fields.items() if name not in traced}
        groups.setdefault(json.dumps(rest, default=str), []).append(point)
    chunks = []
    for group in groups.values():
        size = most or len(group)
        chunks += [group[start : start + size] for start in range(0, len(group), size)]
    return chunks


def run_groups(
    config: Any,
    sweeps: Sequence[str],
    groups: Sequence[Sequence[Point]],
    action: Callable[[Sequence[Any]], Sequence[Any]],
) -> None:
    """Runs groups of points one after another, then compares all points of the sweep.

    Args:
      config: what the sweep departs from.
      sweeps: its items, `FIELD=VALUE,VALUE`.
      groups: what to run of it.
      action: runs configs that can be trained side by side; gives each a result, or `Diverged`.

    Raises:
      ValueError: before any runs, if one cannot be spread over the devices.
      Diverged: once all have run, if one or more diverged.
    """
    trained = isinstance(getattr(config, "train", None), TrainConfig)
    if trained and getattr(config, "mode", "train") == "train":
        for group in groups:
            check_devices([point.config.train for point in group])
    points = expand(config, sweeps)
    diverged = {}
    for number, group in enumerate(groups, start=1):
        names = ", ".join(_folder(point.values) for point in group)
        _log.info("sweep, part %d of %d: %s", number, len(groups), names)
        try:
            outcomes = action([point.config for point in group])
        except Diverged as error:
            outcomes = [error]
        for point, outcome in zip(group, outcomes, strict=True):
            if isinstance(outcome, Diverged):
                diverged[point.index] = outcome
    if hosts.is_first():
        _compare(pathlib.Path(config.workdir), points, diverged)
    if diverged:
        names = ", ".join(_folder(points[index].values) for index in diverged)
        raise Diverged(f"{len(diverged)} of {len(points)} points diverged: {names}")


def table(points: Sequence[Point]) -> list[dict[str, Any]]:
    """A row a point: index, folder, what was swept, and the numbers of its results.json.

    A point that has none yet has only the first of these.
    """
    rows = []
    for point in points:
        row = {"index": point.index, "folder": point.config.workdir, **point.values}
        path = pathlib.Path(point.config.workdir) / "results.json"
        if path.exists():
            row |= _numbers(json.loads(path.read_text()))
        rows.append(row)
    return rows


def _compare(workdir: pathlib.Path, points: Sequence[Point], diverged: dict[int, Any]) -> None:
    rows = table(points)
    for row in rows:
        if row["index"] in diverged:
            row["diverged"] = True
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="")
    writer.writeheader()
    writer.writerows(rows)
    workdir.mkdir(parents=True, exist_ok=True)
    write_atomically(workdir / "sweep.csv", text.getvalue())  # jobs of an array may end together
    shown = [
        name
        for name in columns
        if name in ("index", "diverged", *points[0].values)
        or (
            name.partition(".")[0] in _SHOWN
            and not name.endswith(("images", "samples", "standard_error"))
        )
    ]
    sys.stdout.write(_aligned([shown, *([_short(row.get(n, "")) for n in shown] for row in rows)]))
    figures.save_plot(workdir / "sweep.png", lambda: _plot(points))
    _log.info("sweep: %s, %s", workdir / "sweep.csv", workdir / "sweep.png")
    _log.info("`python -m drawjax.report %s` puts its points into one page", workdir)


def _plot(points: Sequence[Point]) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    lowest, highest = [], []
    for point in points:
        entries = [e for e in read_metrics(point.config.workdir) if e["split"] == "validation"]
        # Of a point that diverged the last losses are not finite, and no axis reaches that far.
        curve = [(e["step"], e["loss"]) for e in entries if math.isfinite(e["loss"])]
        if curve:
            steps, losses = zip(*curve, strict=True)
            axes.plot(steps, losses, marker=".", label=_folder(point.values))
            lowest.append(min(losses))
            highest.append(losses[min(1, len(losses) - 1)])
    if lowest:  # the first evaluation, of a model that knows nothing, is not worth the space
        room = 0.1 * (max(highest) - min(lowest)) or 1.0
        axes.set_ylim(min(lowest) - room, max(highest) + room)
        axes.legend(fontsize="small")
    axes.set_xlabel("training steps")
    axes.set_ylabel("validation loss")
    return figure


def _with(config: Any, texts: dict[str, str]) -> Any:
    """The config with some fields read from text, as flags would be."""
    arguments = [part for name, text in texts.items() for part in (f"--{name}", text)]
    try:
        return cli.read(config, arguments, markers=(tyro.conf.FlagConversionOff,))
    except ValueError as error:
        listed = ", ".join(f"{name}={text}" for name, text in texts.items())
        raise ValueError(f"--sweep {listed}: {error}") from None


def _folder(values: dict[str, Any]) -> str:
    """A name for a point's folder that no other point has.

    Short names of fields where they are different, and a digest in place of an end that no file
    system would take.
    """
    short = [name.rpartition(".")[2] for name in values]
    names = short if len(set(short)) == len(short) else list(values)
    parts = (f"{name}={value}" for name, value in zip(names, values.values(), strict=True))
    name = urllib.parse.quote(",".join(parts), safe="=,.+-:()'<>")
    if len(name) <= _LONGEST:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:12]
    return f"{name[: _LONGEST - 13]}~{digest}"


def _numbers(results: Any, prefix: str = "") -> dict[str, float]:
    """The numbers in nested dicts, by dotted names."""
    flat = {}
    for name, value in results.items():
        if isinstance(value, dict):
            flat |= _numbers(value, f"{prefix}{name}.")
        elif isinstance(value, int | float):
            flat[prefix + name] = value
    return flat


def _short(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(c.rjust(w) for c, w in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines) + "\n"
