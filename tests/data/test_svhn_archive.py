import io
import json
import tarfile

import numpy as np
import pytest

from drawjax.data.svhn_archive import read_images, read_numbers
from tests.data.archives import images, number, numbers, write_archive


def test_reads_labels_boxes_and_images(tmp_path):
    entries = [
        number("1.png", (1, 246, 77, 81, 219), (9, 323, 81, 96, 219)),
        number("2.png", (10, 5, 6, 7, 8)),
        number("3.png"),
        number("12.png", *[(label, -label, 2, 3.5, 4) for label in range(1, 8)]),
    ]
    path = write_archive(tmp_path, "train", entries)

    found, names = read_numbers(path)

    assert [entry.name for entry in found] == ["1.png", "2.png", "3.png", "12.png"]
    assert [entry.digits for entry in found] == [(1, 9), (0,), (), (1, 2, 3, 4, 5, 6, 7)]
    np.testing.assert_array_equal(found[0].boxes, [[246, 77, 81, 219], [323, 81, 96, 219]])
    np.testing.assert_array_equal(found[1].boxes, [[5, 6, 7, 8]])
    assert found[2].boxes.shape == (0, 4)
    np.testing.assert_array_equal(found[3].boxes[:, 0], -np.arange(1, 8))
    assert names == {"1.png", "2.png", "3.png", "12.png"}
    assert dict(read_images(path)) == images("train", entries)


@pytest.mark.parametrize("part", [0.02, 0.3, 0.6, 0.97, 0.9999])
def test_an_archive_cut_short_is_named(tmp_path, part):
    path = write_archive(tmp_path, "train", numbers(20))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * part)])
    with pytest.raises(ValueError, match=r"train\.tar\.gz is broken or cut short .*again"):
        read_numbers(path)


def test_an_archive_cut_short_between_two_members_is_seen(tmp_path):
    # Unpacked, cut, and packed again: only tar can tell, by the end marker that is not there.
    path = write_archive(tmp_path, "train", numbers(3))
    with tarfile.open(path) as tar:
        offsets = [member.offset for member in tar]
        tar.fileobj.seek(0)
        data = tar.fileobj.read()
    cut = tmp_path / "cut.tar"
    cut.write_bytes(data[: offsets[2]])
    with pytest.raises(ValueError, match=r"cut\.tar holds no digitStruct\.mat"):
        read_numbers(cut)


@pytest.mark.parametrize("data", [b"", b"<html>404 Not Found</html>", b"\x1f\x8b\x08rubbish"])
def test_what_is_no_archive_is_named(tmp_path, data):
    path = tmp_path / "extra.tar.gz"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"extra\.tar\.gz is broken or cut short"):
        read_numbers(path)


def test_a_flipped_bit_is_seen(tmp_path):
    path = write_archive(tmp_path, "train", numbers(5))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(bytes(data))
    with pytest.raises(ValueError, match=r"train\.tar\.gz"):
        read_numbers(path)


def _with_struct(folder, struct):
    path = folder / "test.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for name, data in {"1.png": b"", "digitStruct.mat": struct}.items():
            if data is not None:
                member = tarfile.TarInfo(f"test/{name}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return path


@pytest.mark.parametrize("struct", [b"MATLAB 5.0 MAT-file", b""])
def test_a_digit_struct_that_is_no_hdf5_is_named(tmp_path, struct):
    with pytest.raises(ValueError, match=r"test\.tar\.gz: digitStruct\.mat is not what it should"):
        read_numbers(_with_struct(tmp_path, struct))


def test_a_missing_digit_struct_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"test\.tar\.gz holds no digitStruct\.mat"):
        read_numbers(_with_struct(tmp_path, None))


def test_an_hdf5_file_of_something_else_is_named(tmp_path):
    import h5py

    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file["weights"] = np.zeros(3)
    with pytest.raises(ValueError, match=r"digitStruct\.mat is not what it should be \(KeyError"):
        read_numbers(_with_struct(tmp_path, buffer.getvalue()))


def test_a_missing_archive_is_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"train\.tar\.gz"):
        read_numbers(tmp_path / "train.tar.gz")


@pytest.mark.parametrize(("split", "count"), [("train", 200), ("test", 100)])
def test_official_archives_have_the_boxes_published_for_them(svhn_raw_dir, split, count):
    found, names = read_numbers(svhn_raw_dir / f"{split}.tar.gz")
    entries = json.loads((svhn_raw_dir / f"{split}_boxes.json").read_text())
    expected = {entry["filename"]: entry["boxes"] for entry in entries}
    assert len(found) == len(names) == count
    for entry in found:
        boxes = expected[entry.name]
        assert entry.digits == tuple(box["label"] % 10 for box in boxes)
        fields = [[box[f] for f in ("left", "top", "width", "height")] for box in boxes]
        np.testing.assert_array_equal(entry.boxes, fields)
