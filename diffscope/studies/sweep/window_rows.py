"""Semantic windows as they stand in a result, one for each layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from diffscope.results import FEW_FEATURES, Row, WindowRow
from diffscope.studies.sweep.window import Window, semantic_window


def windows(to_native: Callable[[float], float], rows: Sequence[Row]) -> tuple[WindowRow, ...]:
    """One window for each layer, in the order of the rows; `to_native` is the noise convention's."""
    names = dict.fromkeys(row.layer for row in rows)
    return tuple(_window(to_native, name, [row for row in rows if row.layer == name]) for name in names)


def _window(to_native: Callable[[float], float], name: str, rows: Sequence[Row]) -> WindowRow:
    known = [row for row in rows if row["icr"] is not None and row["replicates"] is not None]
    if not known:
        return no_window(name)
    skipped = [f"{row.sigma:.4g}" for row in rows if row not in known]
    found = semantic_window(
        [row.sigma for row in known],
        [row["icr"] for row in known],
        np.transpose([row["replicates"] for row in known]),
    )
    notes = [f"levels_skipped: no ICR with replicates at sigma = {', '.join(skipped)}"] if skipped else []
    return window_row(to_native, known[0], found, notes)


def no_window(layer: str) -> WindowRow:
    """Of a layer without any ICR."""
    return WindowRow(layer, None, None, None, None, None, notes=("no_levels: no noise level has an ICR",))


def window_row(to_native: Callable[[float], float], row: Row, found: Window, notes: Sequence[str] = ()) -> WindowRow:
    """The window of a row's layer as it stands in a result, `notes` before its own.

    Where the layer is not one to be ranked, no level of it is recommended.
    """
    recommended = found.sigma if row.is_ranked else None
    best = found.minimum if recommended is None else recommended
    low, high = found.practical or (None, None)
    few = [note for note in row.notes if note.startswith(f"{FEW_FEATURES}:")]
    return WindowRow(
        layer=row.layer,
        shape=found.shape,
        sigma=best,
        low=found.low,
        high=found.high,
        icr=found.icr,
        t=None if best is None else to_native(best),
        sigma_error=None if recommended is None else found.sigma_se,
        practical_low=low,
        practical_high=high,
        lowest_sigma=found.minimum,
        near=found.near,
        notes=(*few, *notes, *found.notes),
    )
