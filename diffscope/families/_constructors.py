"""What a config.json says to the constructor of a diffusers network, checked before anything is built from it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import nn

from diffscope.errors import CheckpointError
from diffscope.families._building import MAX_SIDE
from diffscope.families._facts import MAX_LIST, Facts, shown


def known_arguments(kind: Any, facts: Facts) -> dict[str, Any]:
    """Takes from a config what a class knows; other fields are its writer's.

    Args:
        kind: The class.
        facts: The config, as what the file says.

    Returns:
        Argument → value.

    Raises:
        CheckpointError: If a number is not finite or a list too long.
    """
    known = inspect.signature(kind.__init__).parameters
    arguments = {key: value for key, value in facts.said.items() if key in known}
    if odd := [key for key, value in arguments.items() if not _is_modest(value)]:
        raise CheckpointError(
            f"{facts.path}: {odd[0]} is {shown(arguments[odd[0]])}; expected finite numbers below 2^63"
        )
    if long := [key for key, value in arguments.items() if isinstance(value, list) and len(value) > MAX_LIST]:
        raise CheckpointError(
            f"{facts.path}: {long[0]} is a list of {len(arguments[long[0]])}; expected up to {MAX_LIST}"
        )
    return arguments


def _is_modest(value: object) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(_is_modest, value))
    return not isinstance(value, (int, float)) or abs(value) < 2**63


def square_side(facts: Facts, default: int | None = None) -> int:
    """Reads sample_size, the side of the network's input.

    Args:
        facts: The config, and the user's `--config`.
        default: Where neither says it.

    Returns:
        The side.

    Raises:
        CheckpointError: If the input is no square, or nobody says its side.
        UsageError: If the user's is no whole number.
    """
    size = facts.said.get("sample_size")
    if isinstance(size, list) and len(size) == 2 and size[0] == size[1]:
        size = size[0]
    size = default if size is None else size
    if "sample_size" in facts.config or type(size) is int:
        return replace(facts, said={"sample_size": size}).integer("sample_size", 1, high=MAX_SIDE)
    raise CheckpointError(
        f"{facts.path}: sample_size is {shown(size)}; expected a square, say it with `config=sample_size=N`"
    )


def made(kind: Any, arguments: Mapping[str, Any]) -> nn.Module:
    """Calls a constructor, whose type the library does not say."""
    module: nn.Module = kind(**arguments)
    return module


def fill_buffers(module: nn.Module, kind: Any, arguments: Mapping[str, Any]) -> None:
    """Makes tables that no file stores, such as DiT's positions, with a network of one block that is built in memory.

    Args:
        module: With its weights; without, as an outline, it needs no tables.
        kind: Its class.
        arguments: Of its constructor.
    """
    stored = module.state_dict()
    absent = [name for name, buffer in module.named_buffers() if buffer.is_meta and name not in stored]
    if not absent or all(parameter.is_meta for parameter in module.parameters()):
        return
    small = kind(**{**arguments, "num_layers": 1} if "num_layers" in arguments else arguments)
    for name in absent:
        owner, _, leaf = name.rpartition(".")
        module.get_submodule(owner).register_buffer(leaf, small.get_buffer(name), persistent=False)
