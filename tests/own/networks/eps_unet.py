"""A plain U-Net as a tutorial writes it: it predicts the noise, told of one of a thousand steps."""

# mypy: ignore-errors

import torch
from torch import nn

STEPS = 1000


class Block(nn.Module):
    def __init__(self, cin, cout, dim):
        super().__init__()
        self.conv1 = nn.Conv2d(cin, cout, 3, padding=1)
        self.conv2 = nn.Conv2d(cout, cout, 3, padding=1)
        self.norm = nn.GroupNorm(4, cout)
        self.time = nn.Linear(dim, cout)
        self.skip = nn.Conv2d(cin, cout, 1) if cin != cout else nn.Identity()

    def forward(self, x, emb):
        h = torch.relu(self.norm(self.conv1(x)) + self.time(emb)[:, :, None, None])
        return self.skip(x) + self.conv2(h)


class UNet(nn.Module):
    def __init__(self, channels=3, width=16):
        super().__init__()
        self.step_embedding = nn.Embedding(STEPS, width)
        self.first = nn.Conv2d(channels, width, 3, padding=1)
        self.down1 = Block(width, width, width)
        self.pool = nn.AvgPool2d(2)
        self.down2 = Block(width, 2 * width, width)
        self.middle = Block(2 * width, 2 * width, width)
        self.up = Block(3 * width, width, width)
        self.last = nn.Conv2d(width, channels, 3, padding=1)

    def forward(self, x, t):
        emb = self.step_embedding(t)
        h1 = self.down1(self.first(x), emb)
        h2 = self.middle(self.down2(self.pool(h1), emb), emb)
        h2 = nn.functional.interpolate(h2, scale_factor=2)
        return self.last(self.up(torch.cat([h2, h1], dim=1), emb))


def loss(model, x0):
    abar = torch.cumprod(1 - torch.linspace(1e-4, 0.02, STEPS), 0)
    t = torch.randint(0, STEPS, (len(x0),))
    a = abar[t].view(-1, 1, 1, 1)
    eps = torch.randn_like(x0)
    return (model(a.sqrt() * x0 + (1 - a).sqrt() * eps, t) - eps).pow(2).mean()
