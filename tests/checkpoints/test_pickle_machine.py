"""The machine against the standard library's pickler: what it accepts, it must read alike."""

from __future__ import annotations

import collections
import io
import pickle
import random
from typing import Any

import pytest

from diffscope.checkpoints.budget import Budget
from diffscope.checkpoints.machine import Machine
from diffscope.checkpoints.table import table_of
from diffscope.checkpoints.window import Window
from diffscope.errors import CheckpointError

VALUES: dict[str, Any] = {
    "scalars": [
        None,
        True,
        False,
        0,
        255,
        256,
        65535,
        65536,
        -1,
        -(2**31),
        2**31,
        2**200,
        0.1,
        float("inf"),
        "é\ud800",
    ],
    "bytes": {"short": b"abc", "none": b"", "high": bytes(range(256))},
    "containers": {"list": [[], [1], list(range(3000))], "tuple": ((), (1,), (1, 2), (1, 2, 3), tuple(range(9)))},
    "long text": "x" * 70_000,
    "sets": [set(), {1, 2, "c"}],
    "ordered": collections.OrderedDict(b=1, a=[2]),
    "counter": collections.Counter("abca"),
    "complex": 1 - 2j,
    "keys": {1: 0, None: 1, (1, "a"): 2, 0.5: 3, False: 4},
}


def load(data: bytes) -> Any:
    budget = Budget()
    return Machine(Window.on_bytes(data), table_of(budget), budget).load()


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("name", VALUES)
def test_reads_as_pickle_does(name: str, protocol: int) -> None:
    assert load(pickle.dumps(VALUES[name], protocol)) == VALUES[name]


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_shared_and_cyclic_values(protocol: int) -> None:
    shared: list[Any] = [1]
    cyclic: list[Any] = [shared, shared]
    cyclic.append((cyclic, 2))
    found = load(pickle.dumps(cyclic, protocol))
    assert found[0] is found[1]
    assert found[2][0] is found


def test_random_values_of_every_shape() -> None:
    rng = random.Random(0)

    def value(depth: int) -> Any:
        kind = rng.randrange(4 if depth < 4 else 2)
        if kind == 0:
            return rng.randrange(-(2**40), 2**40)
        if kind == 1:
            return chr(rng.randrange(32, 1000)) * rng.randrange(300)
        items = [value(depth + 1) for _ in range(rng.randrange(6))]
        return {str(i): item for i, item in enumerate(items)} if kind == 2 else tuple(items)

    for case in range(200):
        made = value(0)
        assert load(pickle.dumps(made, 2 + case % 4)) == made


def test_stops_behind_each_of_several_streams() -> None:
    window = Window.on_bytes(b"".join(pickle.dumps(i, 2) for i in range(5)))
    budget = Budget()
    assert [Machine(window, table_of(budget), budget).load() for _ in range(5)] == list(range(5))
    assert window.left == 0


def test_long_bytes_stay_in_the_file() -> None:
    found = load(pickle.dumps(bytes(5000)))
    assert isinstance(found, Window)
    assert found.end - found.start == 5000


def test_text_protocol_is_refused() -> None:
    with pytest.raises(CheckpointError, match="which no checkpoint uses"):
        load(pickle.dumps({"a": [1, 2.5]}, 0))


def test_window_reads_across_chunks() -> None:
    data = bytes(i % 251 for i in range(300_000))
    window, position = Window(io.BytesIO(data), 7, len(data) - 5), 7
    for count in (1, 65_000, 0, 70_000, 3, 65_536, 10):
        assert window.read(count) == data[position : position + count]
        position += count
    cut = window.cut(1000)
    buffer = bytearray(1000)
    cut.fill(memoryview(buffer))
    assert buffer == data[position : position + 1000]
    assert window.read(9) == data[position + 1000 : position + 1009]
    with pytest.raises(CheckpointError, match="cut short"):
        window.read(len(data))
