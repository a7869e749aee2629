"""Which of a network's many layers are worth asking for: its blocks, as far as names and shapes tell."""

from __future__ import annotations

from collections.abc import Sequence

from diffscope.families.base import Layer

FEWEST = 3
"""With fewer, the outermost layers are a network in its wrapper, or an encoder and a decoder: their parts are meant."""


def outermost(layers: Sequence[Layer]) -> tuple[Layer, ...]:
    """Finds the layers with positions that are part of no other: a network's blocks, where it is built of such.

    Args:
        layers: Of a network, in order; at least one.

    Returns:
        Some of them, in order; all where none has positions.
    """
    placed = [layer for layer in layers if layer.positions > 1] or list(layers)
    opened: set[str] = set()
    while True:
        found = _roots([layer for layer in placed if layer.name not in opened])
        made_of_parts = {layer.name for layer in found if _has_parts(layer, placed)}
        if len(found) >= FEWEST or not made_of_parts:
            return tuple(found)
        opened |= made_of_parts


def central(layers: Sequence[Layer]) -> Layer:
    """Finds the middle one of the outermost layers of lowest resolution: at the bottom of a U-Net, or at half depth.

    Args:
        layers: Of a network, in order; at least one.

    Returns:
        One of them.
    """
    blocks = outermost(layers)
    fewest = min(layer.positions for layer in blocks)
    lowest = [layer for layer in blocks if layer.positions == fewest]
    return lowest[(len(lowest) - 1) // 2]


def _roots(layers: Sequence[Layer]) -> list[Layer]:
    names = {layer.name for layer in layers}
    return [layer for layer in layers if not any(layer.name.startswith(f"{name}.") for name in names)]


def _has_parts(layer: Layer, others: Sequence[Layer]) -> bool:
    return any(other.name.startswith(f"{layer.name}.") for other in others)
