"""Nearest neighbours in words: how often they are of the query's class, and who they are."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from diffscope.report.text import NULL, metric, number, sentences, share
from diffscope.results import Result, Row

SYMBOL = {"s": "s", "xi": "ξ"}
LEFT = ("checkpoint", "layer", "by")
ONCE = ("checkpoint", "step", "layer", "σ", "ICR")
"""What both rows of a checkpoint have in common."""
LISTED = 3
"""Checkpoints whose neighbours are written out: the first, the middle and the last of many."""


def columns(result: Result) -> dict[str, Callable[[Row], str]]:
    """Headings and how a row fills them; the checkpoint stands among them where there are several."""
    series: dict[str, Callable[[Row], str]] = {
        "checkpoint": file_name,
        "step": lambda row: NULL if row["step"] is None else f"{row['step']:,}",
    }
    return {
        **(series if several(result) else {}),
        "layer": lambda row: row.layer,
        "σ": lambda row: number(row.sigma),
        "by": lambda row: SYMBOL[row["component"]],
        f"same class @{result.rows[0]['k']}": metric("same_class", share),
        "± SE": metric("same_class_se", share),
        "chance": metric("chance", share),
        "queries": lambda row: str(row["queries"]),
        "ICR": metric("icr", share),
    }


def beside_columns(result: Result) -> dict[str, Callable[[Mapping[str, Any]], str]]:
    """Headings of the table of encoders beside the network, and how a record of one fills them."""
    return {
        "encoder": lambda row: str(row["encoder"]),
        "features": lambda row: f"{row['d']:,}",
        f"same class @{result.rows[0]['k']}": lambda row: share(row["same_class"]),
        "± SE": lambda row: share(row["same_class_se"]),
        "chance": lambda row: share(row["chance"]),
    }


def several(result: Result) -> bool:
    """Whether there is more than one checkpoint."""
    return len({row["checkpoint"] for row in result.rows}) > 1


def file_name(row: Mapping[str, Any]) -> str:
    """A checkpoint's name without its folders."""
    return str(row["checkpoint"]).rstrip("/").rpartition("/")[2]


def notes(result: Result) -> list[str]:
    """The notes of all rows, each kind once."""
    return sentences(note for row in result.rows for note in row["notes"])


def finding(result: Result) -> str | None:
    """What the shares say of the last checkpoint; None without labels."""
    by_s, by_xi = result.rows[-2:]
    if by_s["same_class"] is None:
        return None
    pair = (by_s, by_xi)
    shares = [f"{100 * row['same_class']:.1f} %" for row in pair]
    told = (
        f"Of the {by_s['k']} nearest images by s, {shares[0]} are of the query's class, of the nearest views by ξ "
        f"{shares[1]}, where chance is {100 * by_s['chance']:.1f} %."
    )
    if any(row["same_class_se"] is None for row in pair):
        return told
    error = math.hypot(by_s["same_class_se"], by_xi["same_class_se"])
    if by_s["same_class"] - by_xi["same_class"] > 3 * error:
        return f"{told} What the views share says more of the class than what they differ in."
    return (
        f"{told} At three standard errors, s says no more of the class than ξ. Where --pool flatten keeps positions, "
        "what a crop or a flip changes has the outline of the object: try --pool mean."
    )


def listing(result: Result) -> list[tuple[str, list[list[str]]]]:
    """(title, lines under `listed`) of the checkpoints written out: each query with its neighbours."""
    told = []
    for part in picked(result.sections["grid"], LISTED):
        lines = []
        for query in part["queries"]:
            for component, symbol in SYMBOL.items():
                name = query["name"] + label(result, query) if component == "s" else ""
                view = query[component]["view"]
                by = symbol if view is None else f"{symbol}, {view_name(view)}"
                near = [f"{one['name']} {one['similarity']:.2f}" for one in query[component]["neighbors"]]
                lines.append([name, by, *near])
        told.append((f"{place(part)}:" if several(result) else "Nearest, with their cosine similarity:", lines))
    return told


def listed(result: Result) -> list[str]:
    """Headings of a listing: the query and the ranks."""
    return ["query", "by", *(str(rank + 1) for rank in range(result.rows[0]["k"]))]


def place(part: Mapping[str, Any]) -> str:
    """`step 25,600, ICR 0.4123` of one checkpoint of a series."""
    step = file_name(part) if part["step"] is None else f"step {part['step']:,}"
    return f"{step}, ICR {share(part['icr'])}"


def label(result: Result, image: Mapping[str, Any]) -> str:
    """` (coat)` or ` (class 4)`; nothing where classes are not known."""
    return "" if image["label"] is None else f" ({class_name(result, image['label'])})"


def class_name(result: Result, label: int) -> str:
    """A class as the images' folders call it."""
    names = result.data.get("class_names")
    return str(names[label]) if names else f"class {label}"


def view_name(view: int) -> str:
    """A view as a caption says it."""
    return "original" if view == 0 else f"view {view}"


def picked(parts: Sequence[Any], most: int) -> list[Any]:
    """At most that many, evenly spaced, the first and the last among them."""
    if len(parts) <= most:
        return list(parts)
    return [parts[round(i * (len(parts) - 1) / (most - 1))] for i in range(most)]
