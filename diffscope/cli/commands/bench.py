"""diffscope bench: throughput on this machine, as a share of its limit."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from diffscope.cli import options

OptionalCheckpoint = Annotated[
    str | None,
    typer.Argument(metavar="CKPT", help="Checkpoint, as for sweep.", show_default="the demo's U-Net"),
]
OptionalData = Annotated[
    str,
    typer.Option("--data", metavar="DATA", help="Images, as for sweep.", show_default="the demo's images"),
]


def _without_data(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--data`, which measuring commands ask for, may be left out; it is then the empty string."""
    command.__annotations__["data"] = OptionalData
    signature = inspect.signature(command)
    parameters = dict(signature.parameters)
    parameters["data"] = parameters["data"].replace(default="", annotation=OptionalData)
    command.__signature__ = signature.replace(parameters=list(parameters.values()))  # type: ignore[attr-defined]
    return command


@_without_data
@options.with_measuring
def run(
    measuring: options.Measuring,
    checkpoint: OptionalCheckpoint = None,
    num_levels: Annotated[
        int, typer.Option("--num-levels", metavar="K", help="Noise levels of the sweep that is foretold.")
    ] = 12,
    json: options.Json = False,
    quiet: options.Quiet = False,
    fail_if: options.FailIf = None,
) -> None:
    """How fast is a sweep on this machine, what holds it up, and what share of the machine's limit does it reach?

    Takes the options of sweep, with the same meanings; measures each stage in 10 to 60 seconds together, and foretells
    the time of the whole. --fail-if knows share (of the machine's limit), share_outside (of a sweep's time, outside the
    network), gain (of the best batch size), passes_per_second, flops_per_second and seconds.

    Example: diffscope bench ckpt.pkl --data images/ --fail-if "share<0.5"
    """
    from diffscope import demo
    from diffscope.cli.gates import check, parse
    from diffscope.cli.running import print_result, warnings_of
    from diffscope.report import terminal
    from diffscope.results import Record
    from diffscope.studies.bench.benchmark import benchmark
    from diffscope.studies.bench.result import GATES

    gates = [parse(text, GATES) for text in fail_if or []]
    embedded = Path(demo.__file__).parent
    # Of images that stand in for the user's there may be as many as the user's are.
    images = None if measuring.data else measuring.num_images
    measuring = replace(measuring, data=measuring.data or str(embedded / "images.zip"))
    job = measuring.job(checkpoint or str(embedded / "unet.safetensors"), num_levels=num_levels)
    for line in warnings_of(job):
        terminal.warn(line)
    found = benchmark(job, images, terminal.progress)
    for line in found.notes:
        terminal.warn(line)
    print_result(Record("bench", found.to_json()), json, quiet)
    check(gates, [found.gated()])
