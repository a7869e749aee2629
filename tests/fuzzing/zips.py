"""Zip files taken apart and put together again, with members changed or with a directory that lies about them."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from random import Random
from typing import Any

from fuzzing import generic

LOCAL, ENTRY, END = struct.Struct("<4s5H3I2H"), struct.Struct("<4s6H3I5H2I"), struct.Struct("<4s4H2IH")
STORED, DEFLATED = 0, 8
BOMBS = (10**6, 10**8, 10**9, 3 * 10**9)
NAMES = ("", "a" * 60_000, "../../x", "/etc/x", "a\0b", "\x1b[31m.png", "x/" * 1000, "data.pkl", "x.png", "\u202egnp.x")


@dataclass(frozen=True)
class Member:
    """As it is declared; `raw` are the bytes that stand in the file."""

    name: str
    raw: bytes
    method: int
    crc: int
    size: int
    declared: int
    """Bytes of `raw`, as the directory says."""
    flags: int = 0
    needed: int = 20
    offset: int = 0
    """Added to where it truly lies."""


def stored(name: str, content: bytes, method: int = STORED) -> Member:
    raw = content if method == STORED else deflated(content)
    return Member(name, raw, method, zlib.crc32(content), len(content), len(raw))


def deflated(content: bytes) -> bytes:
    packer = zlib.compressobj(1, zlib.DEFLATED, -15)
    return packer.compress(content) + packer.flush()


@lru_cache(maxsize=8)
def zeros(count: int, head: bytes = b"") -> tuple[bytes, int]:
    """(deflated, crc) of `head` and `count` zeros behind it."""
    packer, block = zlib.compressobj(9, zlib.DEFLATED, -15), bytes(1 << 20)
    # Behind a full flush a block stands for itself, so that one is packed and the others are its copies.
    begin = packer.compress(head) + packer.flush(zlib.Z_FULL_FLUSH)
    one = packer.compress(block) + packer.flush(zlib.Z_FULL_FLUSH)
    whole, rest = divmod(count, len(block))
    crc = zlib.crc32(head)
    for _ in range(whole):
        crc = zlib.crc32(block, crc)
    crc = zlib.crc32(bytes(rest), crc)
    return begin + one * whole + packer.compress(bytes(rest)) + packer.flush(), crc


def bomb(name: str, count: int, head: bytes = b"") -> Member:
    """A member of `count` zeros behind `head`, as it truly is."""
    raw, crc = zeros(count, head)
    return Member(name, raw, DEFLATED, crc, (len(head) + count) & 0xFFFFFFFF, len(raw))


def pack(members: Sequence[Member]) -> bytes:
    out, directory = bytearray(), bytearray()
    for m in members:
        encoded = m.name.encode("utf-8", "surrogatepass")[:65_535]
        flags = m.flags | (0 if encoded.isascii() else 0x800)
        at = (len(out) + m.offset) & 0xFFFFFFFF
        sizes = (m.crc & 0xFFFFFFFF, m.declared & 0xFFFFFFFF, m.size & 0xFFFFFFFF)
        out += LOCAL.pack(b"PK\3\4", m.needed, flags, m.method, 0, 33, *sizes, len(encoded), 0) + encoded + m.raw
        directory += ENTRY.pack(
            b"PK\1\2", 20, m.needed, flags, m.method, 0, 33, *sizes, len(encoded), 0, 0, 0, 0, 0, at
        ) + encoded  # fmt: skip
    count = len(members) & 0xFFFF
    end = END.pack(b"PK\5\6", 0, 0, count, count, len(directory), len(out), 0)
    return bytes(out + directory) + end


@lru_cache(maxsize=64)
def members(data: bytes) -> tuple[tuple[str, bytes], ...]:
    """(name, content) of a good zip."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return tuple((info.filename, archive.read(info)) for info in archive.infolist())


EditMember = Callable[[Random, str, bytes], bytes]


def edited(chance: Random, data: bytes, edit: EditMember) -> bytes:
    """One or two things changed; `edit` changes the content of a member as its name suggests."""
    method = chance.choice((STORED, STORED, DEFLATED))
    made = [stored(name, content, method) for name, content in members(data)]
    for _ in range(chance.choice((1, 1, 2))):
        how = chance.choice((inside, inside, inside, lie, lie, added, gone, renamed, inflated))
        if made:
            how(chance, made, edit)
    return pack(made)


def inside(chance: Random, made: list[Member], edit: EditMember) -> None:
    at = pick(chance, made)
    content = made[at].raw if made[at].method == STORED else zlib.decompress(made[at].raw, -15)
    made[at] = stored(made[at].name, edit(chance, made[at].name, content), made[at].method)


def pick(chance: Random, made: list[Member]) -> int:
    """Where the structure stands, more often than not."""
    telling = [k for k, m in enumerate(made) if m.name.endswith(("data.pkl", ".json", ".npy", "byteorder", "version"))]
    return chance.choice(telling) if telling and chance.random() < 0.7 else chance.randrange(len(made))


def lie(chance: Random, made: list[Member], _: EditMember) -> None:
    at = pick(chance, made)
    number = chance.choice((*generic.EDGES, chance.randrange(1 << 16)))
    field = chance.choice(("crc", "size", "declared", "flags", "method", "needed", "offset"))
    said: dict[str, Any] = {field: number % (1 << 16) if field in ("flags", "method", "needed") else number}
    made[at] = replace(made[at], **said)


def added(chance: Random, made: list[Member], _: EditMember) -> None:
    member = chance.choice(made)
    made.append(replace(member, name=chance.choice((member.name, member.name + "x", "x/" + member.name, "code/a.py"))))


def gone(chance: Random, made: list[Member], _: EditMember) -> None:
    made.pop(pick(chance, made))


def renamed(chance: Random, made: list[Member], _: EditMember) -> None:
    at = pick(chance, made)
    made[at] = replace(made[at], name=chance.choice(NAMES))


def inflated(chance: Random, made: list[Member], _: EditMember) -> None:
    """Much of nothing behind what a member begins with."""
    at = pick(chance, made)
    head = b"" if made[at].method == DEFLATED or chance.random() < 0.5 else made[at].raw[:128]
    if made[at].name.endswith(".json") and chance.random() < 0.5:
        head = b'{"labels": null} '
    made[at] = bomb(made[at].name, chance.choices(BOMBS, (6, 4, 1, 1))[0], head)
