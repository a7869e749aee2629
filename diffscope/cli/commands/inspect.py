"""diffscope inspect: what is this file?"""

from __future__ import annotations

from diffscope.cli import options


def run(
    checkpoint: options.Checkpoint,
    family: options.Family = None,
    config: options.Config = None,
    weights: options.Weights = "ema",
    json: options.Json = False,
) -> None:
    """What is this checkpoint? Family, class, noise convention, input, and all layers with their shapes.

    Example: diffscope inspect network-snapshot-200000.pkl
    """
    from diffscope.api import load
    from diffscope.report import terminal
    from diffscope.studies.inspection import inspect

    record = inspect(*load(checkpoint, family, options.key_values(config), weights))
    if json:
        import json as encoder

        print(encoder.dumps(record, indent=2, allow_nan=False))
    else:
        terminal.print_inspection(record, terminal.stdout_console())
