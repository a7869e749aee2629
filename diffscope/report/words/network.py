"""What a check of a network of one's own came to, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diffscope.names import first_few
from diffscope.report.text import number

MOST_LAYERS = 8


def verdict(record: Mapping[str, Any]) -> str:
    """Whether the network predicts what was said, in a sentence or two."""
    rows, kind = record["rows"], record["verdict"]
    best = min(rows, key=lambda row: float(row["mean"]))
    mine = next((row for row in rows if row["chosen"]), None)
    if kind == "nothing":
        return (
            f"In no reading does the output denoise: at best {number(best['mean'])} of the noise is left. The network "
            "is not trained, or is called otherwise than in training: see --noise (and its time_scale), --call, "
            "--arguments, and that pixels lie in [-1, 1]."
        )
    said = _said(best)
    if mine is None:
        return f"Read as {said}, the output denoises best: {number(best['mean'])} of the noise is left. Say {said}."
    if kind == "wrong":
        levels = zip(record["sigmas"], mine["left"], best["left"], strict=True)
        sigma, left, least = max(levels, key=lambda level: level[1] / level[2])
        return (
            f"--predicts {mine['predicts']} is clearly wrong: at σ = {number(sigma)} it leaves {number(left)} of the "
            f"noise, where {said} leaves {number(least)}."
        )
    near = "" if best is mine else f" ({said}: {number(best['mean'])}, too near to tell)"
    return f"--predicts {mine['predicts']} fits: {number(mine['mean'])} of the noise is left{near}."


def _said(row: Mapping[str, Any]) -> str:
    noise = f" --noise {row['noise']}" if row["noise"] else ""
    return f"--predicts {row['predicts']}{noise}"


def layers(record: Mapping[str, Any]) -> str:
    """How many layers there are, and which are worth asking for."""
    blocks = [
        f"{layer['name']} ({' x '.join(map(str, layer['shape']))})" for layer in record["layers"] if layer["block"]
    ]
    found = len(record["layers"])
    return (
        f"{found} found; worth asking for with --layer, from the outermost ones: "
        f"{first_few(blocks, MOST_LAYERS)}. Default: {record['default_layer']}."
    )
