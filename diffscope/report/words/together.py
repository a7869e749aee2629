"""Words of several results in one figure: what a curve is called, and what the results do not have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from diffscope.report.parts import Columns
from diffscope.report.text import NULL, number, share
from diffscope.report.words import series

Curve = Mapping[str, Any]

STATES = {"u": "window", None: "undecided"}
"""Verdicts whose word says too little."""


def shown(curves: Sequence[Curve], most: int) -> list[Curve]:
    """All; of more than `most` those of what all results have, or else that of lowest ICR of each result."""
    if len(curves) <= most:
        return list(curves)
    results = {curve["result"] for curve in curves}
    of = {place: {curve["result"] for curve in curves if _place(curve) == place} for place in map(_place, curves)}
    common = [curve for curve in curves if of[_place(curve)] == results]
    if 0 < len(common) <= most:
        return common
    best: dict[str, Curve] = {}
    for curve in curves:
        known = best.setdefault(curve["result"], curve)
        if curve["icr"] is not None and (known["icr"] is None or curve["icr"] < known["icr"]):
            best[curve["result"]] = curve
    return list(best.values())


def names(curves: Sequence[Curve]) -> list[str]:
    """The result, and the layer and level wherever not all have the same."""
    same = len({_place(curve) for curve in curves}) == 1
    alone = len({curve["result"] for curve in curves}) == 1
    if alone:
        return [_place(curve) for curve in curves]
    return [curve["result"] if same else f"{curve['result']}: {_place(curve)}" for curve in curves]


def shared(curves: Sequence[Curve]) -> str:
    """The layer and level, where all have the same."""
    places = list({_place(curve) for curve in curves})
    return places[0] if len(places) == 1 else ""


def unlike(record: Mapping[str, Any]) -> str:
    """In what the protocols differ; nothing where they agree."""
    return f"protocols differ in {', '.join(record['unlike'])}" if record["unlike"] else ""


def columns(record: Mapping[str, Any]) -> Columns:
    """Of the table of curves."""
    is_run = record["across"] == "step"
    at = {"at step": lambda curve: _step(curve["at"])} if is_run else {"at σ": lambda curve: number(curve["at"])}
    if is_run:
        last = {"keep step": lambda curve: _step(curve["keep_step"])}
    else:
        last = {"recommended σ": lambda curve: number(curve["recommended"])}
    return {
        "result": lambda curve: str(curve["result"]),
        "layer": lambda curve: _place(curve),
        "lowest ICR": lambda curve: share(curve["icr"]),
        **at,
        "verdict": lambda curve: STATES.get(curve["verdict"], str(curve["verdict"])),
        **last,
    }


def verdict(record: Mapping[str, Any]) -> str:
    """Which curve reaches the lowest ICR."""
    known = [curve for curve in record["curves"] if curve["icr"] is not None]
    best = min(known, key=lambda curve: float(curve["icr"]))
    at = f"step {best['at']:,}" if record["across"] == "step" else f"σ = {number(best['at'])}"
    count = len(record["results"])
    return f"Of {count} results ICR is lowest in {best['result']}, {_place(best)}: {share(best['icr'])} at {at}"


def _place(curve: Curve) -> str:
    if curve["layer"] is None:
        return series.POOLED
    return curve["layer"] if curve.get("sigma") is None else f"{curve['layer']}, σ = {number(curve['sigma'])}"


def _step(step: int | None) -> str:
    return NULL if step is None else f"{step:,}"
