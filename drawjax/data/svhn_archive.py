"""The official archives of SVHN's full numbers (Netzer et al. 2011), read as they are.

An archive `train.tar.gz` holds `train/1.png`, ... and `train/digitStruct.mat`, a MATLAB 7.3 file
(HDF5) that gives for each image the label and the box of every digit. Label 10 is the digit 0.
"""

import contextlib
import dataclasses
import gzip
import pathlib
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from typing import Any

import h5py
import numpy as np
import tqdm

__all__ = ["Number", "read_images", "read_numbers"]

_STRUCT = "digitStruct.mat"
_FIELDS = ("label", "left", "top", "width", "height")


@dataclasses.dataclass(frozen=True)
class Number:
    """A house number: its image's file name, and its digits from left to right as annotated."""

    name: str  #: e.g. "1.png"
    digits: tuple[int, ...]  #: 0..9; empty where the file gives none
    boxes: np.ndarray  #: float64 [digits, 4]: left, top, width, height in pixels


def read_numbers(archive: pathlib.Path) -> tuple[list[Number], set[str]]:
    """Reads an archive to its end for the numbers in it.

    Args:
      archive: path of a tar file, compressed or not.

    Returns:
      The numbers in the order of digitStruct.mat, and the names of the images that are really
      there.

    Raises:
      ValueError: if the archive is broken or cut short, or has no readable digitStruct.mat; the
        message names the archive.
      FileNotFoundError: if there is no such file.
    """
    images: set[str] = set()
    with tempfile.TemporaryDirectory() as folder:
        struct = pathlib.Path(folder, _STRUCT)
        with _open(archive) as tar:
            for member in _members(tar, archive, "looking for images in"):
                name = pathlib.PurePosixPath(member.name).name
                if name == _STRUCT:
                    struct.write_bytes(_content(tar, member))
                elif name.endswith(".png"):
                    images.add(name)
        if not struct.exists():
            raise ValueError(f"{archive} holds no {_STRUCT}, which tells where the digits are")
        try:
            with h5py.File(struct, "r") as file:
                columns: Any = file["digitStruct"]
                entries = np.stack([columns[key][:, 0] for key in ("name", "bbox")], 1)
                entries = tqdm.tqdm(
                    entries, desc=f"boxes of {archive.name}", unit=" numbers", leave=False,
                    disable=None,
                )  # fmt: skip
                numbers = [_number(file.id, *entry) for entry in entries]
        except (OSError, KeyError, ValueError, TypeError, AttributeError, IndexError) as error:
            raise ValueError(
                f"{archive}: {_STRUCT} is not what it should be ({type(error).__name__}: {error})"
            ) from error
    return numbers, images


def read_images(archive: pathlib.Path) -> Iterator[tuple[str, bytes]]:
    """Yields file name and bytes of every PNG image of an archive, in its order.

    Raises:
      ValueError: as `read_numbers`.
    """
    with _open(archive) as tar:
        for member in _members(tar, archive, "reading"):
            name = pathlib.PurePosixPath(member.name).name
            if member.isfile() and name.endswith(".png"):
                yield name, _content(tar, member)


@contextlib.contextmanager
def _open(archive: pathlib.Path) -> Iterator[tarfile.TarFile]:
    # Not tarfile's streaming mode: that one takes an archive cut short at the end of a member for
    # a whole one. Members are read in their order, so nothing is unpacked twice.
    try:
        with tarfile.open(archive, "r:*") as tar:
            yield tar
            while tar.fileobj.read(2**20):  # to the very end, where gzip's checksum is
                pass
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{archive} is broken or cut short ({error}); fetch it again") from error


def _members(tar: tarfile.TarFile, archive: pathlib.Path, what: str) -> Iterator[tarfile.TarInfo]:
    # PNG images hardly shrink: their bytes tell how far in the archive they are.
    with tqdm.tqdm(
        desc=f"{what} {archive.name}", total=archive.stat().st_size, unit="B", unit_scale=True,
        leave=False, disable=None,
    ) as bar:  # fmt: skip
        for member in tar:
            yield member
            bar.update(member.size)


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    if file is None:
        raise tarfile.ReadError(f"{member.name} is no file")
    return file.read()


def _number(file: h5py.h5f.FileID, name: h5py.Reference, bbox: h5py.Reference) -> Number:
    # h5py's low-level calls: this is done for 250,000 numbers of some ten references each, and the
    # high-level ones take four times as long.
    letters = _values(h5py.h5r.dereference(name, file), np.uint16)
    label, *box = _fields(file, h5py.h5r.dereference(bbox, file))
    digits = tuple(int(value) % 10 for value in label)
    return Number("".join(map(chr, letters)), digits, np.array(box).reshape(4, len(digits)).T)


def _fields(file: h5py.h5f.FileID, bbox: h5py.h5g.GroupID) -> list[list[float]]:
    """The five fields of a number's boxes, a value a digit; MATLAB's empty struct is no group."""
    if not isinstance(bbox, h5py.h5g.GroupID):
        return [[] for _ in _FIELDS]
    columns = []
    for field in _FIELDS:
        dataset = h5py.h5d.open(bbox, field.encode())
        if h5py.check_ref_dtype(dataset.dtype) is None:  # of a single digit: the value itself
            columns.append(_values(dataset, np.float64).tolist())
        else:
            references = _values(dataset, h5py.ref_dtype)
            columns.append(
                [float(_values(h5py.h5r.dereference(r, file), np.float64)[0]) for r in references]
            )
    return columns


def _values(dataset: h5py.h5d.DatasetID, dtype: np.dtype | type) -> np.ndarray:
    values = np.empty(dataset.shape, dtype)
    if values.size:
        dataset.read(h5py.h5s.ALL, h5py.h5s.ALL, values)
    return values.ravel()
