import functools
import importlib.util
import pathlib
import sys

import pytest

from drawjax.data import DataConfig, load, prepare
from tests.commands import exit_code
from tests.data.archives import numbers, write_archive

_prepare = functools.partial(exit_code, prepare.prepare_all, prepare.PrepareConfig())

_HAS_TENSORFLOW = importlib.util.find_spec("tensorflow") is not None


@pytest.fixture
def archives(tmp_path) -> pathlib.Path:
    folder = tmp_path / "archives"
    folder.mkdir()
    for split in ("train", "test"):
        write_archive(folder, split, numbers(5))
    return folder


@pytest.fixture
def no_tensorflow(monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *a: None if name == "tensorflow" else real(name, *a),
    )


@pytest.mark.parametrize("name", ["svhn_numbers", "svhn", "svhn:1.0.0", "svhn_numbers:1.0.0"])
def test_svhn_is_prepared_from_a_folder_and_loaded(tmp_path, archives, capsys, no_tensorflow, name):
    target = tmp_path / "sets"
    arguments = [name, "--data-dir", str(target), "--manual-dir", str(archives)]
    assert _prepare(arguments) == 0
    said = capsys.readouterr()
    assert f"{name}: {target / 'svhn_numbers' / '1.0.0'}" in said.out
    assert "preparing svhn_numbers in " in said.err
    assert "\r" not in said.err  # no bar in a log
    result = load(None, DataConfig("svhn_numbers", str(target)))
    assert len(result.test) == 5
    assert len(load(None, DataConfig(name, str(target))).test) == 5
    assert "tensorflow" not in sys.modules or _HAS_TENSORFLOW


def test_another_version_of_our_own_set_is_refused(tmp_path, archives, capsys, no_tensorflow):
    arguments = ["svhn:2.0.0", "--data-dir", str(tmp_path), "--manual-dir", str(archives)]
    assert _prepare(arguments) == 1
    assert "svhn_numbers is prepared as version 1.0.0, got 2.0.0" in capsys.readouterr().err


def test_the_folder_is_that_of_the_environment(tmp_path, archives, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "env"))
    assert _prepare(["svhn", "--manual-dir", str(archives)]) == 0
    assert (tmp_path / "env" / "svhn_numbers" / "1.0.0").is_dir()


def test_what_is_prepared_is_left_alone(tmp_path, archives):
    arguments = ["svhn", "--data-dir", str(tmp_path / "sets"), "--manual-dir", str(archives)]
    assert _prepare(arguments) == 0
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "sets").rglob("*.array_record*")}
    assert _prepare(arguments) == 0
    assert files == {path: path.stat().st_mtime_ns for path in files}


def test_what_is_there_in_another_format_is_named_and_left_alone(tmp_path, archives, capsys):
    arguments = ["svhn", "--data-dir", str(tmp_path / "sets"), "--manual-dir", str(archives)]
    assert _prepare(arguments) == 0
    folder = tmp_path / "sets" / "svhn_numbers" / "1.0.0"
    info = (folder / "dataset_info.json").read_text().replace("array_record", "tfrecord")
    (folder / "dataset_info.json").write_text(info)
    assert _prepare(arguments) == 1
    message = f"svhn_numbers is already in {folder}, in the tfrecord format"
    assert message in _error(capsys)
    assert (folder / "dataset_info.json").read_text() == info


def _error(capsys):
    (error,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    return error


def test_a_missing_folder_is_one_line(tmp_path, capsys):
    missing = tmp_path / "nowhere"
    assert (
        _prepare(
            ["svhn", "--data-dir", str(tmp_path), "--manual-dir", str(missing)],
        )
        == 1
    )
    assert _error(capsys) == f"error: there is no folder {missing}"


def test_a_broken_archive_is_one_line_and_leaves_nothing(tmp_path, archives, capsys):
    path = archives / "test.tar.gz"
    path.write_bytes(path.read_bytes()[:1000])
    target = tmp_path / "sets"
    arguments = ["svhn", "--data-dir", str(target), "--manual-dir", str(archives)]
    assert _prepare(arguments) == 1
    assert f"{path} is broken or cut short" in _error(capsys)
    assert not [path for path in target.glob("svhn_numbers/**/*") if path.is_file()]


def test_one_failure_does_not_stop_the_others(tmp_path, archives, capsys, no_tensorflow):
    target = tmp_path / "sets"
    arguments = ["mnist", "svhn", "--data-dir", str(target), "--manual-dir", str(archives)]
    assert _prepare(arguments) == 1
    assert "preparing mnist needs TensorFlow" in _error(capsys)
    assert (target / "svhn_numbers" / "1.0.0").is_dir()


def test_without_tensorflow_it_says_what_to_install(no_tensorflow, tmp_path):
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'drawjax\[prepare\]'$"):
        prepare.prepare("mnist", str(tmp_path))
    assert not list(tmp_path.iterdir())


def test_a_misspelt_svhn_is_guessed_without_tensorflow(no_tensorflow, tmp_path):
    with pytest.raises(ValueError, match=r"did you mean svhn_numbers\?"):
        prepare.prepare("svhn_number", str(tmp_path))


def test_an_unknown_name_gets_the_nearest(tmp_path, monkeypatch):
    import tensorflow_datasets as tfds

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    known = ["mnist", "fashion_mnist", "cifar10"]
    monkeypatch.setattr(tfds, "list_builders", lambda with_community_datasets: known)
    with pytest.raises(ValueError, match=r"no set called 'cifra10'; did you mean cifar10\?"):
        prepare.prepare("cifra10", str(tmp_path))
    with pytest.raises(ValueError, match=r"no set called 'zzz'$"):
        prepare.prepare("zzz/config", str(tmp_path))


def test_whatever_a_builder_raises_is_one_line_and_stops_no_other(
    tmp_path, archives, capsys, monkeypatch
):
    import tensorflow_datasets as tfds

    def builder(name, data_dir):
        raise AssertionError(f"Failed to construct dataset {name}.\nWrong version.")

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(tfds, "list_builders", lambda with_community_datasets: ["mnist"])
    monkeypatch.setattr(tfds, "builder", builder)
    where = ["--data-dir", str(tmp_path / "sets"), "--manual-dir", str(archives)]
    assert _prepare(["mnist:9.9.9", "svhn", *where]) == 1
    said = "Failed to construct dataset mnist:9.9.9. Wrong version."
    assert _error(capsys) == f"error: TFDS cannot prepare mnist:9.9.9: {said}"
    assert (tmp_path / "sets" / "svhn_numbers" / "1.0.0").is_dir()


def test_a_failed_download_is_one_line(tmp_path, capsys, monkeypatch):
    from drawjax.data import svhn

    monkeypatch.setattr(svhn, "URL", "http://127.0.0.1:9/")  # nobody listens there
    assert _prepare(["svhn", "--data-dir", str(tmp_path)]) == 1
    error = _error(capsys)
    assert "cannot download http://127.0.0.1:9/train.tar.gz" in error
    assert "--manual-dir" in error
    assert not (tmp_path / "svhn_numbers" / "1.0.0").exists()
