"""diffscope features: the features themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from diffscope.cli import options
from diffscope.errors import UsageError


@options.with_measuring
def run(
    checkpoint: options.Checkpoint,
    measuring: options.Measuring,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="The .safetensors file to write.", show_default=False),
    ] = None,
    num_levels: Annotated[
        int, typer.Option("--num-levels", metavar="K", help="Noise levels where neither --sigma nor --t is given.")
    ] = 12,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace features of another protocol, or another file, in FILE.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Write pooled features for other tools: a tensor a layer, [levels, views, images, features].

    Example: diffscope features ckpt.pkl --data images/ --sigma 0.3 -o features.safetensors
    """
    if output is None:
        raise UsageError("features needs a file to write: -o FILE.safetensors")
    options.require_safetensors(output)
    from diffscope.cli.running import others_leave, print_result, refuse_other_features, warnings_of
    from diffscope.measure.memory import passes_at_once
    from diffscope.measure.progress import Listener
    from diffscope.report import terminal
    from diffscope.studies.features.export import export

    job = measuring.job(checkpoint, num_levels=num_levels)
    if not overwrite:
        refuse_other_features(job.protocol.to_json(), output)
    for line in warnings_of(job):
        terminal.warn(line)
    with terminal.progress(passes_at_once(job), "features", unit="passes") as advance:
        written = export(job, output, Listener(advance, terminal.note))
    others_leave()
    if skipped := written["skipped"]:
        terminal.warn(f"{len(skipped)} unreadable images were left out; the first: {skipped[0]}")
    print_result(written, json)
    if not json:
        terminal.note(f"wrote {output}")
