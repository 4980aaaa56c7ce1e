"""Downloads and prepares image sets: `python -m drawjax.data.prepare mnist binarized_mnist`.

Sets are written in the array_record format, which is read without TensorFlow. TFDS's own builders
need TensorFlow for this one step: `pip install 'drawjax[prepare]'`.
"""

import argparse
import difflib
import importlib.util
import logging
import sys
from collections.abc import Sequence

from drawjax.data.sources import DataConfig, data_dir

__all__ = ["main", "prepare"]


def prepare(name: str, folder: str, manual_dir: str | None = None) -> str:
    """Downloads a set and writes it; a set that is already there is left alone.

    Args:
      name: TFDS name, e.g. `mnist` or `emnist/letters`.
      folder: where prepared sets go.
      manual_dir: where archives lie that were downloaded by hand.

    Returns:
      The folder of the prepared set. TFDS writes beside it and renames it when whole, so a
      preparation that fails leaves nothing half-written there.

    Raises:
      ValueError: if TFDS knows no such set; the message names the nearest.
      ModuleNotFoundError: if TensorFlow, which TFDS's builders need, is not installed.
    """
    if importlib.util.find_spec("tensorflow") is None:
        raise ModuleNotFoundError(
            f"preparing {name} needs TensorFlow, for this step only: "
            "pip install 'drawjax[prepare]'"
        )
    import tensorflow_datasets as tfds

    known = tfds.list_builders()
    plain = name.split(":")[0].split("/")[0]
    if plain not in known:
        near = difflib.get_close_matches(plain, known, n=1)
        raise ValueError(
            f"TFDS has no set called {plain!r}" + (f"; did you mean {near[0]}?" if near else "")
        )
    builder = tfds.builder(name, data_dir=folder)
    builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(manual_dir=manual_dir),
        file_format="array_record",
    )
    return str(builder.data_dir)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m drawjax.data.prepare", description="Downloads and prepares image sets."
    )
    parser.add_argument("names", nargs="+", metavar="NAME", help="TFDS names, e.g. mnist cifar10")
    parser.add_argument(
        "--data-dir", help="where to (default: $TFDS_DATA_DIR, else ~/tensorflow_datasets)"
    )
    parser.add_argument("--manual-dir", help="folder of archives downloaded by hand")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    folder = str(data_dir(DataConfig(dir=arguments.data_dir)))
    for name in arguments.names:
        try:
            print(f"{name}: {prepare(name, folder, arguments.manual_dir)}")
        except (ValueError, ModuleNotFoundError, OSError) as error:
            print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
