"""What differs between two records: to the byte on one machine, or in what matters on any.

Processors sum in different orders. Without its vector instructions one processor gave numbers of the table that differ
by up to 7e-4, the standard errors of nearly singular covariances; so numbers may differ by RELATIVE, and printed ones
by one in the last digit, too. All words are the same, and in JSON and CSV the keys, their order and all types.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterator
from typing import Any

from recording.recorder import Record
from recording.texts import json_of, table_of

RELATIVE = 2e-3
ABSOLUTE = 1e-7
"""Of differences of equal numbers, which are rounding errors alone."""
NUMBER = re.compile(r"(?<![\w.])[-+−]?\d+(?:,\d{3})*(?:\.\d+)?(?:e[-+]?\d+)?(?!\w)")
WIDE = 200
"""Lines of more characters, as of CSV, are shown a cell a line."""


def exact(old: Record, new: Record) -> list[str]:
    """Lines of a difference; none if all is the same."""
    lines = [f"- {line}" for line in _heads(old)] + [f"+ {line}" for line in _heads(new)]
    found = lines if _heads(old) != _heads(new) else []
    for title in {**old.texts, **new.texts}:
        found += _diff(title, _lines(old.texts.get(title, "")), _lines(new.texts.get(title, "")))
    return found + _diff("other files", *([f"{n} {d}" for n, d in record.files.items()] for record in (old, new)))


def tolerant(old: Record, new: Record) -> list[str]:
    """The same of what matters; both records are trimmed."""
    found = [] if _heads(old) == _heads(new) else [f"- {_heads(old)}", f"+ {_heads(new)}"]
    for title in {**old.texts, **new.texts}:
        found += _tolerant_text(title, old.texts.get(title, ""), new.texts.get(title, ""))
    return found + _diff("other files", list(old.files), list(new.files))


def _heads(record: Record) -> list[str]:
    return [f"diffscope {record.argv}", f"exit code {record.code}"]


def _tolerant_text(title: str, old: str, new: str) -> list[str]:
    values = [_table(text) if title.endswith(".csv") else json_of(text) for text in (old, new)]
    if None not in values:
        return [f"{title}: {line}" for line in _differing("", *values)]
    before, after = old.splitlines(), new.splitlines()
    return _diff(title, before, _adopted(before, after))


def _table(text: str) -> list[dict[str, Any]] | None:
    if not text:
        return None
    keys, *rows = table_of(text)
    return [{key: _number(cell) for key, cell in zip(keys, row, strict=True)} for row in rows]


def _number(cell: str) -> float | str:
    try:
        return float(cell)
    except ValueError:
        return cell


def _differing(path: str, old: Any, new: Any) -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        if list(old) != list(new):
            yield f"{path or 'keys'}: keys {_only(old, new)} gone, {_only(new, old)} new, or their order"
        for key in [key for key in old if key in new]:
            yield from _differing(f"{path}.{key}".removeprefix("."), old[key], new[key])
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (before, after) in enumerate(zip(old, new, strict=True)):
            yield from _differing(f"{path}[{index}]", before, after)
    elif not _same(old, new):
        yield f"{path}: {old!r} is now {new!r}"


def _only(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    return [key for key in old if key not in new]


def _same(old: Any, new: Any) -> bool:
    if type(old) is not type(new):
        return False
    if isinstance(old, float):
        return math.isclose(old, new, rel_tol=RELATIVE, abs_tol=ABSOLUTE)
    return same_words(old, new) if isinstance(old, str) else bool(old == new)


def same_words(old: str, new: str) -> bool:
    """Whether two lines say the same, up to blanks, the length of rules and the numbers' last digits."""
    if old == new:
        return True
    pairs = zip(NUMBER.findall(old), NUMBER.findall(new), strict=False)
    return _words(old) == _words(new) and all(_close(before, after) for before, after in pairs)


def _words(line: str) -> str:
    return " ".join(re.sub("─+", "─", NUMBER.sub("#", line)).split())


def _close(old: str, new: str) -> bool:
    before, after = (float(text.replace(",", "").replace("−", "-")) for text in (old, new))
    # A count is no rounded number: 15 of 16 is not 16 of 16.
    last = max(map(_last_digit, (old, new))) if {"e", "."} & set(old + new) else 0.0
    return abs(after - before) <= max(RELATIVE * abs(before), 1.001 * last)


def _last_digit(text: str) -> float:
    mantissa, _, exponent = text.partition("e")
    return 10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2]))


def _adopted(old: list[str], new: list[str]) -> list[str]:
    """The new lines, those that say the same as an old one in its place spelled like it."""
    adopted = list(new)
    matcher = difflib.SequenceMatcher(None, list(map(_words, old)), list(map(_words, new)), autojunk=False)
    for i, j, size in matcher.get_matching_blocks():
        for k in range(size):
            if same_words(old[i + k], new[j + k]):
                adopted[j + k] = old[i + k]
    return adopted


def _lines(text: str) -> list[str]:
    found = []
    for line in text.split("\n"):
        found += line.split(",") if len(line) > WIDE else [line]
    return found


def _diff(title: str, old: list[str], new: list[str]) -> list[str]:
    return [line.rstrip("\n") for line in difflib.unified_diff(old, new, title, title, n=2)]
