"""Of a training run's series, by layer and noise level: their names, their steps, the files of their snapshots."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from pathlib import PurePath

from diffscope.report.text import number
from diffscope.results import AlarmCell, OnsetRow, OverlayAgainst, Result, Row

POOLED = "layers and levels pooled"

AXIS = {"images": "training images seen", "steps": "training steps", "epochs": "training epochs"}

ROWS = 30
"""Lines of a table that a reader still reads; of a longer series the first, the last and some between are shown."""
FIRST, LAST = 5, 10


def by_series(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows of each layer and noise level by rising step, named by what tells the series apart."""
    groups: dict[tuple[str | None, float | None], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.layer, row.sigma), []).append(row)
    layers, levels = ({key[i] for key in groups} for i in (0, 1))

    def name(layer: str | None, sigma: float | None) -> str:
        if layer is None or sigma is None:
            return POOLED
        parts = [layer] if len(layers) > 1 or len(groups) == 1 else []
        return ", ".join([*parts, f"σ = {number(sigma)}"] if len(levels) > 1 or len(groups) == 1 else parts)

    return {name(*key): sorted(group, key=step) for key, group in groups.items()}


def shared(rows: Sequence[Row]) -> str:
    """The layer and the noise level, whichever all series have in common."""
    layers, levels = list({row.layer for row in rows}), list({row.sigma for row in rows})
    if layers == [None]:
        return POOLED
    return ", ".join([*layers[: len(layers) == 1], *(f"σ = {number(level)}" for level in levels[: len(levels) == 1])])


def place(of: Row | OnsetRow | OverlayAgainst | AlarmCell) -> str:
    """Layer and noise level, as a heading says them."""
    return POOLED if of.layer is None or of.sigma is None else f"{of.layer}, σ = {number(of.sigma)}"


def onset_of(result: Result, row: Row) -> OnsetRow | None:
    """The verdict on the series that a row belongs to."""
    return next((onset for onset in result.onset if (onset.layer, onset.sigma) == (row.layer, row.sigma)), None)


def step(row: Row) -> int:
    """The step of a row of a series."""
    assert row.step is not None, "a row of a series without its step"
    return row.step


def short(value: float) -> str:
    """A step as axes and titles say it: 92,160 is 92.16 k."""
    for unit, name in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= unit:
            return f"{number(value / unit, 4)} {name}"
    return number(value)


def steps_count(result: Result) -> str:
    """What the steps are a number of, as an axis says it."""
    units = {checkpoint.get("step_unit") for checkpoint in result.checkpoints if "why" not in checkpoint}
    return AXIS.get(units.pop() or "", "training step") if len(units) == 1 else "training step"


def run_name(result: Result) -> str:
    """The folder that holds all snapshots; of a single one its file."""
    paths = [str(checkpoint["path"]) for checkpoint in result.checkpoints]
    if len(paths) < 2:
        return PurePath(*paths).name
    levels = zip(*(PurePath(path).parent.parts for path in paths), strict=False)
    common = [level[0] for level in takewhile(lambda level: len(set(level)) == 1, levels)]
    return common[-1] if common else ""


def file_names(result: Result) -> dict[str, str]:
    """Path of each checkpoint → its file's name, with as many folders as it takes to tell them all apart."""
    parts = {str(checkpoint["path"]): PurePath(str(checkpoint["path"])).parts for checkpoint in result.checkpoints}
    for depth in range(1, 1 + max(map(len, parts.values()), default=0)):
        names = {path: "/".join(split[-depth:]) for path, split in parts.items()}
        if len(set(names.values())) == len(names):
            return names
    return {path: path for path in parts}
