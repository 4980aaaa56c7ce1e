"""Sizes of the models: the flags under `--model`."""

import dataclasses
from typing import Literal

__all__ = ["DrawConfig", "RamConfig"]


@dataclasses.dataclass(frozen=True)
class DrawConfig:
    """Sizes of a DRAW network; the defaults are the MNIST row of Table 3."""

    num_glimpses: int = 64
    """T, how many glimpses are taken and how often the canvas is written to."""
    hidden_size: int = 256
    """Units of the encoder's and of the decoder's LSTM."""
    latent_size: int = 100
    """Z, latent variables a step."""
    read_size: int | None = 2
    """N of the read window, filters a side; None reads the whole image (Eq. 17)."""
    write_size: int | None = 5
    """N of the write window, filters a side; None writes the whole canvas (Eq. 18)."""
    prior: Literal["standard", "learned"] = "standard"
    """Distribution of a step's latents: N(0, 1), or a normal distribution given h^dec_{t-1}, which
    starts as N(0, 1) (Gregor et al. 2016)."""
    likelihood: Literal["bernoulli", "intensities", "discretized_logistic", "gaussian"] = (
        "bernoulli"
    )
    """Of a pixel, given the canvas. bernoulli: of zeros and ones; intensities: the same
    cross-entropy for values between, the paper's cost for color; discretized_logistic: of 8-bit
    values; gaussian: a density of real values."""
    likelihood_scale: Literal["channel", "pixel", "canvas"] = "channel"
    """Learned scales of discretized_logistic and gaussian: one a channel, one a pixel and channel,
    or drawn with the image, on a canvas of twice the channels."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Type of the matrix products' inputs; sums, states and losses stay float32."""
    remat: bool = False
    """Recompute steps in the backward pass in blocks of about sqrt(steps): less memory, slower."""
    clip_ratio: float | None = None
    """In training, scale down an image's gradient that is longer than so many times the median of
    its batch; None: none. Over many steps on large images a few would drown the others."""

    def __post_init__(self):
        if self.clip_ratio is not None and not self.clip_ratio > 0:
            raise ValueError(f"clip_ratio must be positive, got {self.clip_ratio}")
        for field in ("num_glimpses", "hidden_size", "latent_size", "read_size", "write_size"):
            value = getattr(self, field)
            if value is not None and value < 1:
                raise ValueError(f"{field} must be at least 1, got {value}")
        if self.likelihood_scale != "channel" and not self.has_scale:
            raise ValueError(
                f"likelihood_scale {self.likelihood_scale} needs a likelihood with a scale, "
                f"got {self.likelihood}"
            )

    @property
    def has_scale(self) -> bool:
        """Whether the likelihood has scales to learn."""
        return self.likelihood in ("discretized_logistic", "gaussian")

    @property
    def dtype(self) -> str | None:
        """The type of the products' inputs; None: as they come, float64 under x64."""
        return "bfloat16" if self.precision == "bfloat16" else None

    def glimpse_features(self, image_shape: tuple[int, int, int]) -> int:
        """How many numbers a flat glimpse has: image and error image, each of the read size."""
        height, width, channels = image_shape
        pixels = height * width if self.read_size is None else self.read_size**2
        return 2 * pixels * channels


@dataclasses.dataclass(frozen=True)
class RamConfig:
    """Sizes of a Differentiable RAM; the defaults are Table 3's row for cluttered MNIST."""

    num_glimpses: int = 8
    """T, how many glimpses are taken."""
    hidden_size: int = 256
    """Units of the LSTM."""
    read_size: int = 12
    """N of the read window, filters a side."""
    num_classes: int = 10
    """How many classes there are."""
    num_scales: int = 1
    """Patches a glimpse has around one center, each twice as wide as the one before; more than the
    paper's 1 is the retina of Mnih et al. (2014)."""
    glimpse_features: int | None = None
    """Channels of a small convolutional network between glimpse and LSTM; None: none, as the
    paper."""
    last_view: int | None = None
    """Side of a view of the whole image, shrunk to so many pixels, that the classes are named by
    beside the last hidden vector; None: none, as the paper."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Type of the matrix products' inputs; sums, states and losses stay float32."""

    def __post_init__(self):
        for field in (
            "num_glimpses", "hidden_size", "read_size", "num_classes", "num_scales",
            "glimpse_features", "last_view",
        ):  # fmt: skip
            value = getattr(self, field)
            if value is not None and value < 1:
                raise ValueError(f"{field} must be at least 1, got {value}")

    @property
    def dtype(self) -> str | None:
        """The type of the products' inputs; None: as they come, float64 under x64."""
        return "bfloat16" if self.precision == "bfloat16" else None
