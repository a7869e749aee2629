"""What a user reads in the terminal: results on stdout, everything else on stderr.

The one file that knows Rich. What the words and plots say is made of plain strings elsewhere (`cells`, `curve`,
`verdict`, `training`, `inspection`); here they meet a console with its width, encoding and colours.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console as Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.segment import Segments
from rich.table import Table
from rich.text import Text

from diffscope.report import curve, inspection, training, verdict
from diffscope.report.cells import (
    COLUMNS,
    NULL,
    best_first,
    best_of,
    by_layer,
    direction,
    number,
    p_value,
    percent,
    share,
)
from diffscope.report.footnotes import footnotes, noted
from diffscope.report.streams import carry, one_line, silence
from diffscope.results import Result, Row, WindowRow

UNBOUND = 1000
"""Columns where nobody has said how wide: a pipe or a file, whose reader should find whole rows."""

READABLE = 100
"""Columns of a paragraph, however wide the window."""

DROPPED_FIRST = (["ICR raw"], ["eff. rank"], ["trace s", "trace ξ"], ["t"])
"""Columns of the table of rows that a narrow terminal goes without, in this order."""

SNAPSHOT_DROPPED_FIRST = (
    ["trace s", "trace ξ"], ["alignment", "uniformity"], ["eff. rank"], ["held-out ICR"], ["loss", "held-out loss"],
    ["checkpoint"],
)  # fmt: skip
"""The same of the table of snapshots."""

PLOTS = 4
"""Layers whose curves and verdicts are written out; of more, a reader wants the ranking."""

_drawing: list[Console] = []
"""The console with a progress bar on it, if any: other lines must pass through it, above the bar."""


def stdout_console() -> Console:
    return _console(stderr=False)


def stderr_console() -> Console:
    return _drawing[-1] if _drawing else _console(stderr=True)


def _console(stderr: bool) -> Console:
    """Rich honours FORCE_COLOR, TERM=dumb and COLUMNS; with NO_COLOR it would still write bold, so that is ours."""
    stream = sys.stderr if stderr else sys.stdout
    told = os.environ.get("COLUMNS", "").isdigit() or stream.isatty()
    return _Console(
        stderr=stderr,
        color_system=None if os.environ.get("NO_COLOR") else "auto",
        width=None if told else UNBOUND,
        markup=False,
        highlight=False,
        emoji=False,
    )


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Rich would silence stdout, whichever stream it is that nobody reads, and end the process."""
        raise


def warn(text: str) -> None:
    _line("warning: ", "yellow", text)


def fail(text: str) -> None:
    _line("error: ", "bold red", text)


def note(text: str) -> None:
    _line("", "", text)


def _line(prefix: str, style: str, text: str) -> None:
    """One line on stderr, however long: scripts and people search it."""
    console = stderr_console()
    try:
        console.print(Text.assemble((prefix, style), one_line(text, console.encoding)), soft_wrap=True)
    except OSError:  # nobody can be told; the exit code still says how it went
        silence(sys.stderr.fileno())


@contextmanager
def progress(total: int, description: str, unit: str = "images") -> Iterator[Callable[[float], None]]:
    """Gives `advance(n)`; a bar on stderr with done/total, rate and time left if that is a terminal, else nothing."""
    if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb" or _drawing:
        yield lambda n: None
        return
    console = stderr_console()
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), _Rate(unit))
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as bar:
        task = bar.add_task(one_line(description, console.encoding), total=total)
        _drawing.append(console)
        try:
            yield lambda n: bar.advance(task, n)
        finally:
            _drawing.pop()


class _Rate(ProgressColumn):
    def __init__(self, unit: str) -> None:
        super().__init__()
        self.unit = unit

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{number(speed)} {self.unit}/s")


def print_rows(result: Result, console: Console) -> None:
    """One line a row, the layer once a group; beneath, a line for each kind of note."""
    groups = list(by_layer(result.rows).values())
    columns = {**COLUMNS, **noted(result.rows)}

    def cells(headings: Sequence[str]) -> list[list[str]]:
        return _cells(groups, [(heading, columns[heading]) for heading in headings])

    headings, dropped = _fitting(list(columns), DROPPED_FIRST, cells, console)
    print_table(headings, cells(headings), console, left=("layer", "notes"))
    _print_beneath(dropped, result.rows, console)


def _fitting(
    headings: Sequence[str],
    dropped_first: Sequence[Sequence[str]],
    cells: Callable[[Sequence[str]], list[list[str]]],
    console: Console,
) -> tuple[list[str], list[str]]:
    """Headings of the columns that have room, `cells` being those of a table with given headings; and of the others."""
    fitting, dropped = list(headings), list[str]()
    for together in dropped_first:
        if _width(fitting, cells(fitting), console) <= console.width:
            break
        dropped += [heading for heading in together if heading in fitting]
        fitting = [heading for heading in fitting if heading not in together]
    return fitting, dropped


def _print_beneath(dropped: Sequence[str], rows: Sequence[Row], console: Console) -> None:
    """Of a table: the columns that had no room, and its footnotes."""
    if dropped:
        print_text(f"Left out at this width: {', '.join(dropped)}.", console)
    for footnote in footnotes(rows):
        print_text(footnote, console)
    console.print()


def _cells(groups: Sequence[Sequence[Row]], columns: Sequence[tuple[str, Callable[[Row], str]]]) -> list[list[str]]:
    """A group of several rows is followed by an empty line, unless it is the last."""
    rows: list[list[str]] = []
    for group in groups:
        rows += [] if not rows or len(group) == 1 else [[""] * len(columns)]
        rows += [[show(row) for _, show in columns] for row in group[:1]]
        rows += [["" if heading == "layer" else show(row) for heading, show in columns] for row in group[1:]]
    return rows


def print_self_check(result: Result, console: Console) -> None:
    """ICR from half of the images beside that from all, where it was asked for."""
    checked = [row for row in result.rows if row.get("icr_half") is not None]
    rows = [
        [
            row.layer,
            number(row.sigma),
            *(share(row[key]) for key in ("icr", "icr_half")),
            percent(row["half_change"]),
            f"[{percent(row['half_change_low'])}, {percent(row['half_change_high'])}]",
        ]
        for row in checked
    ]
    if rows:
        headings = ["layer", "σ", "ICR", "from half", "change", "95 % interval"]
        print_table(headings, rows, console, left=("layer",))
        console.print()


def print_curve(result: Result, console: Console) -> None:
    """ICR over log sigma for each layer, of many layers for the best few; nothing where there is no curve."""
    if console.width < curve.NEEDED:
        print_text(f"No plot at this width: it takes {curve.NEEDED} columns.", console)
        return
    groups, windows = by_layer(result.rows), {window.layer: window for window in result.window}
    shown = best_first(groups)[:PLOTS] if len(groups) > PLOTS else list(groups)
    plots = {
        layer: curve.over_levels(groups[layer], windows.get(layer), best_of(result, layer, groups[layer]))
        for layer in shown
    }
    drawn = {layer: lines for layer, lines in plots.items() if lines}
    for layer, lines in drawn.items():
        _heading(f"{layer}: ICR over σ", console)
        console.print(Text(carry("\n".join(lines), console.encoding)), soft_wrap=True)
        console.print()
    if drawn:
        console.print(Text(carry(curve.LEGEND, console.encoding)), soft_wrap=True)
        if len(groups) > len(shown):
            print_text(f"The {len(shown)} layers of lowest ICR, of {len(groups)}.", console)
        console.print()


def print_window(result: Result, console: Console) -> None:
    """The verdict: of several layers the ranking, then a paragraph a layer, then what the shapes mean."""
    windows = verdict.ranked(result)
    if len(windows) > 1:
        headings = ["rank", "layer", "lowest ICR", "σ", "t", "as good", "shape"]
        rows = [
            [str(rank) if window.is_ranked else NULL, *_ranked(window)] for rank, window in enumerate(windows, start=1)
        ]
        print_table(headings, rows, console, left=("layer", "shape"))
        print_text(verdict.ranking(windows), console)
        console.print()
    told = windows[:PLOTS]
    for window in told:
        heading = f"{window.layer}: {verdict.HEADLINE[verdict.shape(window)]}."
        print_text(verdict.finding(result, window), console, heading)
    if result.accuracy is not None:
        print_text(verdict.spent(result), console, "Images:")
    shapes = list(dict.fromkeys(verdict.shape(window) for window in told if window.icr is not None))
    for shape in shapes:
        print_text(verdict.MEANING[shape], console, f"What {shape} means:" if len(shapes) > 1 else "What to do:")


def _ranked(window: WindowRow) -> list[str]:
    low, high = number(window.low), number(window.high)
    reach = low if low == high else f"{low} to {high}"
    return [window.layer, share(window.icr), number(window.sigma), number(window.t), reach, verdict.shape(window)]


def print_training(result: Result, console: Console) -> None:
    """A training run: table, plot and verdict of each series, then the user's own columns and what was left out."""
    groups = training.by_series(result.rows)
    _print_snapshots(result, groups, console)
    _print_courses(result, groups, console)
    _print_verdicts(result, console)
    for sentence in training.overlay_lines(result):
        print_text(sentence, console)
    if result.overlay:
        console.print()
    for sentence in training.left_out(result):
        print_text(sentence, console)


def _print_snapshots(result: Result, groups: Mapping[str, Sequence[Row]], console: Console) -> None:
    columns = training.columns(result)
    shown = {name: training.selection(rows, training.onset_of(result, rows[0])) for name, rows in groups.items()}

    def cells(headings: Sequence[str], rows: Sequence[Row]) -> list[list[str]]:
        return [[columns[heading](row) for heading in headings] for row in rows]

    together = [row for rows in shown.values() for row in rows]
    headings, dropped = _fitting(
        list(columns), SNAPSHOT_DROPPED_FIRST, lambda headings: cells(headings, together), console
    )
    for name, rows in shown.items():
        if len(groups) > 1:
            _heading(training.place(rows[0]), console)
        print_table(headings, cells(headings, rows), console, left=("checkpoint", "mark", "notes"))
        if len(rows) < len(groups[name]):
            print_text(f"{len(rows)} of {len(groups[name])} snapshots; all are in result.json.", console)
        if len(groups) > 1:
            console.print()
    _print_beneath(dropped, result.rows, console)


def _print_courses(result: Result, groups: Mapping[str, Sequence[Row]], console: Console) -> None:
    """ICR over steps for each series, of many for the best few."""
    if console.width < curve.NEEDED_BY_STEPS:
        print_text(f"No plot at this width: it takes {curve.NEEDED_BY_STEPS} columns.", console)
        return
    shown = best_first(groups)[:PLOTS] if len(groups) > PLOTS else list(groups)
    plots = {name: curve.over_steps(groups[name], training.onset_of(result, groups[name][0])) for name in shown}
    drawn = {name: lines for name, lines in plots.items() if lines}
    for name, lines in drawn.items():
        _heading(f"{training.place(groups[name][0])}: ICR over {training.steps_count(result)}", console)
        console.print(Text(carry("\n".join(lines), console.encoding)), soft_wrap=True)
        console.print()
    if drawn:
        console.print(Text(carry(curve.LEGEND_OF_STEPS, console.encoding)), soft_wrap=True)
        if len(groups) > len(shown):
            print_text(f"The {len(shown)} series of lowest ICR, of {len(groups)}.", console)
        console.print()


def _print_verdicts(result: Result, console: Console) -> None:
    """Of several series a list, then a paragraph a series, then what the verdicts mean."""
    onsets = training.by_urgency(result.onset)
    if len(onsets) > 1:
        headings = ["layer", "σ", "verdict", "lowest ICR", "at step", "keep step", "fired at"]
        print_table(headings, [training.listed(onset) for onset in onsets], console, left=("layer", "verdict"))
        console.print()
    told = onsets[:PLOTS]
    for onset in told:
        heading = f"{training.place(onset)}: {training.HEADLINE[training.verdict(onset)]}."
        print_text(training.finding(result, onset), console, heading)
    verdicts = list(dict.fromkeys(training.verdict(onset) for onset in told))
    for name in verdicts:
        print_text(training.MEANING[name], console, f"What {name} means:" if len(verdicts) > 1 else "What to do:")


def _heading(text: str, console: Console) -> None:
    console.print(Text(one_line(text, console.encoding), "bold"), soft_wrap=True)


def print_comparison(records: Sequence[Mapping[str, Any]], console: Console) -> None:
    """Paired differences of two results: the relative change of ICR, its interval, and the verdict for all rows."""
    headings = ["layer", "σ", "ICR old", "ICR new", "change", "95 % interval", "t", "p", "corrected p", "verdict"]
    rows, last = [], None
    for record in records:
        low, high = record["change_low"], record["change_high"]
        span = NULL if low is None or high is None else f"[{percent(low)}, {percent(high)}]"
        layer, last = ("" if record["layer"] == last else record["layer"]), record["layer"]
        values = [number(record["sigma"]), share(record["icr_old"]), share(record["icr_new"])]
        tested = [percent(record["change"]), span, number(record["t"]), p_value(record["p"])]
        rows.append([layer, *values, *tested, p_value(record["p_corrected"]), direction(record)])
    print_table(headings, rows, console, left=("layer", "verdict"))
    found = [direction(record) for record in records]
    lower, higher = found.count("lower"), found.count("higher")
    told = f"Of {len(records)} rows ICR is significantly lower in {lower}, higher in {higher}"
    print_text(f"{told}: at 5 % for all rows together, their p corrected for their number (Holm).", console)


def print_inspection(record: Mapping[str, Any], console: Console) -> None:
    """What a checkpoint is: facts in words, then its layers in the order of execution, then warnings."""
    facts = [[text.plain for text in _texts(fact, console)] for fact in inspection.facts(record)]
    width = max(len(name) for name, _ in facts) + 2
    for name, value in facts:
        # In a pipe a fact is one line, without the blanks that a table would fill it up with.
        console.print(Text(f"{name:<{width}}{value}"), soft_wrap=True)
    console.print()
    print_table(
        ["layer", "shape", "features", "FLOPs so far", ""], inspection.layers(record), console, left=("layer", "")
    )
    for text in record.get("warnings", ()):
        print_text(f"warning: {text}", console)


def print_table(headings: Sequence[str], rows: Sequence[Sequence[str]], console: Console, left: Sequence[str]) -> None:
    """As wide as its words and numbers are: a narrow terminal breaks the line, where Rich would cut numbers off.

    Only notes wrap.
    """
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
    for heading in headings:
        text = carry(heading, console.encoding)
        table.add_column(text, justify="left" if heading in left else "right", no_wrap=heading != "notes")
    for row in rows:
        table.add_row(*_texts(row, console))
    width = max(console.width, _width(headings, rows, console))
    console.print(Segments(console.render(table, console.options.update_width(width))), soft_wrap=True, end="")


def _width(headings: Sequence[str], rows: Sequence[Sequence[str]], console: Console) -> int:
    """Columns that the table needs: the longest cell of each column, of notes the longest word; three between two."""
    widths = []
    for heading, *cells in zip(headings, *rows, strict=True):
        parts = [part for cell in cells for part in cell.split()] if heading == "notes" else cells
        widths.append(max(cell_len(carry(part, console.encoding)) for part in [heading, *parts]))
    return sum(widths) + 3 * (len(widths) - 1)


def _texts(cells: Sequence[str], console: Console) -> list[Text]:
    return [Text(one_line(cell, console.encoding)) for cell in cells]


def print_text(text: str, console: Console, heading: str = "") -> None:
    """Wrapped for reading; a heading stands at its beginning in bold."""
    start = (one_line(heading, console.encoding) + " " if heading else "", "bold")
    console.print(Text.assemble(start, one_line(text, console.encoding)), width=min(console.width, READABLE))
    if heading:
        console.print()
