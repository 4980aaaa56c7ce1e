import ast
import dataclasses
import inspect
import itertools
import textwrap

import pytest

from drawjax.training import TrainConfig


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("steps", 0), ("batch_size", -1), ("log_every", 0), ("eval_every", 0),
        ("checkpoint_every", 0), ("keep_checkpoints", 0), ("max_skipped", 0),
        ("learning_rate", 0.0), ("learning_rate", float("inf")), ("learning_rate", float("nan")),
        ("clip_norm", -1.0), ("warmup_steps", -1), ("weight_decay", -0.1), ("seed", -1),
        ("seed", 2**31), ("decay_fraction", 1.5), ("ema_decay", -0.5),
    ],
)  # fmt: skip
def test_a_value_without_sense_is_named(field, value):
    with pytest.raises(ValueError, match=rf"^train\.{field} must .*{value}$"):
        TrainConfig(**{field: value})


def test_every_field_is_described_for_help():
    body = ast.parse(textwrap.dedent(inspect.getsource(TrainConfig))).body[0].body
    described = {
        node.target.id
        for node, after in itertools.pairwise(body)
        if isinstance(node, ast.AnnAssign) and isinstance(after, ast.Expr)
    }
    assert described == {field.name for field in dataclasses.fields(TrainConfig)}


def test_the_number_of_steps_is_open_until_the_decay():
    config = TrainConfig(steps=100, decay_fraction=0.3)
    assert (config.decay_steps, config.fixed_from) == (30, 70)
