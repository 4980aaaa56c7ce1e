"""The benchmarks at sizes that say nothing of speed: that they run, and count right."""

import json
import pathlib
import subprocess
import sys

import jax.numpy as jnp
import pytest

from benchmarks import gpu, presets, problem, timing
from drawjax.config import ClassificationConfig, GenerationConfig
from drawjax.modules import DrawConfig, RamConfig


def test_operations_of_a_step_are_those_of_its_products():
    config = DrawConfig(num_glimpses=3, hidden_size=8, latent_size=4, read_size=2, write_size=3)
    encoder, decoder = (2 * 4 + 8 + 8) * 4 * 8, (4 + 8) * 4 * 8
    heads = 8 * 4 + 8 * 4 + 8 * 9 + 8 * 5 + 8 * 5
    assert problem.model_flops(config, 10) == 3 * 2 * 10 * 3 * (encoder + decoder + heads)


@pytest.mark.slow
@pytest.mark.parametrize("part", ["steps", "plain", "generate", "glimpse", "torch"])
def test_every_part_for_a_gpu_gives_rows(part):
    if part == "torch" and not timing.has_torch():
        pytest.skip("PyTorch is not installed")
    rows = list(getattr(gpu, part)(gpu.TINY))
    assert rows
    assert all(row["ms"] > 0 for row in rows)
    whats = {row["what"] for row in rows}
    expected = {
        "steps": "drawjax, tf32", "plain": "lax.scan, bfloat16", "generate": "drawjax, float32",
        "glimpse": "map_coordinates", "torch": "PyTorch, eager",
    }  # fmt: skip
    assert expected[part] in whats


@pytest.mark.slow
def test_switches_reach_a_process_of_their_own():
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", "--tiny", "--parts", "switches", "--json"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    rows = json.loads(done.stdout)["rows"]
    assert [row["what"] for row in rows] == [
        f"{precision}, {name}"
        for name in ("as it is", "unroll 16")
        for precision in ("float32", "bfloat16")
    ]


@pytest.mark.slow
def test_the_rate_of_a_preset_is_of_both_kinds():
    generation = GenerationConfig(
        model=DrawConfig(num_glimpses=2, hidden_size=4, latent_size=2, read_size=2, write_size=2)
    )
    classification = ClassificationConfig(
        model=RamConfig(num_glimpses=2, hidden_size=4, read_size=3)
    )
    for config in (generation, classification):
        assert presets.rate(config, (28, 28, 1), 0.01) > 0


def test_presets_of_every_experiment_are_timed():
    folder = pathlib.Path(presets.__file__).parents[1] / "experiments"
    names = {path.stem for path in folder.glob("*_*.py")} - {"__init__"}
    assert set(presets.STORED) == names - {"attention_zoom", "image_generation"}


def test_parts_are_named_rightly():
    with pytest.raises(ValueError, match=r"parts are steps, torch, .* got fast"):
        gpu.run(gpu.GpuConfig(parts="steps,fast"))


def test_functions_take_turns():
    calls = []
    timed = timing.compare(
        {name: lambda name=name: calls.append(name) or jnp.zeros(()) for name in "ab"}, rounds=2
    )
    assert "".join(calls) == "ab" + "abab"
    assert 0 < timed["a"].fastest <= timed["a"].median
