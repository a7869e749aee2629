"""From a file's objects to plain Python values: what a `Checkpoint` says of itself."""

from __future__ import annotations

from typing import Any

from diffscope.checkpoints.machine import SCALARS, Global
from diffscope.checkpoints.standins import Array, DType, Module, Namespace
from diffscope.checkpoints.storages import StoredTensor
from diffscope.checkpoints.window import Window
from diffscope.errors import CheckpointError

MAX_DEPTH = 32
MAX_VALUES = 100_000  # visits in one file: a value that is referred to twice counts twice
MAX_ARRAY = 4096  # elements of an array that is written out


class Plain:
    """Scalars and containers as they are, Namespaces as dicts; what is no plain value as a word in angle brackets.

    There is one for each file, for what its values come to is bounded for all of them together.
    """

    def __init__(self) -> None:
        self.visits = 0

    def __call__(self, value: object, depth: int = 0) -> Any:
        """Gives the plain form of a value.

        Args:
            value: Any object of a file.
            depth: How deep it is nested.

        Returns:
            Scalars, lists, tuples, sets and dicts, with words in angle brackets for everything else.

        Raises:
            CheckpointError: If there are more than MAX_VALUES, or they lie deeper than MAX_DEPTH.
        """
        self.charge(1, depth)
        if isinstance(value, SCALARS):
            return value
        if isinstance(value, Namespace):
            value = value.state
        if isinstance(value, dict):
            return {key: self(item, depth + 1) for key, item in value.items()}
        if isinstance(value, (list, tuple, set)):
            return type(value)(self(item, depth + 1) for item in value)
        if isinstance(value, Array) and value.parts <= MAX_ARRAY:
            self.charge(value.parts, depth)
            return value.written_out()
        return described(value)

    def charge(self, count: int, depth: int) -> None:
        """Counts values.

        Args:
            count: How many more.
            depth: How deep they are nested.

        Raises:
            CheckpointError: If there are more than MAX_VALUES, or they lie deeper than MAX_DEPTH.
        """
        self.visits += count
        if depth > MAX_DEPTH or self.visits > MAX_VALUES:
            raise CheckpointError(f"arguments nested deeper than {MAX_DEPTH}, or more than {MAX_VALUES} of them")


def described(value: object) -> str:
    """Gives a word for what is no plain value, such as "<tensor [3, 3]>"."""
    if isinstance(value, StoredTensor):
        return f"<tensor {list(value.size)}>"
    if isinstance(value, Module):
        return f"<{value.class_name}>"
    if isinstance(value, Global):
        return str(value.value) if isinstance(value.value, str) else f"<{value.name}>"
    if isinstance(value, Array):
        return f"<array {list(value.shape)}>"
    if isinstance(value, DType):
        return str(value.value)
    if isinstance(value, Window):
        return f"<{value.end - value.start} bytes>"
    return f"<{type(value).__name__}>"


def arguments_of(module: Module, plain: Plain) -> dict[str, Any]:
    """Gives what an object's constructor was called with.

    Args:
        module: A stand-in.
        plain: The file's own.

    Returns:
        Keyword → value, and positional arguments under `_init_args`.

    Raises:
        CheckpointError: If they are not such, or too many.
    """
    keywords = plain(module.state.get("_init_kwargs") or {})
    if not isinstance(keywords, dict) or not all(type(name) is str for name in keywords):
        raise CheckpointError(f"a {module.class_name} whose constructor arguments are no dict of names")
    positional = plain(module.state.get("_init_args") or ())
    return {**keywords, "_init_args": positional} if positional else keywords


def attributes_of(module: Module, plain: Plain) -> dict[str, Any]:
    """Gives the attributes that an object's class itself set: neither torch's own nor sub-modules and tensors.

    Args:
        module: A stand-in.
        plain: The file's own.

    Returns:
        Name → plain value.

    Raises:
        CheckpointError: If they are too many.
    """
    return {
        name: plain(value)
        for name, value in module.state.items()
        if type(name) is str
        and not name.startswith("_")
        and name != "training"
        and not isinstance(value, (Module, StoredTensor))
    }


def network_of(module: Module) -> str | None:
    """Gives the class of the network that a preconditioner wraps.

    Args:
        module: Stand-in of the preconditioner.

    Returns:
        The class's name; None where there is no such network.
    """
    children = module.state.get("_modules")
    for name in ("model", "unet"):
        child = children.get(name) if isinstance(children, dict) else None
        if isinstance(child, Module):
            return child.class_name
    return None
