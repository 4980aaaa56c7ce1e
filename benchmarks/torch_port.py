"""DRAW in PyTorch, eager: what a careful person writes from the paper, to compare with.

Same sizes, initial state, losses and optimizer as drawjax's rows: `nn.LSTMCell` for the two
networks, `torch.bmm` for the filters, one Python loop over the steps. Nothing is compiled and
nothing is slowed down on purpose: filters are normalized once, both images are read with one
product, gradients are cleared by setting them to None.

Images are `[batch, height, channels, width]`, so that the channels lie side by side.
"""

import torch
from torch import nn
from torch.nn import functional

from drawjax.modules import DrawConfig

__all__ = ["TorchDraw", "train_step"]


class TorchDraw(nn.Module):
    """DRAW with attention, Sec. 2-3 of Gregor et al. (2015)."""

    def __init__(self, config: DrawConfig, image_shape: tuple[int, int, int]):
        super().__init__()
        if config.read_size is None or config.write_size is None:
            raise ValueError("the port has attention, for reading and for writing")
        height, width, channels = image_shape
        units, latents = config.hidden_size, config.latent_size
        self.image_shape = height, width
        self.steps, self.latents = config.num_glimpses, latents
        self.read_size, self.write_size = config.read_size, config.write_size
        self.encoder = nn.LSTMCell(2 * channels * self.read_size**2 + units, units)
        self.decoder = nn.LSTMCell(latents, units)
        self.mean = nn.Linear(units, latents)
        self.log_scale = nn.Linear(units, latents)
        self.patch = nn.Linear(units, channels * self.write_size**2)
        self.read_window = nn.Linear(units, 5)
        self.write_window = nn.Linear(units, 5)
        self.initial_canvas = nn.Parameter(torch.zeros(height, channels, width))
        self.initial_encoder = nn.Parameter(torch.zeros(2, units))
        self.initial_decoder = nn.Parameter(torch.zeros(2, units))

    def filters(
        self, logits: torch.Tensor, size: int
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """F_Y `[batch, N, height]`, F_X `[batch, N, width]` and gamma `[batch, 1, 1]`."""
        height, width = self.image_shape
        x, y, log_variance, log_stride, log_intensity = logits.unbind(-1)
        x, y = (width + 1) / 2 * (x + 1), (height + 1) / 2 * (y + 1)
        stride = (max(height, width) - 1) / max(size - 1, 1) * log_stride.exp()
        variance = log_variance.exp()[:, None, None]
        offsets = torch.arange(1, size + 1, device=logits.device) - size / 2 - 0.5

        def bank(center: torch.Tensor, pixels: int) -> torch.Tensor:
            means = (center[:, None] + offsets * stride[:, None])[:, :, None]
            places = torch.arange(1, pixels + 1, device=logits.device)
            weights = torch.exp(-((places - means) ** 2) / (2 * variance))
            return weights / (weights.sum(-1, keepdim=True) + 1e-8)

        return bank(y, height), bank(x, width), log_intensity.exp()[:, None, None]

    def read(self, image: torch.Tensor, error: torch.Tensor, h_dec: torch.Tensor) -> torch.Tensor:
        """Eq. 27."""
        rows, columns, intensity = self.filters(self.read_window(h_dec), self.read_size)
        both = torch.cat([image, error], dim=2)  # side by side, so that one product reads both
        lines = torch.bmm(rows, both.flatten(2)).view(len(image), -1, both.shape[3])
        return (intensity * torch.bmm(lines, columns.transpose(1, 2))).flatten(1)

    def write(self, h_dec: torch.Tensor) -> torch.Tensor:
        """Eq. 29."""
        rows, columns, intensity = self.filters(self.write_window(h_dec), self.write_size)
        patch = self.patch(h_dec).view(len(h_dec), -1, self.write_size)
        lines = torch.bmm(patch, columns).view(len(h_dec), self.write_size, -1)
        image = torch.bmm(rows.transpose(1, 2), lines) / intensity
        return image.view(len(h_dec), *self.initial_canvas.shape)

    def forward(self, images: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """The negative bound of Eq. 12 in nats, mean over images; noise `[T, batch, Z]`."""
        batch = images.shape[0]
        canvas = self.initial_canvas.expand(batch, -1, -1, -1)
        c_enc, h_enc = (v.expand(batch, -1) for v in self.initial_encoder)
        c_dec, h_dec = (v.expand(batch, -1) for v in self.initial_decoder)
        kl = images.new_zeros(batch)
        for t in range(self.steps):
            error = images - torch.sigmoid(canvas)
            glimpse = self.read(images, error, h_dec)
            h_enc, c_enc = self.encoder(torch.cat([glimpse, h_dec], dim=1), (h_enc, c_enc))
            mean, log_scale = self.mean(h_enc), self.log_scale(h_enc)
            scale = log_scale.exp()
            latent = mean + scale * noise[t]
            h_dec, c_dec = self.decoder(latent, (h_dec, c_dec))
            canvas = canvas + self.write(h_dec)
            kl = kl + 0.5 * (mean**2 + scale**2 - 1 - 2 * log_scale).sum(1)
        fit = functional.binary_cross_entropy_with_logits(canvas, images, reduction="none")
        return (fit.sum((1, 2, 3)) + kl).mean()

    @torch.no_grad()
    def generate(self, noise: torch.Tensor) -> torch.Tensor:
        """Means of images drawn from the prior; noise `[T, batch, Z]`."""
        batch = noise.shape[1]
        canvas = self.initial_canvas.expand(batch, -1, -1, -1)
        c_dec, h_dec = (v.expand(batch, -1) for v in self.initial_decoder)
        for latent in noise:
            h_dec, c_dec = self.decoder(latent, (h_dec, c_dec))
            canvas = canvas + self.write(h_dec)
        return torch.sigmoid(canvas)


def train_step(
    model: TorchDraw, optimizer: torch.optim.Optimizer, images: torch.Tensor, clip_norm: float
) -> float:
    """One update on images; returns the loss in nats."""
    noise = torch.randn(model.steps, len(images), model.latents, device=images.device)
    optimizer.zero_grad(set_to_none=True)
    loss = model(images, noise)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
    optimizer.step()
    return loss.item()
