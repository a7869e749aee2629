"""Semantic windows as they stand in a result, one for each layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from diffscope.results import Row, WindowRow
from diffscope.studies.window import Window, semantic_window


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
    note = f"levels_skipped: no ICR with replicates at sigma = {', '.join(skipped)}"
    return window_row(to_native, name, found, (note,) if skipped else ())


def no_window(layer: str) -> WindowRow:
    return WindowRow(layer, None, None, None, None, None, notes=("no_levels: no noise level has an ICR",))


def window_row(
    to_native: Callable[[float], float], layer: str, found: Window, notes: tuple[str, ...] = ()
) -> WindowRow:
    """A window as it stands in a result, `notes` before its own."""
    best = found.sigma if found.sigma is not None else found.minimum
    low, high = found.practical or (None, None)
    return WindowRow(
        layer=layer,
        shape=found.shape,
        sigma=best,
        low=found.low,
        high=found.high,
        icr=found.icr,
        t=None if best is None else to_native(best),
        sigma_error=found.sigma_se,
        practical_low=low,
        practical_high=high,
        notes=(*notes, *found.notes),
    )
