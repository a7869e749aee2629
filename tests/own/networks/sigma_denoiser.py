"""A denoiser as EDM's paper writes it: told of σ, it returns the clean image; preconditioned within."""

# mypy: ignore-errors

import torch
from torch import nn


class Denoiser(nn.Module):
    def __init__(self, width, sigma_data=0.5):
        super().__init__()
        self.sigma_data = sigma_data
        self.net = nn.ModuleDict(
            {
                "first": nn.Conv2d(4, width, 3, padding=1),
                "body1": nn.Conv2d(width, width, 3, padding=2, dilation=2),
                "body2": nn.Conv2d(width, width, 3, padding=4, dilation=4),
                "last": nn.Conv2d(width, 3, 3, padding=1),
            }
        )

    def forward(self, x, sigma):
        s = sigma.view(-1, 1, 1, 1)
        total = (s**2 + self.sigma_data**2).sqrt()
        level = (s.log() / 4).expand(len(x), 1, *x.shape[2:])
        h = torch.cat([x / total, level], dim=1)
        for name in ("first", "body1", "body2"):
            h = nn.functional.silu(self.net[name](h))
        return self.sigma_data**2 / total**2 * x + s * self.sigma_data / total * self.net["last"](h)


def make(width=24):
    return Denoiser(width)


def loss(model, x0):
    sigma = (1.2 * torch.randn(len(x0)) - 1.2).exp()
    s = sigma.view(-1, 1, 1, 1)
    weight = (s**2 + 0.25) / (s * 0.5) ** 2
    return (weight * (model(x0 + s * torch.randn_like(x0), sigma) - x0).pow(2)).mean()
