"""The page: what there is to read as HTML, what there is to draw as data, and the one file that holds both.

Data lies in the page compressed, as base64: 28 layers at 12 noise levels over 200 snapshots have room, and nothing in
it can be taken for HTML. A policy in the page allows its own two scripts and no others, and nothing from elsewhere.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffscope.names import in_json
from diffscope.report import spreadsheet
from diffscope.report.page.charts import Drawn
from diffscope.report.page.markup import Markup, element
from diffscope.report.parts import Facts, Part, Table, Text, groups
from diffscope.report.text import NULL

if TYPE_CHECKING:
    from diffscope.report.figures.canvas import Figure

SCRIPTS = ("common", "curves", "map", "shapes", "tables", "start")
CELLS = 40_000
"""Of the table of all rows: of larger results it is left out, lest the page grow beyond what opens at once."""
LETTERS = 2_000_000
"""The same of result.json: of so many about a fifth remain when compressed."""


@dataclass(frozen=True)
class Picture:
    """A picture that shows images, which no chart can stand for."""

    name: str
    said: str
    png: bytes


@dataclass(frozen=True)
class Seen:
    """One result, as a page shows it."""

    name: str
    """What tells it apart from others on the same page."""
    command: str
    where: str
    verdict: str
    parts: Sequence[Part]
    charts: Sequence[Drawn]
    records: Sequence[Mapping[str, Any]]
    facts: Mapping[str, Mapping[str, str]]
    """Names and values under headings: what the numbers depend on, and what measured them."""
    json: str
    pictures: Sequence[Picture] = ()


@dataclass(frozen=True)
class Beside:
    """What is said of several results together."""

    charts: Sequence[Drawn]
    tables: Sequence[Table] = ()
    lines: Sequence[str] = field(default_factory=tuple)
    """Such as why two of them are not compared."""


def page(seen: Sequence[Seen], beside: Beside | None = None, renewed: float | None = None) -> str:
    """A page of one result, or of several with what is said of them together.

    Args:
        seen: The results.
        beside: What is said of several.
        renewed: Seconds after which an open page loads itself again; None for one that is finished.
    """
    body = _Body()
    main = _one(seen[0], body) if beside is None else _several(seen, beside, body)
    title = f"diffscope {seen[0].command}: {seen[0].where}" if beside is None else f"diffscope: {len(seen)} results"
    data = {"charts": [chart.to_json() for chart in body.charts], "results": list(map(_data, seen)), "renewed": renewed}
    plot, script = _read("uplot/uPlot.iife.min.js"), _script()
    policy = "; ".join(
        ("default-src 'none'", "img-src data:", "style-src 'unsafe-inline'", "base-uri 'none'", "form-action 'none'",
         f"script-src {_digest(plot)} {_digest(script)}")
    )  # fmt: skip
    filled = {
        "policy": policy,
        "title": str(element("span", title))[len("<span>") : -len("</span>")],
        "plot_style": _read("uplot/uPlot.min.css"),
        "style": _read("page.css"),
        "header": _header(seen, beside, renewed),
        "main": main,
        "data": _packed(data),
        "plot": plot,
        "script": script,
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda found: filled[found[1]], _read("page.html"))


def listing(name: str, lines: Sequence[tuple[str, str, str]]) -> str:
    """A list of results, for who looks at a folder of them.

    Args:
        name: Of the folder.
        lines: Address, name and what there is to see of each result.
    """
    items = [
        element("li", element("a", shown, href=address), element("p", said, class_="said"))
        for address, shown, said in lines
    ]
    main = element("ul", *items, class_="results") if items else element("p", "There are no results in this folder.")
    body = element("header", element("h1", name)) + element("main", main)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        f"{element('title', name)}\n<style>{_read('page.css')}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


class _Body:
    """Collects charts as the page comes to them: each stands in the data, and its place in the page has its number."""

    def __init__(self) -> None:
        self.charts: list[Drawn] = []

    def figures(self, charts: Iterable[Drawn], heading: str) -> list[Markup]:
        return [self._figure(chart, heading) for chart in charts]

    def _figure(self, chart: Drawn, heading: str) -> Markup:
        self.charts.append(chart)
        return element(
            "figure",
            element(heading, chart.title),
            element("noscript", element("p", "This chart needs JavaScript; the tables below hold its numbers.")),
            class_="chart",
            data_chart=str(len(self.charts) - 1),
        )


def _header(seen: Sequence[Seen], beside: Beside | None, renewed: float | None) -> Markup:
    tools = [element("button", "Dark", type="button", id="theme", hidden=True)]
    if renewed is not None:
        tools.insert(0, element("button", "Stop renewing", type="button", id="pause"))
    where = element("p", seen[0].where, class_="where") if beside is None else Markup()
    name = f"diffscope {seen[0].command}" if beside is None else f"diffscope: {len(seen)} results"
    going = [] if renewed is None else [
        element("p", f"The command still runs; this page renews itself every {renewed:g} s.", class_="where")
    ]  # fmt: skip
    return element("header", element("div", *tools, class_="tools"), element("h1", name), where, *going)


# --- one result


def _one(seen: Seen, body: _Body, number: int = 0, heading: str = "h2", drawn: bool = True) -> Markup:
    """Verdict, charts, pictures, tables, and what the numbers depend on."""
    charts = body.figures(seen.charts, heading) if drawn else []
    tables = [part for part in seen.parts if isinstance(part, (Table, Facts))]
    lines = [line for part in seen.parts if isinstance(part, Text) for line in part.lines]
    verdict = next((line for line in lines if line.startswith(seen.verdict)), seen.verdict)  # said at more length
    return Markup(
        "\n".join(
            [
                element("p", verdict, class_="verdict"),
                *_findings(seen, verdict),
                *charts,
                *(_picture(picture, heading) for picture in seen.pictures),
                *([element(heading, "Tables")] if tables else []),
                *(
                    _facts(part.pairs) if isinstance(part, Facts) else _table(part, f"Table {i}")
                    for i, part in enumerate(tables, start=1)
                ),
                *_files(seen, number),
                *_folded(seen),
            ]
        )
    )


def _findings(seen: Seen, verdict: str) -> list[Markup]:
    """Paragraphs, but for what the verdict has said."""
    found = []
    for part in seen.parts:
        if isinstance(part, Text):
            lines = [line for line in part.lines if line != verdict]
            heading = [element("strong", f"{part.heading} ")] if part.heading and lines else []
            found += [element("p", *(heading if i == 0 else []), line) for i, line in enumerate(lines)]
    return found


def _table(table: Table, name: str) -> Markup:
    """A table that scrolls by itself where it is too wide; `name` is for who hears it."""
    left = [heading in table.left for heading in table.headings]
    head = [element("th", name, scope="col", class_="left" if side else None)
            for name, side in zip(table.headings, left, strict=True)]  # fmt: skip
    rows = []
    for start, end in groups(table.common):
        for i in range(start, end):
            within = i > start and bool(table.once)
            cells = [
                element("td", element("span", cell), class_=_class(cell, side, within and name in table.once))
                for name, cell, side in zip(table.headings, table.rows[i], left, strict=True)
            ]
            rows.append(element("tr", *cells, class_="within" if within else None))
    shown = element("table", element("thead", element("tr", *head)), element("tbody", *rows), class_="sortable")
    scrolled = element("div", shown, class_="wide", tabindex="0", role="group", aria_label=table.title or name)
    above = [element("p", table.title)] if table.title else []
    beneath = [element("p", line, class_="beneath") for line in table.beneath]
    return Markup("\n".join([*above, scrolled, *beneath]))


LONG = 40
"""Letters of a cell from which on it may be broken into lines."""


def _class(cell: str, left: bool, same: bool) -> str | None:
    found = (("left", left), ("same", same), ("long", len(cell) > LONG))
    return " ".join(name for name, holds in found if holds) or None


def _picture(picture: Picture, heading: str) -> Markup:
    source = f"data:image/png;base64,{base64.b64encode(picture.png).decode()}"
    image = element("img", src=source, alt=picture.said)
    button = element("button", image, type="button", class_="zoom", aria_label=f"Enlarge: {picture.said}")
    return element("figure", element(heading, picture.name), button, class_="chart")


def _files(seen: Seen, number: int) -> list[Markup]:
    """All rows to look at, and files of them to take away."""
    has_rows, has_json = _has_rows(seen), _has_json(seen)
    rows = [element("details", element("summary", f"All rows ({len(seen.records):,})"), data_rows=str(number))]
    saves = [
        element("button", f"Save as {kind.upper()}", type="button", hidden=True, data_save=kind, data_of=str(number))
        for kind, has in (("csv", has_rows), ("json", has_json))
        if has
    ]
    missing = [
        name for name, has in (("result.csv", has_rows or not seen.records), ("result.json", has_json)) if not has
    ]
    said = f"Too large for a page, and only in the folder of the result: {', '.join(missing)}."
    return [
        *(rows if has_rows else []),
        *([element("p", *_spaced(saves))] if saves else []),
        *([element("p", said, class_="said")] if missing else []),
    ]


def _spaced(buttons: Sequence[Markup]) -> list[Markup]:
    return [Markup(f"{button} ") for button in buttons]


def _folded(seen: Seen) -> list[Markup]:
    if not seen.facts:
        return []
    sections = [
        Markup("\n".join([element("h3", name), _facts(list(facts.items()))]))
        for name, facts in seen.facts.items()
        if facts
    ]
    return [element("details", element("summary", "Protocol and environment"), *sections)]


def _facts(pairs: Iterable[tuple[str, str]]) -> Markup:
    return element("dl", *(Markup(element("dt", name) + element("dd", value)) for name, value in pairs))


# --- several


def _several(seen: Sequence[Seen], beside: Beside, body: _Body) -> Markup:
    """Their verdicts, what they have in common in one figure, what differs; then each, folded."""
    names = ["result", "command", "verdict"]
    verdicts = Table(names, [[one.name, one.command, one.verdict] for one in seen], left=names)
    results = [
        element(
            "details",
            element("summary", one.name),
            element("p", f"diffscope {one.command}: {one.where}", class_="where"),
            _one(one, body, number, "h3", drawn=False),
            class_="result",
        )
        for number, one in enumerate(seen)
    ]
    main = [
        _table(verdicts, "Verdicts"),
        *body.figures(beside.charts, "h2"),
        *([element("h2", "Compared")] if beside.tables or beside.lines else []),
        *(element("p", line) for line in beside.lines),
        *(
            element("details", element("summary", table.title), _table(replace(table, title=""), table.title))
            for table in beside.tables
        ),
        element("h2", "Each result"),
        *results,
    ]
    return Markup("\n".join(main))


# --- data


def _has_rows(seen: Seen) -> bool:
    return bool(seen.records) and len(seen.records) * len(seen.records[0]) <= CELLS


def _has_json(seen: Seen) -> bool:
    return len(seen.json) <= LETTERS


def _data(seen: Seen) -> dict[str, Any]:
    columns, rows = spreadsheet.cells(seen.records) if _has_rows(seen) else ([], [])
    return {
        "name": f"{seen.command} {seen.name}".strip(),
        "columns": columns,
        "rows": rows,
        "json": seen.json if _has_json(seen) else None,
    }


def _packed(data: Mapping[str, Any]) -> str:
    """Compressed, without a time in it: the same result gives the same page."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    return base64.b64encode(gzip.compress(text.encode(), 6, mtime=0)).decode()


def facts_of(record: Mapping[str, Any]) -> dict[str, str]:
    """Names and values of nested records as text; lists of records by their length."""
    return {str(key): _value(value) for key, value in record.items()}


def _value(value: Any) -> str:
    if value is None:
        return NULL
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_value(part)}" for key, part in value.items())
    if isinstance(value, (list, tuple)):
        return f"{len(value)}" if any(isinstance(part, Mapping) for part in value) else ", ".join(map(_value, value))
    return in_json(f"{value:g}" if isinstance(value, float) else str(value))


# --- files of the package


@cache
def _read(name: str) -> str:
    return resources.files(__package__).joinpath(*name.split("/")).read_text(encoding="utf-8")


@cache
def _script() -> str:
    parts = "\n".join(_read(f"script/{name}.js") for name in SCRIPTS)
    return f'(() => {{\n"use strict";\n{parts}}})();\n'


@cache
def _digest(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def pictures_in(folder: Path, said: Mapping[str, str], drawn: Mapping[str, Figure]) -> list[Picture]:
    """The pictures of images of a result; those that are nowhere are left out.

    Args:
        folder: May hold them as PNG.
        said: By the names of their files, what is to be seen.
        drawn: What has just been drawn, for a folder that has it in other forms alone.
    """
    found = []
    for name, words in said.items():
        path = folder / f"{name}.png"
        if path.is_file():
            found.append(Picture(name.capitalize(), words, path.read_bytes()))
        elif name in drawn:
            from diffscope.report.figures import canvas  # matplotlib takes a second to load

            found.append(Picture(name.capitalize(), words, canvas.png(drawn[name])))
    return found
