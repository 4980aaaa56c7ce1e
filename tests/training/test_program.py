import dataclasses
import traceback

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from drawjax.training.step import Program
from tests.training import toy


@pytest.fixture
def hunting():
    """As `--debug-nans` does."""
    with jax.debug_nans(True):
        yield


def _log_of_less_than_zero(x):
    return jnp.log(x - 3.0)


def _broken(where):
    """A loss that is not finite, for a reason deep inside a loop."""

    def loss(params, batch, key, constants):
        value, metrics = toy.loss(params, batch, key, constants)

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
    np.testing.assert_array_equal(program.evaluated(state, 2)["in"], states[2].ema_params["in"])


def test_parameters_given_to_start_from_are_the_optimizers_too():
    given = jax.tree.map(jnp.ones_like, toy.task().init(jax.random.key(0)))
    optimizer = optax.contrib.schedule_free_sgd(0.1)  # whose state holds parameters
    program = Program(toy.task(init_params=given, optimizer=optimizer), [toy.CONFIG])
    state = program.initial()
    for tree in (state.params, state.ema_params, state.opt_state.z):
        jax.tree.map(np.testing.assert_array_equal, tree, given)
    program.step(state, [next(toy.batches(0))])
    assert not given["in"].is_deleted()
