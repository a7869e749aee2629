"""What rows and verdicts say of a segmentation, from what was got right of the test images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from diffscope.numerics import student_quantile
from diffscope.results import SegmentationRow
from diffscope.studies.probe.classifiers import MAX_STEPS
from diffscope.studies.probe.overlap import Overlap, difference
from diffscope.studies.probe.segmentation_plan import Segmentation
from diffscope.studies.sweep.recommended import ALPHA

MEANS = ("miou", "pixel_accuracy")
MOST_CLASSES = 255
GAIN = ("clean_gain", "clean_gain_low", "clean_gain_high")
"""Of clean input beside noisy at one level, with its paired interval."""


def row_keys(*, both: bool = False) -> tuple[str, ...]:
    """Keys that a condition may name, of whatever number of classes."""
    own = [f"{name}{end}" for name in MEANS for end in ("", "_se", "_low", "_high")]
    own += [f"iou_{k}{end}" for k in range(MOST_CLASSES) for end in ("", "_low", "_high")]
    found = [f"{prefix}{key}" for prefix in ("", *(["clean_"] if both else [])) for key in own]
    return (*found, *(GAIN if both else ()))


def level_values(found: Overlap) -> tuple[dict[str, float | None], list[str]]:
    """mIoU, the share of pixels and the IoU of each class, with their intervals; and notes on what is null."""
    values: dict[str, float | None] = {}
    for name, of in zip(MEANS, (found.mean(), found.accuracy()), strict=True):
        values |= {name: of.value, f"{name}_se": of.se, f"{name}_low": of.low, f"{name}_high": of.high}
    notes = [] if found.images > 1 else ["one_image: of one test image there is no interval; take more images"]
    absent, alone = list[int](), list[int]()
    for k in range(len(found.present)):
        one = found.of_class(k)
        if one is None:
            absent.append(k)
        elif one.low is None and found.images > 1:
            alone.append(k)
        ends = (None, None, None) if one is None else (one.value, one.low, one.high)
        values |= dict(zip((f"iou_{k}", f"iou_{k}_low", f"iou_{k}_high"), ends, strict=True))
    if absent:
        notes.append(f"absent: no test image has class {_listed(absent)}; it has no IoU and is not in the mean")
    if alone:
        notes.append(f"alone: one test image has class {_listed(alone)}; its IoU has no interval")
    return values, notes


def notes_of(of: Segmentation, labels: NDArray[np.uint8], converged: bool) -> list[str]:
    """What to know of a head and the pixels that it was trained on."""
    notes = [] if converged else [f"not_converged: the head's solver stopped after {MAX_STEPS} steps"]
    missing = np.setdiff1d(np.arange(of.masks.classes), labels)
    if len(missing):
        which = _listed(missing.tolist())
        notes.append(f"untrained: no training pixel is of class {which}; it is never predicted: take more of them")
    return notes


def _listed(classes: Sequence[int]) -> str:
    return ", ".join(map(str, classes[:5])) + (" …" if len(classes) > 5 else "")


def segmentation_rows(of: Segmentation, overlaps: Mapping[str, Sequence[Overlap]]) -> Iterator[SegmentationRow]:
    """For each input its best level, and by how much clean input is better there than noisy input at its own best."""
    first: Overlap | None = None
    for kind in of.kinds:
        levels = overlaps[kind.prefix]
        best = int(np.argmax([level.mean().value for level in levels]))
        low, high = _indistinguishable(levels, best)
        mean = levels[best].mean()
        more, more_low, more_high = (None, None, None) if first is None else gain(levels[best], first)
        first = first or levels[best]
        yield SegmentationRow(
            layer=of.layer,
            input=kind.job.plan.input,
            sigma=of.job.levels[best].sigma,
            t=of.job.levels[best].t,
            miou=mean.value,
            miou_low=mean.low,
            miou_high=mean.high,
            low=of.job.levels[low].sigma,
            high=of.job.levels[high].sigma,
            gain=more,
            gain_low=more_low,
            gain_high=more_high,
        )


def gain(clean: Overlap, noisy: Overlap) -> tuple[float, float | None, float | None]:
    """By how much mIoU of clean input is higher, with the paired 95 % interval."""
    value, se, _ = difference(clean, noisy)
    if se is None:
        return value, None, None
    reach = student_quantile(0.975, clean.images - 1) * se
    return value, value - reach, value + reach


def _indistinguishable(levels: Sequence[Overlap], best: int) -> tuple[int, int]:
    """The run of levels around the best that a paired test, at α divided by the comparisons, cannot tell from it."""
    bound = ALPHA / max(1, len(levels) - 1)
    inside = [difference(levels[best], other)[2] > bound for other in levels]
    low = high = best
    while low > 0 and inside[low - 1]:
        low -= 1
    while high < len(levels) - 1 and inside[high + 1]:
        high += 1
    return low, high
