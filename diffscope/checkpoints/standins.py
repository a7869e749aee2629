"""The harmless objects of ours that a checkpoint's pickle gets in place of those that it asks for."""

from __future__ import annotations

import math
import re
from typing import Any, Literal

import numpy as np

from diffscope.checkpoints.budget import ByIdentity
from diffscope.checkpoints.machine import Built
from diffscope.checkpoints.storages import MAX_DIMENSIONS, is_count
from diffscope.checkpoints.window import Window
from diffscope.errors import CheckpointError


class Module(Built):
    """A network object, or another that the EDM persistence wraps: its class name and its attributes.

    Args:
        class_name: As the pickle spells it.
        state: Its attributes.
    """

    def __init__(self, class_name: str, state: dict[Any, Any] | None = None) -> None:
        self.class_name = class_name
        self.state = {} if state is None else state

    def build(self, state: object) -> None:
        """Takes the attributes.

        Args:
            state: A dict.

        Raises:
            CheckpointError: If it is none.
        """
        if not isinstance(state, dict):
            raise CheckpointError(f"a {self.class_name} whose state is no dict")
        self.state = state


class Namespace(Built):
    """The stand-in of argparse.Namespace: a record of options."""

    def __init__(self) -> None:
        self.state: dict[Any, Any] = {}

    def build(self, state: object) -> None:
        """Takes the options.

        Args:
            state: A dict.

        Raises:
            CheckpointError: If it is none.
        """
        if not isinstance(state, dict):
            raise CheckpointError("an argparse.Namespace whose state is no dict")
        self.state = state


class Fields(Built, ByIdentity):
    """The stand-in of a record whose fields are its state: a dict, or what the class makes of it.

    Args:
        name: Of the class.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.state: Any = {}

    def build(self, state: object) -> None:
        """Takes the fields, unchecked."""
        self.state = state


class Dict(dict[Any, Any], Built):
    """The stand-in of OrderedDict, EasyDict or Counter.

    State dicts carry module versions as an attribute, which nobody needs.
    """

    def build(self, state: object) -> None:
        """Ignores the state."""


class DType(Built):
    """The stand-in of numpy.dtype, of one number.

    Args:
        code: Such as "f4".

    Raises:
        CheckpointError: If it is no plain number.
    """

    def __init__(self, code: object, _align: object = False, _copy: object = False) -> None:
        if not isinstance(code, str) or re.fullmatch(r"[iu][1248]|f[248]|b1", code) is None:
            raise CheckpointError("a NumPy value that is no plain number")
        self.value = np.dtype("<" + code)

    def build(self, state: object) -> None:
        """Checks that the number is little-endian.

        Args:
            state: NumPy's own, whose second value is the order of bytes.

        Raises:
            CheckpointError: If it is another order.
        """
        if type(state) is not tuple or len(state) < 2 or state[1] not in ("<", "|", "="):
            raise CheckpointError("a NumPy value that is not little-endian")


class Array(Built):
    """The stand-in of numpy.ndarray, of plain numbers that may still lie in the file."""

    def __init__(self) -> None:
        self.raw: bytes | Window = b""
        self.dtype = np.dtype("f8")
        self.shape: tuple[int, ...] = (0,)
        self.order: Literal["C", "F"] = "C"

    def build(self, state: object) -> None:
        """Takes dtype, shape and bytes.

        Args:
            state: NumPy's own: (version, shape, dtype, whether in Fortran's order, bytes).

        Raises:
            CheckpointError: If it is anything else, or its values do not fit each other.
        """
        if type(state) is not tuple or len(state) != 5:
            raise CheckpointError("a NumPy array whose state is not understood")
        _, shape, dtype, fortran, raw = state
        self.set(raw, dtype, shape, "F" if fortran is True else "C")

    def set(self, raw: object, dtype: object, shape: object, order: object) -> None:
        """Takes dtype, shape and bytes.

        Args:
            raw: Bytes, or where they lie in the file.
            dtype: A DType.
            shape: A tuple of counts.
            order: "C" or "F".

        Raises:
            CheckpointError: If one of them is of another kind, or they do not fit each other.
        """
        if not isinstance(raw, (bytes, Window)) or not isinstance(dtype, DType) or order not in ("C", "F"):
            raise CheckpointError("a NumPy array that is not made of bytes")
        if type(shape) is not tuple or len(shape) > MAX_DIMENSIONS or not all(map(is_count, shape)):
            raise CheckpointError("a NumPy array with a shape that is negative or no integer")
        length = raw.end - raw.start if isinstance(raw, Window) else len(raw)
        if math.prod(shape) * dtype.value.itemsize != length:
            raise CheckpointError(f"a NumPy array of shape {list(shape)} in {length} bytes")
        self.raw, self.dtype, self.shape, self.order = raw, dtype.value, shape, order

    @property
    def parts(self) -> int:
        """Numbers and lists that writing it out takes, or more: empty lists are some as well."""
        return math.prod(max(count, 1) for count in self.shape)

    def written_out(self) -> Any:
        """Gives the numbers as nested lists, or as one number."""
        octets = self.raw if isinstance(self.raw, bytes) else self.raw.rewound().read(self.raw.end - self.raw.start)
        return np.frombuffer(octets, self.dtype).reshape(self.shape, order=self.order).tolist()
