"""The plain records that studies write and reports read; JSON both ways, no torch.

`result.json` is documented in the README; its keys are stable within a `schema`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from diffscope.errors import DataError

SCHEMA = 1


@dataclass(frozen=True)
class Row:
    """One layer at one noise level."""

    layer: str
    sigma: float
    """The noise-to-signal ratio that was used."""
    t: float
    """The same in the model's own noise variable."""
    n: int
    """Images."""
    d: int
    """Features."""
    values: Mapping[str, Any]
    """Metrics by key: numbers, None where one could not be computed, `replicates` and `lambda` as lists."""
    notes: tuple[str, ...] = ()
    """`code: sentence`, why a value is null or to be read with care."""
    sigma_requested: float | None = None
    """Where the model has discrete levels and another one was asked for."""

    def __getitem__(self, key: str) -> Any:
        return getattr(self, key) if key in _ROW_FIELDS else self.values[key]

    def to_json(self) -> dict[str, Any]:
        requested = {} if self.sigma_requested is None else {"sigma_requested": self.sigma_requested}
        head = {"layer": self.layer, "sigma": self.sigma, **requested, "t": self.t, "n": self.n, "d": self.d}
        return {**head, **self.values, "notes": list(self.notes)}

    @staticmethod
    def from_json(record: Mapping[str, Any]) -> Row:
        head = {key: record[key] for key in _ROW_FIELDS if key in record}
        values = {key: value for key, value in record.items() if key not in {*_ROW_FIELDS, "notes"}}
        return Row(**head, values=values, notes=tuple(record["notes"]))


_ROW_FIELDS = ("layer", "sigma", "sigma_requested", "t", "n", "d")


@dataclass(frozen=True)
class WindowRow:
    """The semantic window of one layer."""

    layer: str
    shape: str | None
    """"u", "rising", "falling", "flat", or None where one end is not distinguishable from the minimum."""
    sigma: float | None
    """Recommended noise level: the parabola's vertex for a U, else the level of lowest ICR."""
    low: float | None
    high: float | None
    """Levels that cannot be distinguished from the best: from low to high."""
    icr: float | None
    """At the level of lowest ICR."""
    t: float | None = None
    """`sigma` in the model's own noise variable."""
    sigma_error: float | None = None
    """Standard error of log10 sigma, in decades."""
    practical_low: float | None = None
    practical_high: float | None = None
    """Levels whose ICR is within a tenth of the curve's depth of the minimum."""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Result:
    """Everything that one command measured, with what the numbers depend on."""

    version: str
    command: str
    checkpoint: Mapping[str, Any]
    data: Mapping[str, Any]
    protocol: Mapping[str, Any]
    rows: tuple[Row, ...]
    window: tuple[WindowRow, ...] = ()
    timing: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "diffscope": self.version,
            "schema": SCHEMA,
            "command": self.command,
            "checkpoint": dict(self.checkpoint),
            "data": dict(self.data),
            "protocol": dict(self.protocol),
            "rows": [row.to_json() for row in self.rows],
            "window": [{**asdict(w), "notes": list(w.notes)} for w in self.window],
            "warnings": list(self.warnings),
            "timing": dict(self.timing),
        }

    @staticmethod
    def from_json(record: Mapping[str, Any]) -> Result:
        return Result(
            version=record["diffscope"],
            command=record["command"],
            checkpoint=record["checkpoint"],
            data=record["data"],
            protocol=record["protocol"],
            rows=tuple(Row.from_json(row) for row in record["rows"]),
            window=tuple(WindowRow(**{**w, "notes": tuple(w["notes"])}) for w in record["window"]),
            timing=record["timing"],
            warnings=tuple(record.get("warnings", ())),
        )


def dumps(result: Result) -> str:
    """The text of `result.json`; a number that is not finite is our mistake and raises."""
    return json.dumps(result.to_json(), indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def read_result(path: str) -> Result:
    """A `result.json` written before; DataError in one line where it is not one."""
    try:
        record = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}; expected a result.json of diffscope") from None
    except (ValueError, RecursionError):
        raise DataError(f"{path}: not JSON; expected a result.json of diffscope") from None
    if not isinstance(record, dict) or "diffscope" not in record or "rows" not in record:
        raise DataError(f"{path}: JSON, but not a result of diffscope (no 'diffscope' and 'rows' in it)")
    if record.get("schema") != SCHEMA:
        raise DataError(f"{path}: schema {record.get('schema')}, this version reads {SCHEMA}; measure again")
    try:
        return Result.from_json(record)
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: a result with a missing or unknown part ({error}); measure again") from None


def finite(value: float | None) -> float | None:
    """None for what JSON cannot say: infinite limits of a noise range, for example."""
    return value if value is not None and math.isfinite(value) else None
