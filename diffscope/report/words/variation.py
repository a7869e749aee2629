"""A measurement under several augmentations, or from several numbers of images, in words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import geometric_mean

from diffscope.report.text import NULL, TOLD, best_first, by_layer, interval, lowest, number, percent, share
from diffscope.report.words import window as verdict
from diffscope.results import Result, Row, WindowRow

HEADING = {"augment": "augmentation", "num_images": "images"}
"""Of the column that says which member a row is of."""
NAMES = {"augment": "augmentations", "num_images": "numbers of images"}


def member(record: Row | WindowRow) -> str:
    """Which augmentation, as the command line spells it, or how many images."""
    return record.augment or f"{record.num_images:,}"


def members(result: Result) -> list[str]:
    """In the order in which they were measured: the longer chain, and the larger number, last."""
    return list(dict.fromkeys(member(row) for row in result.rows))


def short(name: str) -> str:
    """What an augmentation adds to the one before it: `+ flip` of `crop+flip`; numbers as they are."""
    head, _, last = name.rpartition("+")
    return f"+ {last}" if head else last


def of_member(records: Sequence[Row], name: str) -> list[Row]:
    """The rows of one augmentation, or of one number of images."""
    return [row for row in records if member(row) == name]


def is_curve(result: Result) -> bool:
    """Whether there are several noise levels of a sweep; else each series is one of members, not of levels."""
    return result.command == "sweep" and any(len({row.sigma for row in g}) > 1 for g in by_layer(result.rows).values())


def series(rows: Sequence[Row]) -> dict[tuple[str, float], list[Row]]:
    """Rows of each layer and noise level, in the order of the members."""
    groups: dict[tuple[str, float], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.layer, row.sigma), []).append(row)
    return groups


def level_of(rows: Sequence[Row]) -> float:
    """Of one layer: the noise level of lowest ICR in the last member that has any."""
    last = {member(row): row for row in rows if row.get("icr") is not None}
    best = None if not last else lowest(of_member(rows, list(last)[-1]))
    return rows[0].sigma if best is None else best.sigma


# --- in words


def paragraphs(result: Result) -> list[tuple[str, str]]:
    """Heading and text, of each layer for a sweep, of each layer and level else; of many the best few."""
    if is_curve(result):
        layers = by_layer(result.rows)
        told = list(layers) if len(layers) <= TOLD else best_first(layers)[:TOLD]
        return [(f"{layer}:", " ".join(_of_layer(result, layer, layers[layer]))) for layer in told]
    groups = {f"{layer}, σ = {number(sigma)}": rows for (layer, sigma), rows in series(result.rows).items()}
    told = list(groups) if len(groups) <= TOLD else best_first(groups)[:TOLD]
    return [(f"{name}:", " ".join(_of_series(result, groups[name]))) for name in told]


def _of_layer(result: Result, layer: str, rows: Sequence[Row]) -> list[str]:
    windows = {member(window): window for window in result.window if window.layer == layer}
    found = {name: window for name, window in windows.items() if window.shape == "u" and window.sigma is not None}
    others = {name: window for name, window in windows.items() if name not in found}
    counted = f"{len(found)} of {len(windows)}" if found else f"None of {len(windows)}"
    listed = "; ".join(f"{name} {_window(window)}" for name, window in found.items())
    told = [f"{counted} {NAMES[result.varied or '']} have a semantic window{f': {listed}' if found else ''}."]
    if others:
        told.append(f"Not so {'; '.join(f'{name}: {_without(window)}' for name, window in others.items())}.")
    if len(found) > 1:
        told.append(_agreement({name: window.sigma or 0.0 for name, window in found.items()}, rows))
    if result.varied == "num_images":
        at = level_of(rows)
        told += _convergence([row for row in rows if row.sigma == at], f"At σ = {number(at)}, from")
    return told


def _window(window: WindowRow) -> str:
    give = [] if window.sigma_error is None else [verdict.how_sure(window)]
    reach = [] if window.low is None else [f"window {_reach(window)}"]
    about = ", ".join([*give, *reach])
    return f"at σ = {number(window.sigma)}{f' ({about})' if about else ''}"


def _reach(window: WindowRow) -> str:
    low, high = number(window.low), number(window.high)
    return low if low == high else f"{low} to {high}"


def _without(window: WindowRow) -> str:
    return "no ICR" if window.icr is None else verdict.HEADLINE[verdict.shape(window)]


def _agreement(recommended: Mapping[str, float], rows: Sequence[Row]) -> str:
    """How far apart the recommended levels are, in steps of the grid: finer than that no level is known."""
    levels = sorted({row.sigma for row in rows})
    least, most = (ends(recommended, key=lambda name: recommended[name]) for ends in (min, max))
    apart = _position(levels, recommended[most]) - _position(levels, recommended[least])
    step = geometric_mean([after / before for before, after in pairwise(levels)])
    grid = f"a step is a factor of {number(step)}"
    if apart <= 1:
        return f"The recommended levels agree within {apart:.2g} steps of σ ({grid})."
    return (
        f"The recommended levels do not agree: they lie {apart:.2g} steps of σ apart ({grid}), "
        f"{number(recommended[least])} for {least}, {number(recommended[most])} for {most}."
    )


def _position(levels: Sequence[float], sigma: float) -> float:
    """Where a level stands on the grid, between two of it by its logarithm."""
    for i, (low, high) in enumerate(pairwise(levels)):
        if sigma <= high:
            return i + max(0.0, math.log(sigma / low) / math.log(high / low))
    return len(levels) - 1.0


def _of_series(result: Result, rows: Sequence[Row]) -> list[str]:
    if result.varied == "num_images":
        return _convergence(rows)
    known = [row for row in rows if row.get("icr") is not None]
    if not known:
        return ["No augmentation has an ICR."]
    least, most = (ends(known, key=lambda row: float(row["icr"])) for ends in (min, max))
    return [
        f"ICR is lowest under {member(least)} ({_value(least)}) and highest under {member(most)} ({_value(most)}).",
        "What an augmentation changes counts as contamination: compare results of one augmentation alone.",
    ]


def _value(row: Row) -> str:
    ends = interval(row.get("icr_low"), row.get("icr_high"))
    return share(row["icr"]) if ends == NULL else f"{share(row['icr'])}, 95 % interval {ends}"


def _convergence(rows: Sequence[Row], start: str = "From") -> list[str]:
    """Whether the number of images matters: to the estimate, and to the plug-in value of the paper."""
    known = [row for row in rows if row.get("icr") is not None]
    told = [f"{member(row)} images do not determine ICR." for row in rows if row not in known]
    if len(known) < 2:
        return told or ["No number of images has an ICR."]
    first, last = known[0], known[-1]
    told.append(
        f"{start} {member(first)} to {member(last)} images ICR changes by {percent(last['icr'] / first['icr'] - 1)}, "
        f"the plug-in value (ICR raw) by {percent(last['icr_raw'] / first['icr_raw'] - 1)}."
    )
    outside = [row for row in known[:-1] if not _holds(row, last["icr"])]
    told.append(
        f"ICR at {member(last)} images lies outside the 95 % interval from {', '.join(map(member, outside))}."
        if outside
        else f"Every interval holds ICR at {member(last)} images ({_value(last)})."
    )
    behind = percent(last["icr_raw"] / last["icr"] - 1)
    told.append(
        f"ICR raw lies within its interval there ({behind} against ICR)."
        if _holds(last, last["icr_raw"])
        else f"ICR raw has not converged there: {behind} against ICR."
    )
    return told


def _holds(row: Row, value: float) -> bool:
    """Whether the row's interval does; one without an interval excludes nothing."""
    low, high = row.get("icr_low"), row.get("icr_high")
    return low is None or high is None or low <= value <= high
