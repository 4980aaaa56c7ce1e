import os

import numpy as np
import pytest

from drawjax.data import ArraySource, cache


class _Records:
    def __len__(self):
        return cache._MIN_IMAGES


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("DRAWJAX_CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "records").write_bytes(b"first")
    return tmp_path / "set"


def _decode(calls):
    def decode(part):
        calls.append(part)
        images = np.full((3, 2, 2, 1), len(calls), np.uint8)
        return ArraySource(images, np.arange(3, dtype=np.int32))

    return decode


def test_a_set_is_decoded_once(folder):
    calls = []
    for _ in range(2):
        source = cache.cached(_Records(), folder, ("train", 0, 3), _decode(calls))
        np.testing.assert_array_equal(source.images, np.ones((3, 2, 2, 1), np.uint8))
        np.testing.assert_array_equal(source.labels, [0, 1, 2])
        assert source.labels.dtype == np.int32
    assert len(calls) == 1
    cache.cached(_Records(), folder, ("train", 0, 2), _decode(calls))  # another part of it
    assert len(calls) == 2


def test_changed_files_are_decoded_anew(folder):
    calls = []
    cache.cached(_Records(), folder, ("train",), _decode(calls))
    (folder / "records").write_bytes(b"other")
    os.utime(folder / "records", ns=(1, 1))
    assert cache.cached(_Records(), folder, ("train",), _decode(calls)).images.max() == 2
    cache.cached(_Records(), folder, ("train",), _decode(calls))
    assert len(calls) == 2
    assert len(list((folder.parent / "cache" / "sets").iterdir())) == 1  # the old one is gone


def test_a_damaged_file_is_made_anew(folder):
    calls = []
    cache.cached(_Records(), folder, ("train",), _decode(calls))
    (path,) = (folder.parent / "cache" / "sets").iterdir()
    path.write_bytes(path.read_bytes()[:100])
    cache.cached(_Records(), folder, ("train",), _decode(calls))
    cache.cached(_Records(), folder, ("train",), _decode(calls))
    assert len(calls) == 2


def test_it_goes_on_where_nothing_can_be_kept(folder, monkeypatch):
    (folder.parent / "cache").write_text("a file in the way")
    calls = []
    for where in (str(folder.parent / "cache"), ""):
        monkeypatch.setenv("DRAWJAX_CACHE_DIR", where)
        assert cache.cached(_Records(), folder, ("train",), _decode(calls)).images.any()
    assert len(calls) == 2


def test_few_images_are_not_kept(folder):
    calls = []
    for _ in range(2):
        cache.cached(range(5), folder, ("train",), _decode(calls))
    assert len(calls) == 2
    assert not (folder.parent / "cache").exists()
