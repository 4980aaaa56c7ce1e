import dataclasses
import json
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import drawjax
from drawjax import data, modules, pretrained
from drawjax.config import ClassificationConfig, GenerationConfig
from drawjax.modules import DrawConfig, RamConfig
from drawjax.recipes.generation import Generation
from drawjax.recipes.initialization import initial_params
from drawjax.recipes.runner import train_all
from drawjax.training import Run, RunError, TrainConfig

ROOT = pathlib.Path(__file__).parents[2]
CONFIG = GenerationConfig(
    data=data.GenerationDataConfig(binarization="dynamic", dir="nowhere"),
    model=DrawConfig(num_glimpses=2, hidden_size=8, latent_size=4, read_size=2, write_size=3),
    train=TrainConfig(steps=3, batch_size=8, log_every=1, eval_every=3, checkpoint_every=3),
    samples=4,
)
# A rate this small leaves the parameters where they were.
STILL = dataclasses.replace(CONFIG.train, steps=1, learning_rate=1e-9, eval_every=1)


def _model(config, seed=0):
    return modules.Draw(config, (28, 28, 1), key=jax.random.key(seed))


def _fresh(config, seed=0):
    return modules.split(_model(config, seed))[1]


@pytest.mark.slow
def test_a_run_starts_where_another_ended(tmp_path):
    first = dataclasses.replace(CONFIG, workdir=str(tmp_path / "first"))
    drawjax.train(first, dataset="mnist")
    with Run(first.workdir, dataclasses.replace(first, model_class="Draw")) as run:
        ended, _ = run.restore_best(_fresh(CONFIG.model))
    second = dataclasses.replace(
        CONFIG, workdir=str(tmp_path / "second"), init_from=first.workdir, train=STILL
    )
    results = drawjax.train(second, dataset="mnist")
    with Run(second.workdir, dataclasses.replace(second, model_class="Draw")) as run:
        started, _ = run.restore_best(ended)
    for new, old in zip(jax.tree.leaves(started), jax.tree.leaves(ended), strict=True):
        np.testing.assert_allclose(new, old, atol=1e-6)
    # It is evaluated by its own folder alone.
    again = dataclasses.replace(CONFIG, workdir=second.workdir, mode="evaluate")
    assert drawjax.train(again, dataset="mnist")["test"]["loss"] == pytest.approx(
        results["test"]["loss"], rel=1e-6
    )


@pytest.mark.slow
def test_a_learned_prior_starts_from_a_model_without_one(tmp_path, caplog):
    first = dataclasses.replace(CONFIG, workdir=str(tmp_path / "first"))
    before = drawjax.train(first, dataset="mnist")["test"]
    learned = dataclasses.replace(CONFIG.model, prior="learned")
    second = dataclasses.replace(
        CONFIG, workdir=str(tmp_path / "second"), init_from=first.workdir, train=STILL,
        model=learned,
    )  # fmt: skip
    with caplog.at_level("INFO"):
        after = drawjax.train(second, dataset="mnist")["test"]
    assert "has no learned prior: it starts as N(0, 1)" in caplog.text
    assert after["loss"] == pytest.approx(before["loss"], rel=1e-5)
    # The way back would drop what was learned.
    third = dataclasses.replace(
        CONFIG, workdir=str(tmp_path / "third"), init_from=second.workdir, train=STILL
    )
    with pytest.raises(ValueError, match="another model: prior is learned there, standard here"):
        drawjax.train(third, dataset="mnist")


def test_a_trained_model_of_the_package_takes_a_learned_prior():
    config = dataclasses.replace(pretrained.load("mnist").config, prior="learned")
    _, like = modules.abstract(modules.Draw, config, (28, 28, 1))
    params = initial_params("mnist", CONFIG, like)
    assert jax.tree.structure(params) == jax.tree.structure(like)
    assert not np.any(params["prior_mean"]["kernel"])
    assert np.any(params["mean"]["kernel"])


@pytest.mark.slow
def test_a_run_of_two_devices_is_a_start_on_two_and_on_one(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    code = (
        "import sys; from dataclasses import replace; "
        "import drawjax; from tests.recipes.test_initialization import CONFIG, STILL; "
        "first = replace(CONFIG, workdir=sys.argv[1]); "
        "second = replace(first, workdir=sys.argv[2], init_from=sys.argv[1], train=STILL); "
        "[drawjax.train(config, dataset='mnist') for config in (first, second)]"
    )
    subprocess.run(
        [sys.executable, "-c", code, first, second], cwd=ROOT, check=True, timeout=300,
        env={
            **os.environ, "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        },
    )  # fmt: skip
    third = dataclasses.replace(
        CONFIG, workdir=str(tmp_path / "third"), init_from=str(first), train=STILL
    )
    ended = json.loads((first / "results.json").read_text())["test"]["loss"]
    on_two = json.loads((second / "results.json").read_text())["test"]["loss"]
    on_one = drawjax.train(third, dataset="mnist")["test"]["loss"]
    assert [on_two, on_one] == pytest.approx([ended, ended], rel=1e-4)


@pytest.mark.slow
def test_a_run_goes_on_without_what_it_started_from(tmp_path):
    first = dataclasses.replace(CONFIG, workdir=str(tmp_path / "first"))
    drawjax.train(first, dataset="mnist")
    points = [
        dataclasses.replace(
            CONFIG, workdir=str(tmp_path / f"seed={seed}"), init_from=first.workdir,
            train=dataclasses.replace(STILL, seed=seed),
        )
        for seed in (1, 2)
    ]  # fmt: skip
    once = train_all(points, dataset="mnist")
    (tmp_path / "first").rename(tmp_path / "moved")
    again = train_all(points, dataset="mnist")
    assert [result["test"] for result in again] == [result["test"] for result in once]
    for checkpoint in (tmp_path / "seed=2" / "checkpoints").iterdir():
        checkpoint.rename(tmp_path / checkpoint.name)
    with pytest.raises(ValueError, match="no pretrained model"):
        train_all(points, dataset="mnist")


def test_pretrained_parameters_are_a_start(tmp_path):
    params = _fresh(CONFIG.model, seed=7)
    drawjax.save_pretrained(_model(CONFIG.model, seed=7), tmp_path)
    small = str(tmp_path)
    found = initial_params(small, CONFIG, _fresh(CONFIG.model))
    for new, old in zip(jax.tree.leaves(found), jax.tree.leaves(params), strict=True):
        assert new.dtype == jnp.float32
        np.testing.assert_allclose(new, old, rtol=1e-3, atol=1e-6)
    with pytest.raises(ValueError, match=r"gates\.kernel is \[12, 32\] there, \[14, 32\] here"):
        initial_params(small, CONFIG, _fresh(dataclasses.replace(CONFIG.model, latent_size=6)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "message"), [("nothing", "no pretrained model 'nothing'"), ("", "no run")]
)
def test_what_cannot_be_a_start_leaves_no_folder(source, message, tmp_path):
    (tmp_path / "empty").mkdir()
    config = dataclasses.replace(
        CONFIG, workdir=str(tmp_path / "run"), init_from=source or str(tmp_path / "empty")
    )
    with pytest.raises((ValueError, RunError), match=message):
        drawjax.train(config, dataset="mnist")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_pretrained_model_is_evaluated_without_a_run(tmp_path):
    params = _fresh(CONFIG.model)
    model, small = _model(CONFIG.model), str(tmp_path / "small")
    drawjax.save_pretrained(model, small)
    config = GenerationConfig(
        workdir=str(tmp_path / "run"), mode="evaluate", init_from=small, samples=4,
        data=CONFIG.data,
    )  # fmt: skip
    results = drawjax.train(config, dataset="mnist")
    assert results["parameters"] == modules.parameter_count(params)
    assert drawjax.train(config, dataset="mnist")["test"] == results["test"]
    images = data.load("mnist", CONFIG.data)
    recipe = Generation(CONFIG, images, modules.Draw)
    assert results["test"]["loss"] == pytest.approx(
        recipe.evaluate(modules.split(model)[1], images.test)["loss"], rel=1e-5
    )
    looking = ClassificationConfig(
        workdir=str(tmp_path / "other"), mode="draw", init_from=small,
        data=data.ClutterDataConfig(dir="nowhere"),
    )  # fmt: skip
    with pytest.raises(ValueError, match="another kind of experiment"):
        drawjax.train(looking, dataset="mnist")


@pytest.mark.slow
def test_a_run_is_evaluated_with_its_own_sizes(tmp_path):
    config = ClassificationConfig(
        workdir=str(tmp_path / "run"),
        data=data.ClutterDataConfig(dir="nowhere", clutter_size=40, pieces=1),
        model=RamConfig(num_glimpses=1, hidden_size=4, read_size=3),
        train=TrainConfig(steps=1, batch_size=8, eval_every=1),
    )  # fmt: skip
    results = drawjax.train(config, dataset="mnist")
    again = ClassificationConfig(workdir=config.workdir, mode="evaluate")
    assert drawjax.train(again, dataset="mnist")["test"]["loss"] == pytest.approx(
        results["test"]["loss"], rel=1e-6
    )
