"""torch's zip format: member `<root>/data.pkl` is the pickle, `<root>/data/<key>` are the storages.

Stored members are read in place, each storage only when it is chosen; members that somebody has deflated are inflated
one by one. The central directory is checked once, so that no set of members can claim more bytes than the file has.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO, cast

from diffscope.checkpoints.budget import Budget
from diffscope.checkpoints.machine import Machine, Table
from diffscope.checkpoints.storages import Source, Storage, storage_of
from diffscope.checkpoints.window import Window
from diffscope.errors import CheckpointError

LOCAL_HEADER = 30  # bytes before a member's name and extra field (PKWARE APPNOTE 4.3.7)
MAX_DIRECTORY = 1 << 23  # bytes of a list of members; a torch file of 10,000 tensors has 1 MB
MAX_PICKLE = 1 << 27  # bytes of data.pkl, which holds no weights
MAX_INFLATION = 20  # uncompressed by compressed bytes of a whole file; weights hardly compress
SMALL = 1 << 26  # bytes that may be inflated from any file
PIECE = 1 << 22  # bytes inflated at a time
ENCRYPTED_OR_PATCHED = 0x61  # flag bits that zipfile does not read past


class Stored:
    """A member that lies in the file as it is; its checksum is compared if `verify`.

    Args:
        window: Its bytes.
        info: Its entry in the list of members.
        verify: Whether to compare its checksum.
    """

    def __init__(self, window: Window, info: zipfile.ZipInfo, verify: bool) -> None:
        self.window = window
        self.info = info
        self.verify = verify

    def fill(self, buffer: memoryview) -> None:
        """Copies the member into a buffer of its length.

        Args:
            buffer: As long as the member.

        Raises:
            CheckpointError: If the file ends before, or the checksum differs.
        """
        self.window.fill(buffer)
        if self.verify:
            _check_sum(self.info, zlib.crc32(buffer))


class Inflated:
    """A member that zipfile reads; it compares the checksum when the member's end is reached.

    Args:
        archive: The zip file.
        info: The member's entry in its list.
    """

    def __init__(self, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> None:
        self.archive = archive
        self.info = info

    def fill(self, buffer: memoryview) -> None:
        """Inflates the member into a buffer of its length.

        Args:
            buffer: As long as the member is declared to be.

        Raises:
            CheckpointError: If the member is damaged or shorter than declared.
        """
        done = 0
        for piece in self.pieces():
            buffer[done : done + len(piece)] = piece
            done += len(piece)

    def pieces(self) -> Iterator[bytes]:
        """Inflates the member piece by piece.

        Yields:
            Up to PIECE bytes each, as many together as are declared.

        Raises:
            CheckpointError: If the member is damaged or shorter than declared.
        """
        left = self.info.file_size
        try:
            with self.archive.open(self.info) as member:
                while left:
                    piece = member.read(min(left, PIECE))
                    if not piece:
                        raise _damaged(self.info, "it is shorter than declared")
                    left -= len(piece)
                    yield piece
        except (zipfile.BadZipFile, zlib.error) as error:
            raise _damaged(self.info, str(error)) from error


class Directory:
    """A zip file as zipfile reads its list of members: a list no longer than any checkpoint needs.

    Args:
        file: Open for reading, in binary.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.file = file

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def read(self, count: int = -1) -> bytes:
        """Reads from the file, as zipfile expects it.

        Args:
            count: Number of bytes; all where it is negative.

        Returns:
            At most `count` bytes.

        Raises:
            CheckpointError: If there are more than MAX_DIRECTORY.
        """
        piece = self.file.read(min(count, MAX_DIRECTORY + 1) if count >= 0 else MAX_DIRECTORY + 1)
        if len(piece) > MAX_DIRECTORY:
            raise CheckpointError(f"a zip file whose list of members is longer than {MAX_DIRECTORY} bytes")
        return piece


class Archive:
    """A torch zip file, opened; it must outlive the storages that are still to be read.

    The checksum of `data.pkl` is always compared.

    Args:
        file: Open for reading, in binary.
        size: Of the file, in bytes.
        verify: Whether to compare the checksums of weights when they are read.

    Raises:
        CheckpointError: If it is damaged, encrypted, a program, or claims more bytes than it can hold.
    """

    def __init__(self, file: BinaryIO, size: int, verify: bool = False) -> None:
        self.file = file
        self.size = size
        self.verify = verify
        try:
            self.zip = zipfile.ZipFile(cast(BinaryIO, Directory(file)))
        except (zipfile.BadZipFile, NotImplementedError) as error:
            raise CheckpointError(
                f"a zip file that is damaged or cut short ({error}); fetch or copy it again"
            ) from error
        self.members = {info.filename: info for info in self.zip.infolist()}
        self.check()
        self.root = self.find_root()

    def read(self, table: Table, budget: Budget) -> Any:
        """Reads the object in `data.pkl`; its tensors stay in the file.

        Args:
            table: The names that the pickle may mention.
            budget: Charged for what it makes.

        Returns:
            The object, made of stand-ins and plain values.

        Raises:
            CheckpointError: If the pickle or a storage is damaged.
            UnsafePickle: If the pickle asks for more than data.
        """
        if (order := self.members.get(self.root + "byteorder")) is not None and self.content(order, 16) != b"little":
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

        window = Window.on_bytes(self.content(self.members[self.root + "data.pkl"], MAX_PICKLE))
        return Machine(window, table, budget, persistent).load()

    def verify_all(self) -> int:
        """Compares the checksum of every member that has one.

        Returns:
            How many there were.

        Raises:
            CheckpointError: If one differs.
        """
        summed = [info for info in self.zip.infolist() if info.CRC]
        for info in summed:
            for _ in Inflated(self.zip, info).pieces():
                pass
        return len(summed)

    def check(self) -> None:
        """Checks the list of members; CheckpointError where they are doubled, encrypted or claim too many bytes."""
        infos = self.zip.infolist()
        if len(self.members) != len(infos):
            raise CheckpointError("a zip file with two members of the same name; re-save it with torch.save")
        if any(info.flag_bits & ENCRYPTED_OR_PATCHED for info in infos):
            raise CheckpointError("an encrypted zip file; unpack it, or re-save the weights as safetensors")
        if odd := [info for info in infos if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)]:
            raise CheckpointError(
                f"a zip file whose member {odd[0].filename} is compressed by method {odd[0].compress_type}; deflated "
                "or stored members are read: unpack it, or re-save it with torch.save"
            )
        stored = sum(info.file_size for info in infos if info.compress_type == zipfile.ZIP_STORED)
        inflated = sum(info.file_size for info in infos if info.compress_type != zipfile.ZIP_STORED)
        if stored > self.size or inflated > max(SMALL, MAX_INFLATION * self.size):
            raise CheckpointError("a zip file whose members claim more bytes than it can hold; fetch or copy it again")

    def find_root(self) -> str:
        """Finds the folder of `data.pkl`.

        Returns:
            Its name with a slash.

        Raises:
            CheckpointError: If the file is a program (TorchScript), or has no or several `data.pkl`.
        """
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
        """Finds the bytes of a storage.

        Args:
            key: Its name in the pickle.
            nbytes: Its length.

        Returns:
            Where its bytes are; nothing is read.

        Raises:
            CheckpointError: If it is missing or of another length.
        """
        info = self.members.get(f"{self.root}data/{key}")
        if info is None:
            raise CheckpointError(f"storage '{key}' is missing from the zip file; fetch or copy it again")
        if info.file_size != nbytes:
            raise CheckpointError(f"storage '{key}' has {info.file_size} bytes where {nbytes} are declared")
        return self.placed(info)

    def placed(self, info: zipfile.ZipInfo) -> Source:
        """Gives the bytes of a member, stored or deflated; nothing is read.

        Args:
            info: Its entry in the list of members.

        Returns:
            Where its bytes are.
        """
        if info.compress_type != zipfile.ZIP_STORED:
            return Inflated(self.zip, info)
        return Stored(self.window(info), info, self.verify)

    def window(self, info: zipfile.ZipInfo) -> Window:
        """Finds a stored member's bytes behind its local header, whose own lengths count.

        Args:
            info: Its entry in the list of members.

        Returns:
            Its bytes, unread.

        Raises:
            CheckpointError: If it is not where it is declared.
        """
        header = Window(self.file, info.header_offset, self.size).read(LOCAL_HEADER)
        if header[:4] != b"PK\x03\x04" or info.compress_size != info.file_size:
            raise CheckpointError(f"a zip file whose member {info.filename} is not where it is declared")
        behind = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
        start = info.header_offset + LOCAL_HEADER + behind
        return Window(self.file, start, self.size).cut(info.file_size)

    def content(self, info: zipfile.ZipInfo, limit: int) -> bytes:
        """Reads a small member and compares its checksum.

        Args:
            info: Its entry in the list of members.
            limit: Largest length, in bytes.

        Returns:
            Its bytes.

        Raises:
            CheckpointError: If it is longer, or damaged.
        """
        if info.file_size > limit:
            raise CheckpointError(f"a zip file whose {info.filename} has {info.file_size} bytes; {limit} are read")
        buffer = bytearray(info.file_size)
        self.placed(info).fill(memoryview(buffer))
        _check_sum(info, zlib.crc32(buffer))
        return bytes(buffer)


def _check_sum(info: zipfile.ZipInfo, found: int) -> None:
    """Compares a checksum; torch writes 0 for one that it was told not to compute.

    Args:
        info: The member's entry, with the checksum declared.
        found: The checksum of its bytes.

    Raises:
        CheckpointError: If they differ.
    """
    if info.CRC not in (0, found):
        raise _damaged(info, f"its checksum is {found:08x} where {info.CRC:08x} is declared")


def _damaged(info: zipfile.ZipInfo, how: str) -> CheckpointError:
    """Makes the error to raise for a damaged member."""
    return CheckpointError(f"member {info.filename} is damaged: {how}; fetch or copy the file again")
