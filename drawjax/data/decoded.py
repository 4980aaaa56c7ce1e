"""Decoded images kept in the user's cache: 70,000 PNG files take seconds, one array does not.

A file for each part of a set and size, in ~/.cache/drawjax/sets (or under DRAWJAX_CACHE_DIR; empty:
nowhere). It knows the names, sizes and times of the files that it was made of, and is made anew
when these differ.
"""

import contextlib
import hashlib
import os
import pathlib
from collections.abc import Callable
from typing import Any

from drawjax.data.image_set import ArraySource, Source
from drawjax.kept import Kept

__all__ = ["cached"]

_FEW = 2_000  # images are decoded as fast as a file is opened
_FORM = 1  # of what is kept; another number when this package decodes otherwise


def cached(
    part: Source,
    folder: pathlib.Path,
    what: tuple[Any, ...],
    decode: Callable[[Source], ArraySource],
) -> ArraySource:
    """`decode(part)`, or what it gave before.

    Args:
      part: a part of a prepared set.
      folder: where the set's files are.
      what: tells the part, and the form in which it is decoded, from others of this folder.
      decode: reads a part into memory.
    """
    cache = _folder()
    if cache is None or len(part) < _FEW:
        return decode(part)
    key = hashlib.sha256(repr((_FORM, str(folder.resolve()), what)).encode()).hexdigest()[:20]
    kept = Kept(cache / f"{key}.npz", _stamp(folder))
    known = kept.read()
    if known:
        return ArraySource(known["images"], known["labels"])
    source = decode(part)
    with contextlib.suppress(OSError):  # a full disk, or one that may not be written to
        kept.write({"images": source.images, "labels": source.labels})
    return source


def _folder() -> pathlib.Path | None:
    named = os.environ.get("DRAWJAX_CACHE_DIR", os.path.expanduser("~/.cache/drawjax"))
    return pathlib.Path(named) / "sets" if os.path.isabs(named) else None


def _stamp(folder: pathlib.Path) -> str:
    """Of the files of a set: another one when one of them changes."""
    files = sorted(
        (path.name, path.stat().st_size, path.stat().st_mtime_ns)
        for path in folder.iterdir()
        if path.is_file()
    )
    return hashlib.sha256(repr(files).encode()).hexdigest()
