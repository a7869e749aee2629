"""A network is a walk through named layers.

`walk(...)` is a generator of (layer name, activation) in the order of execution; its last item is the
network's output, under the name `output`. A consumer takes what it wants and stops: what follows is
never computed. The plain forward pass is the last item of the walk, so there is no second code path.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator

import torch
from torch import Tensor, nn

from diffscope.errors import UsageError

OUTPUT = "output"

Walk = Iterator[tuple[str, Tensor]]


class WalkedNetwork(nn.Module, ABC):
    """Base of the networks written here."""

    trunk: tuple[str, ...]
    """Names of the children that may run in half precision; the others embed noise level and class, in float32."""

    layout: torch.memory_format = torch.contiguous_format
    """Memory format of the trunk's weights, and with them of its activations."""

    @abstractmethod
    def walk(self, x: Tensor, time: Tensor, label: Tensor | None = None) -> Walk:
        """Yields the layers in the order of execution.

        Args:
            x: (B, C, H, W), already scaled as the network expects it.
            time: What the network is told of the noise level, (B,) or (1,).
            label: As the network takes it, or None.

        Yields:
            (name, activation), last the network's output under the name `output`.
        """

    def walk_until(self, x: Tensor, time: Tensor, label: Tensor | None, until: Collection[str] | None) -> Walk:
        """Yields the layers for a consumer that wants some of them alone.

        A generator needs no such word, for it is simply dropped; a network watched through hooks must know in advance.

        Args:
            x: As for `walk`.
            time: As for `walk`.
            label: As for `walk`.
            until: Names of the layers wanted, others may be left out; None wants all.

        Yields:
            (name, activation).
        """
        return self.walk(x, time, label)

    def forward(self, x: Tensor, time: Tensor, label: Tensor | None = None) -> Tensor:
        """Gives the last item of the walk, (B, C', H, W)."""
        for _name, activation in self.walk(x, time, label):
            output = activation
        return output

    def compile_blocks(self, backend: str = "inductor") -> None:
        """Compiles every block by itself (torch.compile): the walk between them stays a generator.

        Args:
            backend: Of torch.compile.
        """
        for name in self.trunk:
            for block in _blocks(getattr(self, name)):
                block.compile(backend=backend)

    def set_precision(self, dtype: torch.dtype) -> None:
        """Casts the trunk; embeddings stay float32, for they span too many magnitudes for 16 bit.

        Args:
            dtype: Of weights and activations.

        Raises:
            UsageError: If the weights are rounded to another 16-bit type already.
        """
        for name in self.trunk:
            module = getattr(self, name)
            now = next(module.parameters()).dtype
            if now not in (dtype, torch.float32):
                raise UsageError(f"the network's weights are rounded to {now}; load the checkpoint again for {dtype}")
            if any(parameter.dtype != dtype for parameter in module.parameters()):
                nn.Module.to(module, dtype)  # a library's own `to` may warn of casts
            if self.layout is not torch.contiguous_format:
                for parameter in module.parameters():
                    if parameter.dim() == 4:
                        parameter.data = parameter.data.contiguous(memory_format=self.layout)


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    """Gives the modules that are called, where `module` is a list of them or of lists."""
    if not isinstance(module, (nn.ModuleDict, nn.ModuleList)):
        yield module
        return
    for child in module.children():
        yield from _blocks(child)
