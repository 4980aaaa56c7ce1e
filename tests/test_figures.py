import contextlib
import dataclasses
import math
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import matplotlib
import matplotlib.image
import numpy as np
import pytest
from PIL import Image, ImageSequence

from drawjax import figures
from drawjax.attention import Window

_GROUND, _RED, _GREEN = figures._GROUND, figures._RED, figures._GREEN


def _windows(*shape, center=4.5, stride=2.0, variance=0.01):
    full = {"center_x": center, "center_y": center, "stride": stride, "variance": variance}
    return Window(**{name: np.full(shape, value) for name, value in full.items()},
                  intensity=np.ones(shape))  # fmt: skip


def _pixels(path):
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def _shades(*shape, size=(8, 8)):
    """Images of one shade each, all different, and their bytes."""
    shades = np.linspace(0, 1, math.prod(shape)).reshape(shape)
    return np.broadcast_to(shades[..., None, None, None], (*shape, *size, 1)), np.round(
        255 * shades
    )


def test_outlines_go_through_the_outermost_filters():
    corners, deviation = figures.outlines(_windows(2, variance=4.0), 5)
    np.testing.assert_allclose(corners, [[[0, 0], [8, 0], [8, 8], [0, 8]]] * 2)
    np.testing.assert_allclose(deviation, [2, 2])
    turned = dataclasses.replace(
        _windows(variance=4.0), stride_y=1.0, variance_y=1.0, rotation=math.pi / 2
    )
    corners, deviation = figures.outlines(turned, (3, 5))
    np.testing.assert_allclose(corners, [[5, 0], [5, 8], [3, 8], [3, 0]], atol=1e-5)
    np.testing.assert_allclose(deviation, math.sqrt(2))


def test_outlines_take_numbers_and_lists_beside_arrays():
    windows = Window([4.5, math.nan], np.array([4.5, 4.5]), 2.0, [4.0, 4.0], 1)
    corners, deviation = figures.outlines(windows, 5)
    np.testing.assert_allclose(corners[0], [[0, 0], [8, 0], [8, 8], [0, 8]])
    np.testing.assert_array_equal(deviation, [2, math.nan])


def test_a_turned_window_is_drawn_turned(tmp_path):
    windows = dataclasses.replace(_windows(1, 1), rotation=np.full((1, 1), math.pi / 4))
    frames = np.zeros((1, 1, 8, 8, 1))
    figures.save_sequence(tmp_path / "x.png", frames, windows, patch_size=3, scale=10)
    cell = _pixels(tmp_path / "x.png")[2:82, 2:82]
    rows, columns = np.nonzero((cell == _RED).all(-1))
    reach = 20 * math.sqrt(2)
    for places in (rows, columns):
        assert abs(places.min() - (40 - reach)) <= 1 and abs(places.max() - (40 + reach)) <= 1
    assert not (cell[20:25, 20:25] == _RED).any()
    zoomed = jax.tree.map(lambda field: field[0], windows)
    figures.save_zooms(
        tmp_path / "z.png", np.zeros((8, 8, 1)), zoomed, np.zeros((1, 3, 5, 1)), frames[0]
    )
    assert (_pixels(tmp_path / "z.png") == _RED).all(-1).any()


@pytest.mark.parametrize(("count", "columns", "rows"), [(6, 3, 2), (5, 2, 3), (1, 1, 1)])
def test_a_grid_has_its_images_in_rows(tmp_path, count, columns, rows):
    images, shades = _shades(count)
    figures.save_grid(tmp_path / "grid.png", images, columns=columns, scale=2)
    pixels = _pixels(tmp_path / "grid.png")
    assert pixels.shape == (rows * 18 + 2, columns * 18 + 2, 3)
    assert tuple(pixels[0, 0]) == _GROUND
    for i in range(count):
        top, left = 2 + 18 * (i // columns), 2 + 18 * (i % columns)
        assert (pixels[top : top + 16, left : left + 16] == shades[i]).all()


def test_what_would_not_be_drawn_is_refused(tmp_path):
    images = np.zeros((4, 6, 5, 1))
    with pytest.raises(ValueError, match="labels are of the images beside, and there are none"):
        figures.save_grid(tmp_path / "grid.png", images, labels=["1"] * 4)
    with pytest.raises(ValueError, match="windows need a patch_size"):
        figures.save_sequence(tmp_path / "drawn.png", images[None], _windows(1, 4))
    with pytest.raises(ValueError, match=r"windows must have fields \[1, 4\], got \[2, 4\]"):
        figures.save_sequence(tmp_path / "drawn.png", images[None], _windows(2, 4), patch_size=3)


@pytest.mark.parametrize(("wrong", "said"), [
    ({"write": (_windows(3, 4), 2)}, r"windows must have fields \[2, 4\], got \[3, 4\]"),
    ({"read": (_windows(2), 2)}, r"windows must have fields \[2, 4\], got \[2\]"),
    ({"kl": [1.0]}, "kl must be 2 numbers, got 1"),
    ({"beside": np.zeros((3, 6, 5, 1))}, r"beside must be 4 images of 6x5, got \[3, 6, 5, 1\]"),
    ({"beside": np.zeros((4, 5, 6, 1))}, r"beside must be 4 images of 6x5, got \[4, 5, 6, 1\]"),
])  # fmt: skip
def test_a_drawing_is_of_frames_windows_and_images_of_one_shape(tmp_path, wrong, said):
    path, frames = tmp_path / "a.drawing.json", np.zeros((2, 4, 6, 5, 1))
    with pytest.raises(ValueError, match=said):
        figures.save_drawing(path, frames, title="", description="", **wrong)
    assert not list(tmp_path.iterdir())


def test_a_grid_is_square_by_default_and_scaled_to_be_seen(tmp_path):
    figures.save_grid(tmp_path / "grid.png", np.zeros((9, 28, 28, 3)))
    assert _pixels(tmp_path / "grid.png").shape == (3 * 86 + 2, 3 * 86 + 2, 3)


def test_neighbors_are_set_apart_at_the_end_of_a_row(tmp_path):
    images, _ = _shades(4)
    beside = np.full((2, 8, 8, 1), 0.2)
    figures.save_grid(tmp_path / "grid.png", images, columns=2, beside=beside, scale=1)
    pixels = _pixels(tmp_path / "grid.png")
    assert (pixels[2:10, 2 + 10 + 10 + 4 :][:, :8] == 51).all()
    assert (pixels[2:10, 22:24] == _GROUND).all()


def test_a_label_stands_after_each_neighbor(tmp_path):
    images, _ = _shades(4)
    options = {"columns": 2, "beside": images[:2], "scale": 3}
    figures.save_grid(tmp_path / "plain.png", images, **options)
    figures.save_grid(tmp_path / "grid.png", images, **options, labels=["7", "12"])
    plain, pixels = _pixels(tmp_path / "plain.png"), _pixels(tmp_path / "grid.png")
    assert (pixels[:, : plain.shape[1]] == plain).all()
    after = (pixels[:, plain.shape[1] :] > 200).all(-1)
    assert after[:26].any() and after[26:].any()


@pytest.mark.parametrize(("steps", "columns", "shown"), [
    (5, 3, [0, 2, 4]), (4, 11, [0, 1, 2, 3]), (10, 4, [0, 3, 6, 9]), (1, 3, [0]), (4, 1, [3]),
])  # fmt: skip
def test_a_sequence_shows_steps_spread_evenly(tmp_path, steps, columns, shown):
    frames, shades = _shades(steps, 2)
    figures.save_sequence(tmp_path / "x.png", frames, None, columns=columns, scale=1)
    pixels = _pixels(tmp_path / "x.png")
    assert pixels.shape == (2 * 10 + 2, len(shown) * 10 + 2, 3)
    for row in range(2):
        for place, t in enumerate(shown):
            assert pixels[2 + 10 * row + 4, 2 + 10 * place + 4, 0] == shades[t, row]


def test_a_window_is_drawn_where_its_filters_lie(tmp_path):
    # 3 x 3 filters 2 apart in the middle of 8 pixels: from 2.5 to 6.5, pixel 1's center being 0.5.
    frames = np.zeros((1, 1, 8, 8, 1))
    figures.save_sequence(tmp_path / "x.png", frames, _windows(1, 1), patch_size=3, scale=10)
    cell = _pixels(tmp_path / "x.png")[2:82, 2:82]
    rows, columns = np.nonzero((cell == _RED).all(-1))
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (20, 60, 20, 60)
    assert not cell[25:55, 25:55].any()


def test_a_line_is_as_wide_as_the_filters(tmp_path):
    widths = []
    for variance in (0.04, 1.0):
        windows = _windows(1, 1, variance=variance)
        figures.save_sequence(
            tmp_path / "x.png", np.zeros((1, 1, 8, 8, 1)), windows, patch_size=3, scale=10
        )
        cell = _pixels(tmp_path / "x.png")[2:82, 2:82]
        widths.append((cell[40, :40] == _RED).all(-1).sum())
    assert widths == [2, 10]


def test_a_window_that_is_not_finite_is_left_out(tmp_path):
    windows = _windows(2, 1, center=math.nan)
    frames = np.full((2, 1, 8, 8, 1), 0.4)
    figures.save_sequence(tmp_path / "a.png", frames, windows, patch_size=3, scale=1)
    figures.save_animation(tmp_path / "a.gif", frames, windows, patch_size=3)
    patches = np.zeros((2, 1, 3, 3, 1))
    figures.save_glimpses(tmp_path / "g.png", frames[0], windows, patches)
    row = _windows(1, stride=math.inf)
    figures.save_zooms(tmp_path / "z.png", frames[1, 0], row, patches[0], frames[1])
    assert not (_pixels(tmp_path / "a.png") == _RED).all(-1).any()


def test_glimpses_stand_beside_their_images(tmp_path):
    images = np.full((1, 30, 30, 1), 0.2)
    patches = np.full((2, 1, 3, 3, 1), 0.6)
    windows = _windows(2, 1, center=15.5)
    figures.save_glimpses(tmp_path / "g.png", images, windows, patches, titles=["a title"])
    pixels = _pixels(tmp_path / "g.png")
    frame = pixels[2 + 18 :, 2:][:150, :150]
    assert ((frame == 51).all(-1) | (frame == _GREEN).all(-1)).all()
    assert (frame == _GREEN).all(-1).any()
    assert (pixels == 153).all(-1).any()
    assert (pixels[2:18] > 200).any()


def test_zooms_show_the_filters_the_patch_and_what_is_rebuilt(tmp_path):
    windows = _windows(2, stride=3.0)
    patches, rebuilt = np.full((2, 3, 3, 1), 0.6), np.full((2, 8, 8, 1), 0.8)
    figures.save_zooms(tmp_path / "z.png", np.zeros((8, 8, 1)), windows, patches, rebuilt)
    pixels = _pixels(tmp_path / "z.png")
    scale = round(300 / 8)
    assert pixels.shape[0] == 2 * (8 * scale + 2) + 2
    for number in range(3):  # a circle of a tenth of a pixel around each center on the diagonal
        x = round((4.5 + (number - 1) * 3 - 0.5) * scale)
        assert (pixels[2 + x - 5 : 2 + x + 6, 2 + x - 5 : 2 + x + 6] == _RED).all(-1).any()
    assert (pixels == 153).all(-1).any()
    assert (pixels == 204).all(-1).any()


def test_zooms_take_numbers_and_leave_out_circles_that_none_could_see(tmp_path):
    image, patches, rebuilt = np.zeros((8, 8, 1)), np.zeros((2, 3, 3, 1)), np.zeros((2, 8, 8, 1))
    pictures = []
    for variance in (9.0, [9.0, 9.0], [9.0, 1e9]):
        window = Window([4.5, 4.5], [4.5, 4.5], 3.0, variance, 1.0)
        figures.save_zooms(tmp_path / "z.png", image, window, patches, rebuilt)
        pictures.append(_pixels(tmp_path / "z.png"))
    np.testing.assert_array_equal(pictures[0], pictures[1])
    half = len(pictures[0]) // 2
    np.testing.assert_array_equal(pictures[1][:half], pictures[2][:half])
    red = [(picture[half:] == _RED).all(-1).sum() for picture in pictures]
    assert red[0] > 100 > red[2]


def test_an_animation_has_a_page_a_step_and_rests_on_the_last(tmp_path):
    frames, shades = _shades(3, 4)
    figures.save_animation(
        tmp_path / "a.gif", frames, _windows(3, 4), patch_size=3, milliseconds=50, scale=2
    )
    with Image.open(tmp_path / "a.gif") as picture:
        pages = [
            (np.asarray(page.convert("RGB")), page.info["duration"])
            for page in ImageSequence.Iterator(picture)
        ]
    assert [duration for _, duration in pages] == [50, 50, 50, 2000]
    for t, (page, _) in enumerate(pages):
        assert page.shape == (2 * 18 + 2, 2 * 18 + 2, 3)
        assert abs(int(page[2 + 8, 2 + 18 + 8, 0]) - shades[min(t, 2), 1]) <= 4  # of 256 colors
    reds = [(np.abs(page - np.array(_RED)) < 20).all(-1).any() for page, _ in pages]
    assert reds == [True, True, True, False]


_WRITERS = {
    "grid": lambda path, images: figures.save_grid(path, images),
    "beside": lambda path, images: figures.save_grid(
        path, np.zeros((len(images), 8, 8, 1)), columns=1, beside=images
    ),
    "pairs": lambda path, images: figures.save_pairs(path, np.zeros((2, 8, 8, 1)), images),
    "sequence": lambda path, images: figures.save_sequence(path, images[None], None),
    "animation": lambda path, images: figures.save_animation(path, images[None], None),
    "glimpses": lambda path, images: figures.save_glimpses(
        path, images, _windows(1, len(images)), np.zeros((1, len(images), 3, 3, 1))
    ),
    "patches": lambda path, images: figures.save_glimpses(
        path, np.zeros((len(images), 9, 9, 1)), _windows(1, len(images)), images[None]
    ),
    "zooms": lambda path, images: figures.save_zooms(
        path, images[0], _windows(1), np.zeros((1, 3, 3, 1)), np.zeros((1, 8, 8, 1))
    ),
}


@pytest.fixture(params=_WRITERS)
def write(request):
    """A function that writes a figure of some images."""
    return _WRITERS[request.param]


def test_bytes_are_shown_as_they_are(tmp_path, write):
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3)).astype(np.uint8)
    write(tmp_path / "bytes.gif", images)
    write(tmp_path / "floats.gif", images / 255)
    assert (tmp_path / "bytes.gif").read_bytes() == (tmp_path / "floats.gif").read_bytes()


@pytest.mark.parametrize(("images", "said"), [
    (np.full((2, 8, 8, 1), math.nan), r"lie in \[0, 1\], got values from nan to nan"),
    (np.full((2, 8, 8, 1), 1.1), r"lie in \[0, 1\], got values from 1.1 to 1.1"),
    (np.full((2, 8, 8, 1), 1.0300001), r"got values from 1\.0300001 to 1\.0300001$"),
    (np.full((2, 8, 8, 1), -0.1), r"lie in \[0, 1\], got values from -0.1 to -0.1"),
    (np.full((2, 8, 8, 1), 200), r"be floats in \[0, 1\] or bytes, got int64"),
    (np.zeros((2, 8, 8, 2)), r"of 1 or 3 channels, got \["),
    (np.zeros((2, 8, 8, 4)), r"of 1 or 3 channels, got \["),
    (np.zeros((2, 8, 8)), r"axes, the last of 1 or 3 channels, got \["),
])  # fmt: skip
def test_what_is_no_image_is_refused(tmp_path, write, images, said):
    with pytest.raises(ValueError, match=rf"^(images?|others|frames|patches|beside) must .*{said}"):
        write(tmp_path / "x.png", images)
    assert not list(tmp_path.iterdir())


def test_rounding_errors_and_halves_and_bits_are_shown(tmp_path):
    white = tmp_path / "white.png"
    for images in (
        np.full((1, 8, 8, 1), 1.0000001), np.ones((1, 8, 8, 1), bool),
        jnp.ones((1, 8, 8, 1), jnp.bfloat16), jnp.ones((1, 8, 8, 1), jnp.float16),
    ):  # fmt: skip
        figures.save_grid(white, images, scale=1)
        assert (_pixels(white)[2:10, 2:10] == 255).all()


def test_a_picture_appears_whole_or_not_at_all(tmp_path, write, monkeypatch):
    images = np.random.default_rng(0).uniform(size=(2, 8, 8, 1))
    path = tmp_path / "x.gif"
    write(path, images)
    old = path.read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr(Image.Image, "save", _torn)
        with pytest.raises(OSError, match="disk"):
            write(path, 1 - images)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [old]


def _torn(self, file, *arguments, **options):
    with open(file, "wb") if not hasattr(file, "write") else contextlib.nullcontext(file) as out:
        out.write(b"GIF89a")
        raise OSError("the disk is full")


def test_a_path_may_begin_at_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    figures.save_grid("~/grid.png", np.zeros((1, 8, 8, 1)))
    figures.save_curves("~/loss.png", [])
    assert {path.name for path in tmp_path.iterdir()} == {"grid.png", "loss.png"}


@pytest.mark.parametrize("write", [
    lambda path: figures.save_grid(path, np.zeros((0, 8, 8, 1))),
    lambda path: figures.save_sequence(path, np.zeros((0, 2, 8, 8, 1)), None),
    lambda path: figures.save_sequence(path, np.zeros((3, 0, 8, 8, 1)), None),
    lambda path: figures.save_animation(path, np.zeros((0, 2, 8, 8, 1)), None),
    lambda path: figures.save_glimpses(
        path, np.zeros((0, 8, 8, 1)), _windows(2, 0), np.zeros((2, 0, 3, 3, 1))
    ),
    lambda path: figures.save_zooms(
        path, np.zeros((8, 8, 1)), _windows(0), np.zeros((0, 3, 3, 1)), np.zeros((0, 8, 8, 1))
    ),
])  # fmt: skip
def test_nothing_to_show_is_one_error(tmp_path, write):
    with pytest.raises(ValueError, match=r"(images|frames|patches) must not be empty, got \["):
        write(tmp_path / "x.png")
    assert not list(tmp_path.iterdir())


def _entries(first):
    train = [{"split": "train", "step": step, "loss": 100 - step} for step in range(1, 101)]
    train[0]["loss"] = first
    return [*train, {"split": "validation", "step": 50, "loss": math.nan}]


def test_curves_are_not_flattened_by_the_first_steps(tmp_path):
    pictures = []
    for first in (99.0, 1e6):
        path = tmp_path / f"{first}.png"
        figures.save_curves(path, _entries(first), names=("loss",))
        pictures.append(matplotlib.image.imread(path))
    assert np.mean(pictures[0] != pictures[1]) < 0.01


def test_as_many_curves_are_drawn_as_are_named(tmp_path):
    entries = [{**entry, **dict.fromkeys("abcd", entry["loss"])} for entry in _entries(99.0)]
    for names in ("abcd", "abcx"):
        figures.save_curves(tmp_path / f"{names}.png", entries, names=tuple(names))
    drawn, empty = (matplotlib.image.imread(tmp_path / f"{n}.png") for n in ("abcd", "abcx"))
    assert (drawn < 0.9).sum() > (empty < 0.9).sum() + 100


def test_a_run_without_steps_has_empty_panels(tmp_path):
    figures.save_curves(tmp_path / "none.png", [])
    assert (tmp_path / "none.png").stat().st_size > 1_000


@pytest.mark.parametrize("settings", [
    {"text.usetex": True}, {"savefig.bbox": "tight"}, {"backend": "qtagg", "lines.linewidth": 9},
])  # fmt: skip
def test_what_the_user_sets_for_matplotlib_is_no_matter(tmp_path, settings):
    figures.save_curves(tmp_path / "plain.png", _entries(99.0))
    with matplotlib.rc_context():
        dict.update(matplotlib.rcParams, settings)  # a backend as a matplotlibrc sets it
        figures.save_curves(tmp_path / "set.png", _entries(99.0))
    assert (_pixels(tmp_path / "set.png") == _pixels(tmp_path / "plain.png")).all()


@pytest.mark.slow
def test_a_matplotlibrc_with_what_is_not_there_does_not_matter(tmp_path):
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\nbackend: gtk3agg\n")
    program = "from drawjax import figures; figures.save_curves('loss.png', [])"
    subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, check=True, timeout=120,
        env={**os.environ, "PYTHONPATH": os.getcwd(), "MATPLOTLIBRC": str(tmp_path)},
    )  # fmt: skip
    assert (tmp_path / "loss.png").stat().st_size > 1_000
