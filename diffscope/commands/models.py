"""diffscope models: the published checkpoints that have a short name."""

from __future__ import annotations

from diffscope.results import Record


def run() -> Record:
    """Which published checkpoints have a short name, where is each to be had, and what does it need?

    Example: diffscope models
    """
    from diffscope.checkpoints.published import PUBLISHED

    return Record("models", {"models": [{"name": name, **found.to_json()} for name, found in PUBLISHED.items()]})


WITHOUT = ("out", "overwrite")
