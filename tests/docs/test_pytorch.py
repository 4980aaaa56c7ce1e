"""docs/guides/pytorch.md, run where there is PyTorch."""

import jax
import numpy as np
import pytest

from drawjax.cells import LSTM
from tests import oracle
from tests.docs import pages

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def guide():
    """What the blocks of the guide define."""
    namespace = {"__name__": "guide"}
    page = pages.ROOT / "docs" / "guides" / "pytorch.md"
    for block in pages.blocks(page):
        exec(compile(block.code, str(page), "exec"), namespace)
    return namespace


def test_arrays_are_handed_over_without_a_copy(guide):
    tensor = torch.arange(64.0)
    array = guide["to_jax"](tensor)
    assert array.unsafe_buffer_pointer() == tensor.data_ptr()
    assert guide["to_torch"](array).data_ptr() == tensor.data_ptr()


@pytest.fixture
def double(x64):
    """Images and windows in float64."""
    rng = np.random.default_rng(0)
    images = rng.uniform(size=(2, 9, 7, 3))
    windows = np.array([[4.0, 5.0, 1.5, 0.8, 1.2], [2.5, 6.5, 0.7, 0.5, 0.6]])
    return [torch.tensor(values, requires_grad=True) for values in (images, windows)]


def test_a_glimpse_is_the_oracles(guide, double):
    images, windows = double
    patches = guide["Glimpse"].apply(images, windows, 4)
    assert patches.dtype == torch.float64
    pairs = zip(images.detach().numpy(), windows.detach().numpy(), strict=True)
    expected = [oracle.read(image, window, 4) for image, window in pairs]
    np.testing.assert_allclose(patches.detach(), expected, rtol=1e-9, atol=1e-12)


def test_the_gradient_of_a_glimpse_is_that_of_finite_differences(guide, double):
    def glimpse(images, windows):
        return guide["Glimpse"].apply(images, windows, 4)

    assert torch.autograd.gradcheck(glimpse, double)


@pytest.mark.parametrize("there_and_back", [False, True])
def test_an_lstm_cell_is_the_same_on_both_sides(guide, there_and_back):
    cell = LSTM(5, 3, key=jax.random.key(0))
    other = guide["lstm_to_torch"](cell)
    if there_and_back:
        torch.nn.init.normal_(other.bias_hh)  # PyTorch adds both
        cell = guide["lstm_from_torch"](other)
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(2, 5)).astype(np.float32)
    c, h = rng.normal(size=(2, 2, 3)).astype(np.float32)
    (c_jax, h_jax), _ = cell((c, h), inputs)
    h_torch, c_torch = other(torch.tensor(inputs), (torch.tensor(h), torch.tensor(c)))
    np.testing.assert_allclose(c_jax, c_torch.detach(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(h_jax, h_torch.detach(), rtol=1e-5, atol=1e-6)
