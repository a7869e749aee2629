"""What results have beside rows: records of a section, read and written by their types."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from diffscope.results.rows import has_few_features

LEFT_OUT = {"left out": "where it is None"}
"""Of a field that JSON has only where it says something."""


@dataclass(frozen=True)
class WindowRow:
    """The semantic window of one layer."""

    augment: str | None = field(default=None, kw_only=True, metadata=LEFT_OUT)
    """In a result of several augmentations."""
    num_images: int | None = field(default=None, kw_only=True, metadata=LEFT_OUT)
    """In a result of several numbers of images."""
    step: int | None = field(default=None, kw_only=True, metadata=LEFT_OUT)
    """In a result of several snapshots."""
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

    @property
    def is_ranked(self) -> bool:
        """Whether the layer has enough features to be ranked among layers, and a level of it to be recommended."""
        return not has_few_features(self.notes)


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
    """What one layer at one noise level says of a training run, or all together (`studies/track/onset.py`)."""

    layer: str | None
    """None of all layers and noise levels pooled: ICR is then their geometric mean."""
    sigma: float | None
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
    """"alarm" of all pooled (`studies/track/alarm.py`), else the preset: "long" or "short"."""
    fluctuation: float | None
    """Relative scatter of ICR from snapshot to snapshot, of which no error over images knows."""
    false_alarms: float | None
    """Share of runs that only flatten out in which the rule fires, at this fluctuation: in runs of 100 snapshots for
    the long preset, of 20 for the short one; None where it has not been simulated."""
    images_needed: int | None
    """Of an unclear state: how many images would decide."""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class AlarmLimit:
    """What the rise of one quantity must exceed for the alarm."""

    quantity: str
    """"icr", "loss_views" (on views that training never saw) or "loss_gap" (held-out over training images)."""
    rise: float
    """Relative, above the lowest so far; of the gap, above one."""
    errors: float
    """Standard errors of the paired difference."""


@dataclass(frozen=True)
class AlarmPoint:
    """The alarm's statistic at one snapshot; rises are relative and above the lowest so far."""

    step: int
    icr: float
    """Geometric mean over the cells, with its 95 % interval."""
    icr_low: float
    icr_high: float
    icr_rise: float
    icr_rise_se: float
    """Paired standard error of its logarithm."""
    loss: float | None
    """Of the images that the alarm watches beside ICR, geometric mean over the levels; None where there is none."""
    loss_rise: float | None
    loss_rise_se: float | None
    exceeds: bool
    """Whether every rise exceeds its limit."""


@dataclass(frozen=True)
class AlarmCell:
    """One layer at one noise level, and how far its ICR has risen: where the alarm comes from."""

    layer: str
    sigma: float
    rise: float
    """From the checkpoint to keep to the snapshot at which the alarm fired, else to the last one; relative."""
    rise_se: float
    """Paired standard error of its logarithm."""


@dataclass(frozen=True)
class Alarm:
    """The alarm over a training run, and what it rests on (`studies/track/alarm.py`)."""

    fired_at: int | None
    """Step at which every rise had exceeded its limit for `persist` snapshots in a row; None: not so far."""
    persist: int
    limits: tuple[AlarmLimit, ...]
    false_alarms: float | None
    """Share of simulated runs that only flatten out in which it fires."""
    points: tuple[AlarmPoint, ...]
    """By rising step."""
    cells: tuple[AlarmCell, ...]
    """Those that rose most surely first."""
    passes: float | None
    """Over the training images, up to the last snapshot; None where steps do not count images."""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class OverlayAgainst:
    """A column of `--overlay` against ICR of one layer at one noise level, or of all pooled."""

    layer: str | None
    sigma: float | None
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
    """Ends of an interval, from columns of the same name with _low and _high, else from standard errors with _se."""


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
class SegmentationRow:
    """Where pixels of one input are told apart best over noise levels."""

    layer: str
    """All layers that are concatenated, with + between."""
    input: str
    """"noisy" or "clean"."""
    sigma: float
    """Level of the best mIoU."""
    t: float
    miou: float
    miou_low: float | None
    miou_high: float | None
    """Its 95 % interval over test images; None where there is one."""
    low: float
    high: float
    """Levels whose mIoU cannot be told from the best on the same test images: from low to high."""
    gain: float | None
    """Of clean input beside noisy: its best mIoU less the other's, with the paired 95 % interval."""
    gain_low: float | None
    gain_high: float | None
    notes: tuple[str, ...] = ()


SECTIONS: dict[str, type] = {
    "window": WindowRow,
    "onset": OnsetRow,
    "alarm": Alarm,
    "overlay": Overlay,
    "probe": ProbeRow,
    "segmentation": SegmentationRow,
}
"""Name of a section → what its records are read as; those of others stay as JSON has them."""


def plain(value: Any) -> Any:
    """As JSON says it."""
    if is_dataclass(value):
        said = {f.name: getattr(value, f.name) for f in fields(value)}
        absent = {f.name for f in fields(value) if f.metadata == LEFT_OUT and said[f.name] is None}
        return {name: plain(part) for name, part in said.items() if name not in absent}
    if isinstance(value, Mapping):
        return {key: plain(part) for key, part in value.items()}
    return [plain(part) for part in value] if isinstance(value, (tuple, list)) else value


def read(kind: Any, value: Any) -> Any:
    """What `plain` made of one of that type; TypeError where it is of another."""
    if get_origin(kind) in (Union, UnionType):
        return None if value is None else read(get_args(kind)[0], value)
    if is_dataclass(kind):
        kinds = get_type_hints(kind)
        return kind(**{name: read(kinds[name], part) for name, part in value.items()})  # type: ignore[operator]
    if get_origin(kind) is tuple:
        first, *others = get_args(kind)
        each = [first] * len(value) if others == [...] else [first, *others]
        return tuple(read(kind, part) for kind, part in zip(each, value, strict=True))
    if not (is_number(value) if kind is float else type(value) is kind):
        raise TypeError(f"{value!r:.50} in the place of {kind.__name__}")
    return value


def is_number(value: object) -> bool:
    """Whether it is one that JSON can say."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
