"""Arrays as a set, what tells sets apart, and labels that a classifier can use."""

import dataclasses
import shutil

import numpy as np
import pytest

from drawjax.data import DataConfig, GenerationDataConfig, check_labels, from_arrays, load, prepared
from tests.data.tiny_sets import write_tiny_set


def _images(count=12, shape=(5, 4)):
    return np.random.default_rng(0).integers(0, 256, (count, *shape), np.uint8)


def test_facts_are_of_the_content():
    images, labels = _images(), {"train": np.arange(12)}
    facts = from_arrays(images, labels=labels).facts()
    assert facts == from_arrays(images.copy(), labels=labels).facts()
    digest = facts.pop("data.digest")
    assert facts == {
        "data.name": "arrays", "data.train": 10, "data.validation": 1, "data.test": 1,
    }  # fmt: skip
    other = images.copy()
    other[7, 2, 1] ^= 1
    for different in (
        from_arrays(other, labels=labels),
        from_arrays(images[::-1], labels=labels),
        from_arrays(images.swapaxes(1, 2), labels=labels),
        from_arrays(images),
        from_arrays(images[:10], images[10:11], images[11:] ^ 1),
    ):
        assert different.facts()["data.digest"] != digest


@pytest.mark.parametrize("limit", [2**30, 0])
def test_a_set_that_moved_has_the_same_facts(tmp_path, monkeypatch, limit):
    monkeypatch.setattr(prepared, "_IN_MEMORY", limit)
    write_tiny_set(tmp_path / "here", "mnist", train=30, test=7)
    here = load(None, DataConfig("mnist", str(tmp_path / "here")))
    facts = here.facts()
    shutil.move(tmp_path / "here", tmp_path / "there")
    there = load(None, DataConfig("mnist", str(tmp_path / "there")))
    assert there.facts() == facts
    write_tiny_set(tmp_path / "other", "mnist", train=31, test=7)
    other = load(None, DataConfig("mnist", str(tmp_path / "other"))).facts()
    assert other["data.digest"] != facts["data.digest"]
    np.testing.assert_array_equal(there.test.labels, np.arange(7))


@pytest.mark.parametrize(("labels", "message"), [
    (np.arange(12) % 5 + 1, "must be 0 to 4, got 1 to 5 in train; subtract 1"),
    (np.arange(12) % 6, "must be 0 to 4, got 0 to 5 in train$"),
    (np.arange(12) % 5 - 7 * (np.arange(12) == 3), "must be 0 to 4, got -4 to 4"),
    (np.where(np.arange(12) == 3, -1, 0), "1 images of arrays have no label in train"),
    (None, "10 images of arrays have no label in train"),
])  # fmt: skip
def test_labels_that_are_no_classes_are_refused(labels, message):
    images = from_arrays(_images(), labels=None if labels is None else {"train": labels})
    with pytest.raises(ValueError, match=message):
        check_labels(images, 5)


def test_labels_of_every_split_are_checked(tmp_path, monkeypatch):
    good = from_arrays(_images(), labels={"train": np.arange(12) % 5})
    check_labels(good, 5)
    bare = from_arrays(_images())
    with pytest.raises(ValueError, match="no label in test"):
        check_labels(dataclasses.replace(good, test=bare.test), 5)
    monkeypatch.setattr(prepared, "_IN_MEMORY", 0)
    write_tiny_set(tmp_path, "mnist", train=30, test=7)
    large = load(None, DataConfig("mnist", str(tmp_path)))
    check_labels(large, 10)
    with pytest.raises(ValueError, match="must be 0 to 8, got 0 to 9 in train"):
        check_labels(large, 9)


def test_floats_just_outside_are_clipped_and_others_named_exactly():
    images = np.array([0.0, 0.5, 1.0, 1.0000001, -1e-6, 1.00001 - 1e-7]).reshape(6, 1, 1)
    parts = from_arrays(images[:4], images[4:5], images[5:])
    seen = np.concatenate([part.images for part in (parts.train, parts.validation, parts.test)])
    np.testing.assert_array_equal(seen.ravel(), [0, 128, 255, 255, 0, 255])
    with pytest.raises(
        ValueError, match=r"must lie in \[0, 1\], got values from -1e-06 to 1\.0001$"
    ):
        from_arrays(np.where(images == 1.0, 1.0001, images))


@pytest.mark.parametrize(("images", "message"), [
    (_images(shape=(3, 8, 9)), r"the last of 1 or 3 channels, got \[12, 3, 8, 9\]"),
    (_images(shape=(8, 9, 2)), r"1 or 3 channels, got \[12, 8, 9, 2\]$"),
    ([np.zeros((3, 3)), np.zeros((4, 4))], "train images must be of one shape"),
])  # fmt: skip
def test_arrays_that_cannot_be_drawn_are_refused(images, message):
    with pytest.raises(ValueError, match=message):
        load(images, GenerationDataConfig(binarization="none"))


def test_images_in_order_of_class_are_held_out_of_every_class():
    classes = np.repeat(np.arange(4), 100)
    images = np.broadcast_to(classes.astype(np.uint8)[:, None, None], (400, 3, 3)) + 7
    parts = from_arrays(images, labels={"train": classes})
    for part in parts.parts.values():
        assert set(part.labels) == {0, 1, 2, 3}
        np.testing.assert_array_equal(part.images[:, 0, 0, 0], part.labels + 7)
    assert from_arrays(images, labels={"train": classes}).facts() == parts.facts()
    # What is given by split stays as it is.
    given = from_arrays(images, images[:5], images[5:9], labels={"train": classes})
    np.testing.assert_array_equal(given.train.labels, classes)


def test_lists_are_arrays():
    images = list(_images().astype(np.float32) / 255)
    labels = [number % 3 for number in range(12)]
    result = from_arrays(images, labels={"train": labels})
    assert result.facts() == from_arrays(_images(), labels={"train": np.array(labels)}).facts()


@pytest.mark.parametrize(("labels", "message"), [
    ({"train": np.zeros(12)}, r"must be \[12\] integers, got \[12\] float64"),
    ({"train": np.zeros(3, int)}, r"must be \[12\] integers, got \[3\]"),
    ({"train": np.full(12, 2**32 + 1)}, r"must fit into 32 bits, got 4294967297 to 4294967297"),
    ({"tset": np.zeros(3, int)}, r"labels are of train, got \['tset'\]"),
])  # fmt: skip
def test_labels_that_are_no_class_numbers_are_refused(labels, message):
    with pytest.raises(ValueError, match=message):
        from_arrays(_images(), labels=labels)
