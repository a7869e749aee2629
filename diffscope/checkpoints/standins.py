"""Every name that a checkpoint's pickle may mention, and the harmless object of ours that it gets instead.

Nothing is imported on a file's say-so. EDM and EDM2 wrap each network object so that the pickle holds a class name,
the source text of its module and its attributes; of these the source text is never looked at.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from diffscope.checkpoints.legacy import read_blob
from diffscope.checkpoints.machine import Built, Global, checked_key
from diffscope.checkpoints.storages import MAX_DIMENSIONS, STORAGE_TABLE, StoredTensor, is_count
from diffscope.checkpoints.window import Window
from diffscope.errors import CheckpointError

PERSISTENCE_VERSION = 6  # EDM and EDM2 alike
TORCH_DTYPES = ("float16", "float32", "float64", "bfloat16", "uint8", "int8", "int16", "int32", "int64", "bool")


class Module(Built):
    """A network object, or another that the EDM persistence wraps: its class name and its attributes."""

    def __init__(self, class_name: str, state: dict[Any, Any] | None = None) -> None:
        self.class_name = class_name
        self.state = {} if state is None else state

    def build(self, state: object) -> None:
        if not isinstance(state, dict):
            raise CheckpointError(f"a {self.class_name} whose state is no dict")
        self.state = state


class Namespace(Built):
    """argparse.Namespace: a record of options."""

    def __init__(self) -> None:
        self.state: dict[Any, Any] = {}

    def build(self, state: object) -> None:
        if not isinstance(state, dict):
            raise CheckpointError("an argparse.Namespace whose state is no dict")
        self.state = state


class Dict(dict[Any, Any], Built):
    """OrderedDict, EasyDict or Counter. State dicts carry module versions as an attribute, which nobody needs."""

    def build(self, state: object) -> None:
        pass


class DType(Built):
    """numpy.dtype of one number."""

    def __init__(self, code: object, _align: object = False, _copy: object = False) -> None:
        if not isinstance(code, str) or re.fullmatch(r"[iu][1248]|f[248]|b1", code) is None:
            raise CheckpointError("a NumPy value that is no plain number")
        self.value = np.dtype("<" + code)

    def build(self, state: object) -> None:
        if type(state) is not tuple or len(state) < 2 or state[1] not in ("<", "|", "="):
            raise CheckpointError("a NumPy value that is not little-endian")


class Array(Built):
    """numpy.ndarray of plain numbers."""

    def __init__(self) -> None:
        self.value = np.zeros(0)

    def build(self, state: object) -> None:
        if type(state) is not tuple or len(state) != 5:
            raise CheckpointError("a NumPy array whose state is not understood")
        _, shape, dtype, fortran, raw = state
        self.value = array_of(raw, dtype, shape, "F" if fortran is True else "C")


def persistent_object(meta: object) -> Module:
    if not isinstance(meta, dict) or meta.get("type") != "class" or meta.get("version") != PERSISTENCE_VERSION:
        raise CheckpointError(
            f"a persistent object that is not of version {PERSISTENCE_VERSION}, as EDM and EDM2 write"
        )
    name, state = meta.get("class_name"), meta.get("state")
    if type(name) is not str or not name.isidentifier() or not isinstance(state, dict):
        raise CheckpointError("a persistent object without a proper class name or state")
    return Module(name, state)


def parameter(tensor: object, *_: object) -> StoredTensor:
    if not isinstance(tensor, StoredTensor):
        raise CheckpointError("a parameter that is no tensor")
    return tensor


def tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: object) -> StoredTensor:
    return StoredTensor(storage, offset, size, stride)


def ordered(items: object = ()) -> Dict:
    """OrderedDict() or OrderedDict([[key, value], …]); Counter({key: count})."""
    pairs = list(items.items()) if isinstance(items, dict) else items
    if not isinstance(pairs, (list, tuple)):
        raise CheckpointError("an ordered dict that is not made from pairs")
    return Dict({checked_key(key): value for key, value in pairs})


def members(items: object = ()) -> set[Any]:
    if not isinstance(items, (list, tuple)):
        raise CheckpointError("a set that is not made from a list")
    return {checked_key(item) for item in items}


def encoded(text: object, encoding: object) -> bytes:
    """How protocol 2 writes bytes."""
    if type(text) is not str or encoding != "latin1":
        raise CheckpointError("bytes that are not written as latin1 text")
    return text.encode("latin1")


def empty_bytes() -> bytes:
    return b""


def complex_number(real: object, imaginary: object) -> complex:
    if type(real) is not float or type(imaginary) is not float:
        raise CheckpointError("a complex number not made of two floats")
    return complex(real, imaginary)


def number_of(dtype: object, raw: object) -> Any:
    return array_of(raw, dtype, (), "C").item()


def new_array(*_: object) -> Array:
    return Array()


def buffer_array(raw: object, dtype: object, shape: object, order: object) -> Array:
    made = Array()
    made.value = array_of(raw, dtype, shape, order)
    return made


def array_of(raw: object, dtype: object, shape: object, order: object) -> np.ndarray[Any, Any]:
    octets = raw.rewound().read(raw.end - raw.start) if isinstance(raw, Window) else raw
    if not isinstance(octets, bytes) or not isinstance(dtype, DType) or order not in ("C", "F"):
        raise CheckpointError("a NumPy array that is not made of bytes")
    if type(shape) is not tuple or len(shape) > MAX_DIMENSIONS or not all(map(is_count, shape)):
        raise CheckpointError("a NumPy array with a shape that is negative or no integer")
    if math.prod(shape) * dtype.value.itemsize != len(octets):
        raise CheckpointError(f"a NumPy array of shape {list(shape)} in {len(octets)} bytes")
    return np.frombuffer(octets, dtype.value).reshape(shape, order=order)


def size_of(numbers: object) -> tuple[Any, ...]:
    if not isinstance(numbers, (list, tuple)):
        raise CheckpointError("a torch.Size that is not made from a list")
    return tuple(numbers)


def device(*parts: object) -> str:
    return ":".join(str(part) for part in parts if type(part) in (str, int))


def _functions() -> dict[str, Callable[..., Any]]:
    numpy_names: dict[str, Callable[..., Any]] = {
        "multiarray scalar": number_of,
        "multiarray _reconstruct": new_array,
        "numeric _frombuffer": buffer_array,
    }
    return {
        "torch_utils.persistence _reconstruct_persistent_obj": persistent_object,
        "torch._utils _rebuild_parameter": parameter,
        "torch._utils _rebuild_parameter_with_state": parameter,
        "torch._utils _rebuild_tensor": tensor,
        "torch._utils _rebuild_tensor_v2": tensor,
        "torch.storage _load_from_bytes": read_blob,
        "torch Size": size_of,
        "torch device": device,
        "collections OrderedDict": ordered,
        "collections Counter": ordered,
        "numpy dtype": DType,
        # NumPy 2 renamed its core package; files of either age are read.
        **{f"numpy.{core}.{name}": call for core in ("core", "_core") for name, call in numpy_names.items()},
        # Python 3 writes the Python 2 name of its builtins in protocol 2.
        **{f"{module} set": members for module in ("builtins", "__builtin__")},
        **{f"{module} bytes": empty_bytes for module in ("builtins", "__builtin__")},
        **{f"{module} complex": complex_number for module in ("builtins", "__builtin__")},
        "_codecs encode": encoded,
    }


def _table() -> dict[tuple[str, str], Global]:
    new: dict[str, Callable[[], Any]] = {
        "torch.nn.modules.container ModuleDict": lambda: Module("ModuleDict"),
        "argparse Namespace": Namespace,
        "dnnlib.util EasyDict": Dict,
        "collections OrderedDict": Dict,
    }
    calls = _functions()
    values: dict[str, Any] = {f"torch {name}": f"torch.{name}" for name in TORCH_DTYPES}
    values["numpy ndarray"] = None
    table = {}
    for spelled in {**calls, **new, **values}:
        module, name = spelled.split(" ")
        table[module, name] = Global(f"{module}.{name}", calls.get(spelled), new.get(spelled), values.get(spelled))
    return table


TABLE: Mapping[tuple[str, str], Global] = {**_table(), **STORAGE_TABLE}
