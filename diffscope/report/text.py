"""How numbers, rows and notes read as text: plain strings for the terminal and for Markdown.

A number that is null is shown as `–`; digits stop where they stop meaning something.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from diffscope.results import Result, Row

CORRELATED = 5
"""Levels or snapshots from which a rank correlation is told: of fewer even chance often orders two alike."""
NULL = "–"

TOLD = 4
"""Layers whose curves and verdicts are written out; of more, a reader wants the ranking."""


def number(value: float | None, digits: int = 3) -> str:
    """Significant digits, without an exponent where a reader needs none."""
    if value is None:
        return NULL
    if value == 0 or 1e-3 <= abs(value) < 10**6:
        shown = f"{value:.{digits}g}"
        return f"{value:.0f}" if "e" in shown else shown
    return f"{value:.{digits - 1}e}"


def share(value: float | None) -> str:
    """A number between 0 and 1, such as ICR, with decimals that stand below one another."""
    if value is None:
        return NULL
    return f"{value:.4f}" if value == 0 or abs(value) >= 1e-3 else f"{value:.1e}"


def interval(low: float | None, high: float | None) -> str:
    """An interval of shares in brackets."""
    return NULL if low is None or high is None else f"[{share(low)}, {share(high)}]"


def percent(value: float | None) -> str:
    """A relative change, with its sign: -0.021 is -2.1 %."""
    return NULL if value is None else f"{100 * value:+.1f} %"


def p_value(p: float | None) -> str:
    """A p value; what is below 0.0001 is not told apart."""
    return "<0.0001" if p is not None and p < 1e-4 else number(p, 2)


def labelled(row: Mapping[str, Any], names: Sequence[str], labels: Sequence[str], key: str) -> str:
    """A row on one line for scripts: names, then what else tells it apart, and a number last, each behind its key.

    Numbers have four significant digits; one that could not be computed is `null`.
    """
    said = [os.path.basename(str(row[name])) or str(row[name]) for name in names if row.get(name) is not None]
    told = [f"{label} {_plain(row[label])}" for label in labels if row.get(label) is not None]
    return " ".join([*said, *told, f"{key} {_plain(row[key])}"])


def _plain(value: Any) -> str:
    if value is None:
        return "null"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def by_layer(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Rows of each layer by rising sigma; layers in the order in which the rows name them, that of the network."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.layer, []).append(row)
    return {layer: sorted(group, key=lambda row: row.sigma) for layer, group in groups.items()}


def lowest(rows: Iterable[Row]) -> Row | None:
    """The row of lowest ICR; None where no row has one."""
    measured = [row for row in rows if row.get("icr") is not None]
    return min(measured, key=lambda row: float(row["icr"]), default=None)


def best_of(result: Result, layer: str, rows: Iterable[Row]) -> Row | None:
    """The row to show as a layer's lowest: which the looks of a sweep with an accuracy settled on, else the lowest."""
    rows = list(rows)
    known = (result.accuracy or {}).get("layers", {}).get(layer, {}).get("sigma")
    return lowest(rows) if known is None else next((row for row in rows if row.sigma == known), None)


def best_first(groups: Mapping[str, Sequence[Row]]) -> list[str]:
    """Names of the groups by their lowest ICR, best first.

    Layers that are not to be ranked come after the others, groups without any ICR last.
    """

    def place(name: str) -> tuple[bool, bool, float]:
        row = lowest(groups[name])
        return (True, True, math.inf) if row is None else (False, not row.is_ranked, float(row["icr"]))

    return sorted(groups, key=place)


def metric(key: str, show: Callable[[Any], str] = number) -> Callable[[Row], str]:
    """How a row fills a column of one of its metrics."""
    return lambda row: show(row.get(key))


COLUMNS: dict[str, Callable[[Row], str]] = {
    "layer": lambda row: row.layer,
    "σ": lambda row: sigma(row),
    "t": lambda row: number(row.t),
    "ICR": metric("icr", share),
    "95 % interval": lambda row: interval(row.get("icr_low"), row.get("icr_high")),
    "ICR raw": metric("icr_raw", share),
    "trace s": metric("trace_s"),
    "trace ξ": metric("trace_xi"),
    "eff. rank": metric("effective_rank"),
}
"""What a table of rows shows: the heading and how a row fills it; its notes are marked by `parts.Notes`."""


def sigma(row: Row) -> str:
    """The noise level used; where discrete levels did not offer the one asked for, that one as well."""
    asked = row.sigma_requested
    return number(row.sigma) if asked is None or asked == row.sigma else f"{number(row.sigma)} (for {number(asked)})"


def code(note: str) -> str:
    """`few_images` of `few_images: 1/icr − 1 may be off by 5 %`."""
    return note.partition(":")[0]


def sentences(notes: Iterable[str]) -> list[str]:
    """A line for each kind of note: the first, and how many more there are, which differ in their numbers alone."""
    by_code: dict[str, list[str]] = {}
    for note in dict.fromkeys(notes):
        by_code.setdefault(code(note), []).append(note)
    more = {notes[0]: len(notes) - 1 for notes in by_code.values()}
    return [note + (f" ({count} more like it, in result.json)" if count else "") for note, count in more.items()]
