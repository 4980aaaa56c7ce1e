import gc
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from drawjax.training import RunError
from drawjax.training.checkpoints import Checkpoints, fingerprint


def _open(folder, keep=3, **kwargs):
    return Checkpoints(folder, keep=keep, arrays="state", values="position", **kwargs)


def _tree(seed):
    return {
        "kernel": jax.random.normal(jax.random.key(seed), (200, 300)),
        "count": jnp.asarray(seed, jnp.int32),
    }


def _largest(folder: pathlib.Path) -> pathlib.Path:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return max(files, key=lambda path: path.stat().st_size)


def test_what_is_saved_is_read_back(tmp_path):
    checkpoints = _open(tmp_path)
    for step in (1, 2, 3, 4):
        checkpoints.save(step, _tree(step), {"place": step})
    checkpoints.wait()
    assert checkpoints.steps() == [4, 3, 2]
    tree, position = checkpoints.restore(3, _tree(0))
    np.testing.assert_array_equal(tree["kernel"], _tree(3)["kernel"])
    assert (tree["count"], position) == (3, {"place": 3})
    checkpoints.close()


def test_saving_again_leaves_the_first(tmp_path):
    checkpoints = _open(tmp_path)
    checkpoints.save(1, _tree(1), {})
    checkpoints.save(1, _tree(2), {})
    assert checkpoints.restore(1, _tree(0))[0]["count"] == 1
    checkpoints.close()


def test_the_cheapest_is_kept(tmp_path):
    checkpoints = _open(tmp_path, keep=1, cost=lambda values: values["loss"])
    for step, loss in enumerate((3.0, 1.0, 2.0)):
        checkpoints.save(step, _tree(step), {"loss": loss})
    checkpoints.wait()
    assert checkpoints.best() == 1
    assert checkpoints.steps() == [1]
    checkpoints.close()


def test_one_whose_cost_is_torn_is_quarantine(tmp_path, caplog):
    def opened():
        return _open(tmp_path, keep=2, cost=lambda values: values["loss"])

    checkpoints = opened()
    checkpoints.save(1, _tree(1), {"loss": 3.0})
    checkpoints.save(2, _tree(2), {"loss": 2.0})
    checkpoints.close()
    (tmp_path / "2" / "metrics" / "metrics").write_text("")  # as by a power cut
    checkpoints = opened()
    assert checkpoints.best() == 1
    assert (tmp_path / "2.broken").is_dir()
    assert "quarantined as 2.broken" in caplog.text
    checkpoints.close()


def test_one_that_was_half_deleted_goes(tmp_path):
    def opened():
        return _open(tmp_path, keep=1, cost=lambda values: values["loss"])

    checkpoints = opened()
    checkpoints.save(1, _tree(1), {"loss": 3.0})
    checkpoints.close()
    shutil.rmtree(tmp_path / "1" / "metrics")  # as by a kill in the middle of deleting it
    checkpoints = opened()
    checkpoints.save(2, _tree(2), {"loss": 2.0})
    checkpoints.save(3, _tree(3), {"loss": 2.5})
    checkpoints.wait()
    assert checkpoints.best() == 2
    assert checkpoints.steps() == [2]
    assert [path.name for path in tmp_path.iterdir()] == ["2"]
    checkpoints.close()


def test_buffers_may_be_donated_while_they_are_being_written(tmp_path):
    # Large enough that the step after it starts while the file is being written.
    advance = jax.jit(lambda tree: jax.tree.map(lambda leaf: leaf + 1, tree), donate_argnums=0)
    checkpoints = _open(tmp_path, keep=8)
    tree = {"kernel": jnp.zeros((1000, 1000)), "count": jnp.asarray(0, jnp.int32)}
    for step in range(6):
        checkpoints.save(step, tree, {})
        tree = advance(tree)  # on a CPU, JAX copies what Orbax still looks at
    for step in range(6):
        read, _ = checkpoints.restore(step, jax.eval_shape(lambda: tree))
        np.testing.assert_array_equal(read["kernel"], step)
    checkpoints.close()


def _flip(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


# Orbax leaves the other arrays' reading behind, unfinished, when one cannot be read.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    "damage", [_flip, lambda data: data[:-1000], lambda data: b"", None],
    ids=["one bit", "torn", "empty", "no position"],
)  # fmt: skip
def test_damage_is_found(tmp_path, damage):
    checkpoints = _open(tmp_path)
    checkpoints.save(7, _tree(7), {"place": 7})
    checkpoints.wait()
    if damage is None:
        (tmp_path / "7" / "position" / "metadata").unlink()
    else:
        path = _largest(tmp_path / "7")
        path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(RunError, match=rf"checkpoint {tmp_path}/7 cannot be read: "):
        checkpoints.restore(7, _tree(0))
    aside = checkpoints.quarantine(7)
    assert aside.is_dir()
    assert checkpoints.steps() == []
    checkpoints.close()
    gc.collect()  # what it left behind, while this test is looked at and not the next


def test_checkpoints_without_a_fingerprint_are_read(tmp_path):
    checkpoints = _open(tmp_path)
    checkpoints.save(7, _tree(7), {"place": 7})
    checkpoints.wait()
    shutil.rmtree(tmp_path / "7" / "fingerprint")
    assert checkpoints.restore(7, _tree(0))[0]["count"] == 7
    checkpoints.close()


def test_another_structure_is_an_error(tmp_path):
    checkpoints = _open(tmp_path)
    checkpoints.save(1, _tree(1), {})
    with pytest.raises(RunError, match="cannot be read"):
        checkpoints.restore(1, {"other": jnp.zeros(3)})
    checkpoints.close()


def test_what_an_interrupted_save_left_is_no_checkpoint(tmp_path):
    (tmp_path / "5.orbax-checkpoint-tmp" / "state.orbax-checkpoint-tmp").mkdir(parents=True)
    checkpoints = _open(tmp_path)
    assert checkpoints.steps() == []
    checkpoints.save(5, _tree(5), {})
    assert checkpoints.restore(5, _tree(0))[0]["count"] == 5
    checkpoints.close()


# tensorstore's own threads may still report to an event loop that the failure closed.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_full_disk_is_one_clear_error_and_older_ones_stay(small_disk):
    checkpoints = _open(small_disk / "run", keep=3)
    with pytest.raises(RunError, match="those before it are whole: No space left on device"):
        for step in range(1, 30):
            checkpoints.save(step, _tree(step), {"place": step})
            checkpoints.wait()
    assert checkpoints.steps()
    checkpoints.close()
    checkpoints = _open(small_disk / "run")
    for step in checkpoints.steps():
        assert checkpoints.restore(step, _tree(0))[0]["count"] == step
    checkpoints.close()
    gc.collect()  # what the failure left behind is reported here, not in a later test


def test_a_failure_in_the_background_is_not_lost(tmp_path, monkeypatch):
    checkpoints = _open(tmp_path)
    checkpoints.save(1, _tree(1), {})
    checkpoints.wait()

    def fail(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints._manager._checkpoint_deleter, "delete_steps", fail)
    checkpoints.save(2, _tree(2), {})
    with pytest.raises(RunError, match="No space left on device"):
        checkpoints.save(3, _tree(3), {})
    checkpoints.close()


def test_any_element_changes_the_fingerprint():
    tree = {"a": jnp.arange(12.0).reshape(3, 4), "b": jnp.zeros(5, jnp.bfloat16)}
    tree |= {"c": jnp.asarray([True, False]), "d": jnp.asarray(3, jnp.int32)}
    before = int(fingerprint(tree))
    assert before == int(jax.jit(fingerprint)(tree))
    for name, leaf in tree.items():
        for place in range(leaf.size):
            flat = jnp.ravel(leaf)
            flat = flat.at[place].set(~flat[place] if name == "c" else flat[place] + 1)
            changed = int(fingerprint(tree | {name: flat.reshape(leaf.shape)}))
            assert changed != before, (name, place)


def test_swapped_elements_and_leaves_change_the_fingerprint():
    one, two = jnp.asarray([1.0, 2.0]), jnp.asarray([2.0, 1.0])
    assert int(fingerprint([one, two])) != int(fingerprint([two, one]))
    assert int(fingerprint(one)) != int(fingerprint(two))


def test_doubles_have_fingerprints(x64):
    one = jnp.asarray([1.0, 2.0])
    assert one.dtype == jnp.float64
    assert int(fingerprint(one)) != int(fingerprint(one + 1e-15))
