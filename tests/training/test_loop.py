import concurrent.futures
import dataclasses
import gc
import json
import logging
import os
import pickle
import shutil
import signal
import sys
import threading

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from drawjax.files import read_metrics
from drawjax.training import (
    Diverged,
    Interrupted,
    RunError,
    RunWriter,
    has_best,
    read_best,
    read_record,
    streams,
    train_points,
)
from drawjax.training.run import restore
from tests.training import toy
from tests.training.toy import ToyConfig


def _config(**changes):
    return ToyConfig(train=dataclasses.replace(toy.CONFIG, **changes))


def _train(folder, config=None, show=None, **parts):
    config = config or _config()
    with RunWriter(folder, config, keep=config.train.keep_checkpoints) as run:
        (outcome,) = train_points(toy.task(config, **parts), [config.train], [run], show=show)
    if isinstance(outcome, Diverged):
        raise outcome
    return outcome


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The state and the folder of a run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    return _train(folder), folder


def _validation(folder):
    return {e["step"]: e["loss"] for e in read_metrics(folder) if e["split"] == "validation"}


class Stop(Exception):
    """What ends a run in the middle, where a test wants it."""


def _stopping(config, after):
    """Batches that end the run after so many."""
    inner = toy.batches(config.train.seed)

    class Batches:
        left = after

        def __next__(self):
            if not self.left:
                raise Stop
            self.left -= 1
            return next(inner)

        get_state = staticmethod(inner.get_state)
        set_state = staticmethod(inner.set_state)

    return Batches()


@pytest.mark.slow
def test_it_trains_evaluates_and_saves(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    state = _train(tmp_path)
    assert state.step == 30
    compiling = [message for message in caplog.messages if message.startswith("compiling")]
    assert len(compiling) == 2
    assert compiling[1].startswith("compiling the training step: done in ")
    entries = read_metrics(tmp_path)
    assert [e["step"] for e in entries if e["split"] == "train"] == [5, 10, 15, 20, 25, 30]
    losses = [e["loss"] for e in entries if e["split"] == "train"]
    assert losses[-1] < 0.5 * losses[0]
    assert entries[0]["twice"] == pytest.approx(2 * entries[0]["loss"])
    assert sorted(_validation(tmp_path)) == [10, 20, 30]
    with RunWriter(tmp_path, _config()) as run:
        assert run.steps() == [30, 25]
        average, metrics = read_best(run.workdir, state.ema_params)
        best = min(_validation(tmp_path).items(), key=lambda item: item[1])
        assert metrics["loss"] == best[1]
        assert toy.task().validate(average)["loss"] == pytest.approx(best[1])


# Orbax leaves the other arrays' reading behind when one is gone.
@pytest.mark.slow
def test_a_run_in_training_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.unraisablehook", lambda left: None)
    config = _config(steps=60, eval_every=1, checkpoint_every=60)
    like = jax.eval_shape(toy.task().init, jax.random.key(0))
    found, done = [], threading.Event()

    def read():
        while not done.is_set():
            if has_best(tmp_path):  # each is soon replaced by a better one
                found.append(read_best(tmp_path, like)[1]["loss"])

    with concurrent.futures.ThreadPoolExecutor() as pool:
        reading = pool.submit(read)
        try:
            _train(tmp_path, config)
        finally:
            done.set()
        reading.result()
    assert len(set(found)) > 1
    assert found == sorted(found, reverse=True)
    gc.collect()  # what was left behind, while this test is looked at and not the next


def test_a_step_is_traced_once(tmp_path):
    loss = chex.assert_max_traces(toy.loss, n=1)
    _train(tmp_path, loss=loss)


def _rows(folder):
    """All rows but for the speed, as they are in the file."""
    entries = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in entry.items() if k != "images_per_second"} for entry in entries]


def test_rows_after_a_resume_are_those_of_an_undisturbed_run(tmp_path):
    config = _config(log_every=5, checkpoint_every=7)
    _train(tmp_path / "whole", config)
    for after in (8, 9):  # ends at steps 8 and 16, goes on from 7 and 14
        with pytest.raises(Stop):
            _train(tmp_path / "cut", config, batches=lambda seed, n=after: _stopping(config, n))
    _train(tmp_path / "cut", config)
    assert _rows(tmp_path / "cut") == _rows(tmp_path / "whole")


def test_steps_that_are_taken_anew_have_no_best_before_them(tmp_path):
    config = _config(eval_every=5, checkpoint_every=7)
    first = iter([{"loss": 3.0}, {"loss": 1.0}])
    with pytest.raises(Stop):  # killed at step 12, evaluated at 5 and 10
        _train(
            tmp_path, config, batches=lambda seed: _stopping(config, 12),
            validate=lambda params: next(first),
        )  # fmt: skip
    later = iter([{"loss": 2.0}, *[{"loss": 2.5}] * 4])
    state = _train(tmp_path, config, validate=lambda params: next(later))
    assert read_best(tmp_path, state.ema_params)[1] == {"loss": 2.0}
    assert [path.name for path in (tmp_path / "best").iterdir()] == ["10"]


@pytest.mark.parametrize(("values", "said"), [
    ({"loss": 1.0, "mine": np.zeros(3)}, r"mine must be a scalar, got an array of shape \(3,\)"),
    ({"loss": 1.0, "step": 1.0}, "a metric cannot be called step"),
    ({"mine": 1.0}, "must give a loss"),
])  # fmt: skip
def test_what_is_no_measure_is_refused_by_name(tmp_path, values, said):
    with pytest.raises(ValueError, match=said):
        _train(tmp_path, validate=lambda params: values)


def test_a_row_of_skipped_steps_is_valid_json(tmp_path):
    config = _config(max_skipped=8, log_every=3)
    with pytest.raises(Diverged):
        _train(tmp_path, config, loss=_broken_from(6), batches=_numbered)
    rows = (tmp_path / "metrics.jsonl").read_text()
    assert '"loss": null' in rows
    assert "NaN" not in rows
    assert np.isnan(read_metrics(tmp_path)[-1]["loss"])


def test_keys_do_not_depend_on_the_default_implementation(whole, tmp_path):
    state, folder = whole
    with jax.default_prng_impl("rbg"):
        with pytest.raises(Stop):
            _train(tmp_path, batches=lambda seed: _stopping(_config(), 12))
        assert jax.random.key_impl(streams(0).evaluation) == "threefry2x32"
    chex.assert_trees_all_equal(_train(tmp_path), state)
    assert _rows(tmp_path) == _rows(folder)
    assert read_record(tmp_path)["prng"] == "threefry2x32"


def _noisy():
    return optax.chain(optax.add_noise(0.1, 0.5, jax.random.key(7)), optax.sgd(0.05))


@pytest.mark.parametrize("optimizer", [
    _noisy, lambda: optax.chain(optax.adam(0.05), optax.contrib.reduce_on_plateau(patience=2)),
    lambda: optax.lbfgs(0.05),
], ids=["PRNG key", "value", "line search"])  # fmt: skip
def test_any_optimizer_goes_on_with_the_same_bits(tmp_path, optimizer):
    state = _train(tmp_path / "whole", optimizer=optimizer())
    with pytest.raises(Stop):
        _train(
            tmp_path / "cut", optimizer=optimizer(),
            batches=lambda seed: _stopping(_config(), 12),
        )  # fmt: skip
    went_on = _train(tmp_path / "cut", optimizer=optimizer())
    plain = jax.tree.map(_plain, (state, went_on))
    chex.assert_trees_all_equal(*plain)


def _plain(leaf):
    is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return jax.random.key_data(leaf) if is_key else leaf


def test_another_optimizer_is_named(tmp_path):
    with pytest.raises(Stop):
        _train(tmp_path, batches=lambda seed: _stopping(_config(), 12))
    with pytest.raises(RunError, match=r"checkpoints/10 cannot .* of another optimizer: opt_state"):
        _train(tmp_path, optimizer=optax.sgd(0.1, momentum=0.9))


@pytest.mark.parametrize("optimizer", [optax.adam, "adam", 1e-3, object()])
def test_what_is_no_optimizer_is_refused_by_name(tmp_path, optimizer):
    with pytest.raises(ValueError, match=r"optimizer must be an Optax transformation.*; got \S+"):
        _train(tmp_path, optimizer=optimizer)


@pytest.mark.slow
@pytest.mark.parametrize("after", [3, 5, 12, 20, 29])
def test_going_on_gives_the_same_bits(whole, tmp_path, after):
    state, folder = whole
    with pytest.raises(Stop):
        _train(tmp_path, batches=lambda seed: _stopping(_config(), after))
    chex.assert_trees_all_equal(state, _train(tmp_path))
    assert _rows(folder) == _rows(tmp_path)


def test_nothing_that_is_loaded_goes_through_pickle(tmp_path):
    found, watching = [], True

    def watch(event, arguments):  # every class that an unpickler asks for, Python's or C's
        if event == "pickle.find_class" and watching:
            found.append(arguments)

    config = _config()
    with pytest.raises(Stop):
        _train(tmp_path, batches=lambda seed: _stopping(config, 17))
    sys.addaudithook(watch)  # there is no way to take it out again
    pickle.loads(pickle.dumps(Stop()))
    assert found.pop() == (__name__, "Stop")
    state = _train(tmp_path)
    with RunWriter(tmp_path, config) as run:
        read_best(run.workdir, state.ema_params)
    watching = False
    assert not found


def test_a_finished_run_is_left_as_it_is(tmp_path):
    whole = _train(tmp_path)
    entries = read_metrics(tmp_path)

    def never(seed):
        return _stopping(_config(), 0)

    chex.assert_trees_all_equal(whole, _train(tmp_path, batches=never))
    assert read_metrics(tmp_path) == entries


def test_a_signal_in_an_evaluation_saves_at_once_and_it_is_made_up_for(whole, tmp_path):
    calls = []

    def evaluate(params):
        calls.append(1)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
            raise AssertionError("the signal should have ended this")
        return toy.task().validate(params)

    config = _config(checkpoint_every=1000)
    with pytest.raises(Interrupted) as caught:
        _train(tmp_path, config, validate=evaluate)
    assert caught.value.signum == signal.SIGTERM
    with RunWriter(tmp_path, config) as run:
        assert run.steps() == [20]
    assert sorted(_validation(tmp_path)) == [10]
    state, folder = whole
    chex.assert_trees_all_equal(_train(tmp_path, config), state)
    assert _validation(tmp_path) == _validation(folder)


def test_an_evaluation_whose_parameters_cannot_be_saved_is_made_up_for(
    whole, tmp_path, monkeypatch
):
    save = RunWriter.save_best

    def save_best(run, step, params, metrics):
        if step == 20:
            raise RunError("the disk is full")
        save(run, step, params, metrics)

    config = _config(checkpoint_every=20)
    with monkeypatch.context() as patch, pytest.raises(RunError, match="the disk is full"):
        patch.setattr(RunWriter, "save_best", save_best)
        _train(tmp_path, config)
    assert sorted(_validation(tmp_path)) == [10]
    state, folder = whole
    chex.assert_trees_all_equal(_train(tmp_path, config), state)
    assert _validation(tmp_path) == _validation(folder)


def test_a_run_of_version_0_1_goes_on_whose_checkpoints_have_no_means(whole, tmp_path, monkeypatch):
    save = RunWriter.save

    def older(run, state, progress):
        save(run, state, {"iterator_state": progress["iterator_state"]})

    with monkeypatch.context() as patch, pytest.raises(Stop):
        patch.setattr(RunWriter, "save", older)
        _train(tmp_path, batches=lambda seed: _stopping(_config(), 12))
    chex.assert_trees_all_equal(_train(tmp_path), whole[0])


def test_the_last_evaluation_is_made_up_for(tmp_path):
    state = _train(tmp_path)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines[:-1]) + "\n")
    shutil.rmtree(tmp_path / "best")
    _train(tmp_path)
    assert sorted(_validation(tmp_path)) == [10, 20, 30]
    with RunWriter(tmp_path, _config()) as run:
        chex.assert_trees_all_equal(read_best(run.workdir, state.ema_params)[0], state.ema_params)


@pytest.mark.slow
def test_parameters_are_shown_after_an_evaluation_and_metrics_in_between(tmp_path, monkeypatch):
    shown = []

    def show(folder, params):
        shown.append((folder, params and params["in"].shape, read_metrics(folder)[-1]["step"]))

    monkeypatch.setattr("drawjax.training.loop._SHOW_EVERY", 0.0)
    state = _train(tmp_path, show=show)
    shape = (6, 4)
    assert shown == [
        (tmp_path, seen, step)
        for step in (5, 10, 15, 20, 25, 30)
        for seen in ([None, shape] if step % 10 == 0 else [None])
    ]
    chex.assert_trees_all_equal(state, _train(tmp_path / "alone"))
    monkeypatch.setattr("drawjax.training.loop._SHOW_EVERY", 1e6)
    shown.clear()
    _train(tmp_path / "seldom", show=show)
    assert [step for _, seen, step in shown if seen is None] == []


@pytest.mark.parametrize("error", [OSError, RuntimeError])
def test_what_cannot_be_shown_does_not_stop_a_run(tmp_path, caplog, error):
    def show(folder, params):
        raise error("no space left")

    assert _train(tmp_path, show=show).step == 30
    assert "the report is not up to date: no space left" in caplog.messages


@pytest.mark.slow
def test_a_signal_while_something_is_shown_saves(tmp_path):
    def show(folder, params):
        if params is not None:
            os.kill(os.getpid(), signal.SIGTERM)
            raise AssertionError("not stopped")

    with pytest.raises(Interrupted):
        _train(tmp_path, show=show)
    chex.assert_trees_all_equal(_train(tmp_path), _train(tmp_path / "alone"))


def test_fewer_steps_than_taken_is_an_error(tmp_path):
    config = _config(decay_fraction=0.0)
    _train(tmp_path, config)
    with pytest.raises(RunError, match="taken 30 steps"):
        _train(tmp_path, _config(decay_fraction=0.0, steps=20))


@pytest.mark.slow
def test_more_steps_before_the_decay_are_as_if_asked_for_at_once(tmp_path):
    short = _config(decay_fraction=0.0, steps=15)
    long = _config(decay_fraction=0.0, steps=30)
    _train(tmp_path / "a", short)
    chex.assert_trees_all_equal(_train(tmp_path / "a", long), _train(tmp_path / "b", long))


def _broken_from(number):
    def loss(params, batch, key, constants, step):
        value, metrics = toy.loss(params, batch, key, constants, step)
        return jnp.where(jnp.any(batch["order"] >= number), jnp.nan, value), metrics

    return loss


def _numbered(seed):
    """Batches that carry their own number, from 0."""
    inner, state = toy.batches(seed), {"order": 0}

    class Batches:
        def __next__(self):
            batch = next(inner) | {"order": np.full(8, state["order"])}
            state["order"] += 1
            return batch

        def get_state(self):
            return {"inner": inner.get_state(), **state}

        def set_state(self, saved):
            inner.set_state(saved["inner"])
            state["order"] = saved["order"]

    return Batches()


def test_a_run_that_diverges_says_where(tmp_path):
    config = _config(max_skipped=4)
    with pytest.raises(Diverged) as caught:
        _train(tmp_path, config, loss=_broken_from(13), batches=_numbered)
    # Steps count from 1 and batches from 0: batches 13 to 16 are those of steps 14 to 17.
    assert str(caught.value) == (
        "no finite loss or gradient in 4 steps in a row, the last of them step 17 (batch 16); "
        f"the last good checkpoint is {tmp_path}/checkpoints/15"
    )
    with RunWriter(tmp_path, config) as run:
        [(state, _)] = restore([run], toy_state(config))
        chex.assert_tree_all_finite(state.params)
        assert state.step == 15  # and none of a run that has diverged in its place
    with pytest.raises(Diverged):  # again, and not a run without an end
        _train(tmp_path, config, loss=_broken_from(13), batches=_numbered)
    with pytest.raises(Diverged, match=r"\(batch 3\); there is no checkpoint$"):
        _train(tmp_path / "new", config, loss=_broken_from(0), batches=_numbered)


def toy_state(config):
    from drawjax.training.step import Hyperparams, initial_state

    return jax.eval_shape(lambda: initial_state(toy.task(), Hyperparams.of(config.train)))


def test_skipped_steps_are_counted_and_left_out_of_the_means(tmp_path, caplog):
    def loss(params, batch, key, constants, step):
        value, metrics = toy.loss(params, batch, key, constants, step)
        return jnp.where(jnp.any(batch["order"] % 5 == 0), jnp.nan, value), metrics

    with caplog.at_level(logging.WARNING):
        state = _train(tmp_path, loss=loss, batches=_numbered)
    assert state.skipped == 6
    assert "1 of the steps up to 10 were skipped" in caplog.text
    for entry in read_metrics(tmp_path):
        assert np.isfinite(entry["loss"])
        assert entry.get("skipped", 1) == 1


def test_metrics_do_not_hold_the_device_up(tmp_path, monkeypatch):
    fetched = []
    get = jax.device_get
    monkeypatch.setattr(jax, "device_get", lambda tree: fetched.append(1) or get(tree))
    _train(tmp_path, _config(log_every=15, checkpoint_every=30, eval_every=30))
    assert len(fetched) == 3  # two means of metrics, and the parameters for one evaluation


@pytest.mark.slow
def test_points_together_are_the_runs_alone(tmp_path):
    configs = [
        _config(learning_rate=rate, seed=seed, clip_norm=clip)
        for rate, seed, clip in ((0.05, 0, 5.0), (0.01, 0, 5.0), (0.05, 3, 0.5))
    ]
    runs = [RunWriter(tmp_path / f"together{i}", c, keep=2) for i, c in enumerate(configs)]
    together = train_points(toy.task(), [config.train for config in configs], runs)
    for number, (config, run, state) in enumerate(zip(configs, runs, together, strict=True)):
        run.close()
        alone = _train(tmp_path / f"alone{number}", config)
        chex.assert_trees_all_close(state, alone, rtol=1e-4, atol=1e-5)
        one, other = (_validation(tmp_path / f"{n}{number}") for n in ("alone", "together"))
        assert one.keys() == other.keys()
        np.testing.assert_allclose(list(one.values()), list(other.values()), rtol=1e-4)
        with RunWriter(tmp_path / f"together{number}", config) as run:
            assert run.steps() == [30, 25]
            _, metrics = read_best(run.workdir, state.ema_params)
            assert metrics["loss"] == min(other.values())


@pytest.mark.slow
def test_points_go_on_from_the_newest_checkpoint_they_share(tmp_path, caplog):
    configs = [_config(seed=seed) for seed in (1, 2)]

    def go(folder, **parts):
        runs = [RunWriter(tmp_path / folder / str(i), c, keep=2) for i, c in enumerate(configs)]
        try:
            return train_points(toy.task(**parts), [c.train for c in configs], runs)
        finally:
            for run in runs:
                run.close()

    whole = go("whole")
    with pytest.raises(Stop):
        go("cut", batches=lambda seed: _stopping(_config(seed=seed), 17))
    shutil.rmtree(tmp_path / "cut" / "1" / "checkpoints" / "15")  # as if killed between two saves
    with caplog.at_level(logging.INFO):
        chex.assert_trees_all_equal(go("cut"), whole)
    assert "going on from step 10" in caplog.text
    shutil.rmtree(tmp_path / "cut" / "1" / "checkpoints")
    before = _rows(tmp_path / "cut" / "0")
    with pytest.raises(RunError, match=r"0 and 1 have no checkpoint in common: .*--sweep-parallel"):
        go("cut")
    assert _rows(tmp_path / "cut" / "0") == before


@pytest.mark.slow
def test_one_point_that_diverges_does_not_stop_the_others(tmp_path, caplog):
    configs = [_config(seed=seed, max_skipped=4) for seed in (1, 2)]

    def loss(params, batch, key, constants, step):
        value, metrics = toy.loss(params, batch, key, constants, step)
        return jnp.where(jnp.any(batch["order"] >= batch["limit"]), jnp.nan, value), metrics

    def batches(seed):
        inner = _numbered(seed)

        class Batches:
            def __next__(self):
                return next(inner) | {"limit": np.full(8, 11 if seed == 1 else 1000)}

            get_state = staticmethod(inner.get_state)
            set_state = staticmethod(inner.set_state)

        return Batches()

    def go():
        runs = [RunWriter(tmp_path / str(i), c, keep=2) for i, c in enumerate(configs)]
        task = toy.task(loss=loss, batches=batches)
        outcomes = train_points(task, [c.train for c in configs], runs)
        for run in runs:
            run.close()
        return outcomes

    for _ in range(2):  # the second time from the last checkpoints
        diverged, state = go()
        assert isinstance(diverged, Diverged)
        assert state.step == 30
        assert state.skipped == 0
        assert max(_validation(tmp_path / "0")) == 10
        assert max(_validation(tmp_path / "1")) == 30
    assert "in 4 steps in a row" in caplog.text
