"""ICR over noise levels and layers, and the semantic window of each layer; at one level, the same without a window."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from diffscope import __version__
from diffscope.results import Result, Row, WindowRow
from diffscope.studies.description import described_checkpoint, described_data
from diffscope.studies.listener import Listener
from diffscope.studies.measurement import Measured, measure
from diffscope.studies.self_check import self_checked
from diffscope.studies.settings import Job
from diffscope.studies.window import semantic_window


def sweep(
    job: Job, command: str = "sweep", listener: Listener | None = None, folder: Path | None = None, check: bool = False
) -> tuple[Result, Measured]:
    """The result and what stands behind it; clear `Measured.parts` once the result is safe.

    `check` adds ICR from half of the images to every row (`studies/self_check.py`).
    """
    measured = measure(job, listener, folder, beside=partial(self_checked, job.settings.reduce) if check else None)
    rows = measured.rows
    result = Result(
        version=__version__,
        command=command,
        checkpoint=described_checkpoint(job),
        data=described_data(job, measured.used, measured.skipped),
        protocol=measured.protocol.to_json(),
        rows=rows,
        window=windows(job.denoiser.noise.to_native, rows) if command == "sweep" else (),
        timing=measured.timing,
        warnings=job.denoiser.warnings,
    )
    return result, measured


def windows(to_native: Callable[[float], float], rows: Sequence[Row]) -> tuple[WindowRow, ...]:
    """One window for each layer, in the order of the rows; `to_native` is the noise convention's."""
    names = dict.fromkeys(row.layer for row in rows)
    return tuple(_window(to_native, name, [row for row in rows if row.layer == name]) for name in names)


def _window(to_native: Callable[[float], float], name: str, rows: Sequence[Row]) -> WindowRow:
    known = [row for row in rows if row["icr"] is not None and row["replicates"] is not None]
    if not known:
        return WindowRow(name, None, None, None, None, None, notes=("no_levels: no noise level has an ICR",))
    skipped = [f"{row.sigma:.4g}" for row in rows if row not in known]
    found = semantic_window(
        [row.sigma for row in known],
        [row["icr"] for row in known],
        np.transpose([row["replicates"] for row in known]),
    )
    notes = found.notes
    if skipped:
        notes = (f"levels_skipped: no ICR with replicates at sigma = {', '.join(skipped)}", *notes)
    best = found.sigma if found.sigma is not None else found.minimum
    low, high = found.practical or (None, None)
    return WindowRow(
        layer=name,
        shape=found.shape,
        sigma=best,
        low=found.low,
        high=found.high,
        icr=found.icr,
        t=None if best is None else to_native(best),
        sigma_error=found.sigma_se,
        practical_low=low,
        practical_high=high,
        notes=notes,
    )
