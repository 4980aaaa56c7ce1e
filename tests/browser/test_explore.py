import base64
import dataclasses
import math
import re

import numpy as np
import pytest

pytest.importorskip("playwright.sync_api")
from playwright.sync_api import expect

from drawjax.explore import images
from drawjax.explore.drawing import Models
from drawjax.explore.glimpse import glimpse
from tests.explore.serving import CONFIG, save_model, serving
from tests.explore.test_images import file

pytestmark = [pytest.mark.browser, pytest.mark.slow]
expect.set_options(timeout=30_000)
PHONE = {
    "viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True,
    "device_scale_factor": 2, "color_scheme": "dark",
}  # fmt: skip
SLIDERS = ["Center x", "Center y", "Variance", "Stride", "Intensity"]


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    save_model(folder)
    save_model(folder, "three", dataclasses.replace(CONFIG, num_classes=3))
    save_model(folder, "whole", dataclasses.replace(CONFIG, read_size=None, write_size=None))
    with serving(Models(folder)) as address:
        yield address


@pytest.fixture
def look(page, address):
    """The page once its first glimpse is there; it may ask its own server and no other."""
    page.on("request", lambda request: asked.append(request.url))
    asked = []
    page.goto(address)
    expect(page.locator("#patch-text")).to_contain_text("12 × 12")
    yield page
    assert [url for url in asked if not url.startswith((address, "data:"))] == []


@pytest.fixture
def draw(look):
    """The other tab, once the scribbling model, its first, has drawn: it draws as it opens, and a
    choice beside that would draw a second time."""
    look.get_by_role("tab", name="A model draws").click()
    expect(look.locator("#drawn")).to_have_text("4 drawings in 4 steps, seed 0.")
    return look


def pixels(page, canvas, index=0):
    """What a canvas shows, `[height, width, 3]`."""
    height, width, content = (
        page.locator(canvas)
        .nth(index)
        .evaluate(
            """canvas => {
          const {data} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
          return [canvas.height, canvas.width, [...data]];
        }"""
        )
    )
    return np.array(content, np.uint8).reshape(height, width, 4)[..., :3]


def number(page, slider):
    """What stands behind a slider: the last number of its output."""
    text = page.locator(
        f"#{page.get_by_role('slider', name=slider).get_attribute('id')}-text"
    ).text_content()
    return float(re.findall(r"-?[\d.]+", text)[-1])


def eventually(page, check):
    """Runs a check until it holds, thirty seconds at most: a new size of image is compiled."""
    for _ in range(600):
        try:
            return check()
        except AssertionError:
            page.wait_for_timeout(50)
    return check()


def middle(page, element):
    box = page.locator(element).bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def drop(page, name, content):
    """Drops a file of some bytes, or of so many zeros."""
    transfer = page.evaluate_handle(
        """([name, content]) => {
          const bytes = typeof content === "number" ? new Uint8Array(content)
            : Uint8Array.from(atob(content), letter => letter.charCodeAt(0));
          const transfer = new DataTransfer();
          transfer.items.add(new File([bytes], name));
          return transfer;
        }""",
        [name, content if isinstance(content, int) else base64.b64encode(content).decode()],
    )
    for event in ("dragover", "drop"):
        page.dispatch_event("main", event, {"dataTransfer": transfer})


def test_the_pictures_are_those_of_the_library(look):
    stride = 59 / 11 / 2
    logits = [0.4, 0.4, 2 * math.log(stride / 2), math.log(0.5), 0]
    seen = np.asarray(glimpse(images.built_in("digits"), logits, 12))[5 + 2 * 12 :]
    patch, written = seen[:144].reshape(12, 12, 1), seen[144:].reshape(60, 60, 1)
    shown = pixels(look, "#patch")
    np.testing.assert_allclose(shown, np.repeat(255 * patch, 3, -1), atol=0.51)
    written = np.clip(255 * written * stride**2, 0, 255)
    np.testing.assert_allclose(pixels(look, "#written"), np.repeat(written, 3, -1), atol=0.6)
    np.testing.assert_array_equal(
        pixels(look, "#scene"), np.repeat(images.built_in("digits"), 3, -1)
    )


def test_the_window_is_dragged_on_the_image(look):
    before = pixels(look, "#patch")
    x, y = middle(look, "#window")
    scale = 60 / look.locator("#stage").bounding_box()["width"]
    look.mouse.move(x, y)
    look.mouse.down()
    look.mouse.move(x - 100, y - 150, steps=10)
    look.mouse.up()

    def moved():
        assert number(look, "Center x") == pytest.approx(42.7 - 100 * scale, abs=0.02)
        assert number(look, "Center y") == pytest.approx(42.7 - 150 * scale, abs=0.02)
        assert middle(look, "#window") == pytest.approx((x - 100, y - 150), abs=1)

    eventually(look, moved)
    assert (pixels(look, "#patch") != before).any()
    assert number(look, "Stride") == pytest.approx(2.68)


def test_the_handle_changes_the_stride_and_the_filters_follow(look):
    x, y = middle(look, "#handle")
    center = middle(look, "#window")
    look.mouse.move(x, y)
    look.mouse.down()
    look.mouse.move((x + center[0]) / 2, (y + center[1]) / 2, steps=5)
    look.mouse.up()

    def halved():
        assert number(look, "Stride") == pytest.approx(1.34, abs=0.02)
        assert number(look, "Variance") == pytest.approx(0.67, abs=0.02)

    eventually(look, halved)
    assert middle(look, "#window") == pytest.approx(center, abs=1)


@pytest.mark.parametrize("slider", SLIDERS)
def test_sliders_move_by_keys(look, slider):
    start, patch = number(look, slider), pixels(look, "#patch")
    look.get_by_role("slider", name=slider).focus()
    for _ in range(30):
        look.keyboard.press("ArrowLeft")

    def changed():
        assert number(look, slider) < start
        assert (pixels(look, "#patch") != patch).any()
        if slider == "Intensity":  # reading multiplies, writing divides
            assert number(look, slider) == pytest.approx(math.exp(-0.3), abs=0.01)

    eventually(look, changed)
    if slider == "Variance":
        expect(look.get_by_label("σ follows")).not_to_be_checked()
    look.get_by_role("button", name="Reset").click()
    eventually(look, lambda: np.testing.assert_array_equal(pixels(look, "#patch"), patch))


def test_the_number_of_filters_is_a_slider_too(look):
    look.get_by_role("slider", name="Filters a side").focus()
    look.keyboard.press("ArrowRight")
    expect(look.locator("#patch-text")).to_contain_text("13 × 13")
    assert pixels(look, "#patch").shape == (13, 13, 3)
    look.keyboard.press("Home")
    expect(look.locator("#patch-text")).to_contain_text("1 × 1")
    assert pixels(look, "#patch").shape == (1, 1, 3)


def test_the_window_moves_by_keys_and_is_said(look):
    look.locator("#stage").focus()
    look.keyboard.press("ArrowLeft")
    look.keyboard.press("Shift+ArrowUp")
    eventually(look, lambda: np.testing.assert_allclose(number(look, "Center x"), 41.7))
    eventually(look, lambda: np.testing.assert_allclose(number(look, "Center y"), 32.7))
    look.keyboard.press("+")
    eventually(look, lambda: np.testing.assert_allclose(number(look, "Stride"), 2.96))
    expect(look.get_by_role("status").filter(has_text="Window at 41.7, 32.7 pixels")).to_have_count(
        1
    )


def test_images_are_chosen_and_dropped(look):
    look.get_by_label("Image", exact=True).select_option("A test digit")
    eventually(look, lambda: _shape(look, (28, 28, 3)))
    seven = pixels(look, "#scene")
    look.get_by_role("button", name="Another digit").click()
    eventually(look, lambda: np.testing.assert_(np.any(pixels(look, "#scene") != seven)))
    stripes = np.zeros((300, 600, 3), np.uint8)
    stripes[:, ::2, 0] = 255
    drop(look, "stripes.png", file(stripes))
    eventually(look, lambda: _shape(look, (128, 256, 3)))
    expect(look.locator("#note")).to_have_text("Scaled down from 600 x 300 to 256 x 128 pixels.")
    expect(look.get_by_label("Image", exact=True).locator("option:checked")).to_have_text(
        "stripes.png"
    )

    def red():
        assert pixels(look, "#patch")[..., 0].max() > 100
        assert pixels(look, "#patch")[..., 1:].max() == 0

    eventually(look, red)


def _shape(page, shape):
    assert pixels(page, "#scene").shape == shape


def test_other_files_are_refused_and_the_image_stays(look):
    before = pixels(look, "#scene")
    alert = look.get_by_role("alert")
    drop(look, "letter.png", b"Dear Sir or Madam")
    expect(alert).to_have_text("The file cannot be read: not a picture.")
    drop(look, "large.png", images.MAX_BYTES + 1)
    expect(alert).to_have_text("large.png has 8.0 MB; at most 8 MB are taken.")
    wide = file(np.zeros((9_500, 9_500), np.uint8))
    look.get_by_label("Open a file").set_input_files(
        {"name": "wide.png", "mimeType": "image/png", "buffer": wide}
    )
    expect(alert).to_have_text("The file cannot be read: more than 89 million pixels.")
    np.testing.assert_array_equal(pixels(look, "#scene"), before)
    look.get_by_label("Image", exact=True).select_option("A test digit")
    expect(alert).to_have_text("")


def test_a_model_draws_step_by_step(draw):
    expect(draw.get_by_role("button", name="Play")).to_be_visible()  # it has played to its end
    expect(draw.locator("#step-text")).to_have_text("4 of 4")
    last = pixels(draw, "#drawings canvas")
    assert (pixels(draw, "#drawings canvas", 1) != last).any()
    draw.get_by_label("Step", exact=True).focus()
    draw.keyboard.press("ArrowLeft")
    expect(draw.locator("#step-text")).to_have_text("3 of 4")
    assert (pixels(draw, "#drawings canvas") != last).any()
    expect(draw.locator("#drawings .write").first).to_be_visible()
    expect(draw.locator("#drawings .read").first).to_be_hidden()
    draw.get_by_label("Windows", exact=True).uncheck()
    expect(draw.locator("#drawings .write").first).to_be_hidden()
    draw.get_by_label("Speed").select_option("0.5×")
    draw.get_by_role("button", name="Play").click()
    draw.get_by_role("button", name="Pause").click()
    draw.get_by_label("Seed", exact=True).fill("5")
    draw.get_by_role("button", name="Draw", exact=True).click()
    expect(draw.locator("#drawn")).to_contain_text("seed 5")
    draw.get_by_label("Seed", exact=True).fill("-5")
    draw.get_by_role("button", name="Draw", exact=True).click()
    expect(draw.get_by_role("alert")).to_contain_text("whole number from 0")


def test_a_model_completes_what_is_painted(draw):
    draw.get_by_label("what is missing in my drawing").check()
    done = draw.locator("#drawn")
    expect(done).to_contain_text("4 completions of your drawing")
    draw.get_by_role("button", name="Clear").click()
    eventually(draw, lambda: np.testing.assert_(pixels(draw, "#paint")[:14].max() == 0))
    assert (pixels(draw, "#paint")[14:] == [70, 110, 190]).all()
    box = draw.locator("#paint-stage").bounding_box()
    side = box["width"]
    before = pixels(draw, "#drawings canvas")
    draw.mouse.move(box["x"] + side / 4, box["y"] + side / 4)
    draw.mouse.down()
    draw.mouse.move(box["x"] + side * 3 / 4, box["y"] + side / 4, steps=4)
    draw.mouse.up()
    painted = pixels(draw, "#paint")
    assert painted[6:8, 8:20].min() > 200
    assert painted[:4].max() == painted[10:14].max() == 0
    eventually(draw, lambda: np.testing.assert_(np.any(pixels(draw, "#drawings canvas") != before)))
    expect(draw.locator("#drawings .read").first).to_be_visible()

    draw.locator("#paint-stage").focus()  # by keys too, into what is not known
    for _ in range(10):
        draw.keyboard.press("ArrowDown")
    draw.keyboard.press("Space")
    draw.keyboard.press("Shift+ArrowRight")
    assert pixels(draw, "#paint")[17, 14:16].min() > 200
    draw.get_by_label("The model fills in").select_option("nothing: it redraws all")
    assert not (pixels(draw, "#paint") == [70, 110, 190]).all(-1).any()
    draw.get_by_label("The model fills in").select_option("all that is blank")
    assert (pixels(draw, "#paint")[0] == [70, 110, 190]).all()
    draw.get_by_label("erase").check()
    draw.mouse.click(box["x"] + side / 2, box["y"] + side / 4)
    assert (pixels(draw, "#paint")[6:8, 13:15] == [70, 110, 190]).all()
    assert pixels(draw, "#paint")[6:8, 9:11].min() > 200
    mine = pixels(draw, "#paint")
    draw.get_by_role("button", name="Put a digit there").click()
    eventually(draw, lambda: np.testing.assert_(np.any(pixels(draw, "#paint") != mine)))


def test_a_second_finger_draws_nothing(draw):
    draw.get_by_label("what is missing in my drawing").check()
    draw.get_by_role("button", name="Clear").click()
    draw.get_by_label("The model fills in").select_option("nothing: it redraws all")
    draw.evaluate(
        """() => {
          const stage = document.getElementById("paint-stage"), box = stage.getBoundingClientRect();
          stage.setPointerCapture = () => {};
          const send = (type, isPrimary, y) => stage.dispatchEvent(new PointerEvent(type,
            {isPrimary, pointerId: isPrimary ? 1 : 2, clientX: box.left + box.width / 2,
             clientY: box.top + box.height * y, button: 0, bubbles: true}));
          send("pointerdown", true, 0.25);
          send("pointerdown", false, 0.9);
          send("pointermove", true, 0.3);
          send("pointerup", false, 0.9);
          send("pointermove", true, 0.35);
          send("pointerup", true, 0.35);
        }"""
    )
    painted = pixels(draw, "#paint")
    assert painted[7:9, 14].min() > 200
    assert painted[12:].max() == 0


def test_the_tab_opens_on_a_model_of_ones_own_and_then_mnist(draw):
    names = draw.get_by_label("Model", exact=True).locator("option").all_text_contents()
    assert names[:4] == ["scribble", "three", "whole", "mnist"]


def test_a_model_without_windows_has_no_key_of_them(draw):
    expect(draw.get_by_text("where it writes")).to_be_visible()
    draw.get_by_label("Model", exact=True).select_option("whole")
    expect(draw.get_by_text("where it writes")).to_be_hidden()


def test_it_says_that_it_loads_and_what_is_stale_is_dim(draw):
    def opacity():
        return float(draw.locator("#drawings").evaluate("e => getComputedStyle(e).opacity"))

    assert opacity() == 1
    held = []
    draw.route("**/draw?*", lambda route: held.append(route))
    draw.get_by_role("button", name="Another seed").click()
    expect(draw.locator("#drawn")).to_have_text("Drawing …")
    eventually(draw, lambda: np.testing.assert_(opacity() < 0.5 and held))
    held.pop().continue_()
    eventually(draw, lambda: np.testing.assert_(opacity() == 1))
    draw.get_by_label("Model", exact=True).select_option("mnist")
    expect(draw.locator("#drawn")).to_have_text("Loading mnist … (some seconds, the first time)")
    eventually(draw, lambda: np.testing.assert_(opacity() < 0.5 and held))
    held.pop().continue_()
    eventually(draw, lambda: np.testing.assert_(opacity() == 1))
    expect(draw.locator("#drawn")).to_contain_text("4 drawings in 64 steps")


def test_what_is_said_is_of_the_seed_that_was_asked_for(draw):
    held = []
    draw.route("**/draw?*", lambda route: held.append(route))
    seed = draw.get_by_label("Seed", exact=True)
    seed.fill("1e3")  # which a field of numbers takes
    draw.get_by_role("button", name="Draw", exact=True).click()
    eventually(draw, lambda: np.testing.assert_(len(held) == 1))
    seed.fill("77")
    assert "seed=1000" in held[0].request.url
    held[0].continue_()
    expect(draw.locator("#drawn")).to_have_text("4 drawings in 4 steps, seed 1000.")


def test_what_fails_does_not_keep_the_next_from_being_asked(draw):
    held = []
    draw.route("**/draw?*", lambda route: held.append(route))
    draw.get_by_role("button", name="Draw", exact=True).click()
    eventually(draw, lambda: np.testing.assert_(len(held) == 1))
    draw.get_by_label("Seed", exact=True).fill("3")
    draw.get_by_role("button", name="Draw", exact=True).click()
    held[0].fulfill(status=200, body="no JSON")
    eventually(draw, lambda: np.testing.assert_(len(held) == 2))
    held[1].continue_()
    expect(draw.locator("#drawn")).to_have_text("4 drawings in 4 steps, seed 3.")
    expect(draw.locator("#drawings")).to_have_attribute("aria-busy", "false")
    expect(draw.locator("#alert")).to_have_text("")


def test_a_late_picture_does_not_replace_a_newer_one(draw):
    held = []

    def hold(route):
        if held:
            route.continue_()
        else:
            held.append(route)

    draw.route("**/image", hold)
    drop(draw, "white.png", file(np.full((8, 8, 3), 255, np.uint8)))
    eventually(draw, lambda: np.testing.assert_(len(held) == 1))
    drop(draw, "dark.png", file(np.full((8, 8, 3), 60, np.uint8)))
    draw.get_by_label("The model fills in").select_option("nothing: it redraws all")
    eventually(draw, lambda: np.testing.assert_(np.all(pixels(draw, "#paint") == 60)))
    held[0].continue_()
    draw.wait_for_timeout(500)
    assert np.all(pixels(draw, "#paint") == 60)


def test_a_file_is_no_choice_any_more_once_another_image_is_looked_at(look):
    drop(look, "stripes.png", file(np.zeros((8, 8, 3), np.uint8)))
    expect(look.locator("#source option:checked")).to_have_text("stripes.png")
    look.get_by_label("Image", exact=True).select_option("A test digit")
    expect(look.locator("#another-digit")).to_be_visible()
    expect(look.locator("#source option", has_text="stripes.png")).to_have_count(0)


def test_a_picture_is_dropped_into_the_completion(draw):
    picture = np.zeros((40, 80, 3), np.uint8)
    picture[:, 20:60] = (0, 255, 0)  # the middle square
    picture[:20, 20:60] = 255
    drop(draw, "half.png", file(picture))
    expect(draw.locator("#drawn")).to_contain_text("4 completions of your drawing")
    expect(draw.get_by_label("what is missing in my drawing")).to_be_checked()
    draw.get_by_label("The model fills in").select_option("nothing: it redraws all")
    shown = pixels(draw, "#paint")
    assert shown[:13].min() > 250
    assert set(shown[16:].ravel()) <= {149, 150}  # green as gray
    draw.get_by_role("button", name="Swap black and white").click()
    assert pixels(draw, "#paint")[:13].max() < 5
    drop(draw, "letter.png", b"Dear Sir or Madam")
    expect(draw.get_by_role("alert")).to_have_text("The file cannot be read: not a picture.")
    draw.get_by_label("Put a picture there").set_input_files(
        {"name": "half.png", "mimeType": "image/png", "buffer": file(picture)}
    )
    eventually(draw, lambda: np.testing.assert_array_equal(pixels(draw, "#paint"), shown))


def test_arrow_keys_change_the_tab(look):
    look.get_by_role("tab", name="Attention window").focus()
    look.keyboard.press("ArrowRight")
    expect(look.get_by_role("tab", name="A model draws")).to_be_focused()
    expect(look.locator("#drawn")).to_contain_text("4 drawings")


@pytest.mark.parametrize("page", [PHONE], indirect=True, ids=["dark phone"])
def test_it_fits_a_phone_in_the_dark(draw):
    ground = draw.evaluate("getComputedStyle(document.body).backgroundColor")
    assert max(map(int, re.findall(r"\d+", ground))) < 64
    draw.get_by_label("what is missing in my drawing").check()
    for tab in ("A model draws", "Attention window"):
        draw.get_by_role("tab", name=tab).tap()
        assert draw.evaluate("document.documentElement.scrollWidth") == 390
        for control in draw.locator("button:visible, select:visible").all():
            assert control.bounding_box()["height"] >= 40
    box = draw.locator("#stage").bounding_box()
    draw.touchscreen.tap(box["x"] + box["width"] / 4, box["y"] + box["height"] / 4)
    eventually(draw, lambda: np.testing.assert_allclose(number(draw, "Center x"), 15.5, atol=0.1))
    expect(draw.locator(".keys").first).to_be_hidden()


def test_a_class_is_chosen_where_the_model_has_some(draw):
    assert draw.locator("#label-field").is_hidden()
    draw.get_by_label("Model", exact=True).select_option("three")
    expect(draw.locator("#drawn")).to_have_text("3 drawings in 4 steps, seed 0.")
    with draw.expect_request(lambda request: "label=2" in request.url):
        draw.get_by_label("Class", exact=True).select_option("2")
    expect(draw.locator("#drawn")).to_have_text("4 drawings in 4 steps, seed 0.")
    draw.get_by_label("Model", exact=True).select_option("scribble")
    assert draw.locator("#label-field").is_hidden()
