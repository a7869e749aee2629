"""diffscope icr: ICR at one noise level."""

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
    self_check: Annotated[
        bool, typer.Option("--self-check", help="Also from half of the images; the two must agree.")
    ] = False,
    shard: options.ShardOf = None,
    out: options.Out = None,
    overwrite: options.Overwrite = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
    fail_if: options.FailIf = None,
) -> None:
    """ICR at one noise level, with its 95 % interval and the metrics that come with it.

    Example: diffscope icr ckpt.pkl --data images/ --sigma 0.3 --fail-if "icr>0.6"
    """
    if not measuring.sigma and not measuring.t:
        raise UsageError("icr needs a noise level: --sigma S or --t T; to find the best one: diffscope sweep")
    from diffscope.cli.running import gates_of, run_and_report, run_shard
    from diffscope.cli.several import shard_of, varied

    gates = gates_of("icr", fail_if)
    measuring, several = varied(measuring, augment, num_images)
    part = shard_of(shard, out, several, fail_if=fail_if, self_check=self_check, json=json)
    job = measuring.job(checkpoint)
    if part is not None:
        run_shard(job, "icr", *part)
        return
    run_and_report(job, "icr", gates, out, json, quiet, overwrite, self_check, several)
