"""Layers of networks that were walked before, kept in the cache folder.

A walk on the meta device makes torch import its compiler, which takes longer than all else that is done with a small
file. What it finds follows from the network's parts, what these hold, and the code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from diffscope.cache.answers import Answers, key_of
from diffscope.families.base import InputSpace, Layer

KIND = "walked-networks"


def remembered(
    network: nn.Module, space: InputSpace, label: Tensor | None, walk: Callable[[], tuple[Layer, ...]]
) -> tuple[Layer, ...]:
    """Gives the layers of a network of this program or of a library.

    Args:
        network: As built, on the meta device.
        space: Its input.
        label: As the network takes it; None if it takes none.
        walk: Finds them.

    Returns:
        The layers in order.
    """
    key = key_of(repr(network), list(_parts(network)), vars(space), None if label is None else list(label.shape))
    known = _known.get(key)
    if known is None and (found := Answers(KIND).recall(key)) is not None:
        known = tuple(Layer(name, tuple(shape), flops) for name, shape, flops in found["layers"])
    if known is None:
        known = walk()
        Answers(KIND).keep(key, {"layers": [[layer.name, layer.shape, layer.flops] for layer in known]})
    _known[key] = known
    return known


_known: dict[str, tuple[Layer, ...]] = {}
"""Those of this process: the snapshots of a run are all alike."""


def _parts(network: nn.Module) -> Iterator[list[Any]]:
    """Each part with what it holds: attributes, functions by name, tensors by shape."""
    for name, part in network.named_modules():
        yield [
            name,
            type(part).__qualname__,
            _plain({key: value for key, value in vars(part).items() if not isinstance(value, dict) or value}),
        ]


def _plain(value: object) -> Any:
    if isinstance(value, Mapping):
        return [[str(key), _plain(item)] for key, item in value.items()]
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, Tensor):
        return ["tensor", *value.shape]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return getattr(value, "__qualname__", type(value).__qualname__)
