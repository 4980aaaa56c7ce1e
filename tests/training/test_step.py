import dataclasses
import functools
import traceback

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from drawjax.config import TrainConfig
from drawjax.training.step import (
    Hyperparams,
    Program,
    initial_state,
    learning_rate,
    streams,
    train_step,
)
from tests.training import toy

CONFIG = toy.CONFIG


def _steps(config, count, task=None):
    task = task or toy.task()
    hyperparams = Hyperparams.of(config)
    state = initial_state(task, hyperparams)
    step = jax.jit(functools.partial(train_step, task))
    batches = toy.batches(config.seed)
    states, metrics = [state], []
    for _ in range(count):
        state, values = step(state, next(batches), hyperparams, task.constants)
        states.append(state)
        metrics.append(values)
    return states, metrics


def test_the_rate_warms_up_stays_and_falls_to_zero():
    hyperparams = Hyperparams.of(
        TrainConfig(steps=100, learning_rate=2.0, warmup_steps=10, decay_fraction=0.2)
    )
    rates = np.asarray([learning_rate(hyperparams, jnp.asarray(step)) for step in range(100)])
    np.testing.assert_allclose(rates[:10], 0.2 * np.arange(1, 11), rtol=1e-6)
    np.testing.assert_array_equal(rates[10:81], 2.0)
    np.testing.assert_allclose(rates[80:], 0.1 * np.arange(20, 0, -1), rtol=1e-6)


def test_neither_warm_up_nor_decay_is_needed():
    hyperparams = Hyperparams.of(
        TrainConfig(steps=5, learning_rate=2.0, warmup_steps=0, decay_fraction=0.0)
    )
    np.testing.assert_array_equal(
        [learning_rate(hyperparams, jnp.asarray(s)) for s in range(5)], 2.0
    )


@pytest.mark.slow
def test_steps_are_those_of_adamw_after_clipping():
    config = dataclasses.replace(CONFIG, clip_norm=0.5, weight_decay=0.1)
    task = toy.task()
    states, _ = _steps(config, 8)
    hyperparams = Hyperparams.of(config)
    optimizer = optax.inject_hyperparams(optax.adamw)(learning_rate=0.0, weight_decay=0.1)
    params = states[0].params
    held = optimizer.init(params)
    batches = toy.batches(config.seed)
    for step in range(8):
        key = jax.random.fold_in(streams(config.seed).noise, step)
        gradient = jax.grad(lambda *arguments: task.loss(*arguments)[0])
        values = gradient(params, next(batches), key, np.ones(2), step)
        norm = np.sqrt(sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(values)))
        assert norm > config.clip_norm  # else this tests no clipping
        values = jax.tree.map(lambda leaf: leaf * config.clip_norm / norm, values)  # noqa: B023
        held.hyperparams["learning_rate"] = learning_rate(hyperparams, jnp.asarray(step))
        updates, held = optimizer.update(values, held, params)
        params = optax.apply_updates(params, updates)
    chex.assert_trees_all_close(states[-1].params, params, rtol=1e-4, atol=1e-6)


def test_the_average_follows_fast_then_slowly():
    config = dataclasses.replace(CONFIG, ema_decay=0.3)
    states, _ = _steps(config, 6)
    average = states[0].params
    for step, state in enumerate(states[1:]):
        decay = min(0.3, (1 + step) / (10 + step))
        average = jax.tree.map(lambda a, p, d=decay: d * a + (1 - d) * p, average, state.params)
        chex.assert_trees_all_close(state.ema_params, average, rtol=1e-5, atol=1e-6)
    assert min(0.3, 6 / 15) == 0.3  # both regimes were seen


@pytest.mark.parametrize("bad", ["loss", "gradient"])
def test_a_step_that_is_not_finite_changes_no_parameter_and_is_counted(bad):
    def loss(params, batch, key, constants, step):
        value, metrics = toy.loss(params, batch, key, constants, step)
        broken = batch["number"][0] % 2 == 1
        if bad == "loss":
            return jnp.where(broken, jnp.inf, value), metrics
        # The root is finite at zero, its gradient is not.
        switch = jnp.where(broken, 0.0, 1.0)
        return value + jnp.sqrt(switch + 0 * jnp.sum(params["in"])), metrics

    states, metrics = _steps(CONFIG, 12, toy.task(loss=loss))
    batches = toy.batches(CONFIG.seed)
    count = in_row = 0
    for before, after, values in zip(states, states[1:], metrics, strict=False):
        broken = next(batches)["number"][0] % 2 == 1
        count, in_row = count + broken, (in_row + 1) * broken
        assert (after.skipped, after.skipped_in_row) == (count, in_row)
        assert values["skipped_in_row"] == in_row
        same = all(
            np.array_equal(a, b)
            for a, b in zip(
                jax.tree.leaves(before.params), jax.tree.leaves(after.params), strict=True
            )
        )
        assert same == broken
        chex.assert_tree_all_finite((after.params, after.ema_params, after.opt_state))
        if broken:
            chex.assert_trees_all_equal(before.opt_state, after.opt_state)
            chex.assert_trees_all_equal(before.ema_params, after.ema_params)
    assert 0 < count < 12


def test_runs_of_one_seed_are_equal_and_of_two_are_not():
    one, again = _steps(CONFIG, 3)[0][-1], _steps(CONFIG, 3)[0][-1]
    chex.assert_trees_all_equal(one, again)
    other = _steps(dataclasses.replace(CONFIG, seed=1), 3)[0][-1]
    assert not np.allclose(one.params["in"], other.params["in"])


def test_the_rate_goes_by_one_counter_and_is_logged_as_applied():
    # Three of ten steps are skipped; each other moves the parameter by exactly the logged rate.
    config = TrainConfig(
        steps=10, learning_rate=0.4, warmup_steps=2, decay_fraction=0.5, clip_norm=1e9, seed=0
    )

    def loss(params, batch, key, constants, step):
        bad = (batch["number"][0] % 10 == 2) | (batch["number"][0] % 10 == 7)
        return jnp.where(bad, jnp.nan, 1.0) * jnp.sum(params["w"]), {}

    task = toy.task(init=lambda key: {"w": jnp.zeros(())}, loss=loss)
    # Adam's update of a constant gradient is the rate itself.
    states, metrics = _steps(config, 10, task)
    skipped = 0
    for step, (before, after, values) in enumerate(zip(states, states[1:], metrics, strict=False)):
        rate = float(learning_rate(Hyperparams.of(config), jnp.asarray(step)))
        assert values["learning_rate"] == pytest.approx(rate)
        moved = float(before.params["w"] - after.params["w"])
        if values["skipped_in_row"]:
            skipped += 1
            assert moved == 0
        else:
            assert moved == pytest.approx(rate, rel=1e-3)
    assert skipped > 0


def test_no_two_keys_of_a_run_are_equal():
    keys = []
    for seed in (0, 1):
        run = streams(seed)
        keys += [*run, *(jax.random.fold_in(run.noise, step) for step in range(20))]
        keys += [jax.random.fold_in(run.evaluation, image) for image in range(20)]
    assert len({jax.random.key_data(key).tobytes() for key in keys}) == len(keys)


def test_a_loss_is_told_how_many_steps_were_taken():
    def loss(*arguments):
        value, metrics = toy.loss(*arguments)
        return value, {**metrics, "before": arguments[-1]}

    _, metrics = _steps(CONFIG, 3, toy.task(loss=loss))
    assert [int(values["before"]) for values in metrics] == [0, 1, 2]


def test_an_optimizer_of_ones_own_is_used_whole():
    task = toy.task(optimizer=optax.sgd(0.1))
    states, metrics = _steps(CONFIG, 2, task)
    assert "learning_rate" not in metrics[0]
    key = jax.random.fold_in(streams(CONFIG.seed).noise, 0)
    batch = next(toy.batches(CONFIG.seed))
    gradient = jax.grad(lambda p: task.loss(p, batch, key, np.ones(2), 0)[0])(states[0].params)
    expected = jax.tree.map(lambda p, g: p - 0.1 * g, states[0].params, gradient)
    chex.assert_trees_all_close(states[1].params, expected, rtol=1e-5)


@pytest.fixture
def hunting():
    """As `--debug-nans` does."""
    with jax.debug_nans(True):
        yield


def _log_of_less_than_zero(x):
    return jnp.log(x - 3.0)


def _broken(where):
    """A loss that is not finite, for a reason deep inside a loop."""

    def loss(params, batch, key, constants, step):
        value, metrics = toy.loss(params, batch, key, constants, step)

        def body(carry, x):
            if where == "forward":
                carry = carry + _log_of_less_than_zero(x)
            elif where == "backward":
                carry = carry + jnp.sqrt(jnp.maximum(x - 3.0, 0.0) * jnp.sum(params["in"] ** 2))
            else:
                carry = carry + jnp.exp(100.0 * x)
            return carry, None

        total, _ = jax.lax.scan(body, 0.0, jnp.arange(3.5, 0.0, -1.0))
        return value + (1 if where == "infinity" else 0) * total, metrics

    return loss


@pytest.mark.slow
@pytest.mark.parametrize("points", [1, 2])
@pytest.mark.parametrize(("where", "operation"), [
    ("forward", "log"), ("backward", "div|mul|pow|sqrt"), ("infinity", "exp"),
])  # fmt: skip
def test_the_operation_is_found_inside_a_loop(hunting, where, operation, points):
    configs = [dataclasses.replace(toy.CONFIG, seed=seed) for seed in range(points)]
    program = Program(toy.task(loss=_broken(where)), configs)
    batches = [next(toy.batches(0))] * points
    with pytest.raises(FloatingPointError, match=f"encountered in ({operation})") as caught:
        program.step(program.initial(), batches)
    text = "".join(traceback.format_exception(caught.value))
    if where == "forward":
        assert "_log_of_less_than_zero" in text
    assert "body" in text or where == "backward"


def test_hunting_changes_no_number(hunting):
    def go():
        program = Program(toy.task(), [toy.CONFIG])
        state = program.initial()
        batches = toy.batches(0)
        for _ in range(3):
            state, _ = program.step(state, [next(batches)])
        return state

    hunted = go()
    with jax.debug_nans(False):
        usual = go()
    jax.tree.map(np.testing.assert_array_equal, hunted, usual)


def test_a_state_is_given_away():
    program = Program(toy.task(), [toy.CONFIG])
    state = program.initial()
    program.step(state, [next(toy.batches(0))])
    assert state.params["in"].is_deleted()


def test_points_are_taken_out_and_put_back():
    configs = [dataclasses.replace(toy.CONFIG, seed=seed) for seed in range(3)]
    program = Program(toy.task(), configs)
    state = program.initial()
    assert state.params["in"].shape == (3, 6, 4)
    states = [program.take(state, point) for point in range(3)]
    assert not np.array_equal(states[0].params["in"], states[1].params["in"])
    jax.tree.map(np.testing.assert_array_equal, program.put(states), state)
    for leaf, like in zip(
        jax.tree.leaves(states[1]), jax.tree.leaves(program.abstract), strict=True
    ):
        assert (leaf.shape, leaf.dtype) == (like.shape, like.dtype)


def test_parameters_given_to_start_from_are_the_optimizers_too():
    given = jax.tree.map(jnp.ones_like, toy.task().init(jax.random.key(0)))
    optimizer = optax.contrib.schedule_free_sgd(0.1)  # whose state holds parameters
    program = Program(toy.task(init_params=given, optimizer=optimizer), [toy.CONFIG])
    state = program.initial()
    for tree in (state.params, state.ema_params, state.opt_state.z):
        jax.tree.map(np.testing.assert_array_equal, tree, given)
    program.step(state, [next(toy.batches(0))])
    assert not given["in"].is_deleted()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda loss, metrics: (jnp.ones(3), metrics),
            r"a loss must be a scalar float, got .*\[3\]",
        ),
        (lambda loss, metrics: (1, metrics), r"a loss must be a scalar float, got int"),
        (lambda loss, metrics: loss, r"a loss must return a tuple .loss, dict of metrics., got "),
        (lambda loss, metrics: (loss, {"kind": "a"}), "metric kind must be a real number, got str"),
        (lambda loss, metrics: (loss, {"kind": None}), "metric kind must be a real number"),
        (lambda loss, metrics: (loss, {"kind": loss + 1j}), "metric kind must be a real number"),
        (lambda loss, metrics: (loss, {"kind": jnp.ones(2)}), "metric kind must be a scalar"),
        (lambda loss, metrics: (loss, {"loss": loss}), "a metric cannot be called loss"),
        (lambda loss, metrics: (loss, {"learning_rate": loss}), "cannot be called learning_rate"),
    ],
)
def test_a_loss_that_is_no_number_is_named(change, message):
    task = toy.task(loss=lambda *arguments: change(*toy.loss(*arguments)))
    with pytest.raises(ValueError, match=message):
        _steps(CONFIG, 1, task)
