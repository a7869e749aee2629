"""What is said of copies among samples: columns, verdict and names, as plain strings."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from diffscope.report.text import NULL, interval, number, share
from diffscope.results import Result

Record = Mapping[str, Any]


def columns(rows: Sequence[Record]) -> dict[str, Callable[[Record], str]]:
    """Headings of the table, and how a row fills them; the second measure only where the criterion has one."""
    by_ratio = any("share_half" in row for row in rows)
    shown: dict[str, Callable[[Record], str]] = {
        "checkpoint": lambda row: os.path.basename(str(row["checkpoint"])) or str(row["checkpoint"]),
        "step": lambda row: NULL if row["step"] is None else f"{row['step']:,}",
        "samples": lambda row: f"{row['samples']:,}",
        str(rows[0]["criterion"]): lambda row: share(row["share"]),
        "95 % interval": lambda row: interval(row["share_low"], row["share_high"]),
    }
    if by_ratio:
        shown |= {
            "ratio<1/2": lambda row: share(row["share_half"]),
            "its interval": lambda row: interval(row["share_half_low"], row["share_half_high"]),
            "median d1": lambda row: number(row["median_d1"]),
            "median ratio": lambda row: share(row["median_ratio"]),
        }
    else:
        shown["median cosine"] = lambda row: share(row["median_similarity"])
    if rows[0]["criterion"] == "ratio<1/2":  # asked for as the first measure, it need not be said twice
        del shown["its interval"]
    return shown if any(row["step"] is not None for row in rows) else {k: v for k, v in shown.items() if k != "step"}


def most(rows: Sequence[Record]) -> Record:
    """The row of the largest share; of several such, the last."""
    return max(reversed(rows), key=lambda row: float(row["share"]))


def finding(result: Result) -> str:
    """The verdict on the checkpoint with most copies."""
    row = most(result.rows)
    text = _counted(row, several=len(result.rows) > 1) + f" {means(result)}."
    if row.get("copies_half") is not None and row["criterion"] != "ratio<1/2":
        looser = f"{row['copies_half']:,} ({_percent(row['share_half'])})" if row["copies_half"] else "none"
        name = "the looser " if result.protocol["threshold"] < 1 / 2 else ""
        text += f" Copies by {name}d1/d2 < 1/2: {looser}."
    return text + f" Generalization score (1 - share): {share(row['generalization'])}."


HEADLINE = {True: "copies found", False: "no copies found"}


def headline(result: Result) -> str:
    """Whether there are copies."""
    return HEADLINE[most(result.rows)["copies"] > 0]


def means(result: Result) -> str:
    """The criterion in words."""
    protocol, row = result.protocol, result.rows[0]
    mirrored = ", mirror images counting as the same" if protocol["mirror"] else ""
    if protocol["criterion"] == "ratio":
        ratio = str(row["criterion"]).replace("ratio<", "d1/d2 < ")
        return f"A copy has {ratio}, of the pixel distances to the nearest and second nearest training image{mirrored}"
    space = {"features": "the model's own features", "encoder": "the encoder's descriptors", "file": "the descriptors"}
    above, where = f"{protocol['threshold']:g}", space[protocol["space"]]
    return f"A copy has a cosine above {above} with a training image in {where}{mirrored}"


def _counted(row: Record, several: bool) -> str:
    copies, samples = int(row["copies"]), f"{row['samples']:,} samples"
    low, high = _percent(row["share_low"]), _percent(row["share_high"])
    if copies == 0:
        at = " of any checkpoint" if several else ""
        return f"None of {samples}{at} copies a training image, and with 95 % confidence at most {high} do."
    at = f"At step {row['step']:,}, where they are most, " if several else ""
    verb = "copies" if copies == 1 else "copy"
    found = f"{_percent(row['share'])} (95 % interval {low} to {high})"
    return f"{at}{copies:,} of {samples} {verb} a training image: {found}."


def _percent(value: float) -> str:
    return f"{100 * value:.2g} %" if value < 0.0995 else f"{100 * value:.0f} %"
