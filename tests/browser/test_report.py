"""The report as a person uses it; the fixture `page` fails a test that logs an error."""

import json
import re
import shutil

import pytest

from drawjax import report
from tests.run_folder import STEPS, write_run

axe = pytest.importorskip("axe_playwright_python.sync_playwright")
expect = pytest.importorskip("playwright.sync_api").expect
pytestmark = [pytest.mark.browser, pytest.mark.slow]

# How many pixels of a canvas are as red, or as green, as a window.
COLORED = """(canvas, of) => {
  const {data} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  let count = 0;
  for (let i = 0; i < data.length; i += 4) {
    const [red, green] = [data[i], data[i + 1]];
    if (of === "red" ? red > 180 && green < 100 : green > 150 && red < 80) count++;
  }
  return count;
}"""

# How much of a canvas is white.
WHITE = """canvas => {
  const {data} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  let count = 0;
  for (let i = 0; i < data.length; i += 4) if (Math.min(...data.slice(i, i + 3)) > 250) count++;
  return count / (canvas.width * canvas.height);
}"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Folders of runs of every kind, each with its report."""
    root = tmp_path_factory.mktemp("reports")
    kinds = {
        "generation": {},
        "color": {"channels": 3},
        "plain": {"attends": False},
        "classification": {"classifies": True},
        "unfinished": {"taken": 120},
        "new": {"taken": 0},
    }
    for name, options in kinds.items():
        report.write_report([write_run(root / name, **options)])
    return root


def _open(page, path):
    page.goto((path / "report.html").as_uri())
    return page


def _player(page, title="Test images redrawn"):
    return page.get_by_role("region", name=title)


def _step(player):
    return int(player.get_by_role("slider", name="Step").input_value())


def test_a_report_tells_what_was_run_on_what(page, runs):
    _open(page, runs / "generation")
    expect(page).to_have_title("generation: drawjax")
    expect(page.get_by_role("heading", level=1)).to_have_text("generation")
    expect(page.get_by_text("200 of 200 training steps, finished")).to_be_visible()
    headings = page.get_by_role("heading", level=2).all_text_contents()
    assert headings == [
        "Samples", "Step by step", "Curves", "Numbers", "Data and machine", "Config",
    ]  # fmt: skip
    expect(page.get_by_role("row", name=re.compile("Data set used a set"))).to_be_visible()
    expect(page.get_by_role("row", name=re.compile("Loss.*100.0 ± 1.2"))).to_be_visible()
    expect(page.get_by_text("</script><b>")).to_be_hidden()
    page.get_by_role("heading", name="Config").click()
    expect(page.get_by_text("</script><b>")).to_be_visible()
    expect(page.get_by_label("Follow the run")).to_have_count(0)


def test_it_needs_nothing_but_its_file(page, runs, tmp_path):
    shutil.copy(runs / "generation" / "report.html", tmp_path / "report.html")
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.context.set_offline(True)
    _open(page, tmp_path)
    expect(page.get_by_role("img", name=re.compile("drawn from noise"))).to_be_visible()
    assert {url.split(":")[0] for url in asked} <= {"file", "data"}


def test_playing_goes_from_the_first_step_to_the_last_and_ends(page, runs):
    player = _player(_open(page, runs / "generation"))
    assert _step(player) == STEPS + 1
    expect(player.get_by_text("done")).to_be_visible()
    player.get_by_label("Speed").select_option("0.25")
    player.get_by_role("button", name="Play").click()
    assert _step(player) < STEPS
    player.get_by_role("button", name="Pause").click()
    held = _step(player)
    page.wait_for_timeout(700)
    assert _step(player) == held < STEPS
    player.get_by_label("Speed").select_option("4")
    player.get_by_role("button", name="Play").click()
    expect(player.get_by_role("button", name="Play")).to_be_visible()
    assert _step(player) == STEPS + 1


def test_speed_is_a_factor(page, runs):
    player = _player(_open(page, runs / "generation"))
    page.clock.install(time=0)
    page.reload()
    page.clock.pause_at(3600)  # else time goes on beside what the test lets pass
    for speed, milliseconds in (("1", 150), ("0.5", 300), ("4", 37.5)):
        player.get_by_label("Speed").select_option(speed)
        player.get_by_role("button", name="Play").click()
        page.clock.run_for(int(3.5 * milliseconds))
        assert _step(player) == 4
        page.clock.run_for(int(6 * milliseconds))
        assert _step(player) == STEPS + 1


def test_scrubbing_shows_the_step(page, runs):
    player = _player(_open(page, runs / "generation"))
    canvas, scrub = player.get_by_role("img"), player.get_by_role("slider", name="Step")
    before = canvas.evaluate("canvas => canvas.toDataURL()")
    scrub.fill("2")
    expect(player.get_by_text(f"2 of {STEPS}")).to_be_visible()
    assert scrub.get_attribute("aria-valuetext") == f"2 of {STEPS}"
    assert canvas.evaluate("canvas => canvas.toDataURL()") != before


def test_scrubbing_stops_playing(page, runs):
    player = _player(_open(page, runs / "generation"))
    player.get_by_label("Speed").select_option("0.25")
    player.get_by_role("button", name="Play").click()
    player.get_by_role("slider", name="Step").fill("3")
    expect(player.get_by_role("button", name="Play")).to_be_visible()


def test_the_keyboard_reaches_and_works_everything(page, runs):
    player = _player(_open(page, runs / "generation"))
    player.get_by_role("button", name="Play").focus()
    focused = [page.evaluate("document.activeElement.id")]
    for _ in range(4):
        page.keyboard.press("Tab")
        focused.append(page.evaluate("document.activeElement.id"))
    assert [name.rpartition("-")[2] for name in focused] == [
        "play", "step", "speed", "read", "write",
    ]  # fmt: skip
    scrub = player.get_by_role("slider", name="Step")
    scrub.focus()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    assert _step(player) == 2
    page.keyboard.press("Space")
    expect(player.get_by_role("button", name="Pause")).to_be_visible()
    page.keyboard.press("Space")
    expect(player.get_by_role("button", name="Play")).to_be_visible()
    player.get_by_label("Write window").focus()
    page.keyboard.press("Space")
    expect(player.get_by_label("Write window")).not_to_be_checked()


def test_windows_are_drawn_and_can_be_hidden(page, runs):
    player = _player(_open(page, runs / "generation"))
    canvas = player.get_by_role("img")
    page.wait_for_function("document.querySelectorAll('canvas').length === 2")
    page.wait_for_timeout(100)
    assert canvas.evaluate(COLORED, "red") == canvas.evaluate(COLORED, "green") == 0  # done
    player.get_by_role("slider", name="Step").fill(str(STEPS))
    for label, color in (("Write window", "red"), ("Read window", "green")):
        page.wait_for_timeout(100)
        assert canvas.evaluate(COLORED, color) > 100
        player.get_by_label(label).uncheck()
        assert canvas.evaluate(COLORED, color) == 0
    prior = _player(page, "Drawn from the prior")
    expect(prior.get_by_label("Read window")).to_have_count(0)


def test_an_image_redrawn_is_beside_its_drawing(page, runs):
    _open(page, runs / "generation")
    # The still images are white, the drawings dark: half of each pair is white at any step.
    player = _player(page)
    for step in ("1", "4"):
        player.get_by_role("slider", name="Step").fill(step)
        assert player.get_by_role("img").evaluate(WHITE) == pytest.approx(0.5, abs=0.05)


def test_without_attention_there_are_no_windows_to_hide(page, runs):
    _open(page, runs / "plain")
    expect(page.get_by_role("button", name="Play")).to_have_count(2)
    expect(page.get_by_role("checkbox")).to_have_count(0)


def test_a_classifier_shows_its_errors_and_where_it_looks(page, runs):
    _open(page, runs / "classification")
    expect(page.get_by_role("slider", name="Error, %, by step")).to_be_visible()
    curve = page.get_by_role("slider", name="Test error after each glimpse, %, by glimpse")
    assert curve.get_attribute("aria-valuetext") == "glimpse 2: test 4.075 ± 0.2"
    bars = curve.locator("circle + line")
    heights = [
        abs(float(bar.get_attribute("y1")) - float(bar.get_attribute("y2"))) for bar in bars.all()
    ]
    assert heights[0] == pytest.approx(heights[1] * 0.4 / 0.198)
    expect(page.get_by_role("row", name=re.compile("Error.*4.08 ± 0.20"))).to_be_visible()
    expect(_player(page, "Where the model looks").get_by_label("Read window")).to_be_checked()


def test_curves_have_round_ticks_and_tell_their_values(page, runs):
    _open(page, runs / "generation")
    charts = page.locator(".plot")
    names = [chart.get_attribute("aria-label") for chart in charts.all()]
    assert names == [
        "Loss, nats per image, by step",
        "Reconstruction loss, nats per image, by step",
        "Latent loss (KL), nats per image, by step",
        "KL by step of the drawing, nats, by drawing step",
        "Learning rate, by step",
        "Gradient norm, before clipping, by step",
    ]
    loss = charts.first
    ticks = [float(text.replace(",", "")) for text in loss.locator("text").all_text_contents()]
    assert all(tick % 1 == 0 for tick in ticks)
    loss.focus()
    page.keyboard.press("Home")
    assert loss.get_attribute("aria-valuetext") == "step 20: training 150"
    page.keyboard.press("End")
    assert loss.get_attribute("aria-valuetext") == "step 200: training 105, validation 105"
    loss.hover(position={"x": 60, "y": 50})
    expect(loss.locator("xpath=..").get_by_text("step 20", exact=True)).to_be_visible()


@pytest.mark.parametrize(
    ("values", "first"),
    [
        ((5123.1, 5122.5, 5121.9), "5,122"),
        ((1.1e6, 1.5e6, 2.0e6), "1.2M"),
        ((2e-5, 3e-5, 4e-5), "2e-5"),
        ((0.31, 0.35, 0.4), "0.32"),
    ],
)
def test_numbers_on_an_axis_can_be_told_apart(page, tmp_path, values, first):
    folder = write_run(tmp_path / "run", taken=0)
    rows = [{"step": 10 * i, "split": "train", "loss": v} for i, v in enumerate(values, start=1)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    report.write_report([folder])
    _open(page, folder)
    marks = page.locator("#run0-loss text[text-anchor=end]")
    shown = marks.all_text_contents()
    assert shown[0] == first
    assert len(set(shown)) == len(shown) >= 3
    assert all(mark.evaluate("e => e.getBBox().x") >= 0 for mark in marks.all())


def test_the_last_step_on_an_axis_is_whole(page, tmp_path):
    folder = write_run(tmp_path / "run", taken=0)
    rows = [
        {"step": step, "split": "train", "loss": 9.0} for step in range(10_000, 100_001, 10_000)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    report.write_report([folder])
    _open(page, folder)
    mark = page.locator("#run0-loss text[text-anchor=middle]").last
    assert mark.text_content() == "100,000"
    right = mark.evaluate("e => e.getBBox().x + e.getBBox().width")
    assert right <= page.locator("#run0-loss svg").evaluate("e => e.viewBox.baseVal.width")


def test_runs_that_log_at_other_steps_are_read_side_by_side(page, tmp_path):
    folders = []
    for name, every in (("often", 10), ("seldom", 40)):
        folder = write_run(tmp_path / name, taken=0)
        rows = [
            {"step": step, "split": "train", "loss": float(step)}
            for step in range(every, 201, every)
        ]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        folders.append(folder)
    page.goto(report.write_report(folders).as_uri())
    page.locator("#all-from").select_option("0")
    chart = page.locator("#all-train-loss")
    chart.press("End")
    chart.press("ArrowLeft")  # 190
    assert chart.get_attribute("aria-valuetext") == "step 190: often 190, seldom 160"


def test_a_standard_error_fits_into_its_chart(page, tmp_path):
    folder = write_run(tmp_path / "run", classifies=True)
    results = json.loads((folder / "results.json").read_text())
    results["test"]["error_by_glimpse_standard_error"] = [11.0, 11.0]
    (folder / "results.json").write_text(json.dumps(results))
    report.write_report([folder])
    _open(page, folder)
    chart = page.locator("#run0-glimpses svg").bounding_box()
    bars = page.locator("#run0-glimpses line[stroke='var(--c0)']")
    assert bars.count() == 2
    for bar in bars.all():
        box = bar.bounding_box()
        assert chart["y"] <= box["y"]
        assert box["y"] + box["height"] <= chart["y"] + chart["height"]


def test_runs_of_two_kinds_share_no_column_and_no_heading(page, tmp_path):
    folders = [write_run(tmp_path / "draw"), write_run(tmp_path / "ram", classifies=True)]
    path = report.write_report(folders)
    page.goto(path.as_uri())
    # Its loss, not its error.
    expect(page.get_by_role("row", name="ram")).to_have_text("ram2002.12")
    for title in ("Samples", "Glimpses", "Drawn from the prior", "Where the model looks"):
        expect(page.get_by_role("heading", name=title, level=2)).to_have_count(1)


def test_curves_begin_where_a_person_says(page, runs):
    _open(page, runs / "generation")
    loss = page.get_by_role("slider", name="Loss, nats per image, by step", exact=True)

    def first():
        loss.focus()
        page.keyboard.press("Home")
        return loss.get_attribute("aria-valuenow"), loss.get_attribute("aria-valuemin")

    for share, step in (("0.1", "20"), ("0", "10"), ("0.5", "100"), ("0.8", "160")):
        page.get_by_role("combobox", name="From").select_option(share)
        assert first() == (step, step)
    rate = page.get_by_role("slider", name="Learning rate, by step")
    assert rate.get_attribute("aria-valuemin") == "10"  # all of it, always


def test_the_kl_of_the_first_step_is_on_the_chart(page, tmp_path):
    folder = write_run(tmp_path / "run")
    drawing = json.loads((folder / "test.drawing.json").read_text())
    drawing["kl"] = [2.0**-step for step in range(20)]
    (folder / "test.drawing.json").write_text(json.dumps(drawing))
    report.write_report([folder])
    _open(page, folder)
    heights = page.locator("#run0-kl1 circle, #run0-kl0 circle").evaluate_all(
        "circles => circles.map(circle => Number(circle.getAttribute('cy')))"
    )
    assert len(heights) == 20
    assert heights == sorted(heights)  # it falls, downwards
    assert min(heights) >= 14


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["generation", "classification", "unfinished", "new"])
def test_axe_finds_no_fault(page, runs, name, scheme):
    page.emulate_media(color_scheme=scheme)
    _open(page, runs / name)
    page.get_by_role("heading", name="Config").click()
    found = axe.Axe().run(page)
    assert found.violations_count == 0, found.generate_report()


def test_dark_is_dark_and_light_is_light(page, runs):
    brightness = {}
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        _open(page, runs / "generation")
        color = page.evaluate("getComputedStyle(document.body).backgroundColor")
        brightness[scheme] = sum(map(int, re.findall(r"\d+", color)))
    assert brightness["light"] == 3 * 255
    assert brightness["dark"] < 100


@pytest.mark.parametrize("width", [320, 390, 768])
def test_no_page_scrolls_sideways(page, runs, width):
    page.set_viewport_size({"width": width, "height": 700})
    for name in ("generation", "color", "classification"):
        _open(page, runs / name)
        page.get_by_role("heading", name="Config").click()
        page.wait_for_timeout(100)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, name
        for button in page.get_by_role("button", name="Play").all():
            assert button.bounding_box()["height"] >= 36
        for canvas in page.locator("canvas").all():
            box = canvas.bounding_box()
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= width


def test_an_open_page_follows_the_run_and_keeps_its_place(page, tmp_path):
    folder = write_run(tmp_path / "run", taken=120)
    report.write_report([folder])
    page.clock.install()
    _open(page, folder)
    player = _player(page)
    player.get_by_role("slider", name="Step").fill("2")
    player.get_by_label("Write window").uncheck()
    page.get_by_role("heading", name="Config").click()
    player.get_by_label("Write window").focus()
    loss = page.get_by_role("slider", name="Loss, nats per image, by step", exact=True)
    page.mouse.move(0, 0)  # off all charts
    loss.press("PageUp")
    loss.press("ArrowLeft")
    place = loss.get_attribute("aria-valuenow")
    player.get_by_label("Write window").focus()
    expect(page.get_by_text("120 of 200 training steps")).to_be_visible()
    page.evaluate("window.scrollTo(0, document.body.scrollHeight - window.innerHeight - 60)")
    top = page.evaluate("window.scrollY")
    assert top > 1000

    with (folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 130, "split": "train", "loss": 90.0}) + "\n")
    report.write_report([folder])
    page.clock.run_for(10_000)
    expect(page.get_by_text("130 of 200 training steps")).to_be_visible()
    assert page.evaluate("window.scrollY") == top
    assert _step(player) == 2
    assert loss.get_attribute("aria-valuenow") == place
    expect(player.get_by_label("Write window")).not_to_be_checked()
    expect(player.get_by_label("Write window")).to_be_focused()
    expect(page.get_by_role("region", name="Config")).to_be_visible()

    page.get_by_label("Follow the run").uncheck()
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 140, "split": "train", "loss": 90.0}) + "\n")
    report.write_report([folder])
    page.clock.run_for(30_000)
    page.wait_for_timeout(500)
    expect(page.get_by_text("130 of 200 training steps")).to_be_visible()


def test_a_page_that_plays_is_not_torn_away(page, tmp_path):
    folder = write_run(tmp_path / "run", taken=120)
    report.write_report([folder])
    page.clock.install()
    _open(page, folder)
    page.evaluate("playing.add('somebody')")
    page.clock.run_for(20_000)
    assert page.locator("#probe").count() == 0


def test_a_run_that_has_just_begun_says_so(page, runs):
    _open(page, runs / "new")
    expect(page.get_by_text("0 of 200 training steps")).to_be_visible()
    expect(page.get_by_text("No training step has been logged yet.")).to_be_visible()
    expect(page.get_by_role("row", name="Data set used a set")).to_be_visible()


def test_given_parameters_that_were_evaluated_are_no_run_that_begins(page, tmp_path):
    folder = write_run(tmp_path / "run")
    (folder / "metrics.jsonl").unlink()
    report.write_report([folder])
    _open(page, folder)
    expect(page.get_by_role("table", name="").first).to_be_visible()
    expect(page.get_by_text("of 200 training steps")).to_have_count(0)
    expect(page.get_by_text("No training step")).to_have_count(0)
    expect(page.get_by_label("Follow the run")).to_have_count(0)


def test_runs_are_compared_in_one_page(page, tmp_path):
    for rate in (0.001, 0.01):
        write_run(tmp_path / "sweep" / f"rate={rate}", learning_rate=rate)
    report.write_report([tmp_path / "sweep"])
    _open(page, tmp_path / "sweep")
    expect(page.get_by_role("heading", level=1)).to_have_text("2 runs compared")
    heads = page.get_by_role("columnheader").all_text_contents()
    assert heads[:3] == ["run", "train.learning_rate", "steps"]
    expect(
        page.get_by_role("row", name="rate=0.01 0.01 200 105.0 ± 1.2 100.0 ± 1.2")
    ).to_be_visible()
    loss = page.get_by_role("slider", name="Validation loss, nats per image, by step")
    assert "rate=0.001 105, rate=0.01 105" in loss.get_attribute("aria-valuetext")
    expect(page.get_by_role("img", name="Samples of rate=0.01")).to_be_visible()
    for name in ("rate=0.001", "rate=0.01"):
        player = _player(page, name)
        player.get_by_label("Speed").select_option("4")
        player.get_by_role("button", name="Play").click()
        expect(player.get_by_text("done")).to_be_visible()
    expect(page.get_by_role("button", name="Play")).to_have_count(2)
    page.get_by_role("heading", name="rate=0.01", level=2).click()
    expect(page.get_by_role("button", name="Play")).to_have_count(4)
    found = axe.Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
