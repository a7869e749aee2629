"""Every name that a checkpoint's pickle may mention, and the function or stand-in of ours that it means.

Nothing is imported on a file's say-so. EDM and EDM2 wrap each network object so that the pickle holds a class name,
the source text of its module and its attributes; of these the source text is never looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from diffscope.checkpoints.budget import Budget
from diffscope.checkpoints.legacy import Blobs
from diffscope.checkpoints.machine import MAX_NAME, Global, Table
from diffscope.checkpoints.standins import Array, Dict, DType, Fields, Module, Namespace
from diffscope.checkpoints.storages import STORAGE_TABLE, StoredTensor, is_count
from diffscope.errors import CheckpointError

PERSISTENCE_VERSION = 6  # EDM and EDM2 alike
PATHS = ("Posix", "Windows", "PurePosix", "PureWindows")
LIGHTNING = ("pytorch_lightning", "lightning.pytorch")
"""Modules of Lightning's two packages."""
DISTRIBUTED = (
    "metadata Metadata", "metadata TensorStorageMetadata", "metadata BytesStorageMetadata", "metadata TensorProperties",
    "metadata ChunkStorageMetadata", "metadata MetadataIndex", "metadata StorageMeta", "filesystem _StorageInfo",
)  # fmt: skip
"""Records in the `.metadata` of torch.distributed.checkpoint."""
TORCH_DTYPES = ("float16", "float32", "float64", "bfloat16", "uint8", "int8", "int16", "int32", "int64", "bool")


def persistent_object(meta: object) -> Module:
    """Makes the stand-in of an object that EDM or EDM2 wrote with its source text, which is not looked at.

    Args:
        meta: What the pickle holds of it.

    Returns:
        Its class name and attributes.

    Raises:
        CheckpointError: If it is not of the version that EDM and EDM2 write.
    """
    if not isinstance(meta, dict) or meta.get("type") != "class" or meta.get("version") != PERSISTENCE_VERSION:
        raise CheckpointError(
            f"a persistent object that is not of version {PERSISTENCE_VERSION}, as EDM and EDM2 write"
        )
    name, state = meta.get("class_name"), meta.get("state")
    if type(name) is not str or len(name) > MAX_NAME or not name.isidentifier() or not isinstance(state, dict):
        raise CheckpointError("a persistent object without a proper class name or state")
    return Module(name, state)


def parameter(tensor: object, *_: object) -> StoredTensor:
    """Stands in for torch's rebuilding of a parameter.

    Args:
        tensor: Its description.
        _: What torch would do with it, such as requires_grad; not looked at.

    Returns:
        The same description.

    Raises:
        CheckpointError: If it is none.
    """
    if not isinstance(tensor, StoredTensor):
        raise CheckpointError("a parameter that is no tensor")
    return tensor


def tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: object) -> StoredTensor:
    """Stands in for torch's rebuilding of a tensor.

    Args:
        storage: Where its numbers are.
        offset: Of the first number, in elements.
        size: Length of each dimension.
        stride: Step along each dimension, in elements.
        _: Its gradient and hooks; not looked at.

    Returns:
        Its description, unread.

    Raises:
        CheckpointError: If it would reach beyond its storage.
    """
    return StoredTensor(storage, offset, size, stride)


class Containers:
    """Dicts and sets that calls make, their keys charged to one file's budget.

    Args:
        budget: Of the file.
    """

    def __init__(self, budget: Budget) -> None:
        self.budget = budget

    def ordered(self, items: object = ()) -> Dict:
        """Makes the stand-in of OrderedDict() or OrderedDict([[key, value], …]), or of Counter({key: count}).

        Args:
            items: Pairs, or a dict.

        Returns:
            A dict in the order of `items`.

        Raises:
            CheckpointError: If `items` are no pairs, or a key is not safe to hash.
        """
        pairs = list(items.items()) if isinstance(items, dict) else items
        if not isinstance(pairs, (list, tuple)):
            raise CheckpointError("an ordered dict that is not made from pairs")
        return Dict({self.budget.key(key): value for key, value in pairs})

    def members(self, items: object = ()) -> set[Any]:
        """Makes a set.

        Args:
            items: A list.

        Returns:
            The set.

        Raises:
            CheckpointError: If `items` are no list, or a member is not safe to hash.
        """
        if not isinstance(items, (list, tuple)):
            raise CheckpointError("a set that is not made from a list")
        return {self.budget.key(item) for item in items}


def encoded(text: object, encoding: object) -> bytes:
    """Makes bytes in the way that protocol 2 spells them.

    Args:
        text: One character a byte.
        encoding: "latin1".

    Returns:
        The bytes.

    Raises:
        CheckpointError: If it is another encoding, or no text.
    """
    if type(text) is not str or encoding != "latin1":
        raise CheckpointError("bytes that are not written as latin1 text")
    return text.encode("latin1")


def empty_bytes() -> bytes:
    """Stands in for `bytes()`."""
    return b""


def complex_number(real: object, imaginary: object) -> complex:
    """Stands in for `complex`.

    Args:
        real: A float.
        imaginary: A float.

    Returns:
        The number.

    Raises:
        CheckpointError: If one of them is no float.
    """
    if type(real) is not float or type(imaginary) is not float:
        raise CheckpointError("a complex number not made of two floats")
    return complex(real, imaginary)


def number_of(dtype: object, raw: object) -> Any:
    """Stands in for NumPy's scalars.

    Args:
        dtype: A DType.
        raw: The number's bytes.

    Returns:
        The number, as Python's own.

    Raises:
        CheckpointError: If the bytes do not fit the dtype.
    """
    made = Array()
    made.set(raw, dtype, (), "C")
    return made.written_out()


def new_array(*_: object) -> Array:
    """Stands in for NumPy's rebuilding of an array, whose state follows."""
    return Array()


def buffer_array(raw: object, dtype: object, shape: object, order: object) -> Array:
    """Stands in for NumPy's array from a buffer, as protocol 5 has it.

    Args:
        raw: Bytes, or where they lie in the file.
        dtype: A DType.
        shape: A tuple of counts.
        order: "C" or "F".

    Returns:
        The array, unread.

    Raises:
        CheckpointError: If they are of another kind, or do not fit each other.
    """
    made = Array()
    made.set(raw, dtype, shape, order)
    return made


def size_of(numbers: object) -> tuple[Any, ...]:
    """Stands in for `torch.Size`.

    Args:
        numbers: A list or tuple.

    Returns:
        A tuple.

    Raises:
        CheckpointError: If it is anything else.
    """
    if not isinstance(numbers, (list, tuple)):
        raise CheckpointError("a torch.Size that is not made from a list")
    return tuple(numbers)


def device(kind: object, index: object = None) -> str:
    """Stands in for `torch.device`.

    Args:
        kind: Such as "cuda".
        index: Its number, or None.

    Returns:
        Its name, such as "cuda:0".

    Raises:
        CheckpointError: If it is not made from a name and an index.
    """
    if type(kind) is not str or len(kind) > MAX_NAME or not (index is None or is_count(index)):
        raise CheckpointError("a torch.device that is not made from a name and an index")
    return kind if index is None else f"{kind}:{index}"


def path_text(*parts: object) -> str:
    """Stands in for `pathlib`'s paths, which are only mentioned.

    Args:
        parts: Of the path.

    Returns:
        Its text.

    Raises:
        CheckpointError: If they are no texts.
    """
    texts = [part for part in parts if type(part) is str]
    if len(texts) != len(parts):
        raise CheckpointError("a path that is not made from texts")
    return "/".join(texts).replace("//", "/")


def _functions(budget: Budget) -> dict[str, Callable[..., Any]]:
    containers = Containers(budget)
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
        "torch.storage _load_from_bytes": Blobs(budget),
        "torch Size": size_of,
        "torch device": device,
        "collections OrderedDict": containers.ordered,
        "collections Counter": containers.ordered,
        "numpy dtype": DType,
        # NumPy 2 renamed its core package; files of either age are read.
        **{f"numpy.{core}.{name}": call for core in ("core", "_core") for name, call in numpy_names.items()},
        # Python 3 writes the Python 2 name of its builtins in protocol 2.
        **{f"{module} set": containers.members for module in ("builtins", "__builtin__")},
        **{f"{module} bytes": empty_bytes for module in ("builtins", "__builtin__")},
        **{f"{module} complex": complex_number for module in ("builtins", "__builtin__")},
        "_codecs encode": encoded,
        # Python 3.13 moved its paths.
        **{f"{module} {kind}Path": path_text for module in ("pathlib", "pathlib._local") for kind in PATHS},
    }


def table_of(budget: Budget) -> Table:
    """Makes the table of all names that a checkpoint's pickle may mention.

    Args:
        budget: Of one file; it is charged for what its pickles make.

    Returns:
        (module, name) → stand-in.
    """
    new: dict[str, Callable[[], Any]] = {
        "torch.nn.modules.container ModuleDict": lambda: Module("ModuleDict"),
        "argparse Namespace": Namespace,
        "dnnlib.util EasyDict": Dict,
        "collections OrderedDict": Dict,
        **{f"{module}.utilities.parsing AttributeDict": Dict for module in LIGHTNING},
        **{f"{module}.utilities.data AttributeDict": Dict for module in ("lightning_fabric", "lightning.fabric")},
    }
    calls = _functions(budget)
    values: dict[str, Any] = {f"torch {name}": f"torch.{name}" for name in TORCH_DTYPES}
    values["numpy ndarray"] = None
    for name in ("model_checkpoint ModelCheckpoint", "early_stopping EarlyStopping"):  # keys of Lightning before 1.5
        values |= {f"{module}.callbacks.{name}": None for module in LIGHTNING}
    return {**STORAGE_TABLE, **_entries(calls, new, values)}


def metadata_table(budget: Budget) -> Table:
    """Makes the table of the names that the `.metadata` of torch.distributed.checkpoint may mention.

    Args:
        budget: Of the file.

    Returns:
        (module, name) → stand-in.
    """
    package = "torch.distributed.checkpoint"
    new = {f"{package}.{spelled}": partial(Fields, spelled.split(" ")[1]) for spelled in DISTRIBUTED}
    calls: dict[str, Callable[..., Any]] = {
        f"{package}.metadata _MEM_FORMAT_ENCODING": lambda _: None,
        "torch.serialization _get_layout": lambda _: None,
        "torch Size": size_of,
        "collections OrderedDict": Containers(budget).ordered,
        **{f"{module} {kind}Path": path_text for module in ("pathlib", "pathlib._local") for kind in PATHS},
    }
    return _entries(calls, new, {f"torch {name}": f"torch.{name}" for name in TORCH_DTYPES})


def _entries(
    calls: Mapping[str, Callable[..., Any]], new: Mapping[str, Callable[[], Any]], values: Mapping[str, Any]
) -> dict[tuple[str, str], Global]:
    """Makes a table of names, each spelled "module name", that may be called, made or only mentioned."""
    table = {}
    for spelled in {**calls, **new, **values}:
        module, name = spelled.split(" ")
        table[module, name] = Global(f"{module}.{name}", calls.get(spelled), new.get(spelled), values.get(spelled))
    return table
