"""Several results on one page: what can be drawn in one chart, in what they differ, and what the comparisons say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from diffscope import registry
from diffscope.errors import DataError
from diffscope.report import views
from diffscope.report.page import document
from diffscope.report.page.charts import has_choice, together
from diffscope.report.parts import Table
from diffscope.report.views.base import view_of
from diffscope.results import RESULT, Record, Result, Shown, dumps, read_record, read_result

PAIR = "pair"
"""The facet that tells several comparisons apart."""


@dataclass(frozen=True)
class Compared:
    """What the comparison of two results came to."""

    old: str
    new: str
    """Their names on the page."""
    found: Record | str
    """The differences, or why there are none."""


def read(path: str) -> Shown:
    """Any command's result or record.

    Raises:
        DataError: There is none, in one line.
    """
    record = read_record(path, ("diffscope", "command"))
    if {"protocol", "timing", "rows"} <= record.keys():
        return read_result(path)
    command = str(record["command"])
    if command not in registry.members(views.__name__):
        raise DataError(f"{path}: of a command {command!r}, which this version does not have; measure again")
    return Record(command, record)


def page(paths: Sequence[str], results: Sequence[Shown], compared: Sequence[Compared] = ()) -> str:
    """The page of results that were read from files, with their pictures.

    Args:
        paths: Where each was read: a `result.json`, or its folder.
        results: In the same order.
        compared: What comparing them came to.
    """
    names = distinct(paths)
    seen = [_seen(*one) for one in zip(paths, results, names, strict=True)]
    if len(seen) == 1:
        return document.page(seen)
    charts = together({one.name: one.charts for one in seen})
    found = {f"{one.old} → {one.new}": one.found for one in compared if isinstance(one.found, Record)}
    changes = together({pair: view_of(record).charts(record) for pair, record in found.items()}, PAIR)
    refused = [
        f"{one.old} and {one.new} are not compared: {one.found}." for one in compared if isinstance(one.found, str)
    ]
    said = [f"{pair}: {view_of(record).verdict(record)}." for pair, record in found.items()]
    tables = [_titled(part, pair) for pair, record in found.items() for part in view_of(record).parts(record)
              if isinstance(part, Table)]  # fmt: skip
    main, chosen = ([one for one in charts if has_choice(one) is choice] for choice in (False, True))
    told = document.Beside([*main, *changes, *chosen], [*tables, *_differing(names, results)], [*said, *refused])
    return document.page(seen, told)


def _seen(path: str, result: Shown, name: str) -> document.Seen:
    view = view_of(result)
    try:
        return view.seen(result, view.records(result), dumps(result), folder_of(path), name)
    except (KeyError, TypeError, AttributeError) as error:
        if isinstance(result, Result):  # whose parts were looked at when it was read
            raise
        raise DataError(f"{path}: a record with a missing or unknown part ({error}); write it again") from None


def brief(path: str) -> str:
    """What a result is, and what it found, in a line.

    Raises:
        DataError: There is none.
    """
    result = read(path)
    return f"{result.command}: {view_of(result).verdict(result)}"


def folder_of(path: str) -> Path:
    """The folder of a result that may be named by its file."""
    return Path(path) if Path(path).is_dir() else Path(path).parent


def distinct(paths: Sequence[str]) -> list[str]:
    """Names of results: those of their folders, with as many above them as it takes to tell them apart."""
    parts = [(folder_of(path) if Path(path).name == RESULT else Path(path)).absolute().parts for path in paths]
    for depth in range(1, 1 + max(map(len, parts))):
        names = ["/".join(split[-depth:]) for split in parts]
        if len(set(names)) == len(names):
            return names
    return [f"{path} ({i})" for i, path in enumerate(paths, start=1)]


def _titled(table: Table, pair: str) -> Table:
    return replace(table, title=pair)


def _differing(names: Sequence[str], results: Sequence[Shown]) -> Iterator[Table]:
    """The fields of their protocols and checkpoints that are not the same in all; none where all are."""
    known = [_fields(result) for result in results if isinstance(result, Result)]
    named = [name for name, result in zip(names, results, strict=True) if isinstance(result, Result)]
    fields = dict.fromkeys(name for fields in known for name in fields)
    lines = [[field, *(fields.get(field, "–") for fields in known)] for field in fields]
    differing = [line for line in lines if len(set(line[1:])) > 1]
    if differing:
        yield Table(["field", *named], differing, left=["field", *named], title="In what their protocols differ")


def _fields(result: Result) -> dict[str, str]:
    protocol = {key: value for key, value in result.protocol.items() if key not in ("hash", "checkpoint", "data")}
    checkpoint, data = result.checkpoint, result.data
    head: Mapping[str, Any] = {"checkpoint": checkpoint.get("path"), "step": checkpoint.get("step")}
    return document.facts_of({**head, "data": data.get("path"), **protocol})
