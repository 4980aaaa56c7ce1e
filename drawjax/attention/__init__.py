"""The differentiable attention window of DRAW: an N x N grid of Gaussian filters.

Pure functions without parameters, Sec. 3.2-3.3 of Gregor et al., "DRAW: A Recurrent Neural
Network For Image Generation" (ICML 2015). The module needs only JAX and jaxtyping, and
serves as a glimpse operation of its own: `read` cuts an N x N patch out of an image, `write` lays
one on a canvas, and gradients reach the image, the patch and the window.

>>> window = window_from_logits(jnp.zeros(5), image_shape=(28, 28), patch_size=12)
>>> patch = read(image, window, patch_size=12)          # [28, 28, 1] -> [12, 12, 1]

Axes: `*batch` any leading shape, `height` (the paper's B) and `width` (the paper's A) of the
image, `N` filters per side, `channels`. Pixel coordinates are the paper's: 1 is the center of the
first pixel, so (A + 1) / 2 is the middle of the image.

Beyond the paper, each off unless asked for: a `patch_size` of `(rows, columns)` in place of N, a
stride and a variance of their own along the height (`Window.stride_y`, `Window.variance_y`), a
window that is turned or sheared (`Window.rotation`, `Window.shear`), windows from boxes and back
and from affine maps, several scales at once, bilinear and triangle filters.

Numerics. Whatever the window, values and gradients are finite (an infinite angle and an intensity
of zero, by which `write` and `paste` divide, apart) and every Gaussian filter sums to one:

* The exponents of Eq. 21 (log variance, log stride, log intensity) are limited to
  [-20, 40]. Outside, the value stays at the limit and the gradient is zero. At the lower
  limit a filter is 5e-5 pixels wide, at the upper one it is flat over any image.
* A filter far narrower than a pixel picks the nearest pixel; one far off the image picks the
  nearest edge pixel instead of vanishing.
"""

from drawjax.attention.boxes import box_of_window, window_from_affine, window_from_box
from drawjax.attention.filters import filter_grid, filter_means, filterbanks
from drawjax.attention.glimpse import read, read_scales, write
from drawjax.attention.paste import mask, paste
from drawjax.attention.window import PatchSize, Window, window_from_logits

__all__ = [
    "PatchSize",
    "Window",
    "box_of_window",
    "filter_grid",
    "filter_means",
    "filterbanks",
    "mask",
    "paste",
    "read",
    "read_scales",
    "window_from_affine",
    "window_from_box",
    "window_from_logits",
    "write",
]
