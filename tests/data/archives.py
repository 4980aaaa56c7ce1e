"""Archives in the official layout of SVHN's full numbers, made up for tests."""

import io
import pathlib
import tarfile

import h5py
import numpy as np

from tests.data.tiny_sets import picture, png

FIELDS = ("height", "left", "top", "width", "label")


def number(name: str, *boxes: tuple[float, float, float, float, float]) -> dict:
    """An entry of digitStruct: boxes of `(label, left, top, width, height)`; label 10 is 0."""
    return {"name": name, "boxes": boxes}


def numbers(count: int) -> list[dict]:
    """Entries of two digits, 3 and 0, for images of 60x40 pixels."""
    return [number(f"{i + 1}.png", (3, 10, 8, 12, 20), (10, 24, 9, 12, 20)) for i in range(count)]


def digit_struct(entries: list[dict]) -> bytes:
    """A digitStruct.mat as MATLAB 7.3 writes it: one digit's fields are values, else references."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", userblock_size=512) as file:
        refs = file.create_group("#refs#")
        count = 0

        def add(**dataset):
            nonlocal count
            count += 1
            return refs.create_dataset(str(count), **dataset).ref

        def box_group(boxes):
            nonlocal count
            if not boxes:  # MATLAB's empty struct array: its size, marked as empty
                reference = add(data=np.zeros(2, np.uint64))
                file[reference].attrs["MATLAB_empty"] = np.uint8(1)
                return reference
            count += 1
            group = refs.create_group(str(count))
            for field in FIELDS:
                order = ("label", "left", "top", "width", "height")
                values = [np.full((1, 1), box[order.index(field)], float) for box in boxes]
                if len(values) == 1:
                    group.create_dataset(field, data=values[0])
                else:
                    references = [[add(data=value)] for value in values]
                    group.create_dataset(field, data=references, dtype=h5py.ref_dtype)
            return group.ref

        struct = file.create_group("digitStruct")
        names = [
            [add(data=np.frombuffer(entry["name"].encode(), np.uint8)[:, None].astype(np.uint16))]
            for entry in entries
        ]
        boxes = [[box_group(entry["boxes"])] for entry in entries]
        struct.create_dataset("name", data=names, dtype=h5py.ref_dtype)
        struct.create_dataset("bbox", data=boxes, dtype=h5py.ref_dtype)
    return buffer.getvalue()


def images(split: str, entries: list[dict]) -> dict[str, bytes]:
    """An image of 60x40 pixels for each entry."""
    return {entry["name"]: png(picture(split, i, (40, 60, 3))) for i, entry in enumerate(entries)}


def write_archive(
    folder: pathlib.Path, split: str, entries: list[dict], files: dict[str, bytes] | None = None
) -> pathlib.Path:
    """Writes SPLIT.tar.gz.

    Args:
      folder: where to.
      split: train, test or extra.
      entries: what digitStruct.mat says.
      files: what lies in the archive beside it; None: an image for each entry.
    """
    files = images(split, entries) if files is None else files
    path = folder / f"{split}.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for name, data in {**files, "digitStruct.mat": digit_struct(entries)}.items():
            member = tarfile.TarInfo(f"{split}/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path
