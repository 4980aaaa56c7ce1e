"""The page of docs/demo, without a network: from disk in one file, and from a server of files."""

import base64
import contextlib
import functools
import http.server
import json
import re
import runpy
import threading
import urllib.error

import numpy as np
import pytest

pytest.importorskip("playwright.sync_api")
pytest.importorskip("jax2onnx")
from playwright.sync_api import expect

import drawjax
from tests.browser.test_explore import PHONE, pixels
from tests.docs.pages import ROOT

pytestmark = [pytest.mark.browser, pytest.mark.slow]
expect.set_options(timeout=60_000)
OFFLINE = {"offline": True, "reduced_motion": "reduce"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    program = runpy.run_path(str(ROOT / "docs" / "demo" / "build.py"))
    try:
        program["build"](folder, ["mnist", "mnist_classes", "ram8"])
    except urllib.error.URLError:
        pytest.skip("ONNX Runtime cannot be downloaded")
    return folder


@contextlib.contextmanager
def _serving(folder):
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()


@pytest.fixture
def demo(page, folder):
    page.goto((folder / "draw.html").as_uri())
    expect(page.locator("#drawn")).to_contain_text("4 drawings in 64 steps, seed 0")
    return page


def _redraw(page, act):
    """Acts, and returns what is drawn then."""
    act()
    expect(page.locator("#drawings")).to_have_attribute("aria-busy", "false")
    expect(page.locator("#drawn")).not_to_have_text("Drawing …")
    return np.stack([pixels(page, "#drawings canvas", i) for i in range(4)])


@pytest.mark.parametrize("page", [OFFLINE], indirect=True)
def test_it_draws_from_disk_offline(demo):
    seed = demo.get_by_label("Seed", exact=True)
    mix = demo.get_by_label("Towards the next seed")
    first = _redraw(demo, lambda: None)
    assert all(image.max() > 200 and image.mean() < 100 for image in first)  # strokes on black
    mixed = _redraw(demo, lambda: mix.fill("100"))
    expect(demo.locator("#drawn")).to_contain_text("100 % of the way from seed 0 to 1")
    assert np.abs(mixed.astype(float) - first).max() > 200

    def next_seed():
        seed.fill("1")
        mix.fill("0")
        demo.get_by_role("button", name="Draw").click()

    after = _redraw(demo, next_seed)
    assert np.abs(mixed.astype(float) - after).mean() < 1  # the slider's end is the next seed

    def early():
        demo.get_by_label("Steps").fill("70")  # more than it was trained with
        demo.get_by_role("button", name="Draw").click()

    _redraw(demo, early)
    expect(demo.locator("#step-text")).to_have_text("70 of 70")
    demo.get_by_label("Step", exact=True).fill("1")
    expect(demo.locator("#drawings")).to_have_attribute(
        "aria-label", "4 drawings after step 1 of 70"
    )
    assert demo.locator("#drawings polygon.write").count() == 4


@pytest.mark.parametrize("page", [OFFLINE], indirect=True)
def test_it_completes_what_is_painted(demo):
    drawn = _redraw(demo, lambda: demo.get_by_label("what is missing in my drawing").check())
    expect(demo.locator("#drawn")).to_contain_text("4 completions of your drawing")
    given = pixels(demo, "#paint")[:14].astype(float)
    assert all(np.abs(image[:14] - given).mean() < 25 for image in drawn.astype(float))
    assert all(image[15:].max() > 150 for image in drawn)
    demo.get_by_label("Steps").fill("0")
    demo.get_by_role("button", name="Draw").click()
    expect(demo.get_by_role("alert")).to_have_text("Steps must be a whole number from 1 to 256.")


@pytest.mark.parametrize("page", [OFFLINE], indirect=True)
def test_it_draws_the_digit_that_is_asked_for(demo):
    assert demo.locator("#label-field").is_hidden()
    demo.get_by_label("Model", exact=True).select_option("mnist_classes")
    label = demo.get_by_label("Draw me a")
    expect(label).to_have_value("7")
    expect(demo.locator("#drawn")).to_contain_text("4 drawings in 16 steps")
    for asked in ("0", "1"):
        drawn = _redraw(demo, lambda asked=asked: label.select_option(asked)).astype(float)
        middle = drawn[:, 11:17, 11:17].mean()  # a hole, or a stroke
        assert middle < 60 if asked == "0" else middle > 100
    drawn = _redraw(demo, lambda: demo.get_by_label("what is missing in my drawing").check())
    assert all(image[15:].max() > 150 for image in drawn)


@pytest.mark.parametrize("page", [OFFLINE], indirect=True)
def test_a_classifier_sees_what_it_sees_in_jax(demo, folder):
    demo.get_by_label("Model", exact=True).select_option("ram8")
    expect(demo.locator("#drawn")).to_contain_text("It sees a")
    digit = re.search(r"It sees a (\d)", demo.locator("#drawn").text_content())[1]
    (listed,) = re.findall(
        r'<script type="application/json" id="models">(.*?)</script>',
        (folder / "index.html").read_text(),
    )
    (known,) = [model for model in json.loads(listed) if model["name"] == "ram8"]
    image = np.frombuffer(base64.b64decode(known["picture"]), np.uint8).reshape(1, 100, 100, 1)
    logits = drawjax.load_pretrained("ram8").classify(np.float32(image) / 255).logits
    assert int(digit) == int(np.argmax(logits))
    expect(demo.locator("#step-text")).to_have_text("8 of 8")
    demo.get_by_role("button", name="Clear").click()
    stage = demo.locator("#paint-stage").bounding_box()
    x, y = stage["x"] + stage["width"] / 2, stage["y"] + stage["height"] * 0.4
    demo.mouse.move(x, y)
    demo.mouse.down()
    demo.mouse.move(x, y + stage["height"] * 0.2, steps=5)
    demo.mouse.up()
    expect(demo.locator("#drawn")).to_contain_text("It sees a 1")


@pytest.mark.parametrize("page", [PHONE], indirect=True)
def test_a_phone_asks_the_site_alone(page, folder):
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    with _serving(folder) as address:
        page.goto(address)
        expect(page.locator("#drawn")).to_contain_text("4 drawings")
    assert [url for url in asked if not url.startswith((address, "data:", "blob:"))] == []
    assert not any("complete" in url or "ram8" in url for url in asked)  # nobody asked for these
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_a_model_that_could_not_be_loaded_is_asked_for_again(page, folder):
    refused = []

    def refuse_once(route):
        if refused:
            return route.continue_()
        refused.append(route.request.url)
        route.fulfill(status=200, body="no gzip")

    page.route("**/mnist_classes.generate.onnx.gz", refuse_once)
    with _serving(folder) as address:
        page.goto(address)
        expect(page.locator("#drawn")).to_contain_text("4 drawings in 64 steps")
        page.locator("#model").select_option("mnist_classes")
        expect(page.locator("#alert")).not_to_have_text("")
        expect(page.locator("#drawings")).to_have_attribute("aria-busy", "false")
        assert len(refused) == 1
        page.get_by_role("button", name="Draw").click()
        expect(page.locator("#drawn")).to_contain_text("4 drawings in 16 steps")
        expect(page.locator("#alert")).to_have_text("")


@pytest.mark.parametrize("page", [OFFLINE, PHONE], indirect=True)
def test_nothing_keeps_people_out(demo):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    demo.get_by_label("what is missing in my drawing").check()
    expect(demo.locator("#drawn")).to_contain_text("completions")
    assert axe.Axe().run(demo).response["violations"] == []
