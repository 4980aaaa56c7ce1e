"""Downloads and prepares data sets: `python -m drawjax.data.prepare mnist binarized_mnist`.

They are written in the array_record format, which is read without TensorFlow. TFDS's own builders
need TensorFlow for this one step: `pip install 'drawjax[prepare]'`. `svhn_numbers` and folders of
pictures of your own (`NAME --from-folder FOLDER`, see `drawjax.data.picture_folder`) do not.
"""

import dataclasses
import importlib.util
import os
import pathlib
import sys

import tyro

from drawjax import cli
from drawjax.config import Checked, data_dir, nearest, option
from drawjax.data.sources import OWN_SETS, set_name

__all__ = ["PrepareConfig", "prepare", "prepare_all"]


def prepare(name: str, folder: str, manual_dir: str | None = None) -> str:
    """Downloads a set and writes it; a set that is already there is left alone.

    Args:
      name: TFDS name, e.g. `mnist` or `emnist/letters`, or `svhn_numbers` (also as `svhn`).
      folder: where prepared sets go.
      manual_dir: where archives lie that were downloaded by hand.

    Returns:
      The folder of the prepared set. TFDS writes beside it and renames it when whole, so a
      preparation that fails leaves nothing half-written there.

    Raises:
      ValueError: if TFDS knows no such set; the message names the nearest. Also if it cannot
        prepare this version of it, or what was downloaded is broken.
      FileNotFoundError: if `manual_dir`, or an archive in it, is not there.
      ModuleNotFoundError: if TensorFlow, which TFDS's builders need, is not installed.
      OSError: if the download fails.
    """
    folder = os.path.expanduser(folder)
    manual_dir = manual_dir and os.path.expanduser(manual_dir)
    if manual_dir is not None and not pathlib.Path(manual_dir).is_dir():
        raise FileNotFoundError(f"there is no folder {manual_dir}")
    name = set_name(name)
    plain, _, version = name.partition(":")
    if plain in OWN_SETS:
        from drawjax.data.svhn import prepare_svhn
        from drawjax.data.writing import VERSION

        if version not in ("", VERSION):
            raise ValueError(f"{plain} is prepared as version {VERSION}, got {version}")
        return prepare_svhn(folder, manual_dir)
    import tensorflow_datasets as tfds

    from drawjax.data.writing import write

    plain, known = plain.split("/")[0], tfds.list_builders(with_community_datasets=False)
    if plain not in known:
        near = nearest(plain, [*known, *OWN_SETS])
        raise ValueError(f"TFDS has no set called {plain!r}{near}")
    if importlib.util.find_spec("tensorflow") is None:
        raise ModuleNotFoundError(
            f"preparing {name} needs TensorFlow, for this step only: pip install 'drawjax[prepare]'"
        )
    try:
        return write(tfds.builder(name, data_dir=folder), manual_dir)
    except (ValueError, OSError, ModuleNotFoundError):
        raise
    except Exception as error:  # a builder may raise any: of a version, a checksum, an archive
        reason = " ".join(str(error).split())
        raise ValueError(f"TFDS cannot prepare {name}: {reason or type(error).__name__}") from error


@dataclasses.dataclass(frozen=True)
class PrepareConfig(Checked):
    """What to prepare, and where."""

    _prefix = "--"

    names: tyro.conf.Positional[tuple[str, ...]] = tyro.MISSING
    """TFDS names, e.g. mnist cifar10, or svhn_numbers."""
    data_dir: str | None = option(None, path=True)
    """Where to; None: $TFDS_DATA_DIR, else ~/tensorflow_datasets."""
    manual_dir: str | None = option(None, path=True)
    """Folder of archives downloaded by hand."""
    from_folder: str | None = option(None, path=True)
    """Make the set NAME of the pictures in this folder."""
    size: int | None = option(None, low=1)
    """With --from-folder: the middle square of each picture, so many pixels wide."""

    def __post_init__(self):
        super().__post_init__()
        if self.names == ():
            raise ValueError("name a data set, or several")
        if self.from_folder is not None and (len(self.names) != 1 or self.manual_dir):
            raise ValueError("--from-folder takes one NAME, and no --manual-dir")
        if self.size is not None and not self.from_folder:
            raise ValueError("--size goes with --from-folder")


DESCRIPTION = "Downloads and prepares data sets of images."


def prepare_all(config: PrepareConfig) -> int:
    """Prepares what the config names; says of each where it is, or why not. 1 if one failed."""
    folder = str(data_dir(config.data_dir))
    failed = False
    for name in config.names:
        try:
            if config.from_folder is not None:
                from drawjax.data.picture_folder import write_folder  # imports TFDS, which is slow

                where = write_folder(name, config.from_folder, folder, config.size)
            else:
                where = prepare(name, folder, config.manual_dir)
        except (ValueError, ModuleNotFoundError, OSError) as error:
            print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
            failed = True
        else:
            print(f"{name}: {where}")
    return int(failed)


if __name__ == "__main__":
    cli.command(prepare_all, PrepareConfig(), description=DESCRIPTION)
