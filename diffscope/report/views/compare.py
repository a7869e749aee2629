"""The paired difference of two results, row by row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from diffscope.report.parts import MOST, Columns, Part, Text, rest, table
from diffscope.report.text import NULL, number, p_value, percent, share
from diffscope.report.views.base import View
from diffscope.report.words import together
from diffscope.results import Record

if TYPE_CHECKING:
    from diffscope.report.figures.canvas import Figure
    from diffscope.report.page.charts import Drawn

COLUMNS: Columns = {
    "layer": lambda row: str(row["layer"]),
    "σ": lambda row: number(row["sigma"]),
    "ICR old": lambda row: share(row["icr_old"]),
    "ICR new": lambda row: share(row["icr_new"]),
    "change": lambda row: percent(row["change"]),
    "95 % interval": lambda row: _span(row),
    "t": lambda row: number(row["t"]),
    "p": lambda row: p_value(row["p"]),
    "corrected p": lambda row: p_value(row["p_corrected"]),
    "verdict": lambda row: _direction(row),
}
DROPPED_FIRST = (["t"], ["p"], ["ICR old", "ICR new"])


class _View(View[Record]):
    number = "change"

    def parts(self, shown: Record, pictured: bool = False) -> Iterator[Part]:
        if "curves" in shown:
            yield table(together.columns(shown), shown["curves"], left=["result", "layer", "verdict"], once=["result"])
            yield Text([f"{line}." for line in (together.unlike(shown).capitalize(), self.verdict(shown)) if line])
            return
        rows = _most_certain(shown["rows"])
        less = rest(len(rows), len(shown["rows"]), "rows, those of smallest p")
        left = ["layer", "verdict"]
        yield table(COLUMNS, rows, left=left, once=["layer"], dropped_first=DROPPED_FIRST, beneath=less)
        told = "at 5 % for all rows together, their p corrected for their number (Holm)"
        yield Text([f"{self.verdict(shown)}: {told}."])

    def verdict(self, shown: Record) -> str:
        if "curves" in shown:
            return together.verdict(shown)
        found = [_direction(row) for row in shown["rows"]]
        counted = f"significantly lower in {found.count('lower')}, higher in {found.count('higher')}"
        return f"Of {len(found)} rows ICR is {counted}"

    def figures(self, shown: Record) -> dict[str, Figure]:
        if "curves" not in shown:
            return {}
        from diffscope.report.figures.together import figure_of

        return {"icr": figure_of(shown)}

    def where(self, shown: Record) -> str:
        if "curves" in shown:
            return ", ".join(result["name"] for result in shown["results"])
        return f"{shown['old']['path']} against {shown['new']['path']}"

    def charts(self, shown: Record) -> list[Drawn]:
        if "curves" in shown:
            return []
        from diffscope.report.page.levels import change_charts

        return change_charts(shown["rows"])

    def records(self, shown: Record) -> list[dict[str, Any]]:
        return [dict(row) for row in shown["rows"]]


VIEW = _View()


def _most_certain(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """All that a reader reads, in their order; of more those of smallest p."""
    by_p = sorted(range(len(rows)), key=lambda i: 2.0 if rows[i]["p"] is None else rows[i]["p"])
    return [rows[i] for i in sorted(by_p[:MOST])]


def _direction(row: Mapping[str, Any]) -> str:
    if row["change"] is None:
        return NULL
    if not row["significant"]:
        return "no difference"
    return "lower" if row["change"] < 0 else "higher"


def _span(row: Mapping[str, Any]) -> str:
    low, high = row["change_low"], row["change_high"]
    return NULL if low is None or high is None else f"[{percent(low)}, {percent(high)}]"
