import dataclasses

import pytest
import tyro

from drawjax import cli
from tests.training.toy import ToyConfig


@dataclasses.dataclass(frozen=True)
class _Inner:
    size: int | None = 3
    """How large."""
    flat: bool = False
    """Whether."""

    def __post_init__(self):
        if self.size == 0:
            raise ValueError("inner.size must not be 0")


@dataclasses.dataclass(frozen=True)
class _Config:
    inner: _Inner = _Inner()
    name: str = "a"
    """What it is called."""


PRESETS = {"toy": ToyConfig(), "wide": ToyConfig(width=64)}


def test_flags_replace_a_preset():
    config = cli.parse(PRESETS, ["--preset", "wide", "--train.steps", "7", "--workdir=x"])
    assert config.width == 64
    assert config.train == dataclasses.replace(ToyConfig().train, steps=7)
    assert config.workdir == "x"
    assert cli.parse(PRESETS, []) == PRESETS["toy"]
    assert cli.parse(PRESETS, ["--width", "3", "--preset=wide"]).width == 3


def test_flags_replace_fields():
    config = cli.read(_Config(name="b"), ["--inner.size", "None", "--inner.flat"])
    assert config == _Config(inner=_Inner(size=None, flat=True), name="b")
    bare = (tyro.conf.FlagConversionOff,)
    assert cli.read(_Config(), ["--inner.flat", "True"], markers=bare).inner.flat


@pytest.mark.parametrize("text", ["1e4", "1E4", "10_000", "1.0e+4", "10000"])
def test_whole_numbers_are_read_as_people_write_them(text):
    assert cli.parse(_Config(), ["--inner.size", text]).inner.size == 10_000
    assert cli.parse(_Config(), [f"--inner.size={text}"]).inner.size == 10_000


@pytest.mark.parametrize("text", ["None", "none", "null", "NULL"])
def test_none_is_read_where_it_is_a_value(text):
    assert cli.parse(_Config(), ["--inner.size", text]).inner.size is None
    assert cli.parse(_Config(), [f"--inner.size={text}"]).inner.size is None
    assert cli.parse(_Config(), ["--name", text]).name == text


@pytest.mark.parametrize(("arguments", "message"), [
    (["--inner.size", "1.5e0"], "Error parsing --inner.size"),
    (["--inner.size", "1e999999999"], "Error parsing --inner.size"),
    (["--preset", "a"], "unknown flag --preset"),
    (["--inner.size", "2", "--inner.size=3"], "--inner.size is given twice"),
])  # fmt: skip
def test_a_bad_flag_ends_with_one_line(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.parse(_Config(), arguments)
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert message in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("sweep", [
    ["--sweep", "train.learning-rate=1,2"], ["--sweep=train.learning_rate=1,2"],
    ["--sweep", "--train.learning-rate=1,2"],
])  # fmt: skip
def test_a_field_is_given_however_it_is_spelled(sweep):
    assert "train.learning_rate" in cli.given(sweep)
    assert "train.learning_rate" in cli.given(["--train.learning-rate=1"])


def test_presets_are_an_option_that_is_given_once(capsys):
    with pytest.raises(SystemExit):
        cli.parse(PRESETS, ["--help"])
    assert "--preset {toy,wide}" in capsys.readouterr().out
    for arguments, message in (
        (["--preset", "toy", "--preset=wide"], "--preset is given twice: toy and wide"),
        (["--preset", "tiy"], "unknown preset 'tiy'; did you mean toy?; presets: toy, wide"),
        (["--preset"], "unknown preset ''"),
    ):
        with pytest.raises(SystemExit):
            cli.parse(PRESETS, arguments)
        assert message in capsys.readouterr().err


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
@pytest.mark.parametrize(("arguments", "message"), [
    (["--inner.size", "0"], r"^inner\.size must not be 0$"),
    (["--inner.size", "x"], r"^Error parsing --inner\.size: .*'x'"),
    (["--inner.size", "1.2.3e4"], r"^Error parsing --inner\.size: .*'1\.2\.3e4'"),
    (["--name"], "^Missing value for argument '--name'"),
    (["--inner.sise", "3"], "--inner.sise"),
])  # fmt: skip
def test_what_cannot_be_read_is_one_line(arguments, message, encoding, monkeypatch):
    monkeypatch.setattr("tyro._fmtlib._should_use_utf8_drawing_chars", lambda: encoding == "utf-8")
    with pytest.raises(ValueError, match=message) as caught:
        cli.read(_Config(), arguments)
    text = str(caught.value)
    assert "\n" not in text
    assert not set(text) & set("│╭╮╰╯─")


def test_help_says_what_it_is_and_ends(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.read(_Config(), ["--help"], description="What it does.", prog="python -m it")
    assert stop.value.code == 0
    said = capsys.readouterr().out
    assert "What it does." in said
    assert "python -m it" in said
    assert "How large." in said


@pytest.mark.parametrize(("arguments", "said"), [
    (["report"], "name a run's folder, or several"),
    (["prepare"], "name a data set, or several"),
    (["report", ""], "an argument must not be empty; leave it out for the default"),
    (["report", ".", "--out", ""], "--out must not be empty; leave it out for the default"),
    (["explore", "--models="], "--models must not be empty; leave it out for the default"),
    (["sample", "--gif", ""], "--gif must not be empty; leave it out for the default"),
])  # fmt: skip
def test_an_empty_argument_is_not_the_current_folder(arguments, said, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["drawjax"])
    with pytest.raises(SystemExit) as stop:
        cli.drawjax(arguments)
    assert stop.value.code
    assert capsys.readouterr().err == f"error: {said}\n"
