import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from drawjax import modules
from drawjax.cells import GRU, LSTM, Dense, Stacked
from tests import oracle

pytestmark = pytest.mark.usefixtures("strict")

CELLS = {"LSTM": LSTM, "GRU": GRU}


def _cell(make, inputs=3, units=4, seed=0):
    """A cell whose every parameter is random and not small, and its parameters for the oracle."""
    graph, params = modules.split(make(inputs, units, key=jax.random.key(seed)))
    rng = np.random.default_rng(seed)
    params = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape)), params)
    return modules.merge(graph, params), params


def _loop(name, params, xs):
    """The hidden vectors of one sequence by the oracle."""
    params = jax.tree.map(np.asarray, params)
    hidden, outputs = [], []
    carry = tuple(params["initial"]) if name == "LSTM" else params["initial"][0]
    for x in xs:
        carry = getattr(oracle, name.lower())(params, carry, x)
        hidden = carry[1] if name == "LSTM" else carry
        outputs.append(hidden)
    return np.array(outputs)


@pytest.mark.slow
@pytest.mark.parametrize("name", CELLS)
def test_cells_equal_their_equations_in_float64(x64, name):
    cell, params = _cell(CELLS[name])
    xs = 2 * np.random.default_rng(1).normal(size=(5, 2, 3))
    carry, first = cell.initial_state(2)
    np.testing.assert_allclose(first, np.broadcast_to(params["initial"][-1], (2, 4)))
    hidden = []
    for x in xs:
        carry, h = cell(carry, jnp.asarray(x))
        hidden.append(h)
    for k in range(2):
        np.testing.assert_allclose(
            np.array(hidden)[:, k], _loop(name, params, xs[:, k]), atol=1e-12
        )


@pytest.mark.parametrize("mode", ["fwd", "rev"])
@pytest.mark.parametrize("name", CELLS)
def test_gradients_of_cells_match_finite_differences(x64, name, mode):
    cell, params = _cell(CELLS[name])
    graph, _ = modules.split(cell)
    x = jnp.asarray(np.random.default_rng(1).normal(size=(2, 3)))

    def total(params):
        cell = modules.merge(graph, jax.tree.map(jnp.asarray, params))
        carry, _ = cell.initial_state(2)
        carry, _ = cell(carry, x)
        return jnp.sum(cell(carry, x)[1] ** 2)

    check_grads(total, (params,), order=1, modes=[mode], atol=1e-5, rtol=1e-5)


@pytest.mark.slow
def test_an_lstm_of_large_gates_is_saturated():
    cell, params = _cell(LSTM, 1, 1)
    graph, _ = modules.split(cell)
    params["gates"] = {"kernel": jnp.zeros((2, 4)), "bias": jnp.full((4,), 1e4)}

    def step(params, c):
        return modules.merge(graph, params)((c, jnp.zeros((1, 1))), jnp.zeros((1, 1)))[0]

    (c, h), pullback = jax.vjp(step, params, jnp.ones((1, 1)))
    np.testing.assert_allclose([c[0, 0], h[0, 0]], [2.0, np.tanh(2.0)], rtol=1e-6)
    to_params, to_c = pullback((jnp.ones((1, 1)), jnp.zeros((1, 1))))
    np.testing.assert_array_equal(to_params["gates"]["bias"], jnp.zeros(4))
    np.testing.assert_allclose(to_c, [[1.0]])


@pytest.mark.slow
def test_stacked_cells_hand_the_hidden_vector_up(x64):
    lower, _ = _cell(LSTM)
    upper, _ = _cell(GRU, 4, 5, seed=2)
    stack = Stacked([lower, upper])
    x = jnp.asarray(np.random.default_rng(1).normal(size=(2, 3)))
    carry, hidden = stack.initial_state(2)
    np.testing.assert_array_equal(hidden, upper.initial_state(2)[1])
    carry, hidden = stack(carry, x)
    middle = lower(lower.initial_state(2)[0], x)[1]
    np.testing.assert_allclose(hidden, upper(upper.initial_state(2)[0], middle)[1])


def test_fresh_cells_start_with_open_forget_gates_and_orthogonal_recurrence():
    cell = LSTM(3, 4, key=jax.random.key(0))
    bias = np.asarray(cell.gates.bias[...])
    np.testing.assert_array_equal(bias, np.repeat([0, 1, 0, 0], 4))
    for gate in np.split(np.asarray(cell.gates.kernel[...])[3:], 4, axis=1):
        np.testing.assert_allclose(gate @ gate.T, np.eye(4), atol=1e-6)


@pytest.mark.usefixtures("own_errors")
def test_wrong_inputs_are_named():
    layer = Dense(3, 2, key=jax.random.key(0))
    with pytest.raises(ValueError, match=r"got \[5, 4\] and \[3, 2\]"):
        layer(jnp.zeros((5, 4)))
