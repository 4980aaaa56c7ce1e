"""Arrays kept in a file, with what they are of: taken again only for the same."""

import contextlib
import dataclasses
import os
import pathlib
import tempfile
import zipfile
from collections.abc import Mapping

import numpy as np

__all__ = ["Kept"]


@dataclasses.dataclass(frozen=True)
class Kept:
    """Arrays in a file.

    Args:
      path: of the file.
      of: tells what they are of; arrays of something else are not taken.
    """

    path: pathlib.Path
    of: str

    def read(self) -> dict[str, np.ndarray]:
        """The arrays by name; none, if they are of something else or cannot be read."""
        with contextlib.suppress(OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            with self.path.open("rb") as file, np.load(file, allow_pickle=False) as found:
                if str(found["of"]) == self.of:
                    return {name: found[name] for name in found.files if name != "of"}
        return {}

    def write(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Replaces what is kept; whoever reads meanwhile sees the old or the new.

        Raises:
          OSError: if the file cannot be written.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            dir=self.path.parent, suffix=".tmp", delete=False
        ) as draft:
            try:
                np.savez(draft, allow_pickle=False, of=np.array(self.of), **arrays)
                draft.close()
                os.replace(draft.name, self.path)
            except BaseException:
                os.unlink(draft.name)
                raise
