import json
import os
import pathlib
import stat
import threading

import pytest

from drawjax.files import remove_drafts, to_json, write_atomically, write_together


def test_a_small_file_appears_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "results.json"
    write_atomically(path, "old")

    def fail(self, target):
        raise OSError("killed")

    with monkeypatch.context() as patched:
        patched.setattr(pathlib.Path, "replace", fail)
        with pytest.raises(OSError, match="killed"):
            write_atomically(path, b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]
    assert path.read_text() == "old"
    write_atomically(path, b"new")
    assert path.read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]


def test_those_who_write_one_file_at_once_do_not_mix(tmp_path):
    path, contents = tmp_path / "report.html", [letter * 300_000 for letter in "ab"]
    write_atomically(path, contents[0])

    def write(content):
        for _ in range(20):
            write_atomically(path, content)

    writers = [threading.Thread(target=write, args=(content,)) for content in contents]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        assert path.read_text() in contents
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_files_that_belong_together_are_complete_before_one_is_replaced(tmp_path):
    (tmp_path / "a").write_text("old")
    with pytest.raises(FileNotFoundError):
        write_together({tmp_path / "a": "new", tmp_path / "none" / "b": "new"})
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a", "old")]
    write_together({tmp_path / "a": "new", tmp_path / "b": b"new"})
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a": "new", "b": "new"}


def test_the_mode_follows_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        write_atomically(tmp_path / "x.json", "{}")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "x.json").stat().st_mode) == 0o640


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path):
    for name in (".drawjax-0123.tmp", "mine.tmp", ".hidden"):
        (tmp_path / name).touch()
    remove_drafts(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"mine.tmp", ".hidden"}


def test_what_is_no_finite_number_is_null():
    values = {"loss": 1.5, "error": float("nan"), "parts": (1, [float("inf"), "NaN"])}
    assert json.loads(to_json(values)) == {
        "loss": 1.5, "error": None, "parts": [1, [None, "NaN"]],
    }  # fmt: skip
