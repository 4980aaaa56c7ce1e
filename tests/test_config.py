import ast
import dataclasses
import importlib
import inspect
import itertools
import json
import math
import os
import pathlib
import pkgutil
import re
import textwrap
from typing import Literal

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import drawjax
import experiments
from drawjax.config import (
    Checked,
    ClassificationConfig,
    ClutterDataConfig,
    DataConfig,
    DrawConfig,
    GenerationConfig,
    GenerationDataConfig,
    RamConfig,
    TrainConfig,
    flatten,
    from_flat,
    option,
)
from experiments.attention_zoom import ZoomConfig

CONFIGS = (
    DrawConfig, RamConfig, DataConfig, GenerationDataConfig, ClutterDataConfig, TrainConfig,
    GenerationConfig, ClassificationConfig, ZoomConfig,
)  # fmt: skip


def _dataclasses():
    """All dataclasses of the package and of the experiments that are called configs or options."""
    found = set()
    for package in (drawjax, experiments):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            for value in vars(importlib.import_module(module.name)).values():
                if isinstance(value, type) and dataclasses.is_dataclass(value):
                    found.add(value)
    return {cls for cls in found if re.search(r"(Config|Options)$", cls.__name__)}


def test_every_config_checks_itself():
    configs = _dataclasses()
    assert len(configs) > 15
    assert {cls for cls in configs if not issubclass(cls, Checked)} == set()
    # What a flag names as a path may begin with the user's home.
    for cls in configs:
        for field in dataclasses.fields(cls):
            if "Path" in str(field.type):
                assert field.metadata["path"], f"{cls.__name__}.{field.name}"


FIELDS = [(cls, field.name) for cls in CONFIGS for field in dataclasses.fields(cls)]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("steps", 0), ("batch_size", -1), ("log_every", 0), ("eval_every", 0),
        ("checkpoint_every", 0), ("keep_checkpoints", 0), ("max_skipped", 0),
        ("learning_rate", 0.0), ("learning_rate", float("inf")), ("learning_rate", float("nan")),
        ("clip_norm", -1.0), ("warmup_steps", -1), ("weight_decay", -0.1), ("seed", -1),
        ("steps", 2**31), ("warmup_steps", 2**31),
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


# What people have in their hands, and what nobody should.
_NUMBERS = st.integers() | st.floats() | st.booleans()
_VALUES = st.one_of(
    _NUMBERS,
    _NUMBERS.map(np.asarray).filter(lambda number: number.dtype != object),
    st.floats(width=32).map(np.float32),
    st.integers(-(2**31), 2**31 - 1).map(np.int32),
    st.booleans().map(np.bool_),
    st.text(),
    st.text().map(pathlib.Path),
    st.binary(),
    st.none(),
    st.lists(_NUMBERS),
    st.lists(_NUMBERS).map(tuple),
    st.lists(st.floats()).map(np.array),
    st.dictionaries(st.text(), st.integers()),
    st.sampled_from([
        10**5000, -(10**5000), 1j, object(), int, np.zeros((2, 2)), np.array(["none", "static"]),
        jnp.float32(0.5), jnp.int32(3), jnp.arange(2), "Bernoulli", "logistic", "a\0b", "\ud800",
        DataConfig(), DrawConfig(), TrainConfig, float("nan"), float("inf"), "~/x",
    ]),
)  # fmt: skip


@settings(deadline=None, max_examples=600)
@given(st.sampled_from(FIELDS), _VALUES)
def test_whatever_a_field_is_given_it_is_taken_or_refused_by_name(field, value):
    cls, name = field
    try:
        config = cls(**{name: value})
    except ValueError as error:
        said = str(error)
        assert name.replace("_", "-") in said.replace("_", "-")
        return
    taken = flatten(config)
    # What is written says all of it, and nothing but Python's own types is in it.
    text = json.dumps(taken, allow_nan=False)
    assert from_flat(config, json.loads(text)) == config
    parts = [part for v in taken.values() for part in (v if isinstance(v, list) else [v])]
    assert {type(part) for part in parts} <= {int, float, bool, str, type(None)}
    for part in parts:
        if isinstance(part, float):
            assert math.isfinite(part)
        elif isinstance(part, str):
            os.fsencode(part)


def test_numbers_and_paths_are_taken_for_what_they_are():
    config = DrawConfig(num_glimpses=np.int64(3), hidden_size=jnp.int32(4), remat=np.bool_(True))
    assert config == DrawConfig(num_glimpses=3, hidden_size=4, remat=True)
    assert TrainConfig(learning_rate=jnp.float32(0.5)).learning_rate == 0.5
    assert ClassificationConfig(workdir=pathlib.Path("~/x")).workdir == os.path.expanduser("~/x")
    assert ZoomConfig(center=[1, 2], zooms=np.array([0.5])) == ZoomConfig(
        center=(1.0, 2.0), zooms=(0.5,)
    )


@dataclasses.dataclass(frozen=True)
class _Command(Checked):
    _prefix = "--"

    patch_size: int = option(1, low=1)


@pytest.mark.parametrize(("make", "message"), [
    (lambda: DrawConfig(likelihood="logistic"), r"^model\.likelihood must be one of bernoulli, "
     r".*, got 'logistic'; did you mean discretized_logistic\?$"),
    (lambda: DrawConfig(precision="bf16"), r"^model\.precision .* did you mean bfloat16\?$"),
    (lambda: DrawConfig(prior="Learned"), r"did you mean learned\?$"),
    (lambda: DrawConfig(likelihood=np.array(["a", "b"])), r"^model\.likelihood must be one of"),
    (lambda: GenerationConfig(mode="sample"), r"^mode must be one of"),
    (lambda: TrainConfig(steps=True), r"^train\.steps must be a whole number, got True$"),
    (lambda: TrainConfig(steps=RamConfig()), r"^train\.steps must be a whole number, got Ram"),
    (lambda: TrainConfig(steps=10**5000), r"^train\.steps must fit into 64 bits, got one of type"),
    (lambda: TrainConfig(learning_rate=10**400), r"^train\.learning_rate must be finite"),
    (lambda: GenerationDataConfig(folder=""), r"^data\.folder must not be empty; leave it out"),
    (lambda: GenerationConfig(workdir="a\0b"), r"^workdir must be a name that a file can have"),
    (lambda: ZoomConfig(center=(1.0,)), r"^--center must have 2 values, got \(1\.0,\)$"),
    (lambda: ZoomConfig(center=(1.0, math.nan)), r"^--center must be finite, got nan$"),
    (lambda: ZoomConfig(zooms=(math.inf,)), r"^--zooms must be finite, got inf$"),
    (lambda: ZoomConfig(sharpness=math.nan), r"^--sharpness must be finite, got nan$"),
    (lambda: ZoomConfig(center=(1.0, -1e39)), r"^--center must fit into a float32, got -1e\+39$"),
    (lambda: ZoomConfig(zooms=(1e30,)), r"^--zooms must be at most 1000, got 1e\+30$"),
    (lambda: ZoomConfig(sharpness=0.0), r"^--sharpness must be positive, got 0\.0$"),
    (lambda: _Command(patch_size=0), r"^--patch-size must be at least 1, got 0$"),
])  # fmt: skip
def test_what_cannot_be_taken_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@dataclasses.dataclass(frozen=True)
class _Own(Checked):
    either: int | str = 1
    level: Literal[1, 2] = 1
    sizes: list[int] = dataclasses.field(default_factory=list)
    names: dict[str, int] | None = None
    pair: tuple[int, str] = (1, "a")


def test_fields_of_other_types_are_taken_as_they_are():
    own = _Own(either="a", level=2, sizes=[3], names={"a": 1}, pair=[2, "b"])
    assert own == _Own("a", 2, [3], {"a": 1}, (2, "b"))
    for changes, message in (
        ({"level": 3}, "level must be one of 1, 2, got 3"),
        ({"pair": ("b", 2)}, "pair must be a whole number, got 'b'"),
    ):
        with pytest.raises(ValueError, match=message):
            _Own(**changes)
