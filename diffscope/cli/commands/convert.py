"""diffscope convert: any checkpoint as safetensors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from diffscope.cli import options
from diffscope.cli.output import print_json


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
    json: options.Json = False,
) -> None:
    """Any checkpoint as safetensors, with family, constructor and provenance in its metadata.

    Example: diffscope convert network-snapshot-200000.pkl model.safetensors
    """
    from diffscope.api import load
    from diffscope.report import terminal
    from diffscope.studies.conversion import convert

    written = convert(*load(checkpoint, family, options.key_values(config), weights), output, dtype)
    if json:
        print_json(written)
    else:
        print(f"{written['tensors']} tensors, {written['bytes'] / 1e6:.1f} MB")
        terminal.note(f"wrote {output}")
