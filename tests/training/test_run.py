import dataclasses
import json
import logging
import os
import pathlib
import shutil
import stat
import subprocess
import sys
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from drawjax.training import RunError, RunWriter, has_best, read_best, read_config, read_record
from drawjax.training.run import best_metrics, restore
from drawjax.training.step import Hyperparams, initial_state
from tests.training import toy
from tests.training.toy import ToyConfig

CONFIG = ToyConfig()


def _state(step=0, seed=0):
    config = dataclasses.replace(CONFIG.train, seed=seed)
    state = initial_state(toy.task(), Hyperparams.of(config))
    return dataclasses.replace(state, step=jnp.asarray(step, jnp.int32))


def _with(config, **train):
    return dataclasses.replace(config, train=dataclasses.replace(config.train, **train))


def test_a_folder_holds_the_config_and_the_state(tmp_path):
    with RunWriter(tmp_path / "a" / "run", CONFIG, keep=2) as run:
        assert restore([run], _state()) == []
        run.save(_state(3, seed=5), {"place": 3})
        [(state, position)] = restore([run], _state())
        assert (state.step, position) == (3, {"place": 3})
        np.testing.assert_array_equal(state.params["in"], _state(seed=5).params["in"])
        assert run.newest() == run.workdir / "checkpoints" / "3"
    saved = json.loads((tmp_path / "a" / "run" / "config.json").read_text())
    assert saved["train.learning_rate"] == CONFIG.train.learning_rate
    assert saved["width"] == 4


@pytest.mark.slow
def test_a_second_process_is_refused_until_the_first_is_gone(tmp_path):
    program = (
        "import sys; from drawjax.training import RunWriter, RunError\n"
        "from tests.training.toy import ToyConfig\n"
        "try: RunWriter(sys.argv[1], ToyConfig()).close()\n"
        "except RunError as error: print(error); sys.exit(5)"
    )

    def other():
        return subprocess.run(
            [sys.executable, "-c", program, str(tmp_path)],
            cwd=pathlib.Path(__file__).parents[2], capture_output=True, text=True,
        )  # fmt: skip

    with RunWriter(tmp_path, CONFIG):
        refused = other()
        assert refused.returncode == 5, refused.stderr
        assert refused.stdout == f"{tmp_path} is in use by another process\n"
    assert other().returncode == 0


def test_a_run_of_another_config_is_refused_by_name(tmp_path):
    RunWriter(tmp_path, CONFIG).close()
    before = (tmp_path / "config.json").read_text()
    other = _with(dataclasses.replace(CONFIG, width=9), seed=3, log_every=77)
    with pytest.raises(RunError) as caught:
        RunWriter(tmp_path, other)
    assert str(caught.value) == (
        f"{tmp_path} holds another run (train.seed: 0 there, 3 now, "
        "width: 4 there, 9 now); name another folder"
    )
    assert (tmp_path / "config.json").read_text() == before
    RunWriter(tmp_path, CONFIG).close()  # the refused one holds no lock


def test_what_changes_no_parameter_may_differ(tmp_path):
    RunWriter(tmp_path, CONFIG).close()
    RunWriter(tmp_path, _with(CONFIG, log_every=7, checkpoint_every=9)).close()


def test_a_field_newer_than_the_run_has_its_default(tmp_path):
    RunWriter(tmp_path, CONFIG).close()
    path = tmp_path / "config.json"
    fields = json.loads(path.read_text())
    del fields["train.weight_decay"], fields["width"]
    path.write_text(json.dumps(fields))
    with pytest.raises(RunError, match=r"\(train.weight_decay: 0.0 there, 0.5 now\)"):
        RunWriter(tmp_path, _with(CONFIG, weight_decay=0.5))
    RunWriter(tmp_path, CONFIG).close()


def test_a_folder_of_other_things_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(RunError, match="holds files that are not a run's"):
        RunWriter(tmp_path, CONFIG)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_config_of_another_program_is_left_alone(tmp_path):
    (tmp_path / "config.json").write_text('{"kind": "draw"}')
    with pytest.raises(RunError, match=r"holds no run: config.json has kind and no train\.steps"):
        RunWriter(tmp_path, CONFIG)
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=f"{tmp_path}/file.* cannot be written: Not a directory"):
        RunWriter(tmp_path / "file" / "run", CONFIG)


def test_a_config_that_cannot_be_read_is_named(tmp_path):
    RunWriter(tmp_path, CONFIG).close()
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(RunError, match=r"config\.json cannot be read"):
        RunWriter(tmp_path, CONFIG)


@pytest.mark.parametrize(("taken", "steps", "allowed"), [
    (0, 10, True),  # nothing done yet
    (21, 300, True),  # of 30 steps the last 9 have a falling rate
    (22, 300, False),
    (10, 20, True),
    (15, 20, False),  # of 20 steps the last 6
    (30, 300, False),
])  # fmt: skip
def test_steps_may_change_before_the_decay_only(tmp_path, taken, steps, allowed):
    assert (CONFIG.train.steps, CONFIG.train.fixed_from) == (30, 21)
    with RunWriter(tmp_path, CONFIG) as run:
        if taken:
            run.save(_state(taken), {})
    before = (tmp_path / "config.json").read_text()
    if allowed:
        RunWriter(tmp_path, _with(CONFIG, steps=steps)).close()
        return
    with pytest.raises(
        RunError, match=rf"taken {taken} steps, .*\(train.steps: 30 there, {steps} now\)"
    ):
        RunWriter(tmp_path, _with(CONFIG, steps=steps))
    assert (tmp_path / "config.json").read_text() == before


def test_the_decay_may_move_until_it_begins(tmp_path):
    with RunWriter(tmp_path, CONFIG) as run:
        run.save(_state(20), {})
    RunWriter(tmp_path, _with(CONFIG, steps=100, decay_fraction=0.8)).close()
    with pytest.raises(RunError, match=r"from step 19 on .*decay_fraction: 0\.8 there, 0\.81 now"):
        RunWriter(tmp_path, _with(CONFIG, steps=100, decay_fraction=0.81))
    with pytest.raises(RunError, match=r"train\.steps: 100 there, 20 now\)"):
        RunWriter(tmp_path, _with(CONFIG, steps=20, decay_fraction=0.8))


def test_steps_with_another_field_are_a_different_config(tmp_path):
    RunWriter(tmp_path, CONFIG).close()
    with pytest.raises(RunError, match="holds another run"):
        RunWriter(tmp_path, _with(CONFIG, steps=99, learning_rate=0.5))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_torn_checkpoint_is_named_and_the_one_before_taken(tmp_path, caplog):
    with RunWriter(tmp_path, CONFIG) as run:
        for step in (5, 10, 15):
            run.save(_state(step), {"place": step})
    for step in (10, 15):
        for path in (tmp_path / "checkpoints" / str(step) / "arrays").rglob("*"):
            if path.is_file():
                path.write_bytes(b"")
    with RunWriter(tmp_path, CONFIG) as run, caplog.at_level(logging.WARNING):
        [(state, position)] = restore([run], _state())
        assert (state.step, position) == (5, {"place": 5})
        assert run.steps() == [5]
        run.save(_state(10), {})
        run.save(_state(15), {})
    assert f"{tmp_path}/checkpoints/15 cannot be read" in caplog.text
    assert "quarantined as 15.broken" in caplog.text
    names = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert names == {"5", "10", "15", "10.broken", "15.broken"}


def test_where_none_can_be_read_none_is_touched(tmp_path):
    with RunWriter(tmp_path, CONFIG) as run:
        run.save(_state(5), {})
    like = dataclasses.replace(_state(), params={"other": jnp.zeros(2)})
    with RunWriter(tmp_path, CONFIG) as run:
        with pytest.raises(RunError, match=r"no checkpoint can be read: .*checkpoints/5"):
            restore([run], like)
        assert run.steps() == [5]


def test_fewer_to_keep_deletes_nothing_before_one_is_read(tmp_path):
    with RunWriter(tmp_path, CONFIG) as run:
        for step in (5, 10):
            run.save(_state(step), {})
    with RunWriter(tmp_path, CONFIG, keep=1) as run:
        assert run.steps() == [10, 5]  # 10 may be torn
        run.go_on_from(10)
        assert run.steps() == [10]


def test_the_best_parameters_are_kept(tmp_path, caplog):
    with RunWriter(tmp_path, CONFIG) as run:
        with pytest.raises(RunError, match="no evaluated checkpoint yet"):
            read_best(tmp_path, {})
        for step, loss in ((10, 2.0), (20, 1.0), (30, 1.5), (40, float("nan"))):
            run.save_best(step, _state(seed=step).params, {"loss": loss})
        best, metrics = read_best(tmp_path, _state().params)
    assert "the validation loss is nan" in caplog.text
    assert metrics == {"loss": 1.0}
    jax.tree.map(np.testing.assert_array_equal, best, _state(seed=20).params)


def test_a_run_that_goes_back_has_the_best_that_it_had_there(tmp_path):
    def losses():
        return {path.name for path in (tmp_path / "best").iterdir()}

    with RunWriter(tmp_path, CONFIG) as run:
        run.save_best(20, _state(seed=20).params, {"loss": 3.0})
        run.save_best(30, _state(seed=30).params, {"loss": 2.0})
        run.save(_state(40), {})
        assert losses() == {"30"}
        run.save_best(50, _state(seed=50).params, {"loss": 1.5})
        run.save_best(70, _state(seed=70).params, {"loss": 1.0})
        assert losses() == {"30", "70"}
        assert read_best(tmp_path, _state().params)[1] == best_metrics(tmp_path) == {"loss": 1.0}
    with RunWriter(tmp_path, CONFIG) as run:  # killed, and started again from step 40
        assert losses() == {"30", "70"}
        run.go_on_from(40)
        assert best_metrics(tmp_path) == {"loss": 2.0}
        run.save_best(50, _state(seed=51).params, {"loss": 2.5})
        run.save_best(70, _state(seed=71).params, {"loss": 1.2})
        best, metrics = read_best(tmp_path, _state().params)
        assert metrics == {"loss": 1.2}
        jax.tree.map(np.testing.assert_array_equal, best, _state(seed=71).params)
        run.save(_state(80), {})
        assert losses() == {"70"}


def test_a_run_that_goes_back_has_no_later_checkpoints(tmp_path):
    """Else the next start would go on from there, and miss what it did not do again."""
    with RunWriter(tmp_path, CONFIG) as run:
        for step in (20, 30):
            run.save(_state(step), {})
        run.go_on_from(20)
        assert run.steps() == [20]
        run.save(_state(30, seed=1), {})
    with RunWriter(tmp_path, CONFIG) as run:
        ((state, _),) = restore([run], _state(30))
        jax.tree.map(np.testing.assert_array_equal, state.params, _state(30, seed=1).params)


def test_a_best_checkpoint_that_is_torn_is_quarantined(tmp_path, caplog):
    with RunWriter(tmp_path, CONFIG) as run:
        run.save_best(10, _state(seed=10).params, {"loss": 1.0})
    for path in (tmp_path / "best" / "10" / "described").iterdir():
        path.write_text("")  # as by a power cut
    with RunWriter(tmp_path, CONFIG) as run:
        assert "quarantined as 10.broken" in caplog.text
        run.save_best(20, _state(seed=20).params, {"loss": 2.0})
    with RunWriter(tmp_path, CONFIG) as run:
        run.save_best(30, _state(seed=30).params, {"loss": 2.5})
        assert read_best(tmp_path, _state().params)[1] == {"loss": 2.0}


def test_what_a_kill_left_of_an_older_best_is_not_the_best(tmp_path):
    with RunWriter(tmp_path, CONFIG) as run:
        run.save_best(10, _state(seed=10).params, {"loss": 2.0})
    shutil.copytree(tmp_path / "best" / "10", tmp_path / "left")
    with RunWriter(tmp_path, CONFIG) as run:
        run.save_best(20, _state(seed=20).params, {"loss": 1.0})
    shutil.move(tmp_path / "left", tmp_path / "best" / "10")
    shutil.rmtree(tmp_path / "best" / "10" / "arrays")  # as by a kill in the middle of deleting it
    with RunWriter(tmp_path, CONFIG) as run:
        assert read_best(tmp_path, _state().params)[1] == {"loss": 1.0}
        run.save_best(30, _state(seed=30).params, {"loss": 0.5})
    assert [path.name for path in (tmp_path / "best").iterdir()] == ["30"]


@pytest.mark.parametrize("name", ["a[x]b", "a\\b", "gs:", "a\nb", "\udcff"])
def test_a_path_that_checkpoints_cannot_be_read_from_is_refused(tmp_path, name):
    with pytest.raises(RunError, match=r"cannot be read from a path like a URL"):
        RunWriter(tmp_path / name, CONFIG)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["a b", "a[b", "ü", "rate=0.1,seed=1", "50%", "a'b", "*"])
def test_other_paths_are_read_from(tmp_path, name):
    with RunWriter(tmp_path / name, CONFIG) as run:
        run.save(_state(3), {"place": 3})
        [(state, place)] = restore([run], _state())
    assert (state.step, place) == (3, {"place": 3})


def _bytes(folder):
    paths = [folder, *folder.rglob("*")]
    return {
        path: (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else None)
        for path in paths
    }


def test_reading_takes_no_lock_and_changes_no_byte(tmp_path):
    with RunWriter(tmp_path, CONFIG, record={"model": "Toy"}) as run:
        assert not has_best(tmp_path)
        run.save(_state(10), {})
        run.save_best(10, _state(seed=10).params, {"loss": 1.0})
        (tmp_path / "best" / "11.orbax-checkpoint-tmp").mkdir()  # one that is being written
        (tmp_path / "best" / "9").mkdir()
        before = _bytes(tmp_path)
        assert has_best(tmp_path)
        assert read_config(tmp_path)["train.learning_rate"] == CONFIG.train.learning_rate
        assert read_record(tmp_path) == {"model": "Toy", "prng": "threefry2x32"}
        best, metrics = read_best(tmp_path, _state().params)
        assert _bytes(tmp_path) == before
    jax.tree.map(np.testing.assert_array_equal, best, _state(seed=10).params)
    assert metrics == {"loss": 1.0}


def test_reading_what_is_damaged_changes_no_byte(tmp_path):
    with RunWriter(tmp_path, CONFIG) as run:
        run.save_best(10, _state().params, {"loss": 1.0})
    (tmp_path / "best" / "10" / "described" / "metadata").unlink()
    before = _bytes(tmp_path)
    with pytest.raises(RunError, match=rf"checkpoint {tmp_path}/best/10 cannot be read"):
        read_best(tmp_path, _state().params)
    assert _bytes(tmp_path) == before


def test_a_folder_without_a_run_is_named(tmp_path):
    with pytest.raises(RunError, match=r"holds no run: there is no config\.json"):
        read_config(tmp_path)
    assert read_record(tmp_path) == {}
    assert not list(tmp_path.iterdir())


def test_what_a_run_is_of_stays(tmp_path):
    RunWriter(tmp_path, CONFIG).close()  # an older run, which recorded nothing of it
    RunWriter(tmp_path, CONFIG, record={"data": "digits"}).close()
    RunWriter(tmp_path, CONFIG, record={"model": "Toy"}).close()
    RunWriter(tmp_path, CONFIG, record={"shape": (3, 4)}).close()
    RunWriter(tmp_path, CONFIG, record={"shape": (3, 4)}).close()
    with pytest.raises(RunError) as caught:
        RunWriter(tmp_path, CONFIG, record={"data": "letters", "model": "Toy"})
    assert str(caught.value) == (
        f"{tmp_path} holds another run (data: digits there, letters now); name another folder"
    )
    facts = {"data": "digits", "model": "Toy", "shape": [3, 4]}
    assert read_record(tmp_path) == facts | {"prng": "threefry2x32"}


def test_a_second_member_of_the_group_may_go_on(tmp_path):
    before = os.umask(0o002)
    try:
        RunWriter(tmp_path / "run", CONFIG).close()
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "run" / ".lock").stat().st_mode) == 0o664


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_lock_that_only_its_owner_can_write_keeps_nobody_out():
    with tempfile.TemporaryDirectory() as name:  # pytest's folders are closed to others
        folder = pathlib.Path(name)
        RunWriter(folder, CONFIG).close()
        (folder / ".lock").chmod(0o644)
        for path in (folder, *folder.iterdir()):
            if path.is_dir():
                path.chmod(0o777)
        os.seteuid(65534)
        try:
            with RunWriter(folder, CONFIG), pytest.raises(RunError, match="in use by another"):
                RunWriter(folder, CONFIG)
        finally:
            os.seteuid(0)


def test_a_run_of_version_0_1_goes_on(tmp_path):
    RunWriter(tmp_path, CONFIG).close()
    (tmp_path / "run.json").unlink()
    config = tmp_path / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"model_class": "Toy"}))
    (tmp_path / "data.json").write_text(json.dumps({"name": "digits", "image_shape": [4, 5, 1]}))
    assert read_record(tmp_path) == {"model_class": "Toy", "image_shape": [4, 5, 1]}
    with pytest.raises(RunError, match=r"model_class: Toy there, Other now"):
        RunWriter(tmp_path, CONFIG, record={"model_class": "Other"})
    record = {"model_class": "Toy", "image_shape": (4, 5, 1), "digest": "abc"}
    RunWriter(tmp_path, CONFIG, record=record).close()
    assert read_record(tmp_path)["digest"] == "abc"
