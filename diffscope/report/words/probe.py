"""A probe in words and cells: where accuracy is best over noise levels, and how far from there ICR is lowest."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from diffscope.report.text import COLUMNS, CORRELATED, by_layer, interval, metric, number, share
from diffscope.results import ProbeRow, Result, Row

PREFIXES = {"": "", "clean_": "clean ", "posterior_": "posterior ", "posterior_absolute_": "|posterior| "}
"""Of the keys of what was probed, and how a reader is told of it."""


def columns(result: Result) -> dict[str, Callable[[Row], str]]:
    """Headings and how a row fills them; of clean input and the posterior mean where they were probed."""
    keys = {key for row in result.rows for key in row}
    shown = {key: COLUMNS[key] for key in ("layer", "σ", "t")}
    shown["accuracy"] = metric("accuracy", share)
    shown["95 % interval"] = lambda row: interval(row["accuracy_low"], row["accuracy_high"])
    shown |= {"k-NN": metric("knn", share), "ICR": COLUMNS["ICR"], "95 % of ICR": COLUMNS["95 % interval"]}
    shown["CSNR"] = metric("csnr")
    for prefix, name in PREFIXES.items():
        if prefix and f"{prefix}accuracy" in keys:
            shown[f"{name}accuracy"] = metric(f"{prefix}accuracy", share)
            if prefix == "posterior_":
                shown[f"{name}CSNR"] = metric(f"{prefix}csnr")
        if f"{prefix}swd_best" in keys:
            shown[f"{name}SWD to best"] = metric(f"{prefix}swd_best")
    if "ensemble_accuracy" in keys:
        shown["ensemble"] = metric("ensemble_accuracy", share)
    for key, name in noises(result).items():
        shown[f"at {name} noise"] = metric(f"accuracy_{key}", share)
    return shown


def beside_columns(result: Result) -> dict[str, Callable[[Mapping[str, Any]], str]]:
    """Headings of the table of encoders beside the network, and how a record of one fills them."""
    shown: dict[str, Callable[[Mapping[str, Any]], str]] = {
        "encoder": lambda row: str(row["encoder"]),
        "features": lambda row: f"{row['d']:,}",
        "accuracy": lambda row: share(row["accuracy"]),
        "95 % interval": lambda row: interval(row["accuracy_low"], row["accuracy_high"]),
        "over the network's best": lambda row: f"{signed(row['difference'], 4)} ± {share(row['difference_se'])}",
        "k-NN": lambda row: share(row["knn"]),
        "CSNR": lambda row: number(row["csnr"]),
    }
    for key, name in noises(result).items():
        shown[f"at {name} noise"] = lambda row, key=key: share(row[f"accuracy_{key}"])  # type: ignore[misc]
    return shown


def denoised_columns(result: Result) -> dict[str, Callable[[Mapping[str, Any]], str]]:
    """Headings of the table of distances of denoised images, and how a record of `denoised_lines` fills them."""
    names = dict.fromkeys(row["encoder"] for row in result.sections["denoised"])
    shown: dict[str, Callable[[Mapping[str, Any]], str]] = {"σ": lambda row: number(row["sigma"])}
    return shown | {
        name: lambda row, name=name: f"{number(row[name]['fd'])} ± {number(row[name]['fd_se'], 2)}" for name in names
    }


def denoised_lines(result: Result) -> list[dict[str, Any]]:
    """A record a noise level, in which each encoder has its distance."""
    lines: dict[float, dict[str, Any]] = {}
    for row in result.sections["denoised"]:
        lines.setdefault(row["sigma"], {"sigma": row["sigma"]})[row["encoder"]] = row
    return list(lines.values())


def noises(result: Result) -> dict[str, str]:
    """Shares of noisy labels that were probed, as in the keys and as a reader sees them: noise20, 20 %."""
    keys = dict.fromkeys(key for row in result.rows for key in row)
    found = [key.removeprefix("accuracy_") for key in keys if key.startswith("accuracy_noise")]
    names = [key for key in found if not key.endswith(("_se", "_low", "_high"))]
    return {key: f"{key.removeprefix('noise').replace('_', '.')} %" for key in names}


def ranked(result: Result) -> list[ProbeRow]:
    """Layers by their best accuracy."""
    return sorted(result.probe, key=lambda row: -row.accuracy)


def agrees(row: ProbeRow, rows: Sequence[Row]) -> bool | None:
    """Whether ICR is lowest at a level that the probe cannot tell from its best one; None without ICR."""
    if row.steps is None:
        return None
    levels = sorted(level.sigma for level in rows if level.layer == row.layer)
    lowest = levels[levels.index(row.sigma) + row.steps]
    return row.low <= lowest <= row.high


def headline(row: ProbeRow, rows: Sequence[Row]) -> str:
    """Whether ICR finds the probe's best level."""
    told = {True: "ICR finds the probe's best level", False: "ICR is lowest elsewhere", None: "no ICR"}
    return told[agrees(row, rows)]


def finding(result: Result, row: ProbeRow) -> str:
    """What was found for one layer, in sentences with the numbers, without its notes."""
    group = by_layer(result.rows)[row.layer]
    best = next(level for level in group if level.sigma == row.sigma)
    ends = interval(best["accuracy_low"], best["accuracy_high"])
    parts = [f"Best accuracy {share(row.accuracy)} (95 % interval {ends}) at σ = {number(row.sigma)}."]
    if row.low < row.high:
        parts.append(f"Levels from σ = {number(row.low)} to {number(row.high)} cannot be told apart from it.")
    parts += [*_distance(row, group), *_correlations(row, len(group))]
    return " ".join(parts)


def _distance(row: ProbeRow, group: Sequence[Row]) -> list[str]:
    if row.icr_sigma is None or row.decades is None or row.steps is None or row.shortfall is None:
        return []
    away = ""
    if len(group) > 1:
        step = math.log10(group[-1].sigma / group[0].sigma) / (len(group) - 1)
        side = "more" if row.decades > 0 else "less"
        away = f", {number(abs(row.decades / step), 2)} σ steps ({number(abs(row.decades), 2)} decades) to {side} noise"
    told = f"ICR recommends σ = {number(row.icr_sigma)}{away}"
    if not row.steps:
        return [f"{told}; it is lowest at the probe's best level."]
    cost = f"{share(row.shortfall)} ± {share(row.shortfall_se)}"
    return [f"{told}; it is lowest {distance(row.steps)} the probe's best level, which costs {cost} of accuracy."]


def distance(steps: int) -> str:
    """From the level of the best accuracy to that of the lowest ICR."""
    if not steps:
        return "there too"
    return f"{abs(steps)} σ step{'' if abs(steps) == 1 else 's'} {'above' if steps > 0 else 'below'}"


def _correlations(row: ProbeRow, levels: int) -> list[str]:
    if levels < CORRELATED:
        return []
    told = []
    if row.rank_correlation is not None:
        told.append(f"with ICR {signed(row.rank_correlation)} (−1: they agree)")
    if row.csnr_rank_correlation is not None:
        told.append(f"with CSNR {signed(row.csnr_rank_correlation)} (1: they agree)")
    return [f"Rank correlation of accuracy over {levels} levels {', '.join(told)}."] if told else []


def signed(value: float, decimals: int = 2) -> str:
    """A correlation or difference with its sign."""
    return f"{value:+.{decimals}f}".replace("-", "−")
