"""Kinship in words and cells: which two of several representations see the images most alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from diffscope.report.text import interval, metric, share
from diffscope.results import Result, Row

NAMES = {"cka": "CKA", "cknna": "CKNNA"}


def columns(result: Result) -> dict[str, Callable[[Row], str]]:
    """Headings and how a row fills them."""
    return {
        "a": lambda row: str(row["a"]),
        "b": lambda row: str(row["b"]),
        "CKA": metric("cka", share),
        "95 % interval": lambda row: interval(row["cka_low"], row["cka_high"]),
        f"CKNNA @{k_of(result)}": metric("cknna", share),
        "95 % of CKNNA": lambda row: interval(row["cknna_low"], row["cknna_high"]),
        "common neighbours": metric("mutual_knn", share),
    }


def k_of(result: Result) -> int:
    """Neighbours that were compared."""
    return int(result.protocol["kinship"]["k"])


def finding(result: Result) -> list[str]:
    """The most and the least alike by CKA; of each encoder, what is nearest to it by CKNNA."""
    known = [row for row in result.rows if row["cka"] is not None]
    if not known:
        return ["No two of them can be compared: see the notes."]
    most, least = (pick(known, key=lambda row: float(row["cka"])) for pick in (max, min))
    told = [f"Most alike by CKA: {_pair(most)}."] if len(known) > 1 else [f"{_pair(most)}."]
    if len(known) > 1:
        told.append(f"Least: {_pair(least)}.")
    return [" ".join(told), *_nearest(result)]


def _pair(row: Row) -> str:
    return f"{row['a']} and {row['b']}, {share(row['cka'])} {interval(row['cka_low'], row['cka_high'])}"


def _nearest(result: Result) -> list[str]:
    encoders = [item["name"] for item in result.sections["items"] if "encoder" in item]
    told = []
    for name in encoders:
        rows = [row for row in result.rows if name in (row["a"], row["b"]) and row["cknna"] is not None]
        rows = [row for row in rows if not {row["a"], row["b"]} <= set(encoders)]
        if len(rows) > 1:
            best = max(rows, key=lambda row: float(row["cknna"]))
            other = best["a"] if best["b"] == name else best["b"]
            ends = interval(best["cknna_low"], best["cknna_high"])
            told.append(f"Nearest to {name} by CKNNA: {other}, {share(best['cknna'])} {ends}.")
    return told


def square(result: Result, key: str) -> list[list[float | None]]:
    """A number of each two, in the order of the items; 1 of one with itself."""
    names = [item["name"] for item in result.sections["items"]]
    found: dict[tuple[str, str], float | None] = {}
    for row in result.rows:
        found[row["a"], row["b"]] = found[row["b"], row["a"]] = row[key]
    return [[1.0 if a == b else found[a, b] for b in names] for a in names]


def labels(items: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of the items."""
    return [str(item["name"]) for item in items]
