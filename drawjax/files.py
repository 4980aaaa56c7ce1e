"""Files that appear whole or not at all."""

import os
import pathlib
import secrets

__all__ = ["remove_drafts", "write_atomically"]

_DRAFT = ".drawjax-{}.tmp"


def write_atomically(path: str | os.PathLike, content: str | bytes) -> None:
    """Writes a file so that a reader, and a process that was killed, has the old or the new.

    Any number of processes may write one path at once: the last one's content stays.

    Raises:
      OSError: if it cannot be written.
    """
    path = pathlib.Path(path)
    draft = path.with_name(_DRAFT.format(secrets.token_hex(8)))
    try:
        with draft.open("xb") as file:  # with the mode that the umask says
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())  # else a power cut may leave the new name with nothing in it
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def remove_drafts(folder: pathlib.Path) -> None:
    """Removes what killed processes left of unfinished files in a folder."""
    for draft in folder.glob(_DRAFT.format("*")):
        draft.unlink(missing_ok=True)
