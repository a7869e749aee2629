"""torch's old stream format: files of `torch.save` before torch 1.6, and each storage inside a plain pickle.

Layout: pickles of a magic number, of a protocol version and of the writer's byte order; a pickle of the object, whose
storages are persistent ids; a pickle of the list of storage keys; then for each key its number of elements (int64) and
its bytes. Where torch.storage._load_from_bytes appears in a pickle, its argument is one such stream with a bare
storage for object; torch would hand it to an unrestricted loader, here it meets a table of storage types alone.
"""

from __future__ import annotations

from typing import Any

from diffscope.checkpoints.budget import Budget
from diffscope.checkpoints.machine import Machine, Table
from diffscope.checkpoints.storages import STORAGE_TABLE, Storage, storage_of
from diffscope.checkpoints.window import Window
from diffscope.errors import CheckpointError

MAGIC = 0x1950A86A20F9469CFC6C
VERSION = 1001


class Blobs:
    """The storages in arguments of `_load_from_bytes`. One that is given twice is one storage, read once.

    Args:
        budget: Charged for the streams inside a pickle too.
    """

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.known: dict[int, tuple[object, Storage]] = {}

    def __call__(self, blob: object) -> Storage:
        """Gives the storage in an argument of `_load_from_bytes`.

        Args:
            blob: The argument: bytes, or where they lie in the file.

        Returns:
            The storage; the same one for the same bytes.

        Raises:
            CheckpointError: If it holds anything else than one storage.
        """
        if id(blob) not in self.known:  # which holds the blob, so that no other can take its id
            self.known[id(blob)] = blob, self.read(blob)
        return self.known[id(blob)][1]

    def read(self, blob: object) -> Storage:
        """Reads one stream inside a pickle.

        Args:
            blob: Its bytes, or where they lie in the file.

        Returns:
            The storage that it holds.

        Raises:
            CheckpointError: If it holds anything else than one storage.
        """
        if isinstance(blob, bytes):
            window = Window.on_bytes(blob)
        elif isinstance(blob, Window):
            window = blob.rewound()
        else:
            raise CheckpointError("a storage that is not given as bytes")
        if Machine(window, {}, self.budget).load() != MAGIC:
            raise CheckpointError("a storage that is not in torch's stream format")
        storage = read_after_magic(window, STORAGE_TABLE, self.budget)
        if not isinstance(storage, Storage):
            raise CheckpointError("a stream inside the pickle that holds something else than one storage")
        if window.left:
            raise CheckpointError(f"a storage with {window.left} surplus bytes")
        return storage


def read_after_magic(window: Window, table: Table, budget: Budget) -> Any:
    """Reads the object of a stream whose magic number has been read already.

    Args:
        window: Just behind the magic number.
        table: The names that the pickle may mention.
        budget: Charged for what it makes.

    Returns:
        The object, made of stand-ins and plain values; its tensors stay in the file.

    Raises:
        CheckpointError: If the stream is damaged, of another version or of a big-endian machine.
        UnsafePickle: If the pickle asks for more than data.
    """
    if Machine(window, {}, budget).load() != VERSION:
        raise CheckpointError(f"a torch stream of another version than {VERSION}")
    system = Machine(window, {}, budget).load()
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise CheckpointError("a torch stream written on a big-endian machine; re-save it on a little-endian one")
    storages: dict[str, Storage] = {}

    def persistent(identity: object) -> Storage:
        key, storage = storage_of(identity, fields=6)
        known = storages.setdefault(key, storage)
        if (known.dtype, known.numel) != (storage.dtype, storage.numel):
            raise CheckpointError(f"storage '{key}' is described in two ways")
        return known

    found = Machine(window, table, budget, persistent).load()
    keys = Machine(window, {}, budget).load()
    if (
        not isinstance(keys, list)
        or len(keys) != len(storages)
        or not all(type(key) is str and key in storages for key in keys)
    ):
        raise CheckpointError("a torch stream whose list of storages does not fit its content")
    for key in keys:
        _place(window, storages[key])
    if any(storage.source is None for storage in storages.values()):
        raise CheckpointError("a torch stream that lists a storage twice")
    return found


def _place(window: Window, storage: Storage) -> None:
    """Records where the next storage's bytes are, and steps over them.

    Args:
        window: At the storage's number of elements.
        storage: Its description.

    Raises:
        CheckpointError: If the number differs or the file ends before.
    """
    count = int.from_bytes(window.read(8), "little", signed=True)
    if count != storage.numel:
        raise CheckpointError(f"a storage declared with {storage.numel} elements that has {count}")
    storage.source = window.cut(storage.nbytes)
