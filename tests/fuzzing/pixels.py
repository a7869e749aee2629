"""Pictures and arrays with declared sizes that are other than what is there, or large and truly there."""

from __future__ import annotations

import io
import re
import struct
import zlib
from collections.abc import Callable, Sequence
from functools import lru_cache
from random import Random

import numpy as np

from fuzzing import generic

SIDES = (0, 1, 2, 3, 17, 255, 4096, 13_000, 20_000, 65_535, 10**6, 2**31 - 1, 2**32 - 1)
SHAPES = ("()", "(0,)", "(-1, 2)", "(1, 1, 1, 3)", "(1000000, 64, 64, 3)", "(2**62,)", "(18446744073709551616,)",
          "(4, 0, 16, 1)", "(True, 2)", "(1.0,)", "10**9", "(4611686018427387904, 4)", "[4, 16, 16, 3]")  # fmt: skip
TYPES = ("|u1", "<u2", ">u2", "<f4", "<f8", ">f4", "<c16", "|O", "|S1000", "<U9", "<M8[s]", "|V3", "|b1", "<i8",
         "[('a', '<f4')]", "<f2", "<q99999999", "<U536870911")  # fmt: skip


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


@lru_cache(maxsize=16)
def plain_png(width: int, height: int, depth: int = 8, colour: int = 0) -> bytes:
    """A whole picture of one colour, deflated to next to nothing."""
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}.get(colour, 1)
    row = bytes(1 + (width * channels * depth + 7) // 8)
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    palette = chunk(b"PLTE", bytes(6)) if colour == 3 else b""
    body = chunk(b"IDAT", zlib.compress(row * height, 1))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + palette + body + chunk(b"IEND", b"")


def edited_picture(chance: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    if data.startswith(b"\x89PNG") and chance.random() < 0.5:
        return edited_png(chance, data)
    if chance.random() < 0.05:
        # Stretched and large ones, which are whole.
        width, height = chance.choice(((1, 20_000), (20_000, 1), (1, 10**6), (3, 65_000), (4000, 4000), (9000, 9000)))
        return plain_png(width, height, *chance.choice(((8, 0), (8, 2), (16, 0), (1, 0), (8, 6), (8, 3))))
    return generic.damaged(chance, data, others)


def edited_png(chance: Random, data: bytes) -> bytes:
    """Its chunks changed, with right checksums."""
    chunks, at = [], 8
    while at + 8 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    where = chance.randrange(len(chunks))
    kind, content = chunks[where]
    how = chance.randrange(6)
    if how < 2 and kind == b"IHDR":
        sides = struct.pack(">II", *(chance.choice(SIDES) for _ in range(2)))
        chunks[where] = (
            kind,
            sides + (content[8:] if how else bytes(chance.choice((0, 1, 2, 3, 8, 16)) for _ in range(5))),
        )
    elif how == 2:
        chunks.insert(where, (chance.choice((b"zTXt", b"iCCP", b"iTXt", b"tEXt", b"eXIf", b"acTL", b"tRNS", b"PLTE")),
                              b"a\0\0" + zlib.compress(bytes(chance.choice((10, 10**6, 10**8)))) ))  # fmt: skip
    elif how == 3:
        chunks.insert(where, chunks[where])
    elif how == 4:
        del chunks[where]
    else:
        chunks[where] = kind, generic.damaged(chance, content, ())
    return data[:8] + b"".join(chunk(*found) for found in chunks)


def edited_array(chance: Random, data: bytes, others: Sequence[bytes] = ()) -> bytes:
    """The header of an `.npy`, which is a Python dict in text, or anything else of it."""
    if not data.startswith(b"\x93NUMPY") or chance.random() < 0.3:
        return generic.damaged(chance, data, others)
    length = int.from_bytes(data[8:10], "little")
    header, body = data[10 : 10 + length].decode("latin1"), data[10 + length :]
    edit: Callable[[], str] = chance.choice((
        lambda: re.sub(r"'shape': \(.*?\)", f"'shape': {chance.choice(SHAPES)}", header),
        lambda: re.sub(r"'descr': '[^']*'", f"'descr': {described(chance)}", header),
        lambda: header.replace("False", chance.choice(("True", "None", "1"))),
        lambda: header.replace("{", "{" + "'a': " * chance.choice((1, 500))),
        lambda: "(" * 5000 + header,
        lambda: header.replace("'", '"""'),
    ))  # fmt: skip
    changed = edit().rstrip().encode("latin1", "replace")[:65_000]
    changed += b" " * (-(len(changed) + 11) % 64) + b"\n"
    version = chance.choice((1, 1, 1, 1, 2, 3, 9))
    declared = len(changed).to_bytes(2 if version == 1 else 4, "little")
    return data[:6] + bytes([version, 0]) + declared + changed + body


def described(chance: Random) -> str:
    kind = chance.choice(TYPES)
    return kind if kind.startswith("[") else f"'{kind}'"


def npy(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, array, allow_pickle=False)
    return out.getvalue()
