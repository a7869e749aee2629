"""diffscope sweep: ICR over noise levels and layers."""

from __future__ import annotations

from typing import Annotated

import typer

from diffscope.cli import options
from diffscope.errors import UsageError


@options.with_measuring
def run(
    checkpoint: options.Checkpoint,
    measuring: options.Measuring,
    augment: options.AugmentOrAll = "crop+flip+jitter",
    num_images: options.Counts = None,
    num_levels: Annotated[
        int,
        typer.Option(
            "--num-levels", metavar="K", help="Noise levels, log-spaced over [0.002, 20], cut to the model's range."
        ),
    ] = 12,
    self_check: Annotated[
        bool, typer.Option("--self-check", help="Also from half of the images; the two must agree.")
    ] = False,
    accuracy: Annotated[
        str | None,
        typer.Option(
            "--accuracy",
            metavar="E",
            help="Such as 2%: give more images only to noise levels that still decide where ICR is lowest, until it "
            "and the level are known so well.",
            show_default=False,
        ),
    ] = None,
    shard: options.ShardOf = None,
    out: options.Out = None,
    overwrite: options.Overwrite = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
    fail_if: options.FailIfWindow = None,
) -> None:
    """ICR over noise levels and layers: at which level are features most semantic, and how sure is that?

    Example: diffscope sweep ckpt.pkl --data images/ --out sweep/
    """
    from diffscope.cli.running import gates_of, run_and_report, run_shard
    from diffscope.cli.several import accuracy_of, shard_of, varied
    from diffscope.studies.sweep.options import Accuracy

    if num_levels == 1 and not measuring.sigma and not measuring.t:
        raise UsageError("--num-levels 1: a sweep compares noise levels, expected 2 or more; of one: diffscope icr")
    gates = gates_of("sweep", fail_if)
    measuring, several = varied(measuring, augment, num_images)
    part = shard_of(shard, out, several, fail_if=fail_if, self_check=self_check, json=json)
    share = accuracy_of(accuracy, shard, several, self_check)
    job = measuring.job(checkpoint, (Accuracy(share),), num_levels=num_levels)
    if part is not None:
        run_shard(job, "sweep", *part)
        return
    run_and_report(job, "sweep", gates, out, json, quiet, overwrite, self_check, several)
