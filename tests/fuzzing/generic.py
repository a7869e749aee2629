"""Damage that any file may suffer: bits, lengths, ends, and pieces of other files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Literal

EDGES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1,
         2**64 - 1)  # fmt: skip
MOST = 8 << 20
"""Bytes that a damaged file is cut to: seeds are small, and so should be what hurts."""

Edit = Callable[[Random, bytes, Sequence[bytes]], bytes]
"""(chance, content, contents of other files) → the damaged content."""


def damaged(chance: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    edit: Edit = chance.choice(EDITS)
    return edit(chance, data or b"\0", others)[:MOST]


def place(chance: Random, length: int) -> int:
    """Mostly near the beginning or the end, where formats keep what they say of themselves."""
    reach = chance.choice((16, 64, 512, 4096, length))
    at = chance.randrange(max(1, min(reach, length)))
    return at if chance.random() < 0.6 else max(0, length - 1 - at)


def flip_bits(chance: Random, data: bytes, _: Sequence[bytes]) -> bytes:
    changed = bytearray(data)
    for _flip in range(chance.choice((1, 1, 2, 3, 8))):
        changed[place(chance, len(data))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def set_number(chance: Random, data: bytes, _: Sequence[bytes]) -> bytes:
    """A field of 1, 2, 4 or 8 bytes with a number at the edge of a range: a length, an offset, a count."""
    width = chance.choice((1, 2, 4, 8))
    number = chance.choice((*EDGES, chance.randrange(1 << 16))) % (1 << 8 * width)
    order: Literal["little", "big"] = chance.choice(("little", "big"))
    at = place(chance, len(data))
    return data[:at] + number.to_bytes(width, order) + data[at + width :]


def cut(chance: Random, data: bytes, _: Sequence[bytes]) -> bytes:
    return data[: place(chance, len(data))]


def remove(chance: Random, data: bytes, _: Sequence[bytes]) -> bytes:
    at = place(chance, len(data))
    return data[:at] + data[at + chance.choice((1, 2, 4, 16, 256)) :]


def repeat(chance: Random, data: bytes, _: Sequence[bytes]) -> bytes:
    at, length = place(chance, len(data)), chance.choice((1, 4, 16, 256, 4096))
    times = chance.choice((1, 2, 10, 1000))
    return data[:at] + data[at : at + length] * times + data[at:]


def insert(chance: Random, data: bytes, _: Sequence[bytes]) -> bytes:
    at, length = place(chance, len(data)), chance.choice((1, 2, 4, 16, 256))
    return data[:at] + bytes(chance.randrange(256) for _ in range(length)) + data[at:]


def blank(chance: Random, data: bytes, _: Sequence[bytes]) -> bytes:
    at, length = place(chance, len(data)), chance.choice((4, 64, 4096))
    return data[:at] + chance.choice((b"\0", b"\xff", b" ")) * len(data[at : at + length]) + data[at + length :]


def splice(chance: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """The beginning of one file and the end of another."""
    other = chance.choice(others) if others else data
    return data[: place(chance, len(data))] + other[place(chance, max(1, len(other))) :]


def nothing_else(chance: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """Another file under this one's name, no file at all, or its first bytes and much of one byte."""
    other = chance.choice(others) if others else b""
    return chance.choice((other, b"", data[:16] + b"\0" * (1 << 20), data[:8] + bytes([chance.randrange(256)]) * 9999))


EDITS: tuple[Edit, ...] = (
    flip_bits, flip_bits, flip_bits, set_number, set_number, cut, remove, repeat, insert, blank, splice, nothing_else,
)  # fmt: skip
