"""Damage to text that says something: JSON, JSON in the header of a safetensors file, CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Any

NUMBERS: tuple[Any, ...] = (
    0, -1, 1, 2, 3, 7, 10**7, 2**31, 2**63, -(2**63), 10**30, 10**400, 0.0, -0.5, 0.5, 1e-320, 1e308, float("inf"),
    float("-inf"), float("nan"),
)  # fmt: skip
WORDS = (
    "", "a", "\0", "a\nb", "\x1b[31mred", "\x9b31m", "\u202eback", "..", "../../etc/passwd", "/", "nan", "inf", "None",
    "=1+1", "@x", "é" * 300, "a" * 70_000, "\ud800", "float64", "linear", "SongUNet", "1e400", "9" * 5000,
)  # fmt: skip


def nested(depth: int, pair: str) -> str:
    return pair[0] * depth + pair[1] * depth


RAW = ("NaN", "Infinity", "-Infinity", "1e400", "1" * 5000, "null", nested(300, "[]"), nested(100_000, "[]"),
       '{"a":' * 50_000 + "1" + "}" * 50_000, '"\\ud800"', "01", "[1,", '{"a":1,"a":2}')  # fmt: skip
"""Text in place of a value, some of it no JSON."""


def value(chance: Random) -> Any:
    return chance.choice((
        lambda: chance.choice(NUMBERS),
        lambda: chance.choice(NUMBERS),
        lambda: chance.choice(WORDS),
        lambda: chance.choice((None, True, False, [], {}, [[]], {"a": None})),
        lambda: [chance.choice(NUMBERS)] * chance.choice((1, 3, 4, 20_000)),
    ))()  # fmt: skip


def edited_json(chance: Random, data: bytes, _: Sequence[bytes] = ()) -> bytes:
    try:
        root = json.loads(data)
    except (ValueError, RecursionError):
        return data[: len(data) // 2]
    box = [root]
    for _edit in range(chance.choice((1, 1, 2, 3))):
        edit_somewhere(chance, box)
    text = json.dumps(box[0])
    if chance.random() < 0.2:
        text = text.replace(f'"{HOLE}"', chance.choice(RAW)) if HOLE in text else chance.choice(RAW)
    return text.encode("utf-8", "surrogatepass")


HOLE = "<hole>"
"""Where raw text goes."""


def edit_somewhere(chance: Random, box: list[Any]) -> None:
    """Change one value of a tree of dicts and lists; a text that is JSON itself may be changed inside."""
    places = list(nodes(box))
    holder, key = chance.choice(places)
    found = holder[key]
    if isinstance(found, str) and found[:1] in ("{", "[", '"') and chance.random() < 0.8:
        holder[key] = edited_json(chance, found.encode("utf-8", "surrogatepass")).decode("utf-8", "surrogatepass")
        return
    how = chance.randrange(8)
    if how == 0 and holder is not box:
        del holder[key]
    elif how == 1 and isinstance(holder, dict):
        holder[chance.choice(WORDS)] = found
    elif how == 2:
        other, place = chance.choice(places)
        holder[key] = json.loads(json.dumps(other[place]))
    elif how == 3:
        holder[key] = HOLE
    elif how == 4 and isinstance(found, (int, float)):
        holder[key] = -found if chance.random() < 0.5 else found * chance.choice((2, 0.5, 10**7))
    else:
        holder[key] = value(chance)


def nodes(tree: Any, left: int = 5000) -> Iterator[tuple[Any, Any]]:
    """(container, key) of the values in a tree, breadth first, at most `left`."""
    pending = [tree]
    while pending and left > 0:
        holder = pending.pop(0)
        for key in list(holder) if isinstance(holder, dict) else range(len(holder)):
            left -= 1
            yield holder, key
            if isinstance(holder[key], (dict, list)) and holder[key]:
                pending.append(holder[key])


def edited_safetensors(chance: Random, data: bytes, others: Sequence[bytes] = ()) -> bytes:
    """The header changed, its length kept right (mostly) and the tensors' bytes where they were."""
    length = int.from_bytes(data[:8], "little")
    header, body = data[8 : 8 + length], data[8 + length :]
    changed = edited_json(chance, header)
    if chance.random() < 0.2:
        changed = _tensors_elsewhere(chance, header)
    changed += b" " * (-len(changed) % 8)
    declared = len(changed) if chance.random() < 0.95 else chance.choice((0, 2**63, 2**64 - 1, 100_000_000, 7))
    return declared.to_bytes(8, "little") + changed + body


def _tensors_elsewhere(chance: Random, header: bytes) -> bytes:
    """Shapes and places that do not fit, or fit and make much of little."""
    try:
        entries = json.loads(header)
    except ValueError:
        return header
    names = [name for name in entries if name != "__metadata__"]
    for name in chance.sample(names, min(len(names), chance.choice((1, 1, 3, len(names))))):
        entry = entries[name]
        if isinstance(entry, dict):
            entry[chance.choice(("shape", "data_offsets"))] = [chance.choice(NUMBERS[:12]) for _ in range(4)]
            entry["dtype"] = chance.choice(("F32", "F64", "I64", "BOOL", "C64", "F8_E4M3", "BF16", "X"))
    return json.dumps(entries).encode()


def edited_csv(chance: Random, data: bytes, _: Sequence[bytes] = ()) -> bytes:
    rows = list(csv.reader(io.StringIO(data.decode("utf-8", "replace"))))
    for _edit in range(chance.choice((1, 2, 5))):
        row = chance.choice(rows)
        how = chance.randrange(7)
        if how < 3 and row:
            row[chance.randrange(len(row))] = str(value(chance))
        elif how == 3:
            row.append(str(value(chance)))
        elif how == 4:
            rows.append(list(chance.choice(rows)))
        elif how == 5 and len(rows) > 1:
            rows.pop(chance.randrange(len(rows)))
        else:
            row.extend([str(chance.choice(NUMBERS))] * chance.choice((1, 5000)))
    out = io.StringIO()
    csv.writer(out, lineterminator=chance.choice(("\n", "\r\n", "\r"))).writerows(rows)
    text = out.getvalue()
    wrap: Callable[[str], str] = chance.choice((str, str, lambda t: "\ufeff" + t, lambda t: t + '"', lambda t: t * 200))
    return wrap(text).encode(chance.choice(("utf-8", "utf-8", "utf-8", "utf-16")), "replace")
