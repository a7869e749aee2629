"""The pickle machine: whatever opcodes a file strings together, what comes back is plain, or a CheckpointError."""

from __future__ import annotations

import contextlib
import pickle
import struct
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from diffscope.checkpoints.budget import Budget
from diffscope.checkpoints.machine import STEPS, Built, Global, Machine
from diffscope.checkpoints.storages import StoredTensor
from diffscope.checkpoints.table import table_of
from diffscope.checkpoints.window import Window
from diffscope.errors import CheckpointError

TABLE = table_of(Budget())
NAMES = [*TABLE, ("builtins", "eval"), ("os", "system"), ("", ""), ("torch", "\ud800")]

PLAIN = (Built, Global, StoredTensor, Window, set, dict, list, tuple, str, bytes, int, float, complex, type(None))
"""What may come back: plain values, what stays in the file, and objects of ours."""


def load(data: bytes) -> Any:
    budget = Budget()
    return Machine(Window.on_bytes(data), table_of(budget), budget).load()


def sized(form: str, data: bytes, said: int | None) -> bytes:
    """Bytes behind their length, or behind one that they do not have."""
    length = len(data) if said is None else said
    return struct.pack(form, min(length, 256 ** struct.calcsize(form) - 1)) + data


lies = st.none() | st.sampled_from([0, 1, 255, 65_535, 2**31 - 1, 2**32 - 1, 2**63])
raw = st.binary(max_size=12)
ARGUMENTS: dict[bytes, st.SearchStrategy[bytes]] = {
    b"\x80": st.integers(0, 255).map(lambda version: bytes([version])),
    b"\x95": st.binary(min_size=8, max_size=8),
    b"c": st.sampled_from(NAMES).map(lambda name: "\n".join((*name, "")).encode("utf-8", "surrogatepass")),
    b"G": st.binary(min_size=8, max_size=8),
    **{op: st.integers(0, 3).map(lambda index: bytes([index])) for op in (b"q", b"h", b"K")},
    **{op: st.integers(0, 3).map(lambda index: struct.pack("<I", index)) for op in (b"r", b"j", b"J")},
    b"M": st.binary(min_size=2, max_size=2),
    **{op: st.builds(sized, st.just("<B"), raw, lies) for op in (b"\x8c", b"C", b"\x8a")},
    **{op: st.builds(sized, st.just("<I"), raw, lies) for op in (b"X", b"B")},
    **{op: st.builds(sized, st.just("<Q"), raw, lies) for op in (b"\x8d", b"\x8e", b"\x96")},
}

opcode = st.sampled_from(sorted(STEPS)).flatmap(lambda op: ARGUMENTS.get(op, st.just(b"")).map(lambda more: op + more))
called = st.sampled_from(NAMES).flatmap(
    lambda name: st.lists(opcode, max_size=3).map(
        lambda given: b"c" + "\n".join((*name, "")).encode("utf-8", "surrogatepass") + b"(" + b"".join(given) + b"tR"
    )
)
"""A function, and a tuple of odd arguments for it."""
streams = st.lists(opcode | called, max_size=14).map(lambda steps: b"".join(steps) + b".")

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(max_size=40)
    | st.complex_numbers(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4) | st.integers(), inner, max_size=4)
    | st.tuples(inner, inner) | st.sets(st.integers() | st.text(max_size=3), max_size=4),
    max_leaves=12,
)  # fmt: skip


def assert_read_or_refused(data: bytes) -> None:
    with contextlib.suppress(CheckpointError):
        found = load(data)
        assert isinstance(found, PLAIN), type(found)


@settings(max_examples=400)
@given(streams | st.binary(max_size=60))
def test_any_stream_is_read_or_refused(data: bytes) -> None:
    assert_read_or_refused(data)


@settings(max_examples=150)
@given(values, st.integers(2, 5), st.data())
def test_a_damaged_pickle_is_read_or_refused(value: object, protocol: int, data: st.DataObject) -> None:
    whole = bytearray(pickle.dumps(value, protocol))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    assert_read_or_refused(bytes(whole))


@settings(max_examples=100)
@given(values, st.integers(2, 5))
def test_plain_values_are_read_as_pickle_reads_them(value: object, protocol: int) -> None:
    assert load(pickle.dumps(value, protocol)) == value
