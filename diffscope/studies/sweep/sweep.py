"""ICR over noise levels and layers, and the semantic window of each layer; at one level, the same without a window."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from diffscope import __version__
from diffscope.errors import UsageError
from diffscope.measure.description import described_checkpoint, described_data
from diffscope.measure.job import Job
from diffscope.measure.progress import Listener
from diffscope.measure.run import Measured, measure
from diffscope.results import Result
from diffscope.studies.sweep.adaptive import staged_sweep
from diffscope.studies.sweep.options import Accuracy
from diffscope.studies.sweep.split_half import self_checked
from diffscope.studies.sweep.window_rows import windows


def sweep(
    job: Job, command: str = "sweep", listener: Listener | None = None, folder: Path | None = None, check: bool = False
) -> tuple[Result, Measured]:
    """The result and what stands behind it; clear `Measured.parts` once the result is safe.

    `check` adds ICR from half of the images to every row (`split_half.py`). Settings with an accuracy spend
    images where they decide (`adaptive.py`).
    """
    accuracy = next((one.accuracy for one in job.options if isinstance(one, Accuracy)), None)
    if accuracy is not None:
        if command != "sweep" or check:
            raise UsageError("an accuracy is for a sweep to reach; what needs all images at all levels has none")
        return staged_sweep(job, accuracy, listener, folder)
    measured = measure(job, listener, folder, add=partial(self_checked, job.settings.reduce) if check else None)
    result = Result(
        version=__version__,
        command=command,
        checkpoint=described_checkpoint(job),
        data=described_data(job, measured.used, measured.skipped),
        protocol=measured.protocol.to_json(),
        rows=measured.rows,
        sections={"window": windows(job.denoiser.noise.to_native, measured.rows) if command == "sweep" else ()},
        timing=measured.timing,
        warnings=job.denoiser.warnings,
    )
    return result, measured
