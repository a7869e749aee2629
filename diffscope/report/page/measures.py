"""Whatever else rows hold, as one chart whose measure a reader chooses.

The measures are the keys of the rows themselves, which the manual (output) documents; nothing is listed here a second
time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from diffscope.report.page.charts import Axis, Chart, Curve, curve
from diffscope.results import HEAD, Row

MEASURE = "measure"
ENDS = ("_se", "_low", "_high")
FIRST = ("trace_s", "trace_xi", "effective_rank")
"""What most readers look for, if it is there."""
MOST = 20_000
"""Points of all measures together; of long runs of many layers only the first ones have room."""


def measures_chart(
    key: str,
    groups: Mapping[tuple[str, ...], Sequence[Row]],
    facets: tuple[str, ...],
    x: Axis,
    across: Callable[[Any], float],
    without: Sequence[str],
) -> list[Chart]:
    """A chart of the measures of rows, if there are any beside those that have charts of their own.

    Args:
        key: Of the chart.
        groups: Rows of each curve, by the values of `facets`.
        facets: What tells curves of one measure apart.
        x: The horizontal axis.
        across: Where a row stands on it.
        without: Keys that have charts of their own.
    """
    points = sum(map(len, groups.values()))
    if not 1 < points <= MOST:
        return []
    names = _names([row for rows in groups.values() for row in rows], without)
    room = names[: MOST // points]
    curves: list[Curve] = [
        curve((name, *at), rows, across, name) for name in room for at, rows in groups.items() if _known(rows, name)
    ]
    if not curves:
        return []
    left = len(names) - len(room)
    said = "The names are those of result.json: diffscope help output."
    if left:
        said += f" {left} more measures are in result.json."
    return [
        Chart(f"measures over {key}", "Other measures", x, Axis("value"), (MEASURE, *facets), curves, single=MEASURE,
              said=said)
    ]  # fmt: skip


def _names(rows: Sequence[Row], without: Sequence[str]) -> list[str]:
    keys = dict.fromkeys(key for row in rows for key in row if key not in HEAD)
    left = {name for key in without for name in (key, *(f"{key}{end}" for end in ENDS))}
    numbers = [
        key
        for key in keys
        if key not in left
        and not key.endswith(ENDS)
        and any(_is_number(row.get(key)) for row in rows)
        and all(row.get(key) is None or _is_number(row.get(key)) for row in rows)
    ]
    return [*(key for key in FIRST if key in numbers), *(key for key in numbers if key not in FIRST)]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _known(rows: Sequence[Row], name: str) -> bool:
    return any(row.get(name) is not None for row in rows)
