import functools
import gzip
import http.server
import io
import json
import tarfile
import threading

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from drawjax.data import DataConfig, load, svhn
from drawjax.data.svhn import crop, held_out, prepare_svhn, read_files, read_numbers
from tests.data.archives import images, number, numbers, write_archive
from tests.data.tiny_sets import write_tiny_set


def _build(folder, manual_dir):
    prepare_svhn(str(folder), manual_dir)
    return load(None, DataConfig(name="svhn_numbers", dir=str(folder)))


def _archives(folder, train, test=None):
    folder.mkdir()
    write_archive(folder, "test", test or numbers(4))
    write_archive(folder, "train", train)
    return folder


def _records(folder, split):
    return list(
        tfds.builder_from_directory(folder / "svhn_numbers" / "1.0.0").as_data_source(split)
    )


def _left_over(folder):
    return [path for path in folder.glob("svhn_numbers/**/*") if path.is_file()]


def test_crop_grows_the_box_around_all_digits_and_resizes():
    rows, columns = np.mgrid[:100, :200]
    image = Image.fromarray(np.stack([rows, columns, 0 * rows], -1).astype(np.uint8))
    boxes = np.array([[100.0, 40, 10, 20], [115, 30, 25, 10]])  # together 100..140, 30..60
    result = np.asarray(crop(image, boxes))
    # Grown by 6 columns and 4.5 rows per side, and rounded to even: 94..146, 26..64.
    expected = image.crop((94, 26, 146, 64)).resize((64, 64), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(result, expected)
    assert abs(result[0, 0, 0] - 26) <= 1
    assert abs(result[-1, -1, 1] - 145) <= 1


def test_crop_is_cut_off_at_the_edges():
    image = Image.new("RGB", (30, 20), "white")
    result = np.asarray(crop(image, np.array([[-5.0, 2, 40, 30]])))
    np.testing.assert_array_equal(result, np.full((64, 64, 3), 255))  # no black from outside


def test_crop_makes_gray_images_colored():
    assert crop(Image.new("L", (30, 20)), np.array([[1.0, 2, 10, 10]])).mode == "RGB"


@pytest.mark.parametrize(
    "box",
    [
        [30, 2, 5, 5],
        [2, 20, 5, 5],
        [-5, 2, 5, 5],
        [31, 2, 100, 5],  # near enough for the margin, but the digit is outside
        [3, 3, 0, 4],
        [3, 3, 5, -1],
        [3.1, 3.1, 0.1, 0.1],
        [np.nan, 2, 3, 4],
    ],
)
def test_crop_of_digits_outside_the_image_is_none(box):
    assert crop(Image.new("RGB", (30, 20)), np.array([box], float)) is None


def test_held_out_counts_are_those_of_the_paper():
    train = held_out("train", [f"{i}.png" for i in range(33_401)])
    extra = held_out("extra", [f"{i}.png" for i in range(202_353)])
    assert (len(train), len(extra)) == (3_134, 1_567)
    assert len(train) + len(extra) == 4_701
    assert 33_401 + 202_353 - 4_701 == 231_053


def test_held_out_does_not_depend_on_the_order_and_takes_at_least_one():
    names = [f"{i}.png" for i in range(500)]
    assert held_out("train", names) == held_out("train", reversed(names))
    assert held_out("train", names) != held_out("extra", names)
    assert len(held_out("train", ["1.png", "2.png"])) == 1


@pytest.mark.slow
def test_official_boxes_give_the_counts_written_down(svhn_raw_dir):
    boxes = json.loads(gzip.decompress((svhn_raw_dir / "all_boxes.json.gz").read_bytes()))
    counts = {split: [len(entry["boxes"]) for entry in entries] for split, entries in boxes.items()}
    assert len(counts["train"]) == 33_402
    assert [count for count in counts["train"] if not 1 <= count <= 5] == [6]
    assert len(counts["test"]) == 13_068
    assert all(1 <= count <= 5 for count in counts["test"])


@pytest.mark.slow
def test_builds_from_a_manual_folder(tmp_path):
    manual = _archives(tmp_path / "manual", numbers(40))
    write_archive(manual, "extra", numbers(300))

    result = _build(tmp_path / "sets", manual)

    # 40 * 3134 / 33401 and 300 * 1567 / 202353
    assert [len(part) for part in (result.train, result.validation, result.test)] == [334, 6, 4]
    assert result.image_shape == (64, 64, 3)
    assert result.notes == ("svhn_numbers is prepared in part: 334 of 231,053 training images.",)
    names = {
        split: {record["id"].decode() for record in _records(tmp_path / "sets", split)}
        for split in ("train", "validation", "test")
    }
    held = {f"{a}/{n}" for a, c in (("train", 40), ("extra", 300)) for n in _held(a, c)}
    assert names["validation"] == held
    assert names["train"].isdisjoint(held)
    assert len(names["train"]) == 334
    assert names["test"] == {f"test/{i}.png" for i in range(1, 5)}


def _held(archive, count):
    return held_out(archive, [entry["name"] for entry in numbers(count)])


def test_records_hold_the_crop_and_the_digits(tmp_path):
    manual = _archives(tmp_path / "manual", numbers(3))
    _build(tmp_path / "sets", manual)
    originals = images("test", numbers(4))
    boxes = np.array([box[1:] for box in numbers(1)[0]["boxes"]], float)
    for record in _records(tmp_path / "sets", "test"):
        name = record["id"].decode().removeprefix("test/")
        original = tmp_path / name
        original.write_bytes(originals[name])
        np.testing.assert_array_equal(record["image"], crop(Image.open(original), boxes))
        assert list(record["digits"]) == [3, 0]


def test_features_are_those_of_the_tiny_set(tmp_path):
    _build(tmp_path / "sets", _archives(tmp_path / "manual", numbers(3)))
    ours = tmp_path / "sets" / "svhn_numbers" / "1.0.0" / "features.json"
    tiny = write_tiny_set(tmp_path / "tiny", "svhn_numbers", train=2, test=2, validation=2)
    assert json.loads(ours.read_text()) == json.loads((tiny / "features.json").read_text())


def test_without_extra_it_builds_and_says_so(tmp_path, caplog):
    result = _build(tmp_path / "sets", _archives(tmp_path / "manual", numbers(20)))
    assert [len(result.train), len(result.validation)] == [18, 2]
    assert "without extra.tar.gz" in result.notes[0]
    assert "without extra.tar.gz" in caplog.text


@pytest.mark.parametrize("missing", ["train", "test"])
def test_a_missing_archive_is_named(tmp_path, missing):
    manual = _archives(tmp_path / "manual", numbers(3))
    (manual / f"{missing}.tar.gz").unlink()
    with pytest.raises(FileNotFoundError, match=rf"manual/{missing}\.tar\.gz"):
        _build(tmp_path / "sets", manual)
    assert not _left_over(tmp_path / "sets")


def test_images_that_cannot_be_used_are_left_out_counted_and_reported(tmp_path, caplog):
    good = numbers(12)
    entries = [
        *good,
        number("no_digits.png"),
        number("six.png", *[(d, 10 * d, 8, 9, 20) for d in range(6)]),
        number("outside.png", (3, 60, 8, 12, 20)),
        number("broken.png", (3, 10, 8, 12, 20)),
        number("cut.png", (3, 10, 8, 12, 20)),
        number("absent.png", (3, 10, 8, 12, 20)),
    ]
    files = images("test", entries)
    del files["absent.png"]
    files["broken.png"] = b"not an image"
    files["cut.png"] = files["cut.png"][: len(files["cut.png"]) // 2]
    files["unlisted.png"] = files["1.png"]
    manual = _archives(tmp_path / "manual", good)
    write_archive(manual, "test", entries, files)

    result = _build(tmp_path / "sets", manual)

    assert len(result.test) == 13  # test keeps its numbers of more than five digits
    notes = [note for note in result.notes if "test.tar.gz" in note]
    assert notes == [
        "SVHN, test.tar.gz: left out 1: 1 without digits (no_digits.png).",
        "SVHN, test.tar.gz: left out 4: 1 with digits outside the image (outside.png); "
        "2 that cannot be decoded (broken.png, cut.png); 1 not in the archive (absent.png).",
    ]
    for note in notes:
        assert note in caplog.text


def test_a_training_number_of_six_digits_is_left_out(tmp_path):
    six = number("99.png", *[(d, 8 * d, 8, 9, 20) for d in range(6)])
    result = _build(tmp_path / "sets", _archives(tmp_path / "manual", [*numbers(9), six]))
    assert len(result.train) + len(result.validation) == 9
    assert "SVHN, train.tar.gz: left out 1: 1 with more than 5 digits (99.png)." in result.notes


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([number("1.png"), number("2.png")], "no image of .*train.tar.gz can be used"),
        ([number("1.png", (1, 99, 99, 1, 1))] * 2, "no image of .*train.tar.gz can be used"),
    ],
)
def test_an_archive_without_any_usable_number_is_named(tmp_path, entries, message):
    manual = _archives(tmp_path / "manual", entries)
    with pytest.raises(ValueError, match=message):
        _build(tmp_path / "sets", manual)
    assert not _left_over(tmp_path / "sets")


def test_downloads_the_archives(tmp_path, monkeypatch):
    source = _archives(tmp_path / "served", numbers(12))
    write_archive(source, "extra", numbers(14))

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=str(source))
    )
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        monkeypatch.setattr(svhn, "URL", f"http://127.0.0.1:{server.server_address[1]}/")
        result = _build(tmp_path / "sets", None)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert len(result.train) + len(result.validation) == 26
    assert len(result.test) == 4


@pytest.mark.slow
def test_crops_of_official_images_equal_the_published_sample(svhn_raw_dir, real_data_dir, tmp_path):
    result = _build(tmp_path / "sets", svhn_raw_dir)
    assert [len(result.train), len(result.validation), len(result.test)] == [181, 19, 100]
    for split, ours in (("train", ("train", "validation")), ("test", ("test",))):
        sample = tfds.builder_from_directory(
            real_data_dir / "svhn_goodfellow64_sample" / "1.0.0"
        ).as_data_source(split)
        expected = {record["id"].decode(): record for record in sample}
        records = [record for part in ours for record in _records(tmp_path / "sets", part)]
        compared = [record for record in records if record["id"].decode() in expected]
        assert len(compared) >= 100
        for record in compared:
            other = expected[record["id"].decode()]
            np.testing.assert_array_equal(record["image"], other["image"])
            np.testing.assert_array_equal(record["digits"], other["digits"])


def test_reads_labels_boxes_and_images(tmp_path):
    entries = [
        number("1.png", (1, 246, 77, 81, 219), (9, 323, 81, 96, 219)),
        number("2.png", (10, 5, 6, 7, 8)),
        number("3.png"),
        number("12.png", *[(label, -label, 2, 3.5, 4) for label in range(1, 8)]),
    ]
    path = write_archive(tmp_path, "train", entries)

    found = read_numbers(path)

    assert [entry.name for entry in found] == ["1.png", "2.png", "3.png", "12.png"]
    assert [entry.digits for entry in found] == [[1, 9], [0], [], [1, 2, 3, 4, 5, 6, 7]]
    np.testing.assert_array_equal(found[0].boxes, [[246, 77, 81, 219], [323, 81, 96, 219]])
    np.testing.assert_array_equal(found[1].boxes, [[5, 6, 7, 8]])
    assert found[2].boxes.shape == (0, 4)
    np.testing.assert_array_equal(found[3].boxes[:, 0], -np.arange(1, 8))
    files = dict(read_files(path))
    assert list(files) == ["1.png", "2.png", "3.png", "12.png", "digitStruct.mat"]
    assert {"digitStruct.mat": files["digitStruct.mat"], **images("train", entries)} == files


@pytest.mark.parametrize("part", [0.02, 0.3, 0.6, 0.97, 0.9999])
def test_an_archive_cut_short_is_named(tmp_path, part):
    path = write_archive(tmp_path, "train", numbers(20))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * part)])
    with pytest.raises(ValueError, match=r"train\.tar\.gz is broken or cut short .*again"):
        list(read_files(path))


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
        list(read_files(path))


def test_a_flipped_bit_is_seen(tmp_path):
    path = write_archive(tmp_path, "train", numbers(5))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(bytes(data))
    with pytest.raises(ValueError, match=r"train\.tar\.gz"):
        list(read_files(path))


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
    found = read_numbers(svhn_raw_dir / f"{split}.tar.gz")
    entries = json.loads((svhn_raw_dir / f"{split}_boxes.json").read_text())
    expected = {entry["filename"]: entry["boxes"] for entry in entries}
    assert len(found) == count
    for entry in found:
        boxes = expected[entry.name]
        assert entry.digits == [box["label"] % 10 for box in boxes]
        fields = [[box[f] for f in ("left", "top", "width", "height")] for box in boxes]
        np.testing.assert_array_equal(entry.boxes, fields)
