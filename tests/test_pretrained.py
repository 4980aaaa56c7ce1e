import jax
import jax.numpy as jnp
import numpy as np
import pytest

import drawjax
from drawjax import draw, modules, pretrained, sample

CONFIG = modules.DrawConfig(
    num_glimpses=3, hidden_size=6, latent_size=4, read_size=None, write_size=3
)


@pytest.fixture
def folder(tmp_path):
    _, params = modules.split(modules.Draw(CONFIG, (6, 5, 1), key=jax.random.key(0)))
    pretrained.save("small", CONFIG, (6, 5, 1), params, {"data": "none"}, tmp_path)
    return tmp_path


def test_a_saved_model_comes_back_to_half_precision(folder):
    model = pretrained.load("small", folder)
    _, params = modules.split(modules.Draw(CONFIG, (6, 5, 1), key=jax.random.key(0)))
    assert model.config == CONFIG
    assert model.provenance == {"data": "none"}
    for new, old in zip(jax.tree.leaves(model.params), jax.tree.leaves(params), strict=True):
        np.testing.assert_allclose(new, old, rtol=1e-3, atol=1e-6)
    trace = draw.generate(model.networks(), jnp.zeros((3, 2, 4)))
    assert trace.canvases.shape == (3, 2, 6, 5, 1)


def test_a_classifier_is_saved_too(tmp_path):
    config = modules.RamConfig(num_glimpses=2, hidden_size=5, read_size=3)
    _, params = modules.split(modules.Ram(config, (9, 9, 1), key=jax.random.key(0)))
    pretrained.save("looks", config, (9, 9, 1), params, {}, tmp_path)
    model = pretrained.load("looks", tmp_path)
    assert model.config == config
    assert pretrained.available(folder=tmp_path) == ["looks"]
    assert pretrained.available("ram", tmp_path) == ["looks"]
    assert pretrained.available("draw", tmp_path) == []
    with pytest.raises(ValueError, match="draws nothing"):
        sample.sample(model, 1, jax.random.key(0))


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


@pytest.mark.parametrize("name", pretrained.available() or [None])
def test_every_model_that_ships_is_whole(name):
    if name is None:
        pytest.skip("no model ships yet")
    model = drawjax.load_pretrained(name)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(model.params))
    assert {"data", "test", "commit"} <= set(model.provenance)
    if isinstance(model.config, modules.DrawConfig):
        trace = sample.sample(model, 2, jax.random.key(0))
        means = np.asarray(jax.nn.sigmoid(trace.canvases[-1]))
        assert means.shape == (2, *model.image_shape)
        assert 0.02 < means.std() < 0.6


def test_bad_requests_are_one_line(folder, capsys, monkeypatch):
    load = pretrained.load
    monkeypatch.setattr(pretrained, "load", lambda name: load(name, folder))
    assert sample.main(["--model", "small", "--num", "0", "--out", str(folder / "x.png")]) == 1
    assert capsys.readouterr().err.strip() == "error: num must be at least 1, got 0"
    assert not (folder / "x.png").exists()
    out, gif = folder / "grid.png", folder / "draw.gif"
    assert (
        sample.main(["--model", "small", "--num", "4", "--out", str(out), "--gif", str(gif)]) == 0
    )
    assert out.exists()
    assert gif.exists()
