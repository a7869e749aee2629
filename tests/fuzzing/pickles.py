"""Edits of a pickle's opcodes. The pickle is taken apart and never loaded."""

from __future__ import annotations

import pickletools
import struct
from collections.abc import Callable, Sequence
from functools import lru_cache
from random import Random

STREAMS = 5
"""Pickles one after the other in torch's old format, before the storages' bytes."""
INTEGERS = (0, 1, -1, 2, 3, 255, 10**5, 10**7, 2**31, 2**61 - 1, 2**63 - 1, -(2**63), 10**30, 10**400)
FLOATS = (0.0, -1.0, 0.5, 1e308, 1e-320, float("nan"), float("inf"), float("-inf"))
TEXTS = (
    "", "a", "ema", "model", "state", "net", "args", "config", "step", "class_name", "_modules", "_buffers",
    "_parameters", "img_resolution", "img_channels", "label_dim", "num_blocks", "channel_mult", "M", "u", "sigma_data",
    "sigma_min", "sigma_max", "SongUNet", "EDMPrecond", "iDDPMPrecond", "Precond", "latin1", "cpu", "0", "\x1b[31m",
    "\u202e", "\n", "x" * 70_000,
)  # fmt: skip
NAMES = (
    ("torch", "Size"), ("torch", "device"), ("torch", "FloatStorage"), ("torch", "HalfStorage"), ("torch", "float32"),
    ("torch.storage", "_load_from_bytes"), ("torch._utils", "_rebuild_tensor_v2"), ("torch._utils", "_rebuild_tensor"),
    ("torch._utils", "_rebuild_parameter"), ("torch._utils", "_rebuild_parameter_with_state"), ("numpy", "dtype"),
    ("numpy", "ndarray"), ("numpy.core.numeric", "_frombuffer"), ("numpy.core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "scalar"), ("_codecs", "encode"), ("collections", "OrderedDict"), ("builtins", "set"),
    ("collections", "Counter"), ("builtins", "bytes"), ("builtins", "complex"), ("argparse", "Namespace"),
    ("dnnlib.util", "EasyDict"), ("torch.nn.modules.container", "ModuleDict"), ("builtins", "getattr"),
    ("os", "system"),    ("torch_utils.persistence", "_reconstruct_persistent_obj"),
)  # fmt: skip


@lru_cache(maxsize=64)
def chunks(data: bytes) -> tuple[tuple[str, bytes], ...]:
    """(name of the opcode, its bytes) of each, and what follows the last pickle as ('rest', bytes)."""
    found: list[tuple[str, bytes]] = []
    start = 0
    for _ in range(STREAMS):
        if data[start : start + 1] != b"\x80":
            break
        places = []
        try:
            places = [(op.name, position or 0) for op, _, position in pickletools.genops(data[start:])]
        except (ValueError, UnicodeDecodeError):
            break
        # Position counts from the slice's beginning; the last opcode is STOP, of one byte.
        ends = [position for _, position in places[1:]] + [places[-1][1] + 1]
        found += [(name, data[start + at : start + end]) for (name, at), end in zip(places, ends, strict=True)]
        start += ends[-1]
    return (*found, ("rest", data[start:]))


def edited(chance: Random, data: bytes, others: Sequence[bytes] = ()) -> bytes:
    pieces = list(chunks(data))
    if len(pieces) < 3:
        return data
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        edit: PieceEdit = chance.choice(EDITS)
        edit(chance, pieces, others)
    return b"".join(content for _, content in pieces)


Pieces = list[tuple[str, bytes]]
PieceEdit = Callable[[Random, Pieces, Sequence[bytes]], None]


def some(chance: Random, pieces: Pieces, *names: str) -> int | None:
    """Where one of these opcodes stands, the last ones (what stands around the tensors) as likely as all others."""
    at = [number for number, (name, _) in enumerate(pieces) if name.startswith(names)]
    if not at:
        return None
    return chance.choice(at if chance.random() < 0.5 else at[:20] + at[-60:])


def integer(number: int) -> bytes:
    if 0 <= number < 256:
        return b"K" + bytes([number])
    if -(2**31) <= number < 2**31:
        return b"J" + struct.pack("<i", number)
    octets = number.to_bytes(number.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(octets)]) + octets


def text(words: str) -> bytes:
    octets = words.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(octets)) + octets


def name(module: str, attribute: str) -> bytes:
    return f"c{module}\n{attribute}\n".encode()


def new_value(chance: Random) -> bytes:
    return chance.choice((
        lambda: integer(chance.choice(INTEGERS)),
        lambda: integer(chance.choice(INTEGERS)),
        lambda: b"G" + struct.pack(">d", chance.choice(FLOATS)),
        lambda: text(chance.choice(TEXTS)),
        lambda: chance.choice((b"N", b"\x88", b"]", b"}", b")", b"(t", b"\x8f", b"]" * 3 + b"aa")),
        lambda: b"h" + bytes([chance.randrange(256)]),
        lambda: b"j" + struct.pack("<I", chance.randrange(3000)),
        lambda: name(*chance.choice(NAMES)),
        lambda: call(chance),
        lambda: bomb(chance),
    ))()  # fmt: skip


def call(chance: Random) -> bytes:
    arguments = b"".join(new_value(chance) if chance.random() < 0.3 else b"h\x00" for _ in range(chance.randrange(4)))
    return name(*chance.choice(NAMES)) + b"(" + arguments + b"tR"


def bomb(chance: Random) -> bytes:
    """One value that is large, deep, or made of one shared value many times."""
    times = chance.choice((10, 30, 1000, 30_000, 200_000))
    made: Callable[[], bytes] = chance.choice((
        lambda: b"]" * times + b"a" * (times - 1),
        lambda: b"N" + b"\x85" * times,
        lambda: b"(" + b"N" * times + b"t",
        lambda: b"](" + b"K\x01" * times + b"e",
        lambda: b"}(" + b"".join(integer(k * (2**61 - 1)) + b"N" for k in range(min(times, 30_000))) + b"u",
        lambda: b"K\x01q\x000" + b"h\x00h\x00\x86q\x000" * min(times, 1000) + b"h\x00",
        lambda: b"(" + b"N" * min(times, 30_000) + b"tq\x000" + b"](" + b"h\x00" * times + b"e",
        lambda: b"](" + b"N" * min(times, 30_000) + b"eq\x000](" + (name(*chance.choice(NAMES)) + b"h\x00\x85R") * min(
            times, 20_000) + b"e",
        lambda: b"}(" + b"".join(text(str(k)) + b"K\x01" for k in range(min(times, 30_000))) + b"u",
    ))  # fmt: skip
    return made()


VALUES = ("BININT", "LONG", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "NONE", "NEWTRUE", "NEWFALSE", "EMPTY_")


def change_value(chance: Random, pieces: Pieces, _: Sequence[bytes]) -> None:
    if (at := some(chance, pieces, *VALUES)) is not None:
        pieces[at] = ("new", new_value(chance))


def change_number(chance: Random, pieces: Pieces, _: Sequence[bytes]) -> None:
    if (at := some(chance, pieces, "BININT", "LONG")) is not None:
        pieces[at] = ("new", integer(chance.choice((*INTEGERS, chance.randrange(4096)))))


def change_text(chance: Random, pieces: Pieces, _: Sequence[bytes]) -> None:
    if (at := some(chance, pieces, "BINUNICODE", "SHORT_BINUNICODE")) is not None:
        pieces[at] = ("new", text(chance.choice(TEXTS)))


def change_name(chance: Random, pieces: Pieces, _: Sequence[bytes]) -> None:
    if (at := some(chance, pieces, "GLOBAL", "STACK_GLOBAL")) is not None:
        taken = b"00" if pieces[at][0] == "STACK_GLOBAL" else b""
        pieces[at] = ("new", taken + name(*chance.choice(NAMES)))


def change_reference(chance: Random, pieces: Pieces, _: Sequence[bytes]) -> None:
    if (at := some(chance, pieces, "BINGET", "LONG_BINGET", "BINPUT", "LONG_BINPUT", *VALUES)) is not None:
        opcode = b"r" if "PUT" in pieces[at][0] else b"j"
        pieces[at] = ("new", opcode + struct.pack("<I", chance.choice((0, 1, 2, 3, 10, 2**31, chance.randrange(3000)))))


def run_of(chance: Random, pieces: Pieces) -> slice:
    at = chance.randrange(len(pieces) - 1)
    return slice(at, min(at + chance.choice((1, 2, 3, 10, 100)), len(pieces) - 1))


def repeat(chance: Random, pieces: Pieces, _: Sequence[bytes]) -> None:
    run = pieces[found := run_of(chance, pieces)]
    size = max(1, sum(len(content) for _, content in run))
    pieces[found] = run * min(chance.choice((2, 3, 100, 100_000)), 1 + (1 << 20) // size, 1 + 200_000 // len(run))


def remove(chance: Random, pieces: Pieces, _: Sequence[bytes]) -> None:
    del pieces[run_of(chance, pieces)]


def swap(chance: Random, pieces: Pieces, _: Sequence[bytes]) -> None:
    a, b = (chance.randrange(len(pieces) - 1) for _ in range(2))
    pieces[a], pieces[b] = pieces[b], pieces[a]


def splice(chance: Random, pieces: Pieces, others: Sequence[bytes]) -> None:
    """A run of opcodes of another pickle."""
    other = list(chunks(chance.choice(others))) if others else pieces
    if len(other) > 2:
        at = chance.randrange(len(pieces) - 1)
        pieces[at:at] = other[run_of(chance, other)]


def insert_call(chance: Random, pieces: Pieces, _: Sequence[bytes]) -> None:
    at = chance.randrange(1, len(pieces) - 1)
    made = call(chance) + (b"0" if chance.random() < 0.5 else b"")
    pieces.insert(at, ("new", made * chance.choice((1, 1, 3, 1000))))


EDITS: tuple[PieceEdit, ...] = (
    change_value, change_value, change_value, change_number, change_number, change_text, change_name, change_reference,
    repeat, remove, swap, splice, insert_call,
)  # fmt: skip
