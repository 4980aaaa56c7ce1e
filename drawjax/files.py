"""Files that appear whole or not at all, JSON that every reader takes, and a run's read back."""

import contextlib
import json
import math
import os
import pathlib
import secrets
from collections.abc import Iterator, Mapping
from typing import Any

_DRAFT = ".drawjax-{}.tmp"


def write_atomically(path: str | os.PathLike, content: str | bytes) -> None:
    """Writes a file so that a reader, and a process that was killed, has the old or the new.

    Any number of processes may write one path at once: the last one's content stays.

    Raises:
      OSError: if it cannot be written.
    """
    write_together({pathlib.Path(path): content})


def write_together(files: Mapping[pathlib.Path, str | bytes]) -> None:
    """As `write_atomically`, with all files complete before the first one, in order, is replaced.

    Raises:
      OSError: if one cannot be written; unless it is the replacing that fails, all are as before.
    """
    drafts = {path: path.with_name(_DRAFT.format(secrets.token_hex(8))) for path in files}
    try:
        for path, draft in drafts.items():
            content = files[path]
            with _named(path), draft.open("xb") as file:  # with the mode that the umask says
                file.write(content.encode() if isinstance(content, str) else content)
                file.flush()
                os.fsync(file.fileno())  # else a power cut may leave a new name with nothing in it
        for path, draft in drafts.items():
            with _named(path):
                draft.replace(path)
    except BaseException:
        for draft in drafts.values():
            draft.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def _named(path: pathlib.Path) -> Iterator[None]:
    """Errors name the file that was meant, and not its draft."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def remove_drafts(folder: pathlib.Path) -> None:
    """Removes what killed processes left of unfinished files in a folder."""
    for draft in folder.glob(_DRAFT.format("*")):
        draft.unlink(missing_ok=True)


def to_json(value: Any, *, indent: int | None = None) -> str:
    """JSON of nested values, NumPy's and JAX's too; what is not finite becomes null."""
    return json.dumps(_finite(value), indent=indent, allow_nan=False)


def read_back(value: Any) -> Any:
    """What a reader of `to_json(value)` has: lists for tuples, None for what is not finite."""
    return json.loads(to_json(value))


def _finite(value: Any) -> Any:
    if hasattr(value, "tolist"):  # an array or a number of NumPy or JAX
        value = value.tolist()
    if isinstance(value, Mapping):
        return {name: _finite(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_json(path: str | os.PathLike) -> dict[str, Any]:
    """A file's JSON object.

    Raises:
      OSError: if it cannot be opened.
      ValueError: if it holds something else; the message names it.
    """
    try:
        fields = json.loads(pathlib.Path(path).read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    if not isinstance(fields, dict):
        raise ValueError(f"{path} must hold an object, got a {type(fields).__name__}")
    return fields


def read_metrics(workdir: str | pathlib.Path) -> list[dict[str, Any]]:
    """The entries of a run's `metrics.jsonl`, oldest first; torn lines are left out."""
    path = pathlib.Path(workdir) / "metrics.jsonl"
    entries = []
    if path.exists():
        for line in path.read_text(errors="replace").splitlines():
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:
                continue
            if isinstance(entry, dict) and isinstance(entry.get("step"), int) and "split" in entry:
                entries.append(not_null(entry))
    return entries


def not_null(values: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers as they were before `to_json`, which writes null for what is not finite."""
    return {name: math.nan if value is None else value for name, value in values.items()}
