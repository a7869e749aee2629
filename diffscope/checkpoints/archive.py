"""torch's zip format: member `<root>/data.pkl` is the pickle, `<root>/data/<key>` are the storages.

Stored members are read in place, each storage only when it is chosen; members that somebody has compressed are inflated
one by one. The central directory is checked once, so that no set of members can claim more bytes than the file has.
"""

from __future__ import annotations

import zipfile
from typing import Any, BinaryIO

from diffscope.checkpoints.machine import Machine, Table
from diffscope.checkpoints.storages import Source, Storage, storage_of
from diffscope.checkpoints.window import Window, truncated
from diffscope.errors import CheckpointError

LOCAL_HEADER = 30  # bytes before a member's name and extra field (PKWARE APPNOTE 4.3.7)
MAX_INFLATION = 20  # uncompressed by compressed bytes of a whole file; weights hardly compress
SMALL = 1 << 26  # bytes that may be inflated from any file


class Inflated:
    """A compressed member."""

    def __init__(self, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> None:
        self.archive = archive
        self.info = info

    def fill(self, buffer: memoryview) -> None:
        done = 0
        with self.archive.open(self.info) as member:
            while done < len(buffer):
                piece = member.read(min(len(buffer) - done, SMALL))
                if not piece:
                    raise truncated(self.info.header_offset, f"member {self.info.filename} is shorter than declared")
                buffer[done : done + len(piece)] = piece
                done += len(piece)


class Archive:
    """A torch zip file, opened; it must outlive the storages that are still to be read."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.file = file
        self.size = size
        try:
            self.zip = zipfile.ZipFile(file)
        except zipfile.BadZipFile as error:
            raise CheckpointError(
                f"a zip file that is damaged or cut short ({error}); fetch or copy it again"
            ) from error
        self.members = {info.filename: info for info in self.zip.infolist()}
        self.check()
        self.root = self.find_root()

    def read(self, table: Table) -> Any:
        """The object in `data.pkl`, its tensors still in the file."""
        if (order := self.members.get(self.root + "byteorder")) is not None and self.content(order) != b"little":
            raise CheckpointError("a torch file written on a big-endian machine; re-save it on a little-endian one")
        storages: dict[str, Storage] = {}

        def persistent(identity: object) -> Storage:
            key, storage = storage_of(identity, fields=5)
            known = storages.setdefault(key, storage)
            if (known.dtype, known.numel) != (storage.dtype, storage.numel):
                raise CheckpointError(f"storage '{key}' is described in two ways")
            if known.source is None:
                known.source = self.source(key, known.nbytes)
            return known

        info = self.members[self.root + "data.pkl"]
        window = self.window(info) if info.compress_type == zipfile.ZIP_STORED else Window.on_bytes(self.content(info))
        return Machine(window, table, persistent).load()

    def check(self) -> None:
        infos = self.zip.infolist()
        if len(self.members) != len(infos):
            raise CheckpointError("a zip file with two members of the same name; re-save it with torch.save")
        if any(info.flag_bits & 1 for info in infos):
            raise CheckpointError("an encrypted zip file; unpack it, or re-save the weights as safetensors")
        stored = sum(info.file_size for info in infos if info.compress_type == zipfile.ZIP_STORED)
        inflated = sum(info.file_size for info in infos if info.compress_type != zipfile.ZIP_STORED)
        if stored > self.size or inflated > max(SMALL, MAX_INFLATION * self.size):
            raise CheckpointError("a zip file whose members claim more bytes than it can hold; fetch or copy it again")

    def find_root(self) -> str:
        if any(name.endswith("/constants.pkl") or "/code/" in name for name in self.members):
            raise CheckpointError(
                "a TorchScript archive, which is a program; a file of weights was expected: "
                "save model.state_dict() of the original network as safetensors"
            )
        roots = [name.removesuffix("data.pkl") for name in self.members if name.count("/") == 1]
        roots = [root for root in roots if root + "data.pkl" in self.members]
        if len(roots) != 1:
            raise CheckpointError(
                f"a zip file with {len(roots)} data.pkl inside, where a checkpoint of torch.save has one; "
                "if it is an archive of checkpoints, unpack it"
            )
        return roots[0]

    def source(self, key: str, nbytes: int) -> Source:
        info = self.members.get(f"{self.root}data/{key}")
        if info is None:
            raise CheckpointError(f"storage '{key}' is missing from the zip file; fetch or copy it again")
        if info.file_size != nbytes:
            raise CheckpointError(f"storage '{key}' has {info.file_size} bytes where {nbytes} are declared")
        return self.window(info) if info.compress_type == zipfile.ZIP_STORED else Inflated(self.zip, info)

    def window(self, info: zipfile.ZipInfo) -> Window:
        """Where a stored member's bytes lie: behind its local header, whose own lengths count."""
        header = Window(self.file, info.header_offset, self.size).read(LOCAL_HEADER)
        if header[:4] != b"PK\x03\x04" or info.compress_size != info.file_size:
            raise CheckpointError(f"a zip file whose member {info.filename} is not where it is declared")
        behind = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
        start = info.header_offset + LOCAL_HEADER + behind
        return Window(self.file, start, self.size).cut(info.file_size)

    def content(self, info: zipfile.ZipInfo) -> bytes:
        buffer = bytearray(info.file_size)
        Inflated(self.zip, info).fill(memoryview(buffer))
        return bytes(buffer)
