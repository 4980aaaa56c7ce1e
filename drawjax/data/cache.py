"""Arrays cached in a file, with a stamp of their inputs; decoded image sets are cached so.

70,000 PNG files take seconds to decode, one array does not take one. A file for each part of a set
and size lies in ~/.cache/drawjax/sets (or under DRAWJAX_CACHE_DIR; empty: nowhere). Its stamp is of
the names, sizes and times of the files that it was made of, and it is made anew when these differ.
"""

import contextlib
import dataclasses
import hashlib
import io
import os
import pathlib
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from drawjax.data.pipeline import ArraySource, Source
from drawjax.files import write_atomically

_MIN_IMAGES = 2_000  # fewer are decoded as fast as a file is opened
_VERSION = 2  # of the cached form; raise it when this package decodes differently


@dataclasses.dataclass(frozen=True)
class CachedArrays:
    """Arrays in a file."""

    path: pathlib.Path
    stamp: str  #: of what the arrays are computed from; a file with another one is not read

    def read(self) -> dict[str, np.ndarray]:
        """The arrays by name; none if the stamp differs or the file cannot be read."""
        with contextlib.suppress(OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            with self.path.open("rb") as file, np.load(file, allow_pickle=False) as found:
                if str(found["of"]) == self.stamp:
                    return {name: found[name] for name in found.files if name != "of"}
        return {}

    def write(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Replaces the file; whoever reads meanwhile sees the old or the new."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        content = io.BytesIO()
        saved: dict[str, Any] = {"of": np.array(self.stamp), **arrays}
        np.savez(content, **saved)
        write_atomically(self.path, content.getvalue())


def cached(
    part: Source,
    folder: pathlib.Path,
    what: tuple[Any, ...],
    decode: Callable[[Source], ArraySource],
) -> ArraySource:
    """`decode(part)`, or the cached result of an earlier call.

    `what` tells the part, and the form in which it is decoded, from others of the set's folder.
    """
    named = os.path.expanduser(os.environ.get("DRAWJAX_CACHE_DIR", "~/.cache/drawjax"))
    homeless = named.startswith("~")  # as expanduser leaves it
    if not named or homeless or len(part) < _MIN_IMAGES:
        return decode(part)
    named = os.path.abspath(named)
    key = hashlib.sha256(repr((_VERSION, str(folder.resolve()), what)).encode()).hexdigest()[:20]
    arrays = CachedArrays(pathlib.Path(named) / "sets" / f"{key}.npz", _stamp(folder))
    if known := arrays.read():
        return ArraySource(known["images"], known["labels"])
    source = decode(part)
    with contextlib.suppress(OSError):  # a full disk, or one that may not be written to
        arrays.write({"images": source.images, "labels": source.labels})
    return source


def _stamp(folder: pathlib.Path) -> str:
    files = sorted(
        (path.name, path.stat().st_size, path.stat().st_mtime_ns)
        for path in folder.iterdir()
        if path.is_file()
    )
    return hashlib.sha256(repr(files).encode()).hexdigest()
