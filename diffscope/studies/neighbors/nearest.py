"""Nearest neighbours by cosine similarity among more items than memory holds: chunk by chunk, the best k are kept."""

from __future__ import annotations

import math

import torch
from torch import Tensor

CHUNK = 1 << 21
"""Similarities in memory at a time: 8 MB of them, some four times that with what chooses among them."""


class Nearest:
    """The k nearest of all items shown so far, for each query; what is shown together does not matter."""

    def __init__(self, queries: Tensor, images: Tensor, k: int, chunk: int = CHUNK) -> None:
        """queries: (Q, d), of any length. images: (Q,) int64, whose items are none of a query's neighbours."""
        self.queries, self.images = unit(queries), images
        self.similarity = queries.new_full((len(queries), k), -math.inf)
        """(Q, k), the nearest first; -inf where too few items have been shown."""
        self.items = torch.full((len(queries), k), -1, dtype=torch.int64, device=queries.device)
        """(Q, k), the numbers of the items."""
        self._step = max(1, chunk // max(1, len(queries)))

    def update(self, z: Tensor, images: Tensor, items: Tensor) -> None:
        """Show n items: z (n, d), the images they belong to and their numbers, both (n,) int64."""
        for start in range(0, len(z), self._step):
            part = slice(start, start + self._step)
            similarity = self.queries @ unit(z[part]).T
            similarity.masked_fill_(self.images[:, None] == images[part], -math.inf)
            self.merge(similarity, items[part].expand(len(self.queries), -1))

    def merge(self, similarity: Tensor, items: Tensor) -> None:
        """Further candidates of each query, both (Q, n)."""
        both = torch.cat([self.similarity, similarity], 1)
        self.similarity, at = both.topk(self.similarity.shape[1], dim=1)
        self.items = torch.cat([self.items, items], 1).gather(1, at)


def unit(z: Tensor) -> Tensor:
    """Rows of length 1; a row of zeros stays one."""
    length: Tensor = torch.linalg.vector_norm(z, dim=1, keepdim=True)
    return z / length.clamp_min(torch.finfo(z.dtype).tiny)
