"""What the transformer beside it imports."""

# mypy: ignore-errors

from torch import nn


class Attend(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.attention = nn.MultiheadAttention(dim, 4, batch_first=True)
        self.mlp = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))

    def forward(self, x, cond):
        h = self.norm(x + cond)
        x = x + self.attention(h, h, h, need_weights=False)[0]
        return x + self.mlp(x)
