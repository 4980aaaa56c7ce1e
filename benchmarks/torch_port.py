"""DRAW in PyTorch, eager: what a careful person writes from the paper, to compare with.

Same sizes, initial state, losses and optimizer as drawjax's MNIST row: `nn.LSTMCell` for the two
networks, `torch.bmm` for the filters, one Python loop over the steps. Nothing is compiled and
nothing is slowed down on purpose: filters are normalized once, both images are read with one
product, gradients are cleared by setting them to None.
"""

import torch
from torch import nn
from torch.nn import functional

__all__ = ["TorchDraw", "train_step"]


class TorchDraw(nn.Module):
    """DRAW with attention for gray images, Sec. 2-3 of Gregor et al. (2015)."""

    def __init__(
        self,
        image_shape: tuple[int, int] = (28, 28),
        steps: int = 64,
        units: int = 256,
        latents: int = 100,
        read_size: int = 2,
        write_size: int = 5,
    ):
        super().__init__()
        self.image_shape = image_shape
        self.steps, self.units, self.latents = steps, units, latents
        self.read_size, self.write_size = read_size, write_size
        self.encoder = nn.LSTMCell(2 * read_size**2 + units, units)
        self.decoder = nn.LSTMCell(latents, units)
        self.mean = nn.Linear(units, latents)
        self.log_scale = nn.Linear(units, latents)
        self.patch = nn.Linear(units, write_size**2)
        self.read_window = nn.Linear(units, 5)
        self.write_window = nn.Linear(units, 5)
        self.initial_canvas = nn.Parameter(torch.zeros(image_shape))
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
        offsets = torch.arange(1, size + 1) - size / 2 - 0.5

        def bank(center: torch.Tensor, pixels: int) -> torch.Tensor:
            means = (center[:, None] + offsets * stride[:, None])[:, :, None]
            weights = torch.exp(-((torch.arange(1, pixels + 1) - means) ** 2) / (2 * variance))
            return weights / (weights.sum(-1, keepdim=True) + 1e-8)

        return bank(y, height), bank(x, width), log_intensity.exp()[:, None, None]

    def read(self, image: torch.Tensor, error: torch.Tensor, h_dec: torch.Tensor) -> torch.Tensor:
        """Eq. 27."""
        rows, columns, intensity = self.filters(self.read_window(h_dec), self.read_size)
        width = self.image_shape[1]
        both = torch.cat([image, error], dim=2)  # side by side, so that one product reads both
        lines = torch.bmm(rows, both).view(-1, self.read_size, 2, width)
        patches = torch.bmm(lines.flatten(1, 2), columns.transpose(1, 2))
        return (intensity * patches).flatten(1)

    def write(self, h_dec: torch.Tensor) -> torch.Tensor:
        """Eq. 29."""
        rows, columns, intensity = self.filters(self.write_window(h_dec), self.write_size)
        patch = self.patch(h_dec).view(-1, self.write_size, self.write_size)
        return torch.bmm(rows.transpose(1, 2), torch.bmm(patch, columns)) / intensity

    def forward(self, images: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """The negative bound of Eq. 12 in nats, mean over `images` `[batch, height, width]`."""
        batch = images.shape[0]
        canvas = self.initial_canvas.expand(batch, -1, -1)
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
        return (fit.sum((1, 2)) + kl).mean()

    @torch.no_grad()
    def generate(self, noise: torch.Tensor) -> torch.Tensor:
        """Means of images drawn from the prior, `[batch, height, width]`; noise `[T, batch, Z]`."""
        batch = noise.shape[1]
        canvas = self.initial_canvas.expand(batch, -1, -1)
        c_dec, h_dec = (v.expand(batch, -1) for v in self.initial_decoder)
        for latent in noise:
            h_dec, c_dec = self.decoder(latent, (h_dec, c_dec))
            canvas = canvas + self.write(h_dec)
        return torch.sigmoid(canvas)


def train_step(
    model: TorchDraw, optimizer: torch.optim.Optimizer, images: torch.Tensor, clip_norm: float
) -> float:
    """One update on `images` `[batch, height, width]`; returns the loss in nats."""
    noise = torch.randn(model.num_glimpses, images.shape[0], model.latent_size)
    optimizer.zero_grad(set_to_none=True)
    loss = model(images, noise)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
    optimizer.step()
    return loss.item()
