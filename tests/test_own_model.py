"""The guide's custom models: what they change is called, trained, and kept."""

import dataclasses
import functools
import os
import re
import subprocess
import sys

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest

import drawjax
from drawjax import Draw, DrawConfig, attention, data, draw, modules, runner
from drawjax.config import GenerationConfig
from drawjax.objective import Bernoulli, Normal
from drawjax.training import RunError, TrainConfig
from drawjax.training.step import Hyperparams, Program, train_step
from tests.docs import pages

PAGE = pages.ROOT / "docs" / "guides" / "own_model.md"
SHAPE = (8, 8, 1)
CONFIG = DrawConfig(num_glimpses=3, hidden_size=8, latent_size=4, read_size=3, write_size=3)
# Title of the example, its model, the part that it changes.
EXAMPLES = {
    "GRU": ("GruDraw", "decoder"),
    "stacked": ("DeepDraw", "decoder"),
    "convolutional": ("ConvDraw", "conv"),
    "posterior": ("LaplaceDraw", "posterior"),
    "nothing of ours": ("tiny_draw", "weights"),
}


def _blocks():
    return [block for block in pages.blocks(PAGE) if block.language == "python"]


def _example(title):
    """The example's code and model, and a namespace with both."""
    name, _ = EXAMPLES[title]
    (block,) = [b for b in _blocks() if re.search(rf"(class|def) {name}\b", b.code)]
    namespace = {}
    exec(block.code, namespace)
    return block.code, namespace[name]


def _inputs(dtype=jnp.float32):
    images = (jax.random.uniform(jax.random.key(0), (4, *SHAPE)) > 0.5).astype(dtype)
    return images, jax.random.normal(jax.random.key(1), (3, 4, 4), dtype)


@pytest.mark.parametrize("title", EXAMPLES)
def test_examples_are_short(title):
    code, _ = _example(title)
    lines = [line for line in code.splitlines() if line and not re.match(r"from |import ", line)]
    assert len(lines) <= 25


@pytest.mark.slow
@pytest.mark.parametrize("title", EXAMPLES)
def test_the_changed_part_is_called_and_gets_a_gradient(title):
    _, model = _example(title)
    graph, params = modules.split(model(CONFIG, SHAPE, key=jax.random.key(0)))
    images, noise = _inputs()

    def loss(params):
        parts = draw.loss(modules.merge(graph, params), images, noise)
        return sum(map(jnp.sum, parts))

    gradient = jax.jit(jax.grad(loss))(params)
    part = EXAMPLES[title][1]
    changed = {
        jax.tree_util.keystr(path): np.abs(leaf).max()
        for path, leaf in jax.tree.leaves_with_path(gradient)
        if part in jax.tree_util.keystr(path) or part == "posterior"
    }
    assert changed
    # Values that another is added to at once (the first hidden vector's weights) may have none.
    zero = [name for name, size in changed.items() if not size > 0]
    assert not zero, zero


@pytest.mark.slow
def test_the_posterior_is_the_overriding_one():
    _, model = _example("posterior")
    output = model(CONFIG, SHAPE, key=jax.random.key(0)).infer(_inputs()[0], key=jax.random.key(2))
    assert type(output.posterior).__name__ == "Laplace"
    # Its KL is exact: the mean of log q - log p over many draws of z.
    posterior = jax.tree.map(lambda leaf: leaf[-1], output.posterior)
    noise = jax.random.normal(jax.random.key(3), (200_000, *posterior.mean.shape))
    latent = jax.vmap(posterior.sample)(noise)
    for prior in (Normal(), Normal(jnp.array(0.7), jnp.array(-0.4))):
        ratios = jax.vmap(posterior.log_prob)(latent) - prior.log_prob(latent)
        error = np.abs(posterior.kl(prior) - np.mean(ratios, axis=0)) / np.std(ratios, axis=0)
        assert (error < 5 / 447).all()  # the root of so many draws


@pytest.mark.parametrize("title", ["GRU", "stacked", "convolutional", "posterior"])
def test_products_of_our_layers_leave_the_loop(title, monkeypatch):
    _, model = _example(title)
    graph, params = modules.split(model(CONFIG, SHAPE, key=jax.random.key(0)))
    kernels = {leaf.shape for leaf in jax.tree.leaves(params) if leaf.ndim == 2} - {(2, 8), (1, 8)}

    def carried():
        """Kernels whose gradients a loop adds up as it goes: arrays of their shape in its carry."""

        def loss(params):
            return jnp.sum(jnp.stack(draw.loss(modules.merge(graph, params), *_inputs())))

        return kernels & set(_carries(jax.make_jaxpr(jax.grad(loss))(params).jaxpr))

    assert not carried()
    monkeypatch.setattr(draw, "scan", lambda *args, **_: jax.lax.scan(*args))
    assert carried() == kernels


def _carries(jaxpr):
    """Shapes of what the loops of a program carry from step to step."""
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "scan":
            # What is stacked over steps has an axis more outside of the body than inside.
            for outside, inside in zip(eqn.outvars, eqn.params["jaxpr"].jaxpr.outvars, strict=True):
                if outside.aval.shape == inside.aval.shape:
                    yield outside.aval.shape
        for inner in jax.extend.core.jaxprs_in_params(eqn.params):
            yield from _carries(inner)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Open:
    """A posterior whose KL is in no closed form."""

    normal: Normal

    def sample(self, noise):
        return self.normal.sample(noise)

    def log_prob(self, value):
        return self.normal.log_prob(value)


class _OpenDraw(Draw):
    def posterior(self, h_enc):
        return _Open(super().posterior(h_enc))


def test_a_posterior_without_a_kl_has_its_estimate():
    images, noise = _inputs()
    output = draw.infer(Draw(CONFIG, SHAPE, key=jax.random.key(0)), images, noise)
    model = _OpenDraw(CONFIG, SHAPE, key=jax.random.key(0))
    _, latent = draw.loss(model, images, noise)
    np.testing.assert_allclose(latent, -np.sum(output.log_ratio, axis=0), rtol=1e-5)
    assert np.abs(latent - np.sum(output.kl, axis=0)).min() > 1e-4
    np.testing.assert_allclose(draw.infer(model, images, noise).kl, -output.log_ratio, rtol=1e-5)
    assert draw.reconstruct(model, images).kl is None  # the mean is no sample


class _Doubled(Draw):
    """A canvas of two planes, of which the likelihood takes the difference."""

    @property
    def canvas_channels(self):
        return 2 * self.image_shape[2]

    def likelihood(self, canvas):
        return Bernoulli(canvas[..., :1] - canvas[..., 1:])


@pytest.mark.parametrize("write_size", [3, None])
def test_a_canvas_may_have_more_channels_than_the_image(write_size):
    config = dataclasses.replace(CONFIG, write_size=write_size)
    model = _Doubled(config, SHAPE, key=jax.random.key(0))
    output = model.infer(_inputs()[0], key=jax.random.key(1))
    assert output.canvases.shape == (3, 4, 8, 8, 2)
    assert output.images.shape == (4, 8, 8, 1)


METHODS = ("initial_state", "read", "encode", "posterior", "decode", "write")


@pytest.mark.parametrize("method", METHODS)
def test_no_override_is_ignored(method):
    def refuse(self, *args):
        raise NotImplementedError(method)

    model = type("Other", (Draw,), {method: refuse})(CONFIG, SHAPE, key=jax.random.key(0))
    images, noise = _inputs()
    graph, params = modules.split(model)

    def loss(params):
        return jnp.sum(draw.loss(modules.merge(graph, params), images, noise)[0])

    def raises(function, *args, **kwargs):
        with pytest.raises(NotImplementedError, match=method):
            function(*args, **kwargs)

    raises(jax.grad(loss), params)
    raises(model.infer, images, key=jax.random.key(0))
    raises(model.losses, images, key=jax.random.key(0))
    raises(model.reconstruct, images)
    raises(model.complete, images, jnp.ones((4, 8, 8, 1), bool), key=jax.random.key(0))
    keys = jax.random.split(jax.random.key(0), 4)
    raises(draw.importance_weighted_bound, model, images, keys, num_samples=2)
    if method in ("initial_state", "decode", "write"):
        raises(model.generate, 2, key=jax.random.key(0))
        raises(draw.sample, model, noise)


def _config(folder, **changes):
    config = GenerationConfig(
        workdir=str(folder),
        model=CONFIG,
        train=TrainConfig(steps=3, batch_size=8, log_every=1, eval_every=2, checkpoint_every=2),
        samples=4,
    )
    return dataclasses.replace(config, **changes)


IMAGES = (np.random.RandomState(0).uniform(size=(60, 8, 8)) > 0.7).astype(np.float32)


@pytest.mark.parametrize("title", EXAMPLES)
def test_examples_are_trained_and_draw(title):
    """As far as shapes and types go; the command line trains one of them, the last test another."""
    _, model = _example(title)
    config = _config("any")
    experiment = runner.experiment_of(config, data.load(IMAGES, config.data), model)
    program = Program(experiment, [config.train])
    hyperparams, batch = Hyperparams.of(config.train), next(experiment.batches(0))
    step = functools.partial(train_step, experiment)
    after, metrics = jax.eval_shape(
        step, program.abstract, batch, hyperparams, experiment.constants
    )
    assert metrics["loss"].shape == ()
    shapes = [
        jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), state)
        for state in (program.abstract, after)
    ]
    assert shapes[0] == shapes[1]
    images, noise = _inputs()
    for function, inputs in ((draw.generate, noise), (draw.reconstruct, images)):
        output = jax.eval_shape(
            lambda params, inputs, function=function: function(experiment.bound(params), inputs),
            experiment.abstract_params, inputs,
        )  # fmt: skip
        assert output.images.shape == (4, *SHAPE)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A model of our own class, saved."""
    folder = tmp_path_factory.mktemp("saved") / "model"
    drawjax.save_pretrained(Draw(CONFIG, SHAPE, key=jax.random.key(0)), folder)
    return str(folder)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_training_evaluation_and_sampling_run_the_overriding_method(
    method, saved, tmp_path, monkeypatch
):
    def refuse(self, *args):
        raise NotImplementedError(method)

    monkeypatch.setattr(Draw, method, refuse)
    for mode in ("train", "evaluate", "draw"):
        config = _config(tmp_path / mode, mode=mode, init_from=None if mode == "train" else saved)
        with pytest.raises(NotImplementedError, match=method):
            drawjax.train(config, dataset=IMAGES)


@pytest.mark.slow
def test_what_is_nothing_of_ours_goes_through_a_whole_run(tmp_path):
    _, model = _example("nothing of ours")
    config = _config(tmp_path / "run")
    results = drawjax.train(config, model=model, dataset=IMAGES)
    assert np.isfinite(results["test"]["loss"])
    trained = drawjax.load_run(tmp_path / "run", model=model)
    assert draw.generate(trained, _inputs()[1]).images.shape == (4, *SHAPE)
    # It goes on, and only as the same model.
    more = dataclasses.replace(config, train=dataclasses.replace(config.train, eval_every=3))
    assert drawjax.train(more, model=model, dataset=IMAGES) == results
    with pytest.raises(RunError, match="model_class: "):
        drawjax.train(more, dataset=IMAGES)
    with pytest.raises(RunError, match="trained a "):
        drawjax.load_run(tmp_path / "run")


@pytest.mark.slow
def test_the_guides_command_line_trains_and_resumes(tmp_path):
    (command,) = [block for block in _blocks() if "drawjax.main(" in block.code]
    (tmp_path / "gru.py").write_text('"""A GRU."""\n\n' + _example("GRU")[0] + command.code)
    flags = (
        "--preset", "demo", "--workdir", "runs/gru", "--model.num-glimpses", "2",
        "--model.hidden-size", "8", "--model.latent-size", "2", "--train.steps", "2",
        "--train.batch-size", "8", "--samples", "4", "--data.dir", "nowhere",
    )  # fmt: skip
    for message in ("test: ", "this run is finished"):
        done = subprocess.run(
            [sys.executable, "gru.py", *flags], cwd=tmp_path, capture_output=True, text=True,
            env={**os.environ, "PYTHONPATH": str(pages.ROOT)}, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]
        assert message in done.stderr
    assert (tmp_path / "runs" / "gru" / "report.html").exists()


class Everywhere(Draw):
    """Reads by windows all of one width, and writes by one window."""

    def read(self, image, error, h_dec):
        glimpse, window = super().read(image, error, h_dec)
        return glimpse, dataclasses.replace(window, stride=2.0, intensity=1)

    def write(self, h_dec):
        window = attention.Window(4.5, 4.5, 1.5, 1.0, 1.0)
        patch = jnp.broadcast_to(h_dec[:, :1, None, None], (len(h_dec), 3, 3, 1))
        return attention.write(patch, window, SHAPE[:2]), window


def test_windows_with_numbers_in_them_are_drawn(tmp_path):
    results = drawjax.train(_config(tmp_path / "run"), model=Everywhere, dataset=IMAGES)
    assert results["figures"] == 3
    assert (tmp_path / "run" / "drawing.gif").exists()
    model = drawjax.load_run(tmp_path / "run", model=Everywhere)
    output = model.infer(_inputs()[0], key=jax.random.key(0))
    for windows in (output.write_windows, output.read_windows):
        shapes = {field.shape for field in jax.tree.leaves(windows)}
        assert shapes == {(CONFIG.num_glimpses, 4)}
