"""diffscope convert: any checkpoint as safetensors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from diffscope.cli import options


def run(
    checkpoint: options.Checkpoint,
    output: Annotated[Path, typer.Argument(metavar="OUT.safetensors", help="The file to write.", show_default=False)],
    family: options.Family = None,
    config: options.Config = None,
    weights: options.Weights = "ema",
    dtype: Annotated[
        str | None,
        typer.Option("--dtype", help="Store as float32, float16 or bfloat16.", show_default="as in the file"),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a file that was not made from the same weights.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Any checkpoint as safetensors, with family, constructor and provenance in its metadata.

    Example: diffscope convert network-snapshot-200000.pkl model.safetensors
    """
    options.require_safetensors(output)
    from diffscope.api import load
    from diffscope.cli.running import print_result, refuse_other_weights
    from diffscope.report import terminal
    from diffscope.studies.convert import convert

    found, denoiser = load(checkpoint, family, options.key_values(config), weights)
    if not overwrite:
        refuse_other_weights(found, output)
    written = convert(found, denoiser, output, dtype)
    print_result(written, json)
    if not json:
        terminal.note(f"wrote {output}")
