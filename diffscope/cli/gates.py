"""`--fail-if EXPR`: conditions under which a shell script should stop.

KEY OP NUMBER   on a row, with OP one of > >= < <= == !=
window==none    no layer has a U
onset           (track) ICR has turned
change>2%       (compare) worse by more than 2 %, and significantly so for all rows together; change<-2% likewise
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from diffscope.errors import DiffscopeError, GateHeld, UsageError
from diffscope.results import VARIED, OnsetRow

_OPERATORS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge, "<=": operator.le, "==": operator.eq, "!=": operator.ne, ">": operator.gt, "<": operator.lt,
}  # fmt: skip
_FORM = re.compile(r"\s*([A-Za-z_]\w*)\s*(>=|<=|==|!=|>|<)\s*([-+]?[\d.]+(?:[eE][-+]?\d+)?)\s*(%?)\s*")


LEVELS = ("sigma", "t", "low", "high", "practical_low", "practical_high", "lowest_sigma")
"""Keys of windows that are noise levels themselves, and at none."""


@dataclass(frozen=True)
class Gate:
    """One condition of `--fail-if`."""

    text: str
    key: str
    op: str
    number: float
    """A percentage is already divided by 100."""

    def holds(self, value: float) -> bool:
        """Whether the condition is true of a value."""
        return _OPERATORS[self.op](value, self.number)


def parse(text: str, keys: Collection[str], percent: bool = False) -> Gate:
    """UsageError where the expression has another form or its key is none of `keys`."""
    if re.fullmatch(r"\s*window\s*==\s*none\s*", text) and "window" in keys:
        return Gate(text, "window", "==", 0.0)
    if text.strip() == "onset" and "onset" in keys:
        return Gate(text, "onset", "==", 1.0)
    match = _FORM.fullmatch(text)
    if not match or (match[4] and not percent):
        raise UsageError(f"--fail-if '{text}': expected KEY OP NUMBER with OP one of > >= < <= == !=")
    if match[1] not in keys or match[1] in ("window", "onset"):
        close = get_close_matches(match[1], keys)
        found = f"no key '{match[1]}'" + (f", close: {', '.join(close)}" if close else "")
        raise UsageError(f"--fail-if '{text}': {found}; one of {', '.join(sorted(keys))}")
    try:
        number = float(match[3])
    except ValueError:
        raise UsageError(f"--fail-if '{text}': '{match[3]}' is not a number") from None
    return Gate(text, match[1], match[2], number / 100 if match[4] else number)


def check(gates: Sequence[Gate], records: Sequence[Mapping[str, Any]], onset: Sequence[OnsetRow] = ()) -> None:
    """Raise GateHeld with a line for every gate that holds; DiffscopeError where a value is null: it passes no gate."""
    held, nulls = [], []
    for gate in gates:
        if gate.key == "window":
            if all(record.get("shape") != "u" for record in records):
                held.append("--fail-if window==none: no layer has a semantic window")
            continue
        if gate.key == "onset":
            turned = [row for row in onset if row.state == "turned"]
            held += [f"--fail-if onset: {_series(row)}: keep {row.keep}" for row in turned]
            continue
        for record in records:
            at, value = _place(gate.key, record), record.get(gate.key)
            if value is None or isinstance(value, (str, list)):
                found = "null" if value is None else repr(value)
                nulls.append(f"--fail-if {gate.text}: {gate.key} of {at} is {found}")
            elif gate.holds(value) and (gate.key != "change" or record["significant"]):
                held.append(f"--fail-if {gate.text}: {gate.key} of {at} is {_shown(gate, value)}")
    if nulls:
        raise DiffscopeError("; ".join(nulls) + "; a gate needs a number")
    if held:
        raise GateHeld(held)


def _series(row: OnsetRow) -> str:
    if row.layer is None or row.sigma is None:
        return f"the alarm fired at step {row.fired_at}"
    return f"{row.layer} at sigma {row.sigma:.4g}"


def _place(key: str, record: Mapping[str, Any]) -> str:
    """What a row is of. The ICR of a window is that of the lowest level measured, not of the one recommended."""
    sigma = (record.get("lowest_sigma") if key == "icr" else None) or record.get("sigma")
    at = str(record.get("layer", ""))
    if sigma and key not in LEVELS:
        at += f" at sigma {sigma:.4g}"
    return at + "".join(f" ({name} {record[name]})" for name in VARIED if record.get(name) is not None)


def _shown(gate: Gate, value: float) -> str:
    """Four digits, or as many as it takes for the gate to hold of what is shown."""
    if isinstance(value, int):
        return str(value)
    return next((text for digits in range(4, 17) if gate.holds(float(text := f"{value:.{digits}g}"))), repr(value))
