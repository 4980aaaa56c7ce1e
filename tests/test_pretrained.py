import dataclasses
import functools
import json
import sys
import types

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import drawjax
from drawjax import cli, modules, pretrained, sample
from tests.commands import exit_code

_sample = functools.partial(exit_code, sample.sample, sample.SampleConfig())

CONFIG = modules.DrawConfig(
    num_glimpses=3, hidden_size=6, latent_size=4, read_size=None, write_size=3
)


def _model(config=CONFIG):
    return modules.Draw(config, (6, 5, 1), key=jax.random.key(0))


@pytest.fixture
def folder(tmp_path):
    pretrained.save("small", _model(), {"data": "none"}, tmp_path)
    return tmp_path


@pytest.mark.slow
def test_a_saved_model_comes_back_to_half_precision(folder):
    model = pretrained.load("small", folder)
    assert model.config == CONFIG
    assert pretrained.describe("small", folder)["provenance"] == {"data": "none"}
    new, old = (jax.tree.leaves(modules.split(m)[1]) for m in (model, _model()))
    for a, b in zip(new, old, strict=True):
        assert a.dtype == jnp.float32
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6)
    assert model.generate(2, key=jax.random.key(0)).canvases.shape == (3, 2, 6, 5, 1)


def test_a_model_is_loaded_in_another_precision(folder):
    model = pretrained.load("small", folder, precision="bfloat16")
    assert model.config.precision == "bfloat16"
    assert jnp.dtype(model.patch.dtype) == jnp.bfloat16


@pytest.mark.slow
def test_a_classifier_is_saved_too(tmp_path):
    config = modules.RamConfig(num_glimpses=2, hidden_size=5, read_size=3)
    pretrained.save("looks", modules.Ram(config, (9, 9, 1), key=jax.random.key(0)), {}, tmp_path)
    model = pretrained.load("looks", tmp_path)
    assert model.config == config
    assert model.classify(np.zeros((2, 9, 9, 1), np.float32)).logits.shape == (2, 10)
    assert pretrained.available(folder=tmp_path) == ["looks"]
    assert pretrained.available("ram", tmp_path) == ["looks"]
    assert pretrained.available("draw", tmp_path) == []


def test_a_class_of_ones_own_is_not_shipped(tmp_path):
    class Other(modules.Draw):
        pass

    with pytest.raises(ValueError, match="only Draw and Ram can be saved so, got a Other"):
        pretrained.save("other", Other(CONFIG, (6, 5, 1), key=jax.random.key(0)), {}, tmp_path)
    assert not list(tmp_path.iterdir())


def test_damaged_weights_are_refused(folder):
    weights = folder / "small.npz"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    with pytest.raises(ValueError, match=r"small\.npz is damaged"):
        pretrained.load("small", folder)


def test_an_unknown_model_names_the_nearest(folder):
    with pytest.raises(ValueError, match="did you mean small"):
        pretrained.load("smal", folder)


@pytest.mark.parametrize("name", pretrained.available())
def test_every_model_that_ships_is_whole(name):
    model = drawjax.load_pretrained(name)
    params = modules.split(model)[1]
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))
    provenance = pretrained.describe(name)["provenance"]
    assert {"data", "test", "commit"} <= set(provenance)
    assert modules.parameter_count(params) == provenance["parameters"]


def test_the_documented_names_are_those_that_ship():
    known = drawjax.load_pretrained.__doc__
    assert all(f"`{name}`" in known for name in pretrained.available())


def test_bad_requests_are_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    drawjax.save_pretrained(_model(), "small")
    assert (
        _sample(
            ["--model", "small", "--num", "0", "--out", "x.png"],
        )
        == 2
    )
    assert capsys.readouterr().err.strip() == "error: --num must be at least 1, got 0"
    assert not (tmp_path / "x.png").exists()
    command = ["--model", "small", "--num", "4", "--seed", "3", "--gif", "draw.gif"]
    assert _sample(command) == 0
    assert capsys.readouterr().out.split() == ["samples_small_3.png", "draw.gif"]
    assert (tmp_path / "samples_small_3.png").exists()
    assert (tmp_path / "draw.gif").exists()


def test_the_help_of_sample_names_what_draws(capsys):
    with pytest.raises(SystemExit):
        cli.drawjax(["sample", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "mnist_no_attention, mnist_static, two_digits" in said
    assert "ram8" not in said


@pytest.mark.parametrize("kind", ["draw", "ram"])
def test_a_folder_holds_a_model_exactly(tmp_path, kind):
    config = dataclasses.replace(CONFIG, prior="learned")
    if kind == "draw":
        model = modules.Draw(config, (6, 5, 1), key=jax.random.key(0))
    else:
        config = modules.RamConfig(num_glimpses=2, hidden_size=5, read_size=3, num_scales=2)
        model = modules.Ram(config, (9, 9, 1), key=jax.random.key(0))
    drawjax.save_pretrained(model, tmp_path / "mine", provenance={"data": "digits"})
    assert {path.name for path in (tmp_path / "mine").iterdir()} == {
        "config.json", "model.safetensors",
    }  # fmt: skip
    loaded = drawjax.load_pretrained(tmp_path / "mine")
    assert type(loaded) is type(model)
    assert loaded.config == config
    chex.assert_trees_all_equal(modules.split(loaded)[1], modules.split(model)[1])
    written = json.loads((tmp_path / "mine" / "config.json").read_text())
    assert written["provenance"] == {"data": "digits"}
    other = drawjax.load_pretrained(str(tmp_path / "mine"), precision="bfloat16")
    assert other.config.precision == "bfloat16"


def test_what_holds_no_model_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"holds no model: there is no .*config.json"):
        drawjax.load_pretrained(tmp_path)
    drawjax.save_pretrained(_model(), tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"scribble")
    with pytest.raises(ValueError, match=r"cannot be read \(SafetensorError"):
        drawjax.load_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"kind": "cat"}')
    with pytest.raises(ValueError, match="cannot be read"):
        drawjax.load_pretrained(tmp_path)
    with pytest.raises(ValueError, match="did you mean mnist"):
        drawjax.load_pretrained("mnits")

    class Other(modules.Draw):
        pass

    with pytest.raises(ValueError, match="only Draw and Ram can be saved so, got a Other"):
        drawjax.save_pretrained(Other(CONFIG, (6, 5, 1), key=jax.random.key(0)), tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_a_hub_is_asked_where_its_package_is(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ValueError, match=r"no folder me/mine; .* pip install huggingface_hub"):
        drawjax.load_pretrained("me/mine")
    drawjax.save_pretrained(_model(), tmp_path)

    def snapshot_download(repository, allow_patterns):
        if repository != "me/mine":
            raise OSError("no such repository\nand more")
        assert allow_patterns == ["config.json", "model.safetensors"]
        return str(tmp_path)

    hub = types.SimpleNamespace(snapshot_download=snapshot_download)
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    assert drawjax.load_pretrained("me/mine").config == CONFIG
    with pytest.raises(ValueError, match=r"cannot download me/yours: no such repository$"):
        drawjax.load_pretrained("me/yours")
