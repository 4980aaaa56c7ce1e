"""Bilinear and triangle filters, affine windows and many boxes, against loops and other libraries.

The loops below are written from the documentation of `grid_sample`, `affine_grid` and `roi_align`;
PyTorch and torchvision themselves are asked where they are installed.
"""

import dataclasses
import functools
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from drawjax import attention
from drawjax.attention import Window
from tests.docs import pages

pytestmark = pytest.mark.usefixtures("strict")

GUIDE = pages.ROOT / "docs" / "guides" / "crops.md"
THETA = np.array([
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]],  # the whole image
    [[0.5, 0.0, 0.3], [0.0, 0.4, -0.2]],
    [[0.4, -0.5, 0.1], [0.3, 0.6, 0.2]],  # turned and sheared
    [[-0.7, 0.2, 0.5], [0.1, 0.8, -0.6]],  # mirrored, partly off the image
    [[0.9, 0.0, 1.4], [0.0, 1.3, 1.7]],
])  # fmt: skip


def affine_grid(theta, rows, columns, align_corners):
    """x and y between -1 and 1, `[rows, columns]` each, one map."""

    def from_index(index, size):
        if align_corners:
            return -1 + 2 * index / (size - 1) if size > 1 else 0.0
        return (2 * index + 1) / size - 1

    x, y = np.zeros((rows, columns)), np.zeros((rows, columns))
    for j in range(rows):
        for i in range(columns):
            here = np.array([from_index(i, columns), from_index(j, rows), 1.0])
            x[j, i], y[j, i] = theta @ here
    return x, y


def grid_sample(image, x, y, align_corners):
    """Bilinear, zeros around the image, `[height, width, channels]`."""
    height, width, channels = image.shape

    def to_index(value, size):
        return (value + 1) / 2 * (size - 1) if align_corners else ((value + 1) * size - 1) / 2

    seen = np.zeros((*x.shape, channels))
    for place in np.ndindex(x.shape):
        across, down = to_index(x[place], width), to_index(y[place], height)
        for b in (math.floor(down), math.floor(down) + 1):
            for a in (math.floor(across), math.floor(across) + 1):
                if 0 <= b < height and 0 <= a < width:
                    weight = (1 - abs(across - a)) * (1 - abs(down - b))
                    seen[place] += weight * image[b, a]
    return seen


def roi_align(image, box, size, ratio, aligned=True):
    """One box of one image, every bin the mean of ratio x ratio samples."""
    height, width, channels = image.shape
    left, top, right, bottom = box - (0.5 if aligned else 0.0)
    wide, high = right - left, bottom - top
    if not aligned:
        wide, high = max(wide, 1.0), max(high, 1.0)
    pooled = np.zeros((size, size, channels))
    for j, i, jj, ii in np.ndindex(size, size, ratio, ratio):
        y = top + (j + (jj + 0.5) / ratio) * high / size
        x = left + (i + (ii + 0.5) / ratio) * wide / size
        if not (-1 <= y <= height and -1 <= x <= width):
            continue
        y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
        for b in {math.floor(y), min(math.floor(y) + 1, height - 1)}:
            for a in {math.floor(x), min(math.floor(x) + 1, width - 1)}:
                pooled[j, i] += max(0, 1 - abs(y - b)) * max(0, 1 - abs(x - a)) * image[b, a]
    return pooled / ratio**2


def triangles(means, stride, size):
    """Anti-aliased linear weights, `[N, size]`."""
    weights = np.zeros((len(means), size))
    for n, mean in enumerate(means):
        if 0.5 <= mean <= size + 0.5:
            for a in range(1, size + 1):
                weights[n, a - 1] = max(0, 1 - abs(a - mean) / max(abs(stride), 1))
            weights[n] /= weights[n].sum()
    return weights


def _image(channels=2, height=9, width=13):
    return np.random.default_rng(0).normal(size=(height, width, channels))


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("size", [(4, 6), (1, 3)])
def test_bilinear_filters_are_grid_sample(x64, align_corners, size):
    image, shape = _image(), (9, 13)
    window = attention.window_from_affine(THETA, size, shape, align_corners=align_corners)
    found = attention.read(image, window, size, filters="bilinear")
    patch = np.random.default_rng(1).normal(size=(*size, 2))
    written = attention.write(patch, window, shape, filters="bilinear")
    for k, theta in enumerate(THETA):
        x, y = affine_grid(theta, *size, align_corners)
        np.testing.assert_allclose(found[k], grid_sample(image, x, y, align_corners), atol=1e-9)
        # Writing is the transpose: <write(patch), image> = <patch, read(image)>.
        np.testing.assert_allclose(np.sum(written[k] * image), np.sum(patch * found[k]), rtol=1e-9)


def test_bilinear_filters_are_map_coordinates(x64):
    image = _image()
    window = attention.window_from_affine(THETA, (4, 6), (9, 13))
    y, x = attention.filter_grid(window, (4, 6))
    found = attention.read(image, window, (4, 6), filters="bilinear")
    for channel in range(2):
        expected = jax.scipy.ndimage.map_coordinates(image[..., channel], [y - 1, x - 1], order=1)
        np.testing.assert_allclose(found[..., channel], expected, atol=1e-9)


@pytest.mark.parametrize("align_corners", [False, True])
def test_grid_sample_and_its_gradients_are_pytorchs(x64, align_corners):
    torch = pytest.importorskip("torch")
    image, size = _image(), (4, 6)
    # No sample on a pixel's center, where the slopes of both sides differ.
    theta = torch.tensor(THETA[1:] + 0.0137, requires_grad=True)
    pixels = torch.tensor(image.transpose(2, 0, 1)[None].repeat(4, 0), requires_grad=True)
    grid = torch.nn.functional.affine_grid(theta, [4, 2, *size], align_corners=align_corners)
    sampled = torch.nn.functional.grid_sample(pixels, grid, align_corners=align_corners)
    (sampled**2).sum().backward()

    def total(image, theta):
        window = attention.window_from_affine(theta, size, (9, 13), align_corners=align_corners)
        seen = attention.read(image, window, size, filters="bilinear")
        return jnp.sum(seen**2), seen

    images = np.repeat(image[None], 4, 0)
    to_all, seen = jax.grad(total, argnums=(0, 1), has_aux=True)(images, theta.detach().numpy())
    for ours, theirs in ((seen, sampled.detach()), (to_all[0], pixels.grad)):
        np.testing.assert_allclose(ours, theirs.numpy().transpose(0, 2, 3, 1), atol=1e-9)
    np.testing.assert_allclose(to_all[1], theta.grad.numpy(), atol=1e-9)


BOXES = np.array([
    [2.0, 1.0, 6.0, 4.0], [0.0, 0.0, 13.0, 9.0], [3.2, 2.9, 4.1, 7.7],  # smaller and larger
    [-4.0, 3.0, 7.0, 14.0], [9.0, 2.0, 1.0, 7.0],  # off the image; mirrored
])  # fmt: skip


@pytest.mark.parametrize("size", [3, (2, 5), 20])
def test_triangle_filters_are_scale_and_translate(x64, size):
    image = _image()
    rows, columns = (size, size) if isinstance(size, int) else size
    window = attention.window_from_box(BOXES, size)
    found = attention.read(image, window, size, filters="triangle")
    banks = attention.filterbanks(window, (9, 13), size, filters="triangle")
    means_y, means_x = attention.filter_means(window, size)
    for k, (left, top, right, bottom) in enumerate(BOXES):
        strides = (bottom - top) / rows, (right - left) / columns
        for bank, means, stride, pixels in zip(
            banks, (means_y, means_x), strides, (9, 13), strict=True
        ):
            np.testing.assert_allclose(bank[k], triangles(means[k], stride, pixels), atol=1e-12)
        if right > left:
            scale = 1 / np.array(strides)
            expected = jax.image.scale_and_translate(
                image, (rows, columns, 2), (0, 1), scale, -np.array([top, left]) * scale,
                "linear", antialias=True,
            )  # fmt: skip
            np.testing.assert_allclose(found[k], expected, atol=1e-9)


@pytest.fixture(scope="module")
def guide():
    """What the block that defines `roi_align` in the guide defines."""
    namespace = {"__name__": "guide"}
    block = next(block for block in pages.blocks(GUIDE) if "def roi_align" in block.code)
    exec(compile(block.code, str(GUIDE), "exec"), namespace)
    return namespace


@pytest.mark.parametrize("ratio", [1, 2, 3])
def test_the_guides_roi_align_is_torchvisions(x64, guide, ratio):
    # Up to a pixel beyond the image, larger and smaller than the pooled size.
    boxes = np.array([[2.0, 1.0, 6.0, 4.0], [0, 0, 13, 9], [3.2, 2.9, 4.1, 7.7], [-0.4, 3, 7, 9.3]])
    image = _image()
    found = guide["roi_align"](image, boxes, 3, ratio)
    expected = [roi_align(image, box, 3, ratio) for box in boxes]
    np.testing.assert_allclose(found, expected, atol=1e-9)
    unaligned = [roi_align(image, box, 3, ratio, aligned=False) for box in boxes[:1]]
    found = guide["roi_align"](image, boxes[:1] + 0.5, 3, ratio)
    np.testing.assert_allclose(found, unaligned, atol=1e-9)


@pytest.mark.parametrize("aligned", [True, False])
def test_the_loop_of_roi_align_is_torchvisions(aligned):
    torch, ops = pytest.importorskip("torch"), pytest.importorskip("torchvision.ops")
    image = _image()
    pixels = torch.tensor(image.transpose(2, 0, 1)[None])
    boxes = np.concatenate([BOXES[:4], [[5.0, 5.0, 5.3, 5.2]]])
    theirs = ops.roi_align(pixels, [torch.tensor(boxes)], 3, sampling_ratio=2, aligned=aligned)
    loop = [roi_align(image, box, 3, 2, aligned) for box in boxes]
    np.testing.assert_allclose(loop, theirs.numpy().transpose(0, 2, 3, 1), atol=1e-9)


def test_adaptive_triangles_are_roi_align_with_samples_a_pixel_apart(x64):
    image, box = _image(), np.array([0.0, 1.5, 5.6, 9.0])  # as wide as the image's edge
    window = attention.window_from_box(box, 12)  # strides of less than a pixel
    samples = attention.read(image, window, 12, filters="triangle")
    pooled = samples.reshape(3, 4, 3, 4, 2).mean((1, 3))
    np.testing.assert_allclose(pooled, roi_align(image, box, 3, 4), atol=1e-9)


def test_shear_moves_each_row_along(x64):
    window = Window(5.0, 4.0, 1.5, 0.6, 2.0, stride_y=1.2, shear=0.7)
    y, x = attention.filter_grid(window, (3, 4))
    flat_y, flat_x = attention.filter_grid(dataclasses.replace(window, shear=None), (3, 4))
    np.testing.assert_allclose(y, flat_y, atol=1e-12)
    np.testing.assert_allclose(x - flat_x, [[-0.7] * 4, [0] * 4, [0.7] * 4], atol=1e-12)
    turned = dataclasses.replace(window, rotation=0.6)
    angle = np.array([[np.cos(0.6), -np.sin(0.6)], [np.sin(0.6), np.cos(0.6)]])
    expected = angle @ np.stack([x - 5, y - 4]).reshape(2, -1)
    ours = attention.filter_grid(turned, (3, 4))
    np.testing.assert_allclose(np.ravel(ours[1]) - 5, expected[0], atol=1e-12)
    np.testing.assert_allclose(np.ravel(ours[0]) - 4, expected[1], atol=1e-12)
    # One Gaussian a filter, as wide as any other.
    image = _image()
    found = attention.read(image, turned, (3, 4))
    for place in np.ndindex(3, 4):
        b, a = np.mgrid[1.0:10, 1.0:14]
        weights = np.exp(-((a - ours[1][place]) ** 2 + (b - ours[0][place]) ** 2) / 1.2)
        seen = 2 * np.einsum("ba,bac->c", weights / weights.sum(), image)
        np.testing.assert_allclose(found[place], seen, atol=1e-9)
    # The box around it goes through the corners of its outermost cells.
    corners = [(u * 1.5 + v * 0.7, v * 1.2) for u in (-2, 2) for v in (-1.5, 1.5)]
    reach = np.max(angle @ np.transpose(corners), axis=1)
    box = attention.box_of_window(turned, (3, 4))
    middle = np.array([4.5, 3.5])
    np.testing.assert_allclose(box, np.ravel([middle - reach, middle + reach]), atol=1e-9)
    scales = attention.read_scales(image, turned, (3, 4), 2, filters="bilinear")
    wider = dataclasses.replace(turned, stride=3.0, stride_y=2.4, shear=1.4)
    np.testing.assert_allclose(
        scales[1], attention.read(image, wider, (3, 4), filters="bilinear"), atol=1e-12
    )


def test_an_affine_window_is_as_large_as_its_map(x64):
    window = attention.window_from_affine(THETA[:3], (4, 6), (9, 13))
    cells = 9 * 13 / 24 * np.abs(np.linalg.det(THETA[:3, :, :2]))
    np.testing.assert_allclose(window.variance, cells / 4)
    whole = attention.window_from_box(np.array([0, 0, 13, 9]), (4, 6))
    np.testing.assert_allclose(window.stride[0], whole.stride)
    np.testing.assert_allclose(window.stride_y[0], whole.stride_y)
    assert attention.window_from_affine(np.eye(3, dtype=int)[:2], 4, (9, 13)).stride == 13 / 4


@pytest.mark.parametrize("theta", [
    np.zeros((2, 3)), [[0.0, 1, 0], [0, 1, 0]], [[1.0, 2, 0], [1, 2, 0]], [[1e30, 0, 0], [0, 1, 0]]
])  # fmt: skip
def test_maps_without_extent_have_finite_gradients(theta):
    image = jnp.asarray(_image(), jnp.float32)

    def total(theta, filters):
        window = attention.window_from_affine(theta, 3, (9, 13))
        return jnp.sum(jnp.sin(attention.read(image, window, 3, filters=filters)))

    for filters in ("gaussian", "bilinear"):
        value, gradient = jax.value_and_grad(total)(jnp.asarray(theta, jnp.float32), filters)
        chex.assert_tree_all_finite((value, gradient))


@pytest.mark.parametrize("filters", ["bilinear", "triangle"])
def test_gradients_match_finite_differences(x64, filters):
    box, patch = jnp.array([2.13, 1.27, 6.81, 7.46]), jnp.asarray(_image(2, 3, 3))

    def both(image, patch, box, angle):
        window = attention.window_from_box(box, 3)
        if filters == "bilinear":
            window = dataclasses.replace(window, rotation=angle, shear=0.4 * angle)
        return (
            attention.read(image, window, 3, filters=filters),
            attention.write(patch, window, (9, 13), filters=filters),
        )

    check_grads(
        jax.jit(both), (jnp.asarray(_image()), patch, box, jnp.asarray(0.3)), order=1,
        modes=["fwd", "rev"], atol=1e-5, rtol=1e-5,
    )  # fmt: skip


@functools.cache
def _total(filters):
    def total(fields):
        window = Window(*fields[:5], stride_y=fields[5])
        if filters == "bilinear":
            window = dataclasses.replace(window, rotation=0.3, shear=fields[6])
        patch = attention.read(jnp.ones((7, 9, 1)), window, 3, filters=filters)
        return jnp.sum(jnp.sin(patch)), patch

    return jax.jit(jax.value_and_grad(total, has_aux=True))


@pytest.mark.parametrize("filters", ["bilinear", "triangle"])
@pytest.mark.parametrize("value", [0.0, np.inf, -1e38, 1e38])
def test_any_window_reads_finite_numbers(filters, value):
    for field in (0, 1, 2, 3, 5, 6):
        fields = jnp.array([3.0, 4.0, 1.5, 1.0, 1.0, 1.2, 0.3]).at[field].set(value)
        (_, patch), gradient = _total(filters)(fields)
        chex.assert_tree_all_finite((patch, gradient))
        assert np.all((patch >= 0) & (patch <= 1.001))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("filters", ["bilinear", "triangle"])
@pytest.mark.usefixtures("promoting")
def test_dtypes_are_kept(x64, dtype, filters):
    image = jnp.asarray(_image(), dtype)
    window = attention.window_from_box(jnp.asarray(BOXES, dtype), 3)
    patch = attention.read(image, window, 3, filters=filters)
    written = attention.write(patch, window, (9, 13), filters=filters)
    kept = "float32" if dtype == "float16" else dtype  # which ends too early for a variance
    assert {patch.dtype, written.dtype} == {jnp.dtype(kept)}
    exact = attention.read(_image(), attention.window_from_box(BOXES, 3), 3, filters=filters)
    tolerance = {"float16": 2e-2, "bfloat16": 1e-1}.get(dtype, 1e-5)
    np.testing.assert_allclose(patch.astype("float64"), exact, atol=tolerance)


@pytest.mark.parametrize(
    ("filters", "rotation"),
    [("gaussian", None), ("bilinear", None), ("triangle", None), ("bilinear", 0.3)],
)
def test_many_boxes_of_many_images_repeat_no_image(optimized, filters, rotation):
    images = jax.ShapeDtypeStruct((2, 1, 64, 64, 3), jnp.float32)
    boxes = jax.ShapeDtypeStruct((2, 40, 4), jnp.float32)

    def read(images, boxes):
        window = attention.window_from_box(boxes, 5)
        window = dataclasses.replace(window, rotation=rotation)
        return attention.read(images, window, 5, filters=filters)

    def loss(images, boxes):
        return jnp.sum(jnp.sin(read(images, boxes)))

    repeated = 40 * images.size
    gradient = jax.value_and_grad(loss, (0, 1))
    jaxpr = jax.make_jaxpr(gradient)(images, boxes)
    largest = max(
        math.prod(variable.aval.shape)
        for equation in _equations(jaxpr.jaxpr)
        for variable in equation.outvars
    )
    assert largest < repeated / 4
    memory = jax.jit(gradient).lower(images, boxes).compile().memory_analysis()
    assert memory.temp_size_in_bytes < repeated * 4 / 2
    rng = np.random.default_rng(0)
    images = rng.normal(size=(2, 12, 10, 3)).astype("float32")
    corners = rng.uniform(0, 10, size=(2, 6, 4)).astype("float32")
    found = read(images[:, None], corners)
    assert found.shape == (2, 6, 5, 5, 3)
    one_by_one = jax.vmap(jax.vmap(read, in_axes=(None, 0)))(images, corners)
    np.testing.assert_allclose(found, one_by_one, atol=1e-5)
    assert read(images[:, None], np.zeros((2, 0, 4))).shape == (2, 0, 5, 5, 3)


@pytest.mark.parametrize("window_batch", [(), (3,), (2, 3), (0,)])
@pytest.mark.parametrize("image_batch", [(), (1,), (2, 1)])
def test_bilinear_batches_broadcast_without_promotion(image_batch, window_batch):
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.normal(size=(*image_batch, 7, 9, 2)), jnp.float32)
    center = jnp.asarray(rng.uniform(3, 6, size=window_batch), jnp.float32)
    window = Window(center, 4.0, 1.5, 0.8, 2.0, rotation=0.3)
    window = jax.tree.map(jnp.float32, window)
    found = attention.read(images, window, (2, 4), filters="bilinear")
    batch = np.broadcast_shapes(image_batch, window_batch)
    assert found.shape == (*batch, 2, 4, 2) and found.dtype == jnp.float32
    images = np.broadcast_to(images, (*batch, 7, 9, 2))
    for place in np.ndindex(batch):
        one = dataclasses.replace(window, center_x=np.broadcast_to(center, batch)[place])
        y, x = attention.filter_grid(jax.tree.map(np.float32, one), (2, 4))
        here = [(np.asarray(x) * 2 - 1) / 9 - 1, (np.asarray(y) * 2 - 1) / 7 - 1]
        expected = 2 * grid_sample(np.float64(images[place]), *here, False)
        np.testing.assert_allclose(found[place], expected, atol=1e-4)


def _equations(jaxpr):
    for equation in jaxpr.eqns:
        yield equation
        for value in jax.tree.leaves(list(equation.params.values())):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from _equations(inner)


@pytest.mark.parametrize("rotation", [None, 0.3])
def test_no_windows_at_all_are_no_error(rotation):
    window = Window(jnp.zeros(0), 3.0, 1.0, 1.0, 1.0, rotation=rotation)
    patch = attention.read(jnp.ones((9, 13, 2)), window, 3)
    assert patch.shape == (0, 3, 3, 2)
    assert attention.write(patch, window, (9, 13)).shape == (0, 9, 13, 2)


@pytest.mark.usefixtures("own_errors")
@pytest.mark.parametrize("rotation", [None, 0.3])
def test_filters_that_do_not_exist_are_named(rotation):
    window, image = Window(3.0, 3.0, 1.0, 1.0, 1.0, rotation=rotation), np.ones((5, 5, 1))
    for call in (
        lambda name: attention.read(image, window, 3, filters=name),
        lambda name: attention.read_scales(image, window, 3, 2, filters=name),
        lambda name: attention.write(image, window, (9, 9), filters=name),
    ):
        with pytest.raises(ValueError, match="gaussian, bilinear or triangle, got 'linear'"):
            call("linear")
        if rotation is not None:
            with pytest.raises(ValueError, match="has no triangle filters"):
                call("triangle")
    with pytest.raises(ValueError, match=r"theta must have shape \[..., 2, 3\], got \[3, 2\]"):
        attention.window_from_affine(np.ones((3, 2)), 3, (5, 5))
