"""diffscope merge: the shards of one measurement as one result."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from diffscope.cli import options


def run(
    parts: Annotated[
        list[Path],
        typer.Argument(metavar="PARTS...", help="Folders that --shard I/N --out FOLDER wrote.", show_default=False),
    ],
    out: options.Out = None,
    overwrite: options.Overwrite = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
    fail_if: options.FailIf = None,
) -> None:
    """Put the shards of one measurement together: the same result as one run would give.

    Neither the checkpoint nor the images are needed. Shards of different protocols are refused, by field.

    Example: diffscope merge shard-*/ --out sweep/
    """
    from diffscope.cli.running import check_gates, deliver, gates_of, prepare
    from diffscope.measure.progress import Listener
    from diffscope.report import terminal
    from diffscope.studies.sweep.shards import Shards

    shards = Shards(parts)
    gates = gates_of(shards.command, fail_if)
    prepare(out, shards.protocol, overwrite)
    with terminal.progress(len(shards.cells), "merge", unit="rows") as advance:
        result = shards.merged(Listener(advance, terminal.note))
    deliver(result, out, json, quiet)
    check_gates(gates, result)
