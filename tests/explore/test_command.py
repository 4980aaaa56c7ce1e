import functools
import re
import signal
import socket
import subprocess
import sys
import urllib.request

import pytest

from drawjax.explore.__main__ import ExploreConfig, explore
from tests.commands import exit_code
from tests.explore.serving import save_model

_explore = functools.partial(exit_code, explore, ExploreConfig())


def _error(capsys):
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    return error


@pytest.mark.parametrize("port", ["-1", "65536", "http", "²"])
def test_a_bad_port_is_one_line(capsys, port):
    assert _explore([f"--port={port}"]) == 2
    assert "--port" in _error(capsys)


def test_an_unknown_flag_is_one_line(capsys):
    assert _explore(["--share"]) == 2
    assert "--share" in _error(capsys)


def test_a_port_in_use_is_one_line(capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert _explore(["--no-browser", "--port", str(taken.getsockname()[1])]) == 1
    assert "Address already in use" in _error(capsys)


def test_a_folder_that_is_none_and_a_damaged_model_are_one_line(capsys, tmp_path):
    assert _explore(["--models", str(tmp_path / "none")]) == 1
    assert "is not a folder" in _error(capsys)
    save_model(tmp_path)
    (tmp_path / "scribble" / "model.safetensors").write_bytes(b"")
    assert _explore(["--models", str(tmp_path)]) == 1
    assert "scribble/model.safetensors cannot be read" in _error(capsys)
    (tmp_path / "scribble" / "config.json").write_text("{}")
    assert _explore(["--models", str(tmp_path)]) == 1
    assert "scribble/config.json is no model's" in _error(capsys)


@pytest.mark.parametrize("name", ["starlette", "uvicorn"])
def test_without_the_extra_it_says_how_to_install_it(capsys, monkeypatch, name):
    for module in list(sys.modules):
        if module.startswith(("drawjax.explore.server", name)):
            monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, name, None)
    assert _explore(["--no-browser"]) == 1
    assert "pip install 'drawjax[explore]'" in _error(capsys)


@pytest.mark.slow
def test_it_listens_on_loopback_alone_and_ctrl_c_ends_it():
    running = subprocess.Popen(
        [sys.executable, "-m", "drawjax.explore", "--no-browser"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    line = running.stdout.readline()
    found = re.search(r"http://127\.0\.0\.1:(\d+)/", line)
    with urllib.request.urlopen(found[0], timeout=60) as page:
        assert "drawjax explorer" in page.read().decode()
    with pytest.raises(OSError, match="refused"):  # all of 127/8 is this machine
        socket.create_connection(("127.0.0.2", int(found[1])), timeout=5)
    running.send_signal(signal.SIGINT)
    _, errors = running.communicate(timeout=60)
    assert running.returncode == 0
    assert errors == ""
