"""Sweeps: one command over a grid of configs, a folder a point, a table and a plot at the end.

```
WORKDIR/learning_rate=0.001,seed=0/   a run's folder, as of that point alone
WORKDIR/sweep.csv                     a line per point: its values, its results
WORKDIR/sweep.png                     the validation loss of all points over steps
```
"""

import csv
import dataclasses
import hashlib
import io
import itertools
import logging
import math
import pathlib
import urllib.parse
from collections.abc import Callable, Sequence
from typing import Any

import jax
import tyro
from flax.traverse_util import flatten_dict

from drawjax import cli, figures
from drawjax.config import flatten, nearest
from drawjax.files import read_json, read_metrics, write_atomically
from drawjax.training import hosts
from drawjax.training.checkpoints import steps
from drawjax.training.errors import Diverged, RunError
from drawjax.training.step import Hyperparams, make_mesh

_log = logging.getLogger(__name__)

# What the training step is traced with, so that points of one program may differ in it; the number
# of steps is the loop's too.
_TRACED = {field.name for field in dataclasses.fields(Hyperparams)} - {"steps", "decay_steps"}

_LONGEST = 200  # of the 255 bytes that file systems take


@dataclasses.dataclass(frozen=True)
class Point:
    """One config of a sweep."""

    index: int
    config: Any
    values: dict[str, Any]  # of the fields that are swept


def expand(config: Any, sweeps: Sequence[str]) -> list[Point]:
    """The grid of configs that `FIELD=VALUE,VALUE` items span; the last varies fastest.

    Args:
      config: a nested frozen dataclass with fields `workdir` and, a `TrainConfig`, `train`.
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
        name = cli.swept_field(item)
        _, equals, listed = item.partition("=")
        if name not in known:
            hint = nearest(name, known)
            raise ValueError(f"--sweep over an unknown field, {name or item!r}{hint}")
        texts = [text.strip() for text in listed.split(",")]
        if not equals or not all(texts):
            raise ValueError(f"--sweep {name} needs values: {name}=A,B,...; got {item!r}")
        if name in axes:
            raise ValueError(f"--sweep names {name} twice; list all its values in one")
        axes[name] = texts
    points = []
    for index, texts in enumerate(itertools.product(*axes.values())):
        point = _with(config, dict(zip(axes, texts, strict=True)))
        values = {name: flatten(point)[name] for name in axes}
        folder = pathlib.Path(config.workdir) / _folder(values)
        points.append(Point(index, dataclasses.replace(point, workdir=str(folder)), values))
    if len({repr(point.values) for point in points}) < len(points):
        raise ValueError(f"--sweep holds a value twice: {' '.join(sweeps)}")
    return points


def grouped(
    points: Sequence[Point], *, index: int | None = None, most: int | None = None
) -> list[list[Point]]:
    """Points that can be trained side by side: they differ in traced numbers alone.

    Those that have checkpoints stand apart from those that have none, and so do finished ones: they
    would all begin where the last one does. Those that are evaluated or drawn are groups of one,
    so that one that has no parameters yet stops none of the others.

    Args:
      points: of one sweep.
      index: of the one point that is wanted; None: all are.
      most: the largest group wanted; None: no limit.

    Raises:
      ValueError: if there are not so many points, or `most` is given and none is trained.
    """
    mode = _mode(points[0])
    if most is not None and mode != "train":
        raise ValueError(f"--sweep-parallel does nothing with --mode {mode}; leave it out")
    if index is not None:
        if not 0 <= index < len(points):
            raise ValueError(f"--sweep-index must lie in 0..{len(points) - 1}, got {index}")
        return [[points[index]]]
    if mode != "train":
        return [[point] for point in points]
    free = {f"train.{name}" for name in _TRACED | {"decay_fraction"}} | {"workdir"}
    groups: dict[str, list[Point]] = {}
    for point in points:
        rest = {name: value for name, value in flatten(point.config).items() if name not in free}
        taken = steps(pathlib.Path(point.config.workdir) / "checkpoints")
        key = repr((rest, bool(taken), point.config.train.steps in taken))
        groups.setdefault(key, []).append(point)
    return [
        group[start : start + (most or len(group))]
        for group in groups.values()
        for start in range(0, len(group), most or len(group))
    ]


def run_groups(
    points: Sequence[Point],
    groups: Sequence[Sequence[Point]],
    action: Callable[[Sequence[Any]], Sequence[Any]],
) -> None:
    """Runs groups of points one after another, then compares all points of the sweep.

    The action runs configs that can be trained side by side, and gives each a result or `Diverged`.

    Raises:
      ValueError: before any runs, if one cannot be spread over the devices.
      Diverged: once all have run, if one or more diverged.
      RunError: once all others have run, if one or more could not; at once with several processes.
    """
    if _mode(points[0]) == "train":
        for group in groups:
            make_mesh(group[0].config.train.batch_size, points=len(group))
    diverged, failed = [], []
    for number, group in enumerate(groups, start=1):
        names = _folders(group)
        _log.info("sweep, part %d of %d: %s", number, len(groups), names)
        try:
            outcomes = action([point.config for point in group])
        except (RunError, ValueError, OSError) as error:  # the others have nothing to do with it
            # What fails on one of several processes alone leaves the others waiting for it.
            if len(groups) == 1 or jax.process_count() > 1 or isinstance(error, BrokenPipeError):
                raise
            _log.error("%s: %s", names, error)
            failed += group
            continue
        diverged += [
            point
            for point, outcome in zip(group, outcomes, strict=True)
            if isinstance(outcome, Diverged)
        ]
    if hosts.is_first():
        _compare(points, diverged)
    said = [
        f"{len(those)} of {len(points)} points {how}: {_folders(those)}"
        for how, those in (("diverged", diverged), ("could not be run", failed))
        if those
    ]
    if said:
        raise (Diverged if diverged else RunError)("; ".join(said))


def table(points: Sequence[Point]) -> list[dict[str, Any]]:
    """A row per point: index, folder, what was swept, and the numbers of its results.json.

    A point that has none yet, or a torn one, has only the first of these; one that diverged, in
    this process or in another job of an array, has `diverged`.
    """
    rows = []
    for point in points:
        row = {"index": point.index, "folder": point.config.workdir, **point.values}
        notes = _read(point, "data.json").get("notes", ())
        if any(note.startswith("Diverged:") for note in notes):
            row["diverged"] = True
        results = flatten_dict(_read(point, "results.json"), sep=".")
        rows.append(row | {n: v for n, v in results.items() if isinstance(v, int | float)})
    return rows


def _mode(point: Point) -> str:
    return getattr(point.config, "mode", "train")


def _read(point: Point, name: str) -> dict[str, Any]:
    """A file of a point's; nothing if there is none, or a torn one."""
    path = pathlib.Path(point.config.workdir) / name
    try:
        return read_json(path) if path.exists() else {}
    except ValueError as error:
        _log.warning("%s", error)
        return {}


def _compare(points: Sequence[Point], diverged: Sequence[Point]) -> None:
    rows = table(points)
    for point in diverged:
        rows[point.index]["diverged"] = True
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="")
    writer.writeheader()
    writer.writerows(rows)
    workdir = pathlib.Path(points[0].config.workdir).parent
    workdir.mkdir(parents=True, exist_ok=True)
    path = workdir / "sweep.csv"
    before = csv.DictReader(path.read_text().splitlines() if path.exists() else ())
    ours = {pathlib.Path(row["folder"]).name for row in rows}  # the workdir may have moved
    if others := {pathlib.Path(row.get("folder", "")).name for row in before} - ours:
        _log.info("the table leaves out %d points of another sweep in %s", len(others), workdir)
    write_atomically(path, text.getvalue())  # jobs of an array may end together
    shown = ["index", *points[0].values, *(["diverged"] if "diverged" in columns else [])]
    shown += [
        name
        for name in columns
        if name.startswith(("validation.", "test."))
        and not name.endswith(("images", "samples", "standard_error"))
        and ".loss_by_class." not in name
    ]
    cells = ([row.get(name, "") for name in shown] for row in rows)
    short = ([f"{c:.6g}" if isinstance(c, float) else str(c) for c in line] for line in cells)
    print(cli.aligned([shown, *short], str.rjust))
    figures.save_plot(workdir / "sweep.png", lambda: _plot(points))
    _log.info("sweep: %s, %s", path, workdir / "sweep.png")
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


def _folders(points: Sequence[Point]) -> str:
    return ", ".join(_folder(point.values) for point in points)


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
