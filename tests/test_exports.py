import dataclasses
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import drawjax
from drawjax import attention, draw, export_command, exports, modules, pretrained, ram
from tests.commands import exit_code
from tests.docs import pages

TOLERANCE = 1e-5
DRAW = modules.DrawConfig(num_glimpses=3, hidden_size=6, latent_size=4, read_size=2, write_size=3)
CLASSES = dataclasses.replace(DRAW, num_classes=4, prior="learned")


@pytest.fixture(autouse=True)
def _known_jax(request):
    """Skips what writes ONNX where jax2onnx does not know the JAX that is installed."""
    writes = "onnx" in request.node.name or "bfloat16" in request.node.name
    if writes and jax.__version_info__ >= (0, 11):
        pytest.skip("the newest jax2onnx beside Orbax 0.12 is 0.13.0, which knows jax to 0.10")


def _small(config=DRAW, shape=(6, 5, 1)):
    return modules.Draw(config, shape, key=jax.random.key(0))


def _inputs(model, function, batch=3, steps=None):
    rng = np.random.default_rng(0)
    shape = model.image_shape
    steps = steps or model.num_glimpses
    if function in ("classify", "reconstruct"):
        return {"images": rng.random((batch, *shape), np.float32)}
    noise = rng.standard_normal((steps, batch, model.latent_size)).astype(np.float32)
    if function == "generate":
        return {"noise": noise}
    known = rng.random((batch, *shape[:2], 1)) < 0.5
    images = rng.random((batch, *shape), np.float32)
    return {"images": images, "known": known.astype(np.float32), "noise": noise}


def _by_jax(model, function, inputs):
    """What drawjax itself makes of it, in the model's own arithmetic."""
    if function == "classify":
        output = ram.classify(model, inputs["images"])
        return {"logits": output.logits, "read_windows": _rows(output.windows)}
    called = getattr(draw, function)
    if function == "complete":
        inputs = inputs | {"known": inputs["known"] > 0}
    output = called(model, **inputs)
    named = {"drawing": model.likelihood(output.canvases).mean}
    for name in ("read_windows", "write_windows"):
        if (window := getattr(output, name)) is not None:
            named[name] = _rows(window)
    if function == "reconstruct":
        named |= {"latents": output.latents, "kl": output.kl}
    return named


def _rows(window):
    return jnp.stack(jax.tree.leaves(window), axis=-1)


def _by_onnx(path, inputs):
    import onnxruntime

    onnxruntime.set_default_logger_severity(3)  # it warns of values that nothing uses
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(None, inputs), strict=True))


def _by_stablehlo(path, inputs):
    return jax.export.deserialize(bytearray(path.read_bytes())).call(**inputs)


RUN = {"onnx": _by_onnx, "stablehlo": _by_stablehlo}


def _agree(left, right, tolerance=TOLERANCE):
    assert set(left) == set(right)
    for name, value in left.items():
        np.testing.assert_allclose(value, right[name], tolerance, tolerance, err_msg=name)


@pytest.mark.parametrize("format", RUN)
@pytest.mark.parametrize(("config", "function"), [
    (DRAW, "generate"), (DRAW, "reconstruct"), (DRAW, "complete"), (CLASSES, "generate"),
])  # fmt: skip
def test_an_export_computes_what_the_model_does(config, function, format, tmp_path):
    path, model = tmp_path / f"model.{format}", _small(config)
    drawjax.export(model, path, function=function)
    for batch, steps in ((3, 3), (1, 5)):
        inputs = _inputs(model, function, batch, steps)
        if config.num_classes:
            inputs["condition"] = np.eye(4, dtype=np.float32)[:batch]
        _agree(RUN[format](path, inputs), _by_jax(model, function, inputs))


@pytest.mark.parametrize("format", RUN)
@pytest.mark.parametrize("options", [{}, {"glimpse_features": 4, "last_view": 3}])
def test_a_classifier_is_exported(format, options, tmp_path):
    config = drawjax.RamConfig(num_glimpses=2, hidden_size=5, read_size=4, num_scales=2, **options)
    model = drawjax.Ram(config, (9, 8, 1), key=jax.random.key(0))
    drawjax.export(model, tmp_path / f"model.{format}")
    inputs = _inputs(model, "classify")
    got = RUN[format](tmp_path / f"model.{format}", inputs)
    _agree(got, _by_jax(model, "classify", inputs))


@pytest.mark.parametrize("format", RUN)
def test_steps_draw_what_generate_draws(format, tmp_path):
    model, path = _small(CLASSES), tmp_path / f"model.{format}"
    drawjax.export(model, path, function="step")
    noise = _inputs(model, "generate")["noise"]
    condition = np.eye(4, dtype=np.float32)[[3, 0, 1]]
    output = draw.generate(model, noise, condition=condition)
    drawing = np.asarray(model.likelihood(output.canvases).mean)
    state = np.zeros((3, 30 + 3 * 6), np.float32)
    for t, row in enumerate(noise):
        output = RUN[format](path, {"state": state, "noise": row, "condition": condition})
        state = np.asarray(output["next_state"])
        np.testing.assert_allclose(output["drawing"], drawing[t], TOLERANCE, TOLERANCE)


def test_a_model_in_bfloat16_is_exported_in_float32(tmp_path):
    low = _small(dataclasses.replace(DRAW, precision="bfloat16"))
    drawjax.export(low, tmp_path / "model.onnx")
    assert jnp.dtype(low.patch.dtype) == jnp.bfloat16  # as it was
    inputs = _inputs(low, "generate")
    _agree(_by_onnx(tmp_path / "model.onnx", inputs), _by_jax(_small(), "generate", inputs))


def _read(image, window):
    window = attention.Window(*(window[..., i] for i in range(5)))
    return {"patch": attention.read(image, window, 5)}


def _write(patch, window, like):
    window = attention.Window(*(window[..., i] for i in range(5)))
    return {"image": attention.write(patch, window, like.shape[1:3])}


@pytest.mark.parametrize("format", RUN)
@pytest.mark.parametrize("function", [_read, _write])
def test_the_window_is_exported_for_images_of_any_size(function, format, tmp_path, own_errors):
    shapes = {"window": ("batch", 5)}
    if function is _read:
        shapes = {"image": ("batch", "height", "width", 3)} | shapes
    else:
        like = ("batch", "height", "width", 1)
        shapes = {"patch": ("batch", 5, 5, 3)} | shapes | {"like": like}
    path = tmp_path / f"window.{format}"
    exports.export_function(function, path, shapes)
    rng = np.random.default_rng(0)
    for sizes in ({"batch": 2, "height": 20, "width": 31}, {"batch": 1, "height": 64, "width": 48}):
        inputs = {
            name: rng.random([sizes.get(axis, axis) for axis in shape], np.float32)
            for name, shape in shapes.items()
        }
        inputs["window"] = inputs["window"] * [20, 20, 3, 4, 1] + np.float32([0, 0, 1, 0.5, 0.5])
        inputs["window"] = inputs["window"].astype(np.float32)
        _agree(
            RUN[format](path, inputs),
            function(**{name: jnp.asarray(value) for name, value in inputs.items()}),
        )


# Whole drawings of trained models amplify rounding, and are held to what float32 does to them.
@pytest.mark.slow
@pytest.mark.parametrize("name", pretrained.available())
def test_every_model_that_ships_runs_in_onnx_runtime(name, tmp_path, optimized):
    model = drawjax.load_pretrained(name, precision="float32")
    function = "classify" if name.startswith("ram") else "generate"
    drawjax.export(drawjax.load_pretrained(name), tmp_path / "model.onnx")
    inputs = _inputs(model, function)
    if name == "mnist_classes":
        inputs["condition"] = np.eye(10, dtype=np.float32)[[7, 0, 3]]
    got = _by_onnx(tmp_path / "model.onnx", inputs)
    want = _by_jax(model, function, inputs)
    with jax.enable_x64(True):
        graph, params = modules.split(model)
        wide = modules.merge(graph, jax.tree.map(lambda leaf: leaf.astype("float64"), params))
        exact = _by_jax(wide, function, {k: v.astype("float64") for k, v in inputs.items()})
    for key, value in want.items():
        scale = np.abs(np.asarray(exact[key])).max()
        error = np.abs(got[key] - value)
        assert np.median(error) < TOLERANCE * max(scale, 1)
        rounding = np.abs(np.asarray(value) - np.asarray(exact[key])).max()
        assert error.max() < TOLERANCE * max(scale, 1) + 3 * rounding, key


@pytest.mark.slow
@pytest.mark.parametrize("name", ["GruDraw", "DeepDraw", "ConvDraw", "LaplaceDraw", "tiny_draw"])
def test_models_of_the_guide_are_exported(name, tmp_path):
    page = pages.ROOT / "docs" / "guides" / "own_model.md"
    (code,) = [b.code for b in pages.blocks(page) if re.search(rf"(class|def) {name}\b", b.code)]
    namespace = {}
    exec(code, namespace)
    model = namespace[name](DRAW, (6, 5, 1), key=jax.random.key(0))
    drawjax.export(model, tmp_path / "model.onnx", function="reconstruct")
    inputs = _inputs(model, "reconstruct")
    got = _by_onnx(tmp_path / "model.onnx", inputs)
    _agree(got, _by_jax(model, "reconstruct", inputs))


@pytest.mark.slow
def test_a_process_without_drawjax_reads_stablehlo(tmp_path):
    model = _small()
    drawjax.export(model, tmp_path / "model.stablehlo")
    inputs = _inputs(model, "generate")
    np.save(tmp_path / "noise.npy", inputs["noise"])
    code = (
        "import sys, jax, jax.export, numpy as np\n"
        "call = jax.export.deserialize(bytearray(open('model.stablehlo', 'rb').read())).call\n"
        "np.save('drawing.npy', call(noise=np.load('noise.npy'))['drawing'])\n"
        "assert 'drawjax' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    want = _by_jax(model, "generate", inputs)["drawing"]
    np.testing.assert_allclose(np.load(tmp_path / "drawing.npy"), want, TOLERANCE, TOLERANCE)


def test_what_cannot_be_exported_is_named(tmp_path, monkeypatch):
    model = _small()
    with pytest.raises(ValueError, match=r"a Draw exports generate, step, .*, got 'classify'"):
        drawjax.export(model, tmp_path / "x.onnx", function="classify")
    with pytest.raises(ValueError, match=r"format must be onnx or stablehlo.*x\.pb"):
        drawjax.export(model, tmp_path / "x.pb")
    monkeypatch.setitem(sys.modules, "jax2onnx", None)
    with pytest.raises(ModuleNotFoundError, match=r"needs jax2onnx: pip install 'drawjax\[export"):
        drawjax.export(model, tmp_path / "x.onnx")
    assert not list(tmp_path.iterdir())


def test_the_command_writes_a_file(tmp_path, capsys):
    drawjax.save_pretrained(_small(), tmp_path / "small")
    command = ["--model", str(tmp_path / "small"), "--format", "stablehlo", str(tmp_path / "file")]
    assert exit_code(export_command.export, export_command.ExportConfig(), command) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "file")
    assert (tmp_path / "file").stat().st_size > 1000
