import jax
import jax.numpy as jnp
import numpy as np
import pytest

import drawjax
from drawjax import modules, pretrained, sample
from tests.commands import exit_code

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
    assert model.patch.dtype == jnp.bfloat16


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

    with pytest.raises(ValueError, match="only Draw and Ram can be shipped, got a Other"):
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


def test_bad_requests_are_one_line(folder, capsys, monkeypatch):
    load = pretrained.load
    monkeypatch.setattr(pretrained, "load", lambda name: load(name, folder))
    assert (
        exit_code(sample.main, ["--model", "small", "--num", "0", "--out", str(folder / "x.png")])
        == 2
    )
    assert capsys.readouterr().err.strip() == "error: --num must be at least 1, got 0"
    assert not (folder / "x.png").exists()
    out, gif = folder / "grid.png", folder / "draw.gif"
    assert (
        exit_code(
            sample.main, ["--model", "small", "--num", "4", "--out", str(out), "--gif", str(gif)]
        )
        == 0
    )
    assert out.exists()
    assert gif.exists()
