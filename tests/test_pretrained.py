"""Models as folders: what comes back is what was saved, or one line that says why not."""

import dataclasses
import functools
import hashlib
import itertools
import json
import os
import pathlib
import shutil
import stat
import subprocess
import sys
import types

import chex
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

import drawjax
from drawjax import cli, modules, pretrained, sample
from drawjax.config import GenerationConfig
from drawjax.pretrained import listing
from drawjax.pretrained.__main__ import ExportConfig, export
from drawjax.training import RunError, RunWriter
from tests.commands import exit_code, said_line

_sample = functools.partial(exit_code, sample.sample, sample.SampleConfig())
_export = functools.partial(exit_code, export, ExportConfig())

CONFIG = modules.DrawConfig(
    num_glimpses=3, hidden_size=6, latent_size=4, read_size=None, write_size=3
)
LONGER = dataclasses.replace(CONFIG, num_glimpses=9)
WIDER = dataclasses.replace(LONGER, hidden_size=8)
SHAPE = (6, 5, 1)
FILES = ("config.json", "model.safetensors")
CARD = "README.md"


def _model(config=CONFIG, seed=0):
    return modules.Draw(config, SHAPE, key=jax.random.key(seed))


def _params(model):
    return modules.split(model)[1]


def _content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def folder(tmp_path):
    drawjax.save_pretrained(_model(), tmp_path / "small", provenance={"data": "none"})
    return tmp_path / "small"


def _run(folder, model, **results):
    """A run's folder with a best checkpoint, and results if there are some."""
    config = GenerationConfig(workdir=str(folder), model=model.config)
    record = {"model_class": "Draw", "image_shape": list(SHAPE)}
    with RunWriter(folder, config, record=record) as run:
        run.save_best(1, _params(model), {"loss": 1.0})
    if results:
        (folder / "results.json").write_text(json.dumps(results))
    return folder


# What is saved comes back.


@pytest.mark.parametrize("kind", ["draw", "ram"])
def test_a_folder_holds_a_model_exactly(tmp_path, kind):
    if kind == "draw":
        model = _model(dataclasses.replace(CONFIG, prior="learned"))
    else:
        config = modules.RamConfig(num_glimpses=2, hidden_size=5, read_size=3, num_scales=2)
        model = modules.Ram(config, (9, 9, 1), key=jax.random.key(0))
    drawjax.save_pretrained(model, tmp_path / "mine", provenance={"data": "digits"})
    assert sorted(_content(tmp_path / "mine")) == sorted([*FILES, CARD])
    loaded = drawjax.load_pretrained(tmp_path / "mine")
    assert type(loaded) is type(model)
    assert loaded.config == model.config
    assert loaded.image_shape == model.image_shape
    chex.assert_trees_all_equal(_params(loaded), _params(model))
    assert pretrained.describe(tmp_path / "mine")["provenance"] == {"data": "digits"}
    assert pretrained.available(folder=tmp_path) == ["mine"]
    assert pretrained.available("ram", tmp_path) == (["mine"] if kind == "ram" else [])


def test_half_precision_takes_half_the_space(folder):
    before = (folder / "model.safetensors").stat().st_size
    drawjax.save_pretrained(_model(), folder, dtype="float16")
    assert (folder / "model.safetensors").stat().st_size < 0.6 * before
    loaded = drawjax.load_pretrained(folder)
    chex.assert_trees_all_equal_shapes_and_dtypes(_params(loaded), _params(_model()))
    chex.assert_trees_all_close(_params(loaded), _params(_model()), rtol=1e-3, atol=1e-6)


def test_a_model_is_loaded_in_another_precision(folder):
    model = drawjax.load_pretrained(folder, precision="bfloat16")
    assert model.config.precision == "bfloat16"
    assert jnp.dtype(model.patch.dtype) == jnp.bfloat16
    with pytest.raises(ValueError, match=r"^model\.precision must be one of .*, got 'bf16'"):
        drawjax.load_pretrained(folder, precision="bf16")
    chex.assert_trees_all_equal(_params(model), _params(_model()))


@pytest.mark.parametrize("name", pretrained.available())
def test_every_model_that_ships_is_whole(name):
    params = _params(drawjax.load_pretrained(name))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))
    provenance = pretrained.describe(name)["provenance"]
    assert {"data", "test", "commit"} <= set(provenance)
    assert modules.parameter_count(params) == provenance["parameters"]
    assert f"`{name}`" in drawjax.load_pretrained.__doc__


# The two files are held to each other.


def _retouch(folder, change):
    """Changes the arrays of a folder, and all that says what they are, but for the config."""
    path = folder / "model.safetensors"
    with safe_open(path, "numpy") as file:
        metadata = file.metadata()
    arrays = load_file(path)
    change(arrays)
    save_file(arrays, path, metadata)
    description = json.loads((folder / "config.json").read_text())
    description["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (folder / "config.json").write_text(json.dumps(description))


@pytest.mark.parametrize(("name", "change", "found"), [
    ("decoder/gates/bias", lambda a: a[:-1], r"float32\[23\]"),
    ("decoder/gates/kernel", lambda a: np.ascontiguousarray(a.T), r"float32\[24, 10\]"),
    ("initial_canvas", lambda a: a[:1, :1], r"float32\[1, 1, 1\]"),
    ("mean/bias", lambda a: a.astype(np.int64), r"I64\[4\]"),
    ("mean/bias", lambda a: a.astype(np.float64), r"F64\[4\]"),
    ("mean/bias", lambda a: a.astype(ml_dtypes.bfloat16), r"BF16\[4\]"),
    ("mean/kernel", lambda a: None, "missing"),
])  # fmt: skip
def test_parameters_are_those_of_the_config(folder, name, change, found):
    def edit(arrays):
        array = change(arrays.pop(name))
        if array is not None:
            arrays[name] = array

    _retouch(folder, edit)
    with pytest.raises(ValueError, match=f"model.safetensors .*parameter {name} is {found}"):
        drawjax.load_pretrained(folder)


def test_a_parameter_too_many_is_refused(folder):
    _retouch(folder, lambda arrays: arrays.update(extra=np.zeros(3, np.float32)))
    with pytest.raises(ValueError, match="has a parameter extra, which"):
        drawjax.load_pretrained(folder)


def test_the_config_is_the_one_that_the_weights_were_saved_with(folder, tmp_path):
    drawjax.save_pretrained(_model(LONGER), tmp_path / "longer")
    drawjax.save_pretrained(_model(WIDER), tmp_path / "wider")
    own = (folder / "config.json").read_text()
    # T is not to be seen in any parameter's shape.
    (folder / "config.json").write_text(own.replace('"num_glimpses": 3', '"num_glimpses": 9'))
    with pytest.raises(ValueError, match="num_glimpses is 9, and was 3"):
        drawjax.load_pretrained(folder)
    # What a later version takes for another default has to be there.
    (folder / "config.json").write_text(own.replace('"clip_ratio": null', '"remat": false'))
    with pytest.raises(ValueError, match="clip_ratio is missing, and was None"):
        drawjax.load_pretrained(folder)
    shutil.copy(tmp_path / "longer" / "config.json", folder)
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged, or another model's"):
        drawjax.load_pretrained(folder)
    shutil.copy(tmp_path / "wider" / "config.json", folder)
    with pytest.raises(ValueError, match=r"parameter decoder/gates/bias is float32\[24\], not"):
        drawjax.load_pretrained(folder)
    # What is said of the model's origin may be edited.
    (folder / "config.json").write_text(own.replace('"none"', '"digits"'))
    drawjax.load_pretrained(folder)


def test_a_folder_of_the_first_release_is_loaded_with_a_warning(folder, caplog):
    save_file(load_file(folder / "model.safetensors"), folder / "model.safetensors")
    description = json.loads((folder / "config.json").read_text())
    del description["sha256"]
    (folder / "config.json").write_text(json.dumps(description))
    drawjax.load_pretrained(folder)
    assert "0.1.0" in caplog.text
    # Not so if it is one file of two.
    for name, content in zip(FILES, _content_of_another(folder), strict=True):
        before = (folder / name).read_bytes()
        (folder / name).write_bytes(content)
        with pytest.raises(ValueError, match=r"small/"):
            drawjax.load_pretrained(folder)
        (folder / name).write_bytes(before)


def _content_of_another(folder):
    other = folder.parent / "other"
    drawjax.save_pretrained(_model(seed=1), other)
    return [(other / name).read_bytes() for name in FILES]


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_a_file_that_is_cut_swapped_doubled_or_damaged_is_refused(folder, data):
    whole = _content(folder)
    name = data.draw(st.sampled_from(FILES))
    content = whole[name].rstrip(b"\n")  # without it, JSON is whole
    how = data.draw(st.sampled_from(["cut", "swapped", "other", "doubled", "flipped", "gone"]))
    if how == "cut":
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    elif how == "swapped":
        content = whole[FILES[1 - FILES.index(name)]]
    elif how == "other":
        content = _content_of_another(folder)[FILES.index(name)]
    elif how == "doubled":
        content += content
    elif how == "flipped":
        name, content = FILES[1], bytearray(whole[FILES[1]])
        content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    if how == "gone":
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content)
    try:
        # Without its weights a folder is taken for a run.
        with pytest.raises((ValueError, RunError), match=r"small"):
            drawjax.load_pretrained(folder)
    finally:
        for name, content in whole.items():
            (folder / name).write_bytes(content)


@pytest.mark.parametrize(("name", "content", "said"), [
    ("model.safetensors", None, "Is a directory"),
    ("config.json", None, "Is a directory"),
    ("config.json", '{"kind": "cat"}'.encode("utf-16"), "codec can't decode byte 0xff"),
    ("config.json", b"[]", "is no model's: its kind is None"),
    ("config.json", b'{"kind": "cat", "config": {}, "image_shape": [1], "provenance": {}}',
     "cannot be read: KeyError: 'cat'"),
    ("model.safetensors", b"scribble", "cannot be read: .*header"),
])  # fmt: skip
def test_what_cannot_be_read_is_named_with_what_was_found(folder, name, content, said):
    (folder / name).unlink()
    if content is None:
        (folder / name).mkdir()
    else:
        (folder / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"small/{name}.* {said}"):
        drawjax.load_pretrained(folder)


def test_a_folder_without_a_name_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="the folder's name is empty"):
        drawjax.save_pretrained(_model(), "")
    assert not list(tmp_path.iterdir())


def test_a_model_without_its_weights_is_no_run_and_may_be_saved_again(folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"small': no folder .*small of a run or with config"):
        drawjax.load_pretrained(folder)
    drawjax.save_pretrained(_model(), folder)
    drawjax.load_pretrained(folder)


# Saving is one act.


@pytest.mark.parametrize("stop", range(4))
def test_a_save_that_is_stopped_leaves_no_mixture(folder, monkeypatch, stop):
    replace, calls = os.replace, itertools.count()

    def stopping(*paths):
        if next(calls) == stop:
            raise OSError("no space left")
        replace(*paths)

    monkeypatch.setattr(os, "replace", stopping)
    if stop < 3:
        with pytest.raises(OSError, match="no space"):
            drawjax.save_pretrained(_model(WIDER), folder)
    else:
        drawjax.save_pretrained(_model(WIDER), folder)
    assert sorted(_content(folder)) == sorted([*FILES, CARD])
    if stop in (1, 2):
        with pytest.raises(ValueError, match="small"):
            drawjax.load_pretrained(folder)
    else:
        expected = _model(WIDER if stop else CONFIG)
        chex.assert_trees_all_equal(_params(drawjax.load_pretrained(folder)), _params(expected))


class _Mine(modules.Draw):
    pass


@dataclasses.dataclass(frozen=True)
class _MineConfig(modules.DrawConfig):
    beta: float = 1.0


def _with(model, **parameters):
    for name, value in parameters.items():
        getattr(model, name)[...] = value
    return model


@pytest.mark.parametrize(("model", "options", "said"), [
    (lambda: _Mine(CONFIG, SHAPE, key=jax.random.key(0)), {}, "only Draw and Ram .* got a _Mine"),
    (lambda: _model(_MineConfig(**dataclasses.asdict(CONFIG))), {}, "got a Draw of a _MineConfig"),
    (_model, {"provenance": {"figures": {1, 2}}}, r"provenance: \{1, 2\} is a set"),
    (_model, {"provenance": {"loss": float("nan")}}, "provenance: .*nan"),
    (_model, {"provenance": {(1, 2): 3}}, "provenance: keys must be str"),
    (lambda: _with(_model(), initial_canvas=jnp.inf), {}, "initial_canvas is not finite"),
    (lambda: _with(_model(), initial_canvas=1e5), {"dtype": "float16"}, "not finite in float16"),
    (_model, {"dtype": "int8"}, "dtype must be one of float16, float32, got 'int8'"),
    (lambda: modules.merge(modules.split(_model())[0], _params(_model(WIDER))), {},
     r"the model is not of its config's model: parameter decoder/gates/bias is float32\[32\]"),
])  # fmt: skip
def test_what_cannot_be_saved_is_refused_before_a_file_is_touched(folder, model, options, said):
    before = _content(folder)
    for target in (folder, folder.parent / "new"):
        with pytest.raises(ValueError, match=said):
            drawjax.save_pretrained(model(), target, **options)
    assert _content(folder) == before
    assert not (folder.parent / "new").exists()


def test_numbers_and_paths_are_taken_for_what_they_are(tmp_path):
    config = dataclasses.replace(CONFIG, num_glimpses=np.int64(3), clip_ratio=np.float32(0.5))
    said = {
        "loss": np.float32(0.5), "steps": jnp.int32(7), "done": np.bool_(True),
        "rates": np.array([1.0, 2.0]), "half": jnp.bfloat16(1.5), "from": pathlib.Path("runs/x"),
    }  # fmt: skip
    drawjax.save_pretrained(_model(config), tmp_path / "mine", provenance=said)
    assert pretrained.describe(tmp_path / "mine")["provenance"] == {
        "loss": 0.5, "steps": 7, "done": True, "rates": [1.0, 2.0], "half": 1.5, "from": "runs/x",
    }  # fmt: skip
    assert drawjax.load_pretrained(tmp_path / "mine").config == config


@pytest.mark.parametrize("mask", [0o022, 0o027, 0o077])
def test_files_have_the_mode_of_the_umask(tmp_path, mask):
    before = os.umask(mask)
    try:
        drawjax.save_pretrained(_model(), tmp_path / "mine")
    finally:
        os.umask(before)
    for name in FILES:
        assert stat.S_IMODE((tmp_path / "mine" / name).stat().st_mode) == 0o666 & ~mask


# Names.


def test_a_tilde_is_the_users_home(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    drawjax.save_pretrained(_model(), "~/mine")
    drawjax.load_pretrained("~/mine")
    assert pretrained.available(folder="~") == ["mine"]
    arguments = ["--model", "~/mine", "--num", "2", "--out", "~/a.png", "--gif", "~/b.gif"]
    assert _sample(arguments) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"mine", "a.png", "b.gif"}
    assert capsys.readouterr().out.split() == [str(tmp_path / "a.png"), str(tmp_path / "b.gif")]


def test_names_are_looked_up_in_one_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    downloaded = tmp_path / "cache"
    drawjax.save_pretrained(_model(WIDER), downloaded)

    def snapshot_download(repository, allow_patterns):
        if repository != "me/mine":
            raise OSError("no such repository\nand more")
        assert sorted(allow_patterns) == sorted(FILES)
        return str(downloaded)

    hub = types.SimpleNamespace(snapshot_download=snapshot_download)
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    for name, shipped in (("me/mine", WIDER), ("mnist", drawjax.load_pretrained("mnist").config)):
        assert drawjax.load_pretrained(name).config == shipped
        pathlib.Path("mnist").mkdir(exist_ok=True)  # holds no model
        drawjax.save_pretrained(_model(LONGER), name)
        assert drawjax.load_pretrained(name).config == LONGER
        shutil.rmtree(name)
        _run(tmp_path / name, _model())
        found = drawjax.load_pretrained(name)
        assert found.config == CONFIG
        chex.assert_trees_all_equal(_params(found), _params(_model()))
        assert drawjax.load_pretrained(name, precision="bfloat16").config.precision == "bfloat16"
    # A folder's name that is misspelled is no hub's.
    for function in (drawjax.load_pretrained, pretrained.describe):
        with pytest.raises(
            ValueError, match=r"no folder .*/me/yours of a run or with .*, as me is a"
        ):
            function("me/yours")
    assert _sample(["--model", "me/yours"]) == 1
    shutil.rmtree("me")
    with pytest.raises(ValueError, match=r"'me/yours': no folder .*says: no such repository$"):
        drawjax.load_pretrained("me/yours")
    assert _sample(["--model", "me/mine", "--num", "2", "--out", "drawn.png"]) == 0
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ValueError, match=r"no model 'me/yours': .* pip install huggingface_hub"):
        drawjax.load_pretrained("me/yours")


@pytest.mark.parametrize(("name", "said"), [
    ("mnits", "did you mean mnist"), ("", "no model ''"), ("../up", "no model '../up'"),
    ("a/b/c", "no folder .*/a/b/c of a run or with config.json and"), ("\0", "no model"),
])  # fmt: skip
def test_an_unknown_name_says_what_was_looked_for(name, said, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", types.SimpleNamespace())  # is not asked
    drawjax.save_pretrained(_model(), tmp_path)
    monkeypatch.chdir(tmp_path)  # "" is not the current folder
    for function in (drawjax.load_pretrained, pretrained.describe):
        with pytest.raises(ValueError, match=said) as error:
            function(name)
        assert "two_digits" in str(error.value)
        assert "hub" not in str(error.value)


# The card.


def _head(folder):
    """The head of a card, as hubs read it."""
    hub = pytest.importorskip("huggingface_hub")
    return hub.ModelCard((folder / CARD).read_text()).data


def test_a_card_says_what_hubs_want_to_know(tmp_path):
    test = {"loss": 80.953, "standard_error": 0.215, "images": 10_000}
    provenance = {"data": "mnist", "license": "cc-by-4.0", "test": test, "commit": "abc"}
    drawjax.save_pretrained(_model(), tmp_path, provenance=provenance)
    head = _head(tmp_path)
    assert (head.library_name, head.license) == ("drawjax", "cc-by-4.0")
    assert head.pipeline_tag == "unconditional-image-generation"
    assert head.datasets == ["mnist"]
    (result,) = head.eval_results
    assert (result.dataset_type, result.metric_type, result.metric_value) == (
        "mnist",
        "nats",
        80.953,
    )
    text = (tmp_path / CARD).read_text()
    assert "6 x 5 x 1. Test: 80.95 +- 0.21 nats." in text
    assert json.loads(text.split("```json")[1].split("```")[0]) == provenance
    (code,) = text.split("```python")[1:]
    compile(code.split("```")[0], CARD, "exec")


@pytest.mark.parametrize("provenance", [
    {}, {"test": "good"}, {"test": {"loss": None, "standard_error": None}, "data": "my own: 7"},
    {"test": {"error": "3 %", "standard_error": []}, "data": {"name": "mnist"}},
])  # fmt: skip
def test_a_card_leaves_out_what_it_does_not_know(tmp_path, provenance):
    config = modules.RamConfig(num_glimpses=2, hidden_size=5, read_size=3)
    model = modules.Ram(config, (9, 9, 1), key=jax.random.key(0))
    drawjax.save_pretrained(model, tmp_path, provenance=provenance)
    head = _head(tmp_path)
    assert head.pipeline_tag == "image-classification"
    assert (head.datasets, head.license, head.eval_results) == (None, None, None)
    assert "Test: not measured." in (tmp_path / CARD).read_text()


def test_a_card_that_was_edited_stays(folder):
    first = (folder / CARD).read_text()
    drawjax.save_pretrained(_model(), folder, provenance={"data": "digits"})
    ours = (folder / CARD).read_text()
    assert "digits" in ours != first  # one that nobody edited follows the model
    for edited in (f"{ours}Mine.\n", "", "\udcff"):
        (folder / CARD).write_bytes(edited.encode(errors="surrogateescape"))
        drawjax.save_pretrained(_model(WIDER), folder, provenance={"data": "others"})
        assert (folder / CARD).read_bytes() == edited.encode(errors="surrogateescape")
        assert drawjax.load_pretrained(folder).config == WIDER


def test_a_folder_is_uploaded_as_it_was_saved(folder, monkeypatch):
    calls = []
    hub = types.SimpleNamespace(
        create_repo=lambda name, exist_ok: calls.append(name),
        upload_folder=lambda **how: calls.append(how),
    )
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    pretrained.push_to_hub(folder, "me/mine")
    created, how = calls
    assert created == how.pop("repo_id") == "me/mine"
    assert how.pop("folder_path") == folder
    assert how == {"allow_patterns": [*FILES, CARD]}
    (folder / "model.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match="cannot be read"):
        pretrained.push_to_hub(folder, "me/mine")
    assert len(calls) == 2
    drawjax.save_pretrained(_model(), folder)
    del hub.create_repo
    with pytest.raises(ValueError, match=r"the Hugging Face hub says: .*create_repo"):
        pretrained.push_to_hub(folder, "me/mine")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ValueError, match="pip install huggingface_hub"):
        pretrained.push_to_hub(folder, "me/mine")


def test_a_runs_folder_is_not_written_over(tmp_path):
    _run(tmp_path / "run", _model())
    before = (tmp_path / "run" / "config.json").read_bytes()
    with pytest.raises(ValueError, match="as a run has; name another"):
        drawjax.save_pretrained(_model(), tmp_path / "run")
    assert (tmp_path / "run" / "config.json").read_bytes() == before


# The commands.


def test_bad_requests_are_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    drawjax.save_pretrained(_model(), "small")
    assert _sample(["--model", "small", "--num", "0", "--out", "x.png"]) == 2
    assert said_line(capsys) == "error: --num must be at least 1, got 0"
    assert not (tmp_path / "x.png").exists()
    assert _sample(["--model", "small", "--num", "4", "--seed", "3", "--gif", "draw.gif"]) == 0
    assert capsys.readouterr().out.split() == ["samples_small_3.png", "draw.gif"]
    assert (tmp_path / "samples_small_3.png").exists()
    assert (tmp_path / "draw.gif").exists()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text('{"model.latent_size": 4}')
    assert _sample(["--model", "run"]) == 1
    assert said_line(capsys).startswith("error: run ")


def test_each_class_has_a_row_in_picture_and_animation(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    drawjax.save_pretrained(_model(dataclasses.replace(CONFIG, num_classes=3)), "small")
    assert _sample(["--model", "small", "--num", "4", "--out", "a.png", "--gif", "a.gif"]) == 0
    assert _sample(["--model", "small", "--num", "4", "--label", "2"]) == 0
    assert _sample(["--model", "small", "--num", "4", "--label", "0", "1"]) == 0
    assert {"samples_small_2_0.png", "samples_small_0_1_0.png"} <= {
        *map(str, pathlib.Path().glob("*"))
    }
    assert _sample(["--model", "small", "--label"]) == 2
    with Image.open("a.png") as grid, Image.open("a.gif") as animation:
        assert grid.size == animation.size
        assert grid.height > 3 * grid.width  # a column, where a square is the default


def test_a_seed_draws_one_picture_whatever_the_default_implementation(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    drawjax.save_pretrained(_model(), "small")
    for default in ("threefry2x32", "rbg"):
        with jax.default_prng_impl(default):
            assert _sample(["--model", "small", "--num", "2", "--out", f"{default}.png"]) == 0
    pictures = [path.read_bytes() for path in tmp_path.glob("*.png")]
    assert len(pictures) == 2
    assert pictures[0] == pictures[1]


def test_the_help_of_sample_names_what_draws(capsys):
    with pytest.raises(SystemExit):
        cli.drawjax(["sample", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "mnist_no_attention, mnist_static, svhn, two_digits" in said
    assert "ram8" not in said


def test_a_finished_run_becomes_a_model_to_ship(tmp_path, capsys):
    figures = {"validation": {"loss": 1.0}, "test": {"loss": 1.5}}
    run = _run(tmp_path / "run", _model(), **figures)
    command = [str(run), "mine", "--commit", "abc", "--folder", str(tmp_path / "models")]
    assert _export(command) == 0
    folder = tmp_path / "models" / "mine"
    assert capsys.readouterr().out.split() == [str(folder)]
    drawjax.save_pretrained(
        _model(), tmp_path / "same", dtype="float16",
        provenance={**figures, "init_from": None, "commit": "abc"},
    )  # fmt: skip
    assert _content(folder) == _content(tmp_path / "same")
    assert _export([str(run), "", *command[2:]]) == 2
    assert said_line(capsys).startswith("error: an argument must not be empty")
    for name in ("../up", "a/b", "..", "/tmp/x"):
        assert _export([str(run), name, *command[2:]]) == 1
        assert said_line(capsys) == f"error: NAME must be a plain name, such as mnist, got {name!r}"
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["mine"]
    (run / "results.json").write_text(json.dumps({**figures, "validation": {"loss": 2.0}}))
    assert _export(command) == 1
    assert "went on after results.json was written" in said_line(capsys)
    (run / "results.json").unlink()
    assert _export(command) == 1
    assert "holds no finished run" in said_line(capsys)


@pytest.mark.parametrize(("test", "said"), [
    ({"error": 3.39, "standard_error": 0.181, "loss": 0.1}, "3.39 +- 0.18 % wrong"),
    ({"loss": 1832.94, "standard_error": 2.22}, "1,832.94 +- 2.22 nats"),
    ({"bits_per_dimension": 4.5, "bits_per_dimension_standard_error": 0.01, "loss": 1.0},
     "4.500 +- 0.010 bits per dimension"),
    ({"loss": 80.0, "standard_error": None}, "not measured"), ({}, "not measured"),
])  # fmt: skip
def test_the_list_says_how_good_a_model_is(test, said):
    assert listing.figure({"provenance": {"test": test}}) == said


# The walk.

_WALK = """
import os, sys
import jax
import drawjax
from drawjax import load_pretrained

key, root, files = jax.random.key(0), os.path.dirname(drawjax.__file__), set()

def enter(frame, event, argument):
    if event == "call" and frame.f_code.co_filename.startswith(root):
        files.add(os.path.relpath(frame.f_code.co_filename, root))

sys.setprofile(enter)
load_pretrained("mnist").generate(16, key=key)
sys.setprofile(None)
print(*sorted(files))
heavy = {"tqdm", "tyro", "orbax", "grain", "tensorflow_datasets", "matplotlib", "chex"}
print(*sorted(heavy & set(sys.modules)))
"""


def test_drawing_enters_few_files_and_loads_nothing_of_training():
    run = subprocess.run(
        [sys.executable, "-O", "-c", _WALK], capture_output=True, text=True, check=True
    )
    files, heavy = run.stdout.splitlines()
    assert len(files.split()) <= 10, files
    assert not heavy
