"""diffscope track: ICR over a training run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from diffscope.cli import options
from diffscope.errors import UsageError

Checkpoints = Annotated[
    list[str] | None,
    typer.Argument(metavar="CKPT...", help="Snapshots of one run, or their folder.", show_default=False),
]
Holdout = Annotated[
    str | None,
    typer.Option(
        "--holdout",
        metavar="DATA",
        help="Images not trained on: their ICR, and the denoising loss on both.",
        show_default=False,
    ),
]
NumHoldout = Annotated[
    int | None,
    typer.Option(
        "--num-holdout", metavar="N", help="Of --holdout, a seeded subset.", show_default="as many as are tracked"
    ),
]
OverlayFile = Annotated[
    Path | None,
    typer.Option(
        "--overlay",
        metavar="CSV",
        help="Numbers you have of the run: a column step, any others beside it.",
        show_default=False,
    ),
]
Column = Annotated[
    list[str] | None,
    typer.Option(
        "--column",
        metavar="NAME",
        callback=options.listed,
        help=f"Of --overlay, this column {options.REPEATABLE}.",
        show_default="all",
    ),
]
Rule = Annotated[
    str, typer.Option("--rule", help="Of the onset: long (from 30 snapshots on), short, or auto; --watch: long.")
]
WatchFolder = Annotated[
    Path | None,
    typer.Option(
        "--watch", metavar="DIR", help="Stay, and measure each snapshot as it appears there.", show_default=False
    ),
]
Every = Annotated[float, typer.Option("--every", metavar="SECONDS", help="Between two looks of --watch.")]
OnOnset = Annotated[
    str | None,
    typer.Option(
        "--on-onset",
        metavar="CMD",
        help="Run by the shell when memorization sets in, with DIFFSCOPE_STEP, DIFFSCOPE_KEEP and DIFFSCOPE_KEEP_STEP.",
        show_default=False,
    ),
]


@options.with_measuring
def run(
    measuring: options.Measuring,
    checkpoints: Checkpoints = None,
    step_from: options.StepFrom = None,
    holdout: Holdout = None,
    num_holdout: NumHoldout = None,
    overlay: OverlayFile = None,
    column: Column = None,
    rule: Rule = "auto",
    watch: WatchFolder = None,
    every: Every = 5.0,
    on_onset: OnOnset = None,
    out: options.Out = None,
    overwrite: options.Overwrite = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
    fail_if: options.FailIfLast = None,
) -> None:
    """ICR over a training run: where was it lowest, does the model memorize by now, which checkpoint is to keep?

    With --watch DIR --fail-if onset it stays beside the training and ends with 3 when it should stop.

    Example: diffscope track runs/*.pt --data images/ --sigma 0.3 --out track/
    """
    if (watch is None) == (not checkpoints):
        raise UsageError("expected the snapshots of a run (track CKPT...), or --watch DIR, and not both")
    if num_holdout is not None and (holdout is None or num_holdout < 1):
        raise UsageError(f"--num-holdout {num_holdout}: expected at least 1, beside --holdout DATA")
    if every <= 0:
        raise UsageError(f"--every {every:g}: expected seconds, more than 0")
    from diffscope.cli.tracking import Run, follow, track_once

    if column and overlay is None:
        raise UsageError("--column chooses from --overlay, which is not given")
    held = (holdout, num_holdout)
    chosen = Run(
        measuring, step_from, held, overlay, column or [], rule, on_onset, out, overwrite, json, quiet, fail_if or []
    )
    if watch is not None:
        follow(chosen, str(watch), every)
    else:
        track_once(chosen, checkpoints or [])
