"""A small transformer trained by flow matching: noise at t = 0, data at t = 1, one of its classes for guidance."""

# mypy: ignore-errors

import torch
from layers import Attend
from torch import nn


class FlowTransformer(nn.Module):
    def __init__(self, image_size, patch=2, dim=48, depth=4, num_classes=2):
        super().__init__()
        self.patch = patch
        self.embed = nn.Linear(3 * patch * patch, dim)
        self.pos = nn.Parameter(0.02 * torch.randn(1, (image_size // patch) ** 2, dim))
        self.time = nn.Sequential(nn.Linear(2, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.classes = nn.Embedding(num_classes + 1, dim)
        self.blocks = nn.ModuleList([Attend(dim) for _ in range(depth)])
        self.out = nn.Linear(dim, 3 * patch * patch)

    def forward(self, sample, timestep, class_labels=None):
        _, _, h, w = sample.shape
        x = self.embed(nn.functional.unfold(sample, self.patch, stride=self.patch).transpose(1, 2)) + self.pos
        cond = self.time(torch.stack([timestep, 1 - timestep], dim=1)) + self.classes(class_labels)
        for block in self.blocks:
            x = block(x, cond[:, None])
        return nn.functional.fold(self.out(x).transpose(1, 2), (h, w), self.patch, stride=self.patch), x


def loss(model, x1):
    t = torch.sigmoid(torch.randn(len(x1)))
    s = t.view(-1, 1, 1, 1)
    x0 = torch.randn_like(x1)
    velocity, _ = model(sample=s * x1 + (1 - s) * x0, timestep=t, class_labels=torch.full((len(x1),), 2))
    return (velocity - (x1 - x0)).pow(2).mean()
