import gc
import json
import pathlib
import shutil
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from drawjax.training import RunError
from drawjax.training.checkpoints import Checkpoints, checksum, read, read_values, steps


def _tree(seed):
    return {
        "kernel": jax.random.normal(jax.random.key(seed), (200, 300)),
        "count": jnp.asarray(seed, jnp.int32),
    }


def _largest(folder: pathlib.Path) -> pathlib.Path:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return max(files, key=lambda path: path.stat().st_size)


def test_what_is_saved_is_read_back(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=3)
    for step in (1, 2, 3, 4):
        checkpoints.save(step, _tree(step), {"place": step})
    assert steps(checkpoints.folder) == [4, 3, 2]
    tree, position = read(checkpoints.folder / str(3), _tree(0))
    np.testing.assert_array_equal(tree["kernel"], _tree(3)["kernel"])
    assert (tree["count"], position) == (3, {"place": 3})
    assert read_values(tmp_path / "2") == {"place": 2}


def test_saving_again_leaves_the_first(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=3)
    checkpoints.save(1, _tree(1), {})
    checkpoints.save(1, _tree(2), {})
    assert read(checkpoints.folder / str(1), _tree(0))[0]["count"] == 1


def _flip(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


# Orbax leaves the other arrays' reading behind, unfinished, when one cannot be read.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    "damage", [_flip, lambda data: data[:-1000], lambda data: b"", None],
    ids=["one bit", "torn", "empty", "no values"],
)  # fmt: skip
def test_damage_is_found(tmp_path, damage):
    checkpoints = Checkpoints(tmp_path, keep=3)
    checkpoints.save(7, _tree(7), {"place": 7})
    if damage is None:
        (tmp_path / "7" / "described" / "metadata").unlink()
    else:
        path = _largest(tmp_path / "7")
        path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(RunError, match=rf"checkpoint {tmp_path}/7 cannot be read: "):
        read(checkpoints.folder / str(7), _tree(0))
    checkpoints.quarantine(7, "damaged")
    assert (tmp_path / "7.broken").is_dir()
    assert steps(checkpoints.folder) == []
    gc.collect()  # what it left behind, while this test is looked at and not the next


def test_another_structure_is_an_error(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=3)
    checkpoints.save(1, _tree(1), {})
    kernel, optimizer = _tree(0) | {"kernel": jnp.zeros((2, 3))}, {"opt_state": _tree(0)}
    for like, said in (
        ({"other": jnp.zeros(3)}, r"another count: count is \[\] there, missing here"),
        (kernel, r"another kernel: kernel is \[200, 300\] there, \[2, 3\]"),
        (_tree(0) | optimizer, r"another optimizer: opt_state\.count is missing there, \[\] here"),
    ):
        with pytest.raises(RunError, match=f"cannot be read: it is of {said}"):
            read(tmp_path / "1", like)


def test_what_an_interrupted_save_left_is_no_checkpoint(tmp_path):
    (tmp_path / "5.orbax-checkpoint-tmp" / "state.orbax-checkpoint-tmp").mkdir(parents=True)
    checkpoints = Checkpoints(tmp_path, keep=3)
    assert steps(checkpoints.folder) == []
    checkpoints.save(5, _tree(5), {})
    assert read(checkpoints.folder / str(5), _tree(0))[0]["count"] == 5


# tensorstore's own threads may still report to an event loop that the failure closed.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_full_disk_is_one_clear_error_and_older_ones_stay(small_disk, monkeypatch):
    monkeypatch.setattr("sys.unraisablehook", sys.unraisablehook)
    checkpoints = Checkpoints(small_disk / "run", keep=3)
    with pytest.raises(RunError, match="older ones are intact: No space left on device"):
        for step in range(1, 30):
            checkpoints.save(step, _tree(step), {"place": step})
            assert steps(checkpoints.folder)
    checkpoints = Checkpoints(small_disk / "run", keep=3)
    for step in steps(checkpoints.folder):
        assert read(checkpoints.folder / str(step), _tree(0))[0]["count"] == step
    gc.collect()  # what the failure left behind is reported here, not in a later test


def test_any_element_changes_the_checksum():
    tree = {"a": jnp.arange(12.0).reshape(3, 4), "b": jnp.zeros(5, jnp.bfloat16)}
    tree |= {"c": jnp.asarray([True, False]), "k": jax.random.key(3)}
    before = checksum(tree)
    for name, leaf in tree.items():
        changed = jax.random.key(4) if name == "k" else ~leaf if name == "c" else leaf.at[0].add(1)
        assert checksum(tree | {name: changed}) != before, name
    assert checksum([jnp.asarray([1.0, 2.0])]) != checksum([jnp.asarray([2.0, 1.0])])


def test_a_checkpoint_of_an_older_version_is_read(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=3)
    checkpoints.save(1, _tree(1), {"place": 1})
    path = tmp_path / "1" / "described" / "metadata"
    described = json.loads(path.read_text())
    del described["crc32"]
    path.write_text(json.dumps(described | {"fingerprint": 12345}))
    assert read(tmp_path / "1", _tree(0))[1] == {"place": 1}


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg"])
def test_keys_are_read_back_with_their_implementation(tmp_path, impl):
    tree = {"key": jax.random.key(3, impl=impl), "count": jnp.zeros(())}
    Checkpoints(tmp_path, keep=1).save(1, tree, {})
    found, _ = read(tmp_path / "1", jax.eval_shape(lambda: tree))
    assert jax.random.key_impl(found["key"]) == impl
    np.testing.assert_array_equal(
        jax.random.key_data(found["key"]), jax.random.key_data(tree["key"])
    )


def test_what_is_no_number_is_valid_json(tmp_path):
    Checkpoints(tmp_path, keep=1).save(1, _tree(1), {"loss": 1.0, "error": float("nan")})
    assert "NaN" not in (tmp_path / "1" / "described" / "metadata").read_text()
    assert read_values(tmp_path / "1") == {"loss": 1.0, "error": None}


def test_a_folder_with_a_number_for_a_name_is_no_checkpoint(tmp_path):
    for name in ("100", "0099", "7", "7 "):
        (tmp_path / name).mkdir()
    (tmp_path / "8").write_text("a file")
    checkpoints = Checkpoints(tmp_path, keep=3)
    assert steps(tmp_path) == []
    for step in (5, 7):
        checkpoints.save(step, _tree(step), {})
    shutil.copytree(tmp_path / "5", tmp_path / "0006")  # of a person, who meant something by it
    assert steps(tmp_path) == [7, 5]
    assert {path.name for path in tmp_path.iterdir()} >= {"100", "0099", "7.broken"}


def test_what_a_kill_left_of_a_deletion_is_removed(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=3)
    for step in (1, 2, 3):
        checkpoints.save(step, _tree(step), {})
    (tmp_path / "1").rename(tmp_path / "1.deleted")
    Checkpoints(tmp_path, keep=3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2", "3"]
