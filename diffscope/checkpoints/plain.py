"""From a file's objects to plain Python values: what a `Checkpoint` says of itself."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from diffscope.checkpoints.machine import SCALARS, Global
from diffscope.checkpoints.standins import Array, DType, Module, Namespace
from diffscope.checkpoints.storages import StoredTensor
from diffscope.checkpoints.window import Window
from diffscope.errors import CheckpointError

MAX_DEPTH = 32
MAX_VALUES = 100_000  # visits: a value that is referred to twice counts twice
MAX_ARRAY = 4096  # elements of an array that is written out


def plain(value: object) -> Any:
    """Scalars and containers as they are, Namespaces as dicts; what is no plain value as a word in angle brackets."""
    return converted(value, 0, itertools.count())


def converted(value: object, depth: int, visits: Iterator[int]) -> Any:
    if depth > MAX_DEPTH or next(visits) > MAX_VALUES:
        raise CheckpointError(f"arguments nested deeper than {MAX_DEPTH}, or more than {MAX_VALUES} of them")
    if isinstance(value, SCALARS):
        return value
    if isinstance(value, Namespace):
        value = value.state
    if isinstance(value, dict):
        return {key: converted(item, depth + 1, visits) for key, item in value.items()}
    if isinstance(value, (list, tuple, set)):
        return type(value)(converted(item, depth + 1, visits) for item in value)
    if isinstance(value, Array) and value.value.size <= MAX_ARRAY:
        return value.value.tolist()
    return described(value)


def described(value: object) -> str:
    if isinstance(value, StoredTensor):
        return f"<tensor {list(value.size)}>"
    if isinstance(value, Module):
        return f"<{value.class_name}>"
    if isinstance(value, Global):
        return str(value.value) if isinstance(value.value, str) else f"<{value.name}>"
    if isinstance(value, Array):
        return f"<array {list(np.shape(value.value))}>"
    if isinstance(value, DType):
        return str(value.value)
    if isinstance(value, Window):
        return f"<{value.end - value.start} bytes>"
    return f"<{type(value).__name__}>"


def arguments_of(module: Module) -> dict[str, Any]:
    """What the constructor was called with."""
    keywords = plain(module.state.get("_init_kwargs") or {})
    if not isinstance(keywords, dict) or not all(type(name) is str for name in keywords):
        raise CheckpointError(f"a {module.class_name} whose constructor arguments are no dict of names")
    positional = plain(module.state.get("_init_args") or ())
    return {**keywords, "_init_args": positional} if positional else keywords


def attributes_of(module: Module) -> dict[str, Any]:
    """Attributes that the class itself set: neither torch's own nor sub-modules and tensors."""
    return {
        name: plain(value)
        for name, value in module.state.items()
        if type(name) is str
        and not name.startswith("_")
        and name != "training"
        and not isinstance(value, (Module, StoredTensor))
    }


def network_of(module: Module) -> str | None:
    """Class of the network that a preconditioner wraps."""
    children = module.state.get("_modules")
    for name in ("model", "unet"):
        child = children.get(name) if isinstance(children, dict) else None
        if isinstance(child, Module):
            return child.class_name
    return None
