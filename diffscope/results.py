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
from diffscope.names import in_json
from diffscope.textfile import read_text

SCHEMA = 1
RESULT = "result.json"
EXPECTED = f"expected a {RESULT} of diffscope, or its folder, as a command with --out DIR writes it"
FEW_FEATURES = "few_features"
"""Code of the note on a layer that is not ranked."""


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
    checkpoint: str | None = None
    """The path, in a result of several checkpoints."""
    step: int | None = None
    """How far training was, there."""
    augment: str | None = None
    """In a result of several augmentations."""
    num_images: int | None = None
    """In a result of several numbers of images: how many were asked for."""

    @property
    def is_ranked(self) -> bool:
        """Whether its layer has enough features to be ranked among layers."""
        return not any(note.startswith(f"{FEW_FEATURES}:") for note in self.notes)

    def __getitem__(self, key: str) -> Any:
        return getattr(self, key) if key in _ROW_FIELDS else self.values[key]

    def to_json(self) -> dict[str, Any]:
        snapshot = {} if self.checkpoint is None else {"checkpoint": self.checkpoint, "step": self.step}
        requested = {} if self.sigma_requested is None else {"sigma_requested": self.sigma_requested}
        snapshot |= _member(self)
        head = {"layer": self.layer, "sigma": self.sigma, **requested, "t": self.t, "n": self.n, "d": self.d}
        return {**snapshot, **head, **self.values, "notes": list(self.notes)}

    @staticmethod
    def from_json(record: Mapping[str, Any]) -> Row:
        head = {key: record[key] for key in _ROW_FIELDS if key in record}
        values = {key: value for key, value in record.items() if key not in {*_ROW_FIELDS, "notes"}}
        return Row(**head, values=values, notes=tuple(record["notes"]))


_ROW_FIELDS = ("layer", "sigma", "sigma_requested", "t", "n", "d", "checkpoint", "step", "augment", "num_images")


@dataclass(frozen=True)
class WindowRow:
    """The semantic window of one layer."""

    layer: str
    shape: str | None
    """"u", "rising", "falling", "flat", or None where one end is not distinguishable from the minimum."""
    sigma: float | None
    """Recommended noise level of a U, which lies between the levels measured; else the level of lowest ICR."""
    low: float | None
    high: float | None
    """The window: what cannot be distinguished from the best. Its ends, of a U, lie between the levels measured."""
    icr: float | None
    """At the level of lowest ICR."""
    t: float | None = None
    """`sigma` in the model's own noise variable."""
    sigma_error: float | None = None
    """Standard error of log10 sigma, in decades."""
    practical_low: float | None = None
    practical_high: float | None = None
    """Levels whose ICR is within a tenth of the curve's depth of the minimum."""
    lowest_sigma: float | None = None
    """The level measured at which ICR is lowest."""
    near: tuple[float, ...] = ()
    """Levels measured that lie in the window, and others whose ICR cannot be distinguished from the lowest."""
    notes: tuple[str, ...] = ()
    augment: str | None = None
    """In a result of several augmentations."""
    num_images: int | None = None
    """In a result of several numbers of images."""

    @property
    def is_ranked(self) -> bool:
        """Whether the layer has enough features to be ranked among layers, and a level of it to be recommended."""
        return not any(note.startswith(f"{FEW_FEATURES}:") for note in self.notes)

    def to_json(self) -> dict[str, Any]:
        fields = {key: value for key, value in asdict(self).items() if key not in VARIED}
        return {**_member(self), **fields, "near": list(self.near), "notes": list(self.notes)}

    @staticmethod
    def from_json(record: Mapping[str, Any]) -> WindowRow:
        lists = {key: tuple(record.get(key, ())) for key in ("near", "notes")}
        return WindowRow(**{**record, **lists})


VARIED = ("augment", "num_images")
"""What one result may hold several of."""


def _member(record: Row | WindowRow) -> dict[str, Any]:
    """Which of them a row is of; nothing in a result of one."""
    return {key: value for key in VARIED if (value := getattr(record, key)) is not None}


@dataclass(frozen=True)
class Minimum:
    """Where ICR was lowest in a training run."""

    step: int
    icr: float
    low_step: int
    high_step: int
    """Snapshots that cannot be distinguished from the lowest: from low_step to high_step."""


@dataclass(frozen=True)
class OnsetRow:
    """What one layer at one noise level says of a training run (`studies/track/onset.py`)."""

    layer: str
    sigma: float
    state: str
    """"turned", "falling", "flat" or "unclear"."""
    minimum: Minimum | None
    fired_at: int | None
    """Step at which the rule fired; None where it did not."""
    rise: float | None
    """Of ICR from the checkpoint to keep to the last one, relative; with its paired 95 % interval."""
    rise_low: float | None
    rise_high: float | None
    keep: str | None
    """Path of the checkpoint to keep."""
    keep_step: int | None
    rule: str
    """The preset: "long" or "short"."""
    fluctuation: float | None
    """Relative scatter of ICR from snapshot to snapshot, of which no error over images knows."""
    false_alarms: float | None
    """Share of runs that only flatten out in which the rule fires, at this fluctuation: in runs of 100 snapshots for
    the long preset, of 20 for the short one; None where it has not been simulated."""
    images_needed: int | None
    """Of an unclear state: how many images would decide."""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class OverlayAgainst:
    """A column of `--overlay` against ICR of one layer at one noise level."""

    layer: str
    sigma: float
    n: int
    """Snapshots that have both."""
    rank_correlation: float | None
    """Spearman's; None where fewer than three snapshots have both or one of the two is constant."""
    lead: int | None
    """Snapshots by which ICR's turn comes earlier than the column's; negative: later."""


@dataclass(frozen=True)
class Overlay:
    """A column of numbers that the user has of the same run: FID, a memorization ratio."""

    column: str
    points: tuple[tuple[int, float], ...]
    """(step, value), by rising step."""
    turn_step: int | None
    """Of its minimum, the last one where it is reached several times in a row; None where that is its first or last
    point."""
    against: tuple[OverlayAgainst, ...]
    low: tuple[tuple[int, float], ...] = ()
    high: tuple[tuple[int, float], ...] = ()
    """Ends of an interval, from columns of the same name with _low and _high."""


@dataclass(frozen=True)
class ProbeRow:
    """Where the probe of one layer is best over noise levels, and how far from there ICR is lowest."""

    layer: str
    sigma: float
    """Level of the best accuracy."""
    t: float
    accuracy: float
    low: float
    high: float
    """Levels whose accuracy cannot be told from the best on the same test images: from low to high."""
    icr_sigma: float | None
    """Level that ICR recommends."""
    steps: int | None
    """Levels of the grid from the best accuracy to the lowest ICR; negative: ICR is lowest at less noise."""
    decades: float | None
    """log10(icr_sigma / sigma)."""
    rank_correlation: float | None
    """Spearman's, of accuracy and ICR over the levels: −1 where they agree."""
    shortfall: float | None
    """Accuracy at the best level less that at the level of lowest ICR."""
    shortfall_se: float | None
    """Its paired standard error, both being measured on the same test images."""
    csnr_sigma: float | None
    """Level of the highest CSNR."""
    csnr_rank_correlation: float | None
    """Spearman's, of accuracy and CSNR over the levels: 1 where they agree."""
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
    checkpoints: tuple[Mapping[str, Any], ...] = ()
    """Of a series: path, sha256, step of each, in order; `why` where one was left out."""
    onset: tuple[OnsetRow, ...] = ()
    overlay: tuple[Overlay, ...] = ()
    probe: tuple[ProbeRow, ...] = ()
    varied: str | None = None
    """One of VARIED, where the result holds several measurements that differ in it; the protocol lists its values."""
    accuracy: Mapping[str, Any] | None = None
    """Of a sweep that spent images where they decide: what was `asked` (relative), whether it was `reached`, the
    `reason` to end, the `looks` (images), `passes` of `passes_full`, and of each layer the lowest level's `sigma`,
    `icr`, `icr_low`, `icr_high` (95 % over all looks), `images` and `reached`."""

    def to_json(self) -> dict[str, Any]:
        series = {
            "checkpoints": [dict(checkpoint) for checkpoint in self.checkpoints],
            "onset": [{**asdict(row), "notes": list(row.notes)} for row in self.onset],
            "overlay": [asdict(column) for column in self.overlay],
        }
        return {
            "diffscope": self.version,
            "schema": SCHEMA,
            "command": self.command,
            **({} if self.varied is None else {"varied": self.varied}),
            "checkpoint": dict(self.checkpoint),
            "data": dict(self.data),
            "protocol": dict(self.protocol),
            "rows": [row.to_json() for row in self.rows],
            "window": [window.to_json() for window in self.window],
            **({} if self.accuracy is None else {"accuracy": dict(self.accuracy)}),
            **(series if self.checkpoints else {}),
            **({"probe": [{**asdict(row), "notes": list(row.notes)} for row in self.probe]} if self.probe else {}),
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
            window=tuple(WindowRow.from_json(window) for window in record["window"]),
            timing=record["timing"],
            warnings=tuple(record.get("warnings", ())),
            checkpoints=tuple(record.get("checkpoints", ())),
            onset=tuple(_onset_from_json(row) for row in record.get("onset", ())),
            overlay=tuple(_overlay_from_json(column) for column in record.get("overlay", ())),
            probe=tuple(ProbeRow(**{**row, "notes": tuple(row["notes"])}) for row in record.get("probe", ())),
            varied=record.get("varied"),
            accuracy=record.get("accuracy"),
        )


def _onset_from_json(record: Mapping[str, Any]) -> OnsetRow:
    minimum = None if record["minimum"] is None else Minimum(**record["minimum"])
    return OnsetRow(**{**record, "minimum": minimum, "notes": tuple(record["notes"])})


def _overlay_from_json(record: Mapping[str, Any]) -> Overlay:
    points, low, high = (
        tuple((int(step), float(value)) for step, value in record[key]) for key in ("points", "low", "high")
    )
    against = tuple(OverlayAgainst(**entry) for entry in record["against"])
    return Overlay(record["column"], points, record["turn_step"], against, low, high)


@dataclass(frozen=True)
class TableResult:
    """The same of a command whose rows are records of their own: neighbors, memorization."""

    version: str
    command: str
    checkpoint: Mapping[str, Any]
    data: Mapping[str, Any]
    protocol: Mapping[str, Any]
    rows: tuple[Mapping[str, Any], ...]
    """Plain JSON, all with the same keys."""
    timing: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    more: Mapping[str, Any] = field(default_factory=dict)
    """Further keys of `result.json`."""

    def to_json(self) -> dict[str, Any]:
        return {
            "diffscope": self.version,
            "schema": SCHEMA,
            "command": self.command,
            "checkpoint": dict(self.checkpoint),
            "data": dict(self.data),
            "protocol": dict(self.protocol),
            "rows": [dict(row) for row in self.rows],
            **self.more,
            "warnings": list(self.warnings),
            "timing": dict(self.timing),
        }


def dumps(result: Result | TableResult) -> str:
    """The text of `result.json`; a number that is not finite is our mistake and raises."""
    return in_json(json.dumps(result.to_json(), indent=2, allow_nan=False, ensure_ascii=False)) + "\n"


def read_result(path: str) -> Result:
    """A `result.json` of icr, sweep or track; DataError in one line where it is not one."""
    record = read_record(path)
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
    for row in result.rows:
        numbers = [row.sigma, row.t, row.n, row.d, *(() if row["icr"] is None else (row["icr"],))]
        texts = all(isinstance(text, str) for text in (row.layer, *row.notes))
        if (
            not texts
            or not all(_is_number(value) for value in (*numbers, *(row["replicates"] or ())))
            or (row["icr"] or 1) <= 0
        ):
            raise TypeError("layer, notes, sigma, t, n, d, icr or replicates")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def read_record(path: str) -> dict[str, Any]:
    """The contents of any command's `result.json`, or of that in a folder; DataError in one line without one."""
    if Path(path).is_dir():
        path = str(Path(path) / RESULT)
    try:
        record = json.loads(read_text(path, piped=True))
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}; {EXPECTED}") from None
    except (ValueError, RecursionError):
        raise DataError(f"{path}: not JSON; {EXPECTED}") from None
    if not isinstance(record, dict) or not {"diffscope", "rows"} <= record.keys():
        raise DataError(f"{path}: JSON, but not a result of diffscope (no 'diffscope' and 'rows' in it)")
    if record.get("schema") != SCHEMA:
        raise DataError(f"{path}: schema {record.get('schema')}, this version reads {SCHEMA}; measure again")
    return record


def finite(value: float | None) -> float | None:
    """None for what JSON cannot say: infinite limits of a noise range, for example."""
    return value if value is not None and math.isfinite(value) else None
