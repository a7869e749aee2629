"""A result of what was measured, a record of what was found out, and the files that hold them."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from diffscope.errors import DataError
from diffscope.names import in_json
from diffscope.results.rows import Row
from diffscope.results.sections import (
    SECTIONS,
    Alarm,
    OnsetRow,
    Overlay,
    ProbeRow,
    SegmentationRow,
    WindowRow,
    is_number,
    plain,
    read,
)
from diffscope.results.shown import Shown
from diffscope.textfile import read_text

SCHEMA = 1
RESULT = "result.json"
EXPECTED = f"expected a {RESULT} of diffscope, or its folder, as a command with --out DIR writes it"


@dataclass(frozen=True, repr=False)
class Result(Shown):
    """Everything that one command measured, with what the numbers depend on."""

    version: str
    command: str
    checkpoint: Mapping[str, Any]
    data: Mapping[str, Any]
    protocol: Mapping[str, Any]
    rows: tuple[Row, ...]
    sections: Mapping[str, Any] = field(default_factory=dict)
    """What this command has beside rows, by the keys of `result.json` and in their order: records, or a word that says
    what kind of result this is and stands beside the command."""
    timing: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    pictures: Any = field(default=None, compare=False)
    """Arrays that the command's figures need and JSON does not hold; None in a result that was read from a file."""

    @property
    def window(self) -> tuple[WindowRow, ...]:
        """The verdict on each layer, of what measured enough noise levels."""
        return tuple(self.sections.get("window", ()))

    @property
    def onset(self) -> tuple[OnsetRow, ...]:
        """The verdict on each series of a training run."""
        return tuple(self.sections.get("onset", ()))

    @property
    def alarm(self) -> Alarm | None:
        """What the alarm over a training run rests on; None where each series was judged alone."""
        found: tuple[Alarm, ...] = tuple(self.sections.get("alarm", ()))
        return found[0] if found else None

    @property
    def shown_rows(self) -> tuple[Row, ...]:
        """The rows; where the alarm judges all layers and levels together, one for each snapshot instead."""
        if self.alarm is None:
            return self.rows
        paths = {row.step: row.checkpoint for row in self.rows}
        losses = [limit.quantity for limit in self.alarm.limits if limit.quantity != "icr"]
        return tuple(
            Row(
                vars(point) | dict.fromkeys(losses, point.loss),
                checkpoint=paths[point.step],
                layer=None,
                sigma=None,
                notes=(),
            )
            for point in self.alarm.points
        )

    @property
    def overlay(self) -> tuple[Overlay, ...]:
        """The user's own columns of a training run."""
        return tuple(self.sections.get("overlay", ()))

    @property
    def probe(self) -> tuple[ProbeRow, ...]:
        """Of each layer, how far the probe's best level is from that of lowest ICR."""
        return tuple(self.sections.get("probe", ()))

    @property
    def segmentation(self) -> tuple[SegmentationRow, ...]:
        """Of each input, where a probe of pixels is best."""
        return tuple(self.sections.get("segmentation", ()))

    @property
    def checkpoints(self) -> tuple[Mapping[str, Any], ...]:
        """Of a series: path, sha256, step of each, in order; `why` where one was left out."""
        return tuple(self.sections.get("checkpoints", ()))

    @property
    def accuracy(self) -> Mapping[str, Any] | None:
        """Of what spent images until an accuracy was reached, what that came to.

        What was `asked` (relative), whether it was `reached`, the `reason` to end, and the `looks` (images). Of a sweep
        also `passes` of `passes_full`, and of each layer the lowest level's `sigma`, `icr`, `icr_low`, `icr_high` (95 %
        over all looks), `images` and `reached`; of a track the `images` that every snapshot was given.
        """
        found: Mapping[str, Any] | None = self.sections.get("accuracy")
        return found

    @property
    def varied(self) -> str | None:
        """One of VARIED, where the result holds several measurements that differ in it; the protocol lists them."""
        found: str | None = self.sections.get("varied")
        return found

    def having(self, **sections: Any) -> Result:
        """The same result with other or further sections."""
        return replace(self, sections={**self.sections, **sections})

    def to_json(self) -> dict[str, Any]:
        """The contents of `result.json`."""
        words = {name: section for name, section in self.sections.items() if isinstance(section, str)}
        return {
            "diffscope": self.version,
            "schema": SCHEMA,
            "command": self.command,
            **words,
            "checkpoint": dict(self.checkpoint),
            "data": dict(self.data),
            "protocol": dict(self.protocol),
            "rows": [row.to_json() for row in self.rows],
            **{name: plain(section) for name, section in self.sections.items() if name not in words},
            "warnings": list(self.warnings),
            "timing": dict(self.timing),
        }

    @staticmethod
    def from_json(record: Mapping[str, Any]) -> Result:
        """What `to_json` wrote; KeyError, TypeError and their like where it is something else."""
        known = ("diffscope", "schema", "command", "checkpoint", "data", "protocol", "rows", "warnings", "timing")
        return Result(
            version=record["diffscope"],
            command=record["command"],
            checkpoint=record["checkpoint"],
            data=record["data"],
            protocol=record["protocol"],
            rows=tuple(map(Row, record["rows"])),
            sections={name: _section(name, value) for name, value in record.items() if name not in known},
            timing=record["timing"],
            warnings=tuple(record.get("warnings", ())),
        )


def _section(name: str, value: Any) -> Any:
    if name in SECTIONS:
        return tuple(read(SECTIONS[name], record) for record in value)
    return tuple(value) if isinstance(value, list) else value


class Record(Shown, Mapping[str, Any]):
    """What a command found out that has no protocol: a mapping, the document that its `--json` prints."""

    def __init__(self, command: str, content: Mapping[str, Any]) -> None:
        self.command = command
        self._content = dict(content)

    def __getitem__(self, key: str) -> Any:
        return self._content[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._content)

    def __len__(self) -> int:
        return len(self._content)

    def to_json(self) -> dict[str, Any]:
        """The document itself."""
        return dict(self._content)


# --- files


def dumps(shown: Shown) -> str:
    """The text of `result.json`; a number that is not finite is our mistake and raises."""
    return in_json(json.dumps(shown.to_json(), indent=2, allow_nan=False, ensure_ascii=False)) + "\n"


def read_result(path: str | Path) -> Result:
    """The `result.json` of a command that measures, or that in a folder.

    Args:
        path: The file or its folder.

    Raises:
        DataError: It is none, in one line.
    """
    record = read_record(str(path))
    try:
        result = Result.from_json(record)
        _check_kinds(result)
        return result
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
        raise DataError(f"{path}: a result with a missing or unknown part ({error}); measure again") from None


def _check_kinds(result: Result) -> None:
    """TypeError where a part that others count on is of another kind, as in a file that was damaged or edited."""
    heads = (result.checkpoint, result.data, result.protocol)
    if not (all(isinstance(head, dict) for head in heads) and isinstance(result.data["skipped"], list)):
        raise TypeError("checkpoint, data or protocol")
    for row in result.rows if "window" in result.sections else ():
        numbers = [row.sigma, row.t, row.n, row.d, *(() if row["icr"] is None else (row["icr"],))]
        texts = all(isinstance(text, str) for text in (row.layer, *row["notes"]))
        if (
            not texts
            or not all(is_number(value) for value in (*numbers, *(row["replicates"] or ())))
            or (row["icr"] or 1) <= 0
        ):
            raise TypeError("layer, notes, sigma, t, n, d, icr or replicates")


def read_record(path: str, needed: Collection[str] = ("diffscope", "rows")) -> dict[str, Any]:
    """The contents of any command's `result.json`, or of that in a folder; DataError in one line without one.

    Args:
        path: The file or its folder.
        needed: Keys without which it is none of those that are meant.
    """
    if Path(path).is_dir():
        path = str(Path(path) / RESULT)
    try:
        record = json.loads(read_text(path, piped=True))
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}; {EXPECTED}") from None
    except (ValueError, RecursionError):
        raise DataError(f"{path}: not JSON; {EXPECTED}") from None
    if not isinstance(record, dict) or not set(needed) <= record.keys():
        named = " and ".join(map(repr, needed))
        raise DataError(f"{path}: JSON, but not a result of diffscope (no {named} in it)")
    if record.get("schema") != SCHEMA:
        raise DataError(f"{path}: schema {record.get('schema')}, this version reads {SCHEMA}; measure again")
    return record


def finite(value: float | None) -> float | None:
    """None for what JSON cannot say: infinite limits of a noise range, for example."""
    return value if value is not None and math.isfinite(value) else None
