"""What there is to see of ICR over noise levels and layers, of one measurement or of several."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from diffscope.report import curve
from diffscope.report.parts import MOST, Columns, Notes, Part, Plots, Table, Text, few, rest, table
from diffscope.report.scores import Score
from diffscope.report.text import (
    COLUMNS,
    NULL,
    TOLD,
    best_first,
    best_of,
    by_layer,
    interval,
    lowest,
    metric,
    number,
    percent,
    sentences,
    share,
)
from diffscope.report.views.base import View
from diffscope.report.words import variation
from diffscope.report.words import window as words
from diffscope.results import VARIED, Result, Row, WindowRow

if TYPE_CHECKING:
    from diffscope.report.figures.canvas import Figure
    from diffscope.report.page.charts import Drawn

DROPPED_FIRST = (["ICR raw"], ["eff. rank"], ["trace s", "trace ξ"], ["t"])
"""Columns of the table of rows that a narrow terminal goes without, in this order."""

HALVES: Columns = {
    "layer": COLUMNS["layer"],
    "σ": COLUMNS["σ"],
    "ICR": COLUMNS["ICR"],
    "from half": metric("icr_half", share),
    "change": metric("half_change", percent),
    "95 % interval": lambda row: f"[{percent(row['half_change_low'])}, {percent(row['half_change_high'])}]",
}
RANKING: Columns = {
    "layer": lambda window: str(window.layer),
    "lowest ICR": lambda window: share(window.icr),
    "σ": lambda window: number(window.sigma),
    "t": lambda window: number(window.t),
    "as good": lambda window: _span(window),
    "shape": words.shape,
}
ESTIMATES: Columns = {
    "ICR": COLUMNS["ICR"],
    "95 % interval": COLUMNS["95 % interval"],
    "ICR raw": COLUMNS["ICR raw"],
    "ICR Gauss": metric("icr_gauss", share),
    "trace s": COLUMNS["trace s"],
    "trace ξ": COLUMNS["trace ξ"],
}
"""Of several measurements at one level."""


class LevelsView(View[Result]):
    """Of `icr` and `sweep`."""

    labels = (*VARIED, "sigma")

    def parts(self, shown: Result, pictured: bool = False) -> Iterator[Part]:
        """Rows, what they agree with, curves, and the verdict on each layer."""
        if shown.varied is not None:
            yield from _of_members(shown)
            return
        rows = _best_rows(shown.rows)
        notes = Notes(rows)
        yield _rows(shown, rows, notes)
        if halves := [row for row in rows if row.get("icr_half") is not None]:
            yield table(HALVES, halves, left=["layer"], once=["layer"], dropped_first=[["ICR"], ["from half"]])
        if shown.window:
            yield from _curves(shown)
            yield from _verdicts(shown, notes)

    def verdict(self, shown: Result) -> str:
        """The window of the best layer; of one level its ICR."""
        if shown.varied is not None:
            return " ".join(variation.paragraphs(shown)[0])
        for window in words.ranked(shown)[:1]:
            where = "" if window.sigma is None else f", σ = {number(window.sigma)}, ICR {share(window.icr)}"
            return f"{window.layer}: {words.HEADLINE[words.shape(window)]}{where}"
        best = lowest(shown.rows)
        return "no ICR" if best is None else f"{best.layer}: ICR {share(best['icr'])} at σ = {number(best.sigma)}"

    def scores(self, shown: Result) -> list[Score]:
        """The lowest ICR of each layer."""
        groups = by_layer(shown.rows) if shown.varied is None else {}
        found = [row for group in groups.values() if (row := lowest(group)) is not None]
        return [
            Score(
                "icr",
                f"ICR of {row.layer}, lowest, at σ = {number(row.sigma)}",
                row["icr"],
                {key: row[key] for key in ("layer", "sigma", "icr_low", "icr_high")},
            )
            for row in found
        ]

    def figures(self, shown: Result) -> dict[str, Figure]:
        """ICR over levels, traces, layers; of several measurements a curve for each."""
        from diffscope.report.figures import sweep as levels
        from diffscope.report.figures import variation as members

        return members.figures(shown) if shown.varied else levels.figures(shown)

    def charts(self, shown: Result) -> list[Drawn]:
        """ICR over levels, and whatever else was measured."""
        from diffscope.report.page import levels

        return levels.charts(shown)


# --- of one measurement


def _best_rows(rows: Sequence[Row]) -> list[Row]:
    """All that a reader reads; of more the layers of lowest ICR that have room, and one in any case."""
    if len(rows) <= MOST:
        return list(rows)
    groups, kept = by_layer(rows), set[str]()
    for layer in best_first(groups):
        if kept and sum(len(groups[name]) for name in (*kept, layer)) > MOST:
            break
        kept.add(layer)
    return [row for row in rows if row.layer in kept]


def _rows(result: Result, rows: Sequence[Row], notes: Notes) -> Table:
    """One line a row, the layer once a group; beneath, a line for each kind of note."""
    less = rest(len(rows), len(result.rows), "rows, the layers of lowest ICR")
    ordered = [row for group in by_layer(rows).values() for row in group]
    return table(
        {**COLUMNS, **notes.column()},
        ordered,
        left=["layer", "notes"],
        once=["layer"],
        gaps=True,
        dropped_first=DROPPED_FIRST,
        beneath=[*less, *notes.footnotes()],
    )


def _curves(result: Result) -> Iterator[Plots]:
    """ICR over log sigma for each layer, of many layers for the best few; nothing where there is no curve."""
    groups, windows = by_layer(result.rows), {window.layer: window for window in result.window}
    shown = best_first(groups)[:TOLD] if len(groups) > TOLD else list(groups)
    drawn = {
        f"{layer}: ICR over σ": curve.over_levels(
            groups[layer], windows.get(layer), best_of(result, layer, groups[layer])
        )
        for layer in shown
    }
    more = [f"The {len(shown)} layers of lowest ICR, of {len(groups)}."] if len(groups) > len(shown) else []
    if found := {title: lines for title, lines in drawn.items() if lines}:
        yield Plots(found, curve.NEEDED, [curve.LEGEND, *more])


def _verdicts(result: Result, notes: Notes) -> Iterator[Part]:
    """Of several layers the ranking, then a paragraph a layer, then what the shapes mean."""
    windows = words.ranked(result)
    if len(windows) > 1:
        yield _ranking(windows)
    told = windows[:TOLD]
    for window in told:
        heading = f"{window.layer}: {words.HEADLINE[words.shape(window)]}."
        yield Text([" ".join([words.finding(result, window), *notes.new(window.notes)])], heading)
    if result.accuracy is not None:
        yield Text([words.spent(result)], "Images:")
    shapes = list(dict.fromkeys(words.shape(window) for window in told if window.icr is not None))
    for shape in shapes:
        yield Text([words.MEANING[shape]], f"What {shape} means:" if len(shapes) > 1 else "What to do:")


def _ranking(windows: Sequence[WindowRow]) -> Table:
    ranks = {window.layer: str(rank) if window.is_ranked else NULL for rank, window in enumerate(windows, start=1)}
    shown, less = few(windows, "layers")
    columns: Columns = {"rank": lambda window: ranks[window.layer], **RANKING}
    beneath = [*less, words.ranking(windows)]
    return table(columns, shown, left=["layer", "shape"], dropped_first=[["t"], ["as good"]], beneath=beneath)


def _span(window: WindowRow) -> str:
    low, high = number(window.low), number(window.high)
    return low if low == high else f"{low} to {high}"


# --- of several


def _of_members(result: Result) -> Iterator[Part]:
    """Tables, notes, and a paragraph a layer, or a layer and level."""
    beneath = sentences(note for row in result.rows for note in row.notes)
    of = variation.HEADING[result.varied or ""]
    if variation.is_curve(result):
        groups = by_layer(result.rows)
        for layer in list(groups) if len(groups) <= TOLD else best_first(groups)[:TOLD]:
            yield _by_level(result, layer, groups[layer])
        shown, less = few(result.window, "windows")
        columns = {"layer": RANKING["layer"], of: variation.member, **_best_columns(result)}
        yield table(columns, shown, left=["layer", "augmentation", "shape"], once=["layer"], beneath=[*less, *beneath])
    else:
        rows = [row for group in variation.series(result.rows).values() for row in group]
        few_rows, less = few(rows, "rows")
        columns = {"layer": COLUMNS["layer"], "σ": lambda row: number(row.sigma), of: variation.member, **ESTIMATES}
        if any(row.get("icr_half") is not None for row in rows):
            columns["from half"] = metric("icr_half", share)
        yield table(columns, few_rows, left=["layer", "augmentation"], once=["layer"], beneath=[*less, *beneath])
    for heading, text in variation.paragraphs(result):
        yield Text([text], heading)


def _by_level(result: Result, layer: str, rows: Sequence[Row]) -> Table:
    """ICR of one layer: a line a noise level, a column a member."""
    found = {(row.sigma, variation.member(row)): row for row in rows}
    names = variation.members(result)
    headings = [f"N = {name}" if result.varied == "num_images" else variation.short(name) for name in names]
    lines = [
        [layer, number(level), *(share(found[level, name].get("icr")) for name in names)]
        for level in sorted({row.sigma for row in rows})
    ]
    return Table(["layer", "σ", *headings], lines, left=["layer"], once=["layer"])


def _best_columns(result: Result) -> Columns:
    """The best level measured, and what window lies around it."""

    def best(window: WindowRow) -> Row | None:
        rows = variation.of_member(result.rows, variation.member(window))
        return lowest(row for row in rows if row.layer == window.layer)

    def of_best(key: str) -> Callable[[WindowRow], str]:
        return lambda window: share(None if (row := best(window)) is None else row.get(key))

    def ends(window: WindowRow) -> str:
        row = best(window)
        return NULL if row is None else interval(row.get("icr_low"), row.get("icr_high"))

    return {
        "lowest ICR": of_best("icr"),
        "95 % interval": ends,
        "ICR raw": of_best("icr_raw"),
        "σ": RANKING["σ"],
        "window": RANKING["as good"],
        "shape": RANKING["shape"],
    }
