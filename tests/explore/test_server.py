import base64
import http.client
import json
import re

import numpy as np
import pytest

from drawjax.explore import images, server
from drawjax.explore.drawing import COUNT, Models
from drawjax.explore.glimpse import glimpse
from tests.explore.serving import save_model, serving
from tests.explore.test_images import COLOR, file


@pytest.fixture(scope="module")
def netloc(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    save_model(folder)
    with serving(Models(folder)) as address:
        yield address.removeprefix("http://").rstrip("/")


@pytest.fixture
def ask(netloc):
    """Sends a request; returns the status, the headers and the body, read from JSON if it is so."""

    def ask(method, path, body=None, **headers):
        connection = http.client.HTTPConnection(netloc, timeout=60)
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        content = response.read()
        connection.close()
        if response.headers["content-type"] == "application/json":
            content = json.loads(content)
        return response.status, response.headers, content

    return ask


def test_the_page_needs_nothing_from_elsewhere(ask):
    status, headers, _ = ask("GET", "/")
    assert status == 200
    assert headers["Content-Security-Policy"].startswith("default-src 'self';")
    for path in server._PAGE.iterdir():
        assert ask("GET", f"/{path.name}")[0] == 200
        outside = re.findall(r"https?://[\w.]+", path.read_text("utf-8"))
        assert set(outside) <= {"http://www.w3.org"}  # the name of SVG, which nobody fetches
    assert ask("GET", "/../server.py")[0] == 404
    assert ask("GET", "/%2e%2e/server.py")[0] == 404


def test_other_hosts_and_other_pages_are_refused(ask, netloc):
    for host in ("evil.example", "evil.example:80", "127.0.0.1.evil.example", "[::1]"):
        assert ask("GET", "/about", Host=host)[0] == 400
    port = netloc.partition(":")[2]
    assert ask("GET", "/about", Host=f"localhost:{port}")[0] == 200
    for origin in ("http://evil.example", "null", "http://127.0.0.1:1", f"https://{netloc}"):
        status, _, answer = ask("POST", "/draw?model=scribble&seed=0", Origin=origin)
        assert (status, answer["error"]) == (403, "requests from other pages are refused")
    status, _, _ = ask("POST", "/draw?model=scribble&seed=0", Origin=f"http://{netloc}")
    assert status == 200


def test_a_glimpse_comes_in_floats(ask):
    logits = [0.1, -0.2, 0.3, -0.4, 0.5]
    query = "height=5&width=7&channels=3&patch=4&logits=" + ",".join(map(str, logits))
    status, _, content = ask("POST", "/glimpse?" + query, COLOR.tobytes())
    assert status == 200
    np.testing.assert_array_equal(np.frombuffer(content, "<f4"), glimpse(COLOR, logits, 4))


def test_images_come_and_files_go_the_same_way(ask):
    for path in ("/image/digits", "/image/photo", "/digit/7"):
        _, _, answer = ask("GET", path)
        pixels = base64.b64decode(answer["pixels"])
        assert len(pixels) == answer["height"] * answer["width"] * answer["channels"]
    _, _, answer = ask("POST", "/image", file(COLOR))
    assert base64.b64decode(answer["pixels"]) == COLOR.tobytes()
    assert answer["note"] == ""
    _, _, answer = ask("POST", "/image", file(np.zeros((300, 600), np.uint8)))
    assert answer["note"] == "Scaled down from 600 x 300 to 256 x 128 pixels."
    status, _, answer = ask("POST", "/image", b"plain text")
    assert status == 200
    assert answer["refused"] == "The file cannot be read: not a picture."


def test_a_body_beyond_the_limit_is_not_taken(ask):
    status, _, content = ask("POST", "/image", bytes(images.MAX_BYTES + 1))
    assert status == 413
    assert content == b"At most 8 MB are taken."


def test_drawings_come_with_their_windows(ask):
    _, _, answer = ask("POST", "/draw?model=scribble&seed=3")
    assert answer["shape"] == [4, COUNT, 28, 28, 1]
    assert len(base64.b64decode(answer["frames"])) == 4 * COUNT * 28 * 28
    assert np.shape(answer["write"]) == (4, COUNT, 4, 2)
    assert answer["read"] is None
    _, _, answer = ask("POST", "/complete?model=scribble&seed=3", bytes(2 * 28 * 28))
    assert np.shape(answer["read"]) == (4, COUNT, 4, 2)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/glimpse", "could not convert"),
        (
            "/glimpse?height=2&width=2&channels=1&patch=3&logits=0,0,0,0,0",
            "cannot reshape array of size 0",
        ),
        ("/draw?model=none&seed=0", "no drawing model 'none'"),
        ("/draw?model=scribble", "invalid literal"),
        (f"/draw?model=scribble&seed={10**20}", "seed must be from 0 to 2147483647"),
        ("/complete?model=scribble&seed=0", "cannot reshape array of size 0"),
    ],
)
def test_bad_requests_are_refused_in_words(ask, path, message):
    status, _, answer = ask("POST", path, b"")
    assert status == 400
    assert re.search(message, answer["error"])


def test_a_window_that_is_not_finite_is_null(ask, monkeypatch):
    def outlines(windows, size):
        return np.full((*np.shape(windows.center_x), 4, 2), np.nan), None

    monkeypatch.setattr("drawjax.figures.outlines", outlines)
    status, _, answer = ask("POST", "/draw?model=scribble&seed=0")
    assert status == 200
    assert answer["write"][0][0] == [[None, None]] * 4
