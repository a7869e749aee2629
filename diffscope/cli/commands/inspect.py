"""diffscope inspect: what is this file?"""

from __future__ import annotations

from typing import Annotated

import typer

from diffscope.cli import options


def run(
    checkpoint: options.Checkpoint,
    family: options.Family = None,
    config: options.Config = None,
    weights: options.Weights = "ema",
    sha256: Annotated[bool, typer.Option("--sha256", help="Hash the file too: seconds for gigabytes.")] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare every checksum in the file with its bytes: seconds for gigabytes.")
    ] = False,
    json: options.Json = False,
) -> None:
    """What is this checkpoint? Family, class, noise convention, input, and all layers with their shapes.

    Example: diffscope inspect network-snapshot-200000.pkl
    """
    from diffscope.api import load
    from diffscope.cli.running import print_result
    from diffscope.studies.inspect import inspect

    found, denoiser = load(checkpoint, family, options.key_values(config), weights, outline=True, verify=verify)
    record = inspect(found, denoiser, found.sha256() if sha256 else None)
    print_result(record, json)
