"""SVHN full numbers, cropped as Goodfellow et al. (2013) do: the set of Sec. 4.4.

`python -m drawjax.data.prepare svhn_numbers` downloads the archives (2.6 GB) and writes the set,
or takes archives that were fetched by hand from `--manual-dir`. TensorFlow is not needed. SVHN
(Netzer et al. 2011) is for non-commercial use only.

Crop: the smallest box around all digits, made 30 % wider and 30 % higher about its center (15 % on
each side), rounded to whole pixels, cut off at the image's edges, and resized to 64x64 pixels with
PIL's bilinear filter, which averages when it shrinks.

Splits: test is test.tar.gz. The numbers of train.tar.gz (33,402) and extra.tar.gz (202,353), but
for the one with six digits, are 235,754, which is what Gregor et al. report together: 231,053 for
training and 4,701 for validation. Which ones they held out is not published; Goodfellow et al. go
back to Sermanet et al. (2012), who take two thirds of the validation set from train and one third
from extra. So do we: 3,134 of train's 33,401 and 1,567 of extra's 202,353, the ones whose names
("train/1.png") have the smallest MD5 sums. Of archives with other numbers of images the same shares
are held out, and at least one. Without extra.tar.gz that leaves 30,267 for training and 3,134 for
validation.
"""

import gzip
import hashlib
import io
import pathlib
import tarfile
import urllib.request
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import h5py
import numpy as np
import tensorflow_datasets as tfds
import tqdm
from PIL import Image

from drawjax.data.writing import RecordsBuilder, note, note_left_out, write

__all__ = ["SIZE", "Number", "crop", "held_out", "prepare_svhn", "read_files", "read_numbers"]

SIZE = 64  # pixels, the side of an image
URL = "http://ufldl.stanford.edu/housenumbers/"

_STRUCT = "digitStruct.mat"
_FIELDS = ("label", "left", "top", "width", "height")
_MOST_DIGITS = 5
_GROWTH = 0.3
_HELD_OUT = {"train": (3_134, 33_401), "extra": (1_567, 202_353)}  # of how many


class Number(NamedTuple):
    """A house number: its image's file name, and its digits from left to right as annotated."""

    name: str  #: e.g. "1.png"
    digits: list[int]  #: 0..9; empty where the file gives none
    boxes: np.ndarray  #: float64 [digits, 4]: left, top, width, height in pixels


def prepare_svhn(folder: str, manual_dir: str | None = None) -> str:
    """Writes the set `svhn_numbers`.

    Args:
      folder: of prepared sets.
      manual_dir: where train.tar.gz, test.tar.gz and, if it is available, extra.tar.gz lie; None:
        they are downloaded.

    Returns:
      The folder of the set.

    Raises:
      ValueError: if an archive is broken, or holds nothing that can be used.
      OSError: if one is not there, or the download fails.
    """
    notes: list[str] = []
    features = {
        "image": tfds.features.Image(shape=(SIZE, SIZE, 3), encoding_format="png"),
        "digits": tfds.features.Sequence(tfds.features.ClassLabel(num_classes=10)),
        "id": tfds.features.Text(),
    }

    def splits(downloads: tfds.download.DownloadManager) -> dict[str, Iterator[Any]]:
        parts: dict[str, list] = {"train": [], "validation": [], "test": []}
        for name, path in _archives(downloads, manual_dir, notes).items():
            numbers = {number.name: number for number in read_numbers(path)}
            few = [n for n in numbers if not numbers[n].digits]
            many = [n for n in numbers if len(numbers[n].digits) > _MOST_DIGITS and name != "test"]
            reasons = {"without digits": few, f"with more than {_MOST_DIGITS} digits": many}
            note_left_out(notes, f"SVHN, {name}.tar.gz", reasons)
            for n in [*few, *many]:
                del numbers[n]
            held = set() if name == "test" else held_out(name, numbers)
            for split in ["test"] if name == "test" else ["train", "validation"]:
                chosen = {n: numbers[n] for n in numbers if (n in held) == (split == "validation")}
                parts[split].append((name, path, chosen))
        return {split: _examples(split, part, notes) for split, part in parts.items()}

    return write(
        RecordsBuilder(
            "svhn_numbers", folder,
            description=str(__doc__), features=features, splits=splits, notes=notes,
        )
    )  # fmt: skip


def crop(image: Image.Image, boxes: np.ndarray) -> Image.Image | None:
    """Cuts a house number out of its image.

    Args:
      image: of any size and mode.
      boxes: `[digits, 4]`, left, top, width and height of at least one digit, in pixels from the
        image's corner. They may reach outside the image.

    Returns:
      The number, 64x64 pixels in color; None if the digits lie outside the image.
    """
    first, last = boxes[:, :2].min(axis=0), (boxes[:, :2] + boxes[:, 2:]).max(axis=0)
    if not np.all(np.minimum(last, image.size) > np.maximum(first, 0)):  # nor if one is NaN
        return None
    margin = (last - first) * _GROWTH / 2
    start = np.maximum(np.rint(first - margin), 0)
    stop = np.minimum(np.rint(last + margin), image.size)
    if not np.all(stop > start):  # less than half a pixel
        return None
    cut = image.crop((*start.astype(int), *stop.astype(int))).convert("RGB")
    return cut.resize((SIZE, SIZE), Image.Resampling.BILINEAR)


def held_out(archive: str, names: Iterable[str]) -> set[str]:
    """The images of an archive that are for validation, by the rule at the head of this file.

    Args:
      archive: `train` or `extra`.
      names: file names of the images to choose from.
    """
    by_hash = sorted(names, key=lambda name: hashlib.md5(f"{archive}/{name}".encode()).digest())
    part, whole = _HELD_OUT[archive]
    return set(by_hash[: max(1, round(len(by_hash) * part / whole))])


def _archives(
    downloads: tfds.download.DownloadManager, manual_dir: str | None, notes: list[str]
) -> dict[str, pathlib.Path]:
    names = ("train", "test", "extra")
    if manual_dir is None:
        urls = {name: f"{URL}{name}.tar.gz" for name in names}
        try:  # TFDS tries again and again for minutes, silently, before it gives up.
            request = urllib.request.Request(urls["train"], method="HEAD")
            urllib.request.urlopen(request, timeout=30).close()
        except OSError as error:
            raise OSError(
                f"cannot download {urls['train']} ({error}); fetch train.tar.gz, test.tar.gz and "
                "extra.tar.gz by hand and name their folder with --manual-dir"
            ) from error
        # No checksums are published; gzip's own are checked as the archives are read.
        paths: Any = downloads.download(urls)
        return {name: pathlib.Path(path) for name, path in paths.items()}
    archives = {name: pathlib.Path(manual_dir, f"{name}.tar.gz") for name in names}
    if not archives["extra"].is_file():
        del archives["extra"]
        note(notes, "SVHN is prepared without extra.tar.gz, most of its training images.")
    return archives


def _examples(
    split: str, parts: Sequence[tuple[str, pathlib.Path, Mapping[str, Number]]], notes: list[str]
) -> Iterator[tuple[str, dict[str, Any]]]:
    count = 0
    for archive, path, numbers in parts:
        missing, broken, outside = set(numbers), [], []
        for name, content in read_files(path):
            if name not in missing:
                continue
            missing.remove(name)
            try:
                image = crop(Image.open(io.BytesIO(content)), numbers[name].boxes)
            except (OSError, SyntaxError):  # PIL's, for a PNG
                broken.append(name)
                continue
            if image is None:
                outside.append(name)
                continue
            png, key = io.BytesIO(), f"{archive}/{name}"
            image.save(png, "png")
            count += 1
            yield key, {"image": png.getvalue(), "digits": numbers[name].digits, "id": key}
        reasons = {
            "with digits outside the image": outside,
            "that cannot be decoded": broken,
            "not in the archive": sorted(missing),
        }
        note_left_out(notes, f"SVHN, {archive}.tar.gz", reasons)
    if not count:
        paths = ", ".join(str(path) for _, path, _ in parts)
        raise ValueError(f"no image of {paths} can be used for {split}")


def read_files(archive: pathlib.Path) -> Iterator[tuple[str, bytes]]:
    """Yields name and content of the files in an archive, in its order, to the end.

    Args:
      archive: path of a tar file, compressed or not.

    Raises:
      ValueError: if the archive is broken or cut short; the message names it.
      FileNotFoundError: if there is no such file.
    """
    # PNG images hardly shrink: their bytes tell how far in the archive they are.
    bar = tqdm.tqdm(
        desc=f"reading {archive.name}", total=archive.stat().st_size, unit="B", unit_scale=True,
        leave=False, disable=None,
    )  # fmt: skip
    # Not tarfile's streaming mode: that one takes an archive cut short at the end of a member for
    # a whole one. Members are read in their order, so nothing is unpacked twice.
    try:
        with bar, tarfile.open(archive, "r:*") as tar:
            untyped: Any = tar
            for member in tar:
                if member.isfile():
                    yield (
                        pathlib.PurePosixPath(member.name).name,
                        untyped.extractfile(member).read(),
                    )
                bar.update(member.size)
            while untyped.fileobj.read(2**20):  # to the very end, where gzip's checksum is
                pass
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{archive} is broken or cut short ({error}); fetch it again") from error


def read_numbers(archive: pathlib.Path) -> list[Number]:
    """The numbers in an archive, in the order of its digitStruct.mat.

    That file, of MATLAB 7.3 (HDF5), gives for each image the label and the box of every digit.
    Label 10 is the digit 0.

    Raises:
      ValueError: as `read_files`, and if there is no digitStruct.mat that can be read.
      FileNotFoundError: as `read_files`.
    """
    struct = next((content for name, content in read_files(archive) if name == _STRUCT), None)
    if struct is None:
        raise ValueError(f"{archive} holds no {_STRUCT}, which tells where the digits are")
    try:
        file = h5py.h5f.open_file_image(struct)
        columns = [
            h5py.h5d.open(file, f"digitStruct/{field}".encode()) for field in ("name", "bbox")
        ]
        entries = zip(*(_values(column) for column in columns), strict=True)
        bar = tqdm.tqdm(
            entries, desc=f"boxes of {archive.name}", unit=" numbers", leave=False, disable=None
        )
        return [_number(file, *entry) for entry in bar]
    except Exception as error:  # of many kinds, whatever h5py stumbles over
        raise ValueError(
            f"{archive}: {_STRUCT} is not what it should be ({type(error).__name__}: {error})"
        ) from error


def _number(file: h5py.h5f.FileID, name: h5py.Reference, bbox: h5py.Reference) -> Number:
    # h5py's low-level calls: this is done for 250,000 numbers of some ten references each, and the
    # high-level ones take four times as long.
    letters = _values(h5py.h5r.dereference(name, file))
    box, fields = h5py.h5r.dereference(bbox, file), [[]] * len(_FIELDS)
    if isinstance(box, h5py.h5g.GroupID):  # MATLAB's empty struct is none
        fields = [_values(h5py.h5d.open(box, field.encode()), file) for field in _FIELDS]
    digits = [int(label) % 10 for label in fields[0]]
    return Number("".join(map(chr, letters)), digits, np.array(fields[1:]).reshape(4, -1).T)


def _values(dataset: h5py.h5d.DatasetID, file: h5py.h5f.FileID | None = None) -> list[Any]:
    """What a dataset holds; given the file, what its references stand for."""
    dtype = dataset.dtype  # h5py works it out anew whenever it is asked
    values = np.empty(dataset.shape, dtype)
    dataset.read(h5py.h5s.ALL, h5py.h5s.ALL, values)
    values = values.ravel().tolist()
    if file is not None and h5py.check_ref_dtype(dtype):
        values = [_values(h5py.h5r.dereference(value, file))[0] for value in values]
    return values
