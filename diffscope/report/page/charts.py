"""What a page draws, as plain data: curves with bands, names with intervals, and tables of two names.

    Chart("icr over σ", "ICR over noise levels", SIGMA, ICR, ("layer",), [Curve(("mid",), [0.1, 1], [0.4, 0.3])])

Charts of several results that have the same `key` become one, with the result as a further facet.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from diffscope.report.text import NULL, number, percent, share

DIGITS = 5
"""Significant digits of what is drawn; files have all."""
SHOWN = 12
"""Curves that are drawn before a reader has chosen; of more the best."""
RESULT = "result"
"""The facet that tells several results apart."""


@dataclass(frozen=True)
class Axis:
    """An axis of a chart."""

    label: str
    log: bool = False
    whole: bool = False
    """Whether its numbers are counts, such as training steps."""
    signed: bool = False
    """Whether they are relative changes, which are read as percentages."""


@dataclass(frozen=True)
class Marks:
    """What is marked of one curve on its horizontal axis."""

    said: str
    """In words."""
    span: tuple[float, float] | None = None
    """Shaded."""
    rule: float | None = None
    """Dashed."""


@dataclass(frozen=True)
class Curve:
    """One curve."""

    at: tuple[str, ...]
    """Its value of each facet of the chart."""
    x: Sequence[float]
    y: Sequence[float | None]
    low: Sequence[float | None] = ()
    """Ends of the band; empty where there is none."""
    high: Sequence[float | None] = ()
    marks: Marks | None = None


@dataclass(frozen=True)
class Map:
    """That curves are shown as a map of colours as well: one facet upwards, their values as colours."""

    facet: str
    """Whose values are the levels upwards, as numbers."""
    label: str
    windows: Mapping[tuple[str, ...], Sequence[Mapping[str, float | None]]] = field(default_factory=dict)
    """By the values of the other facets: `x`, `level`, `low` and `high` of what is drawn over the colours."""


@dataclass(frozen=True)
class Chart:
    """Curves over one axis."""

    key: str
    title: str
    x: Axis
    y: Axis
    facets: tuple[str, ...]
    """What tells its curves apart."""
    curves: Sequence[Curve]
    single: str | None = None
    """The facet of which one value is shown at a time, for its curves have different units."""
    best: str | None = None
    """Whether the "lowest" or the "highest" value is the best; None where neither."""
    reference: float | None = None
    """A value with a line of its own, such as no change."""
    said: str = ""
    """What a reader should know."""
    map: Map | None = None

    def to_json(self) -> dict[str, Any]:
        """What `page.js` draws; facets without a choice are left out."""
        values = {name: list(dict.fromkeys(curve.at[i] for curve in self.curves)) for i, name in enumerate(self.facets)}
        told = [i for i, name in enumerate(self.facets) if len(values[name]) > 1]
        return {
            "kind": "curves",
            "title": self.title,
            "x": vars(self.x),
            "y": vars(self.y),
            "facets": [
                {"name": self.facets[i], "values": values[self.facets[i]], "single": self.facets[i] == self.single}
                for i in told
            ],
            "same": [values[name][0] for i, name in enumerate(self.facets) if i not in told],
            "on": self._shown(values, told),
            "curves": [self._curve(curve, values, told) for curve in self.curves],
            "best": self.best,
            "reference": self.reference,
            "said": self.said,
            "map": self._map(values, told),
        }

    def _curve(self, curve: Curve, values: Mapping[str, list[str]], told: Sequence[int]) -> dict[str, Any]:
        found: dict[str, Any] = {
            "at": [values[self.facets[i]].index(curve.at[i]) for i in told],
            "x": list(map(rounded, curve.x)),
            "y": list(map(rounded, curve.y)),
        }
        if any(end is not None for end in curve.low):
            found |= {"low": list(map(rounded, curve.low)), "high": list(map(rounded, curve.high))}
        if curve.marks is not None:
            found["marks"] = vars(curve.marks)
        return found

    def _shown(self, values: Mapping[str, list[str]], told: Sequence[int]) -> list[list[int]]:
        """Of each facet the values that are switched on at first: all, or of many the best."""
        order = self._best_first()
        on: dict[int, list[int]] = {}
        for i in told:
            ranked = list(dict.fromkeys(curve.at[i] for curve in order))
            places = [values[self.facets[i]].index(value) for value in ranked]
            on[i] = [0] if self.facets[i] == self.single else places
        for i in sorted(told, key=lambda i: -len(on[i])):
            others = math.prod(len(on[j]) for j in told if j != i)
            if others * len(on[i]) > SHOWN:
                on[i] = on[i][: max(1, SHOWN // others)]
        return [sorted(on[i]) for i in told]

    def _best_first(self) -> list[Curve]:
        if self.best is None:
            return list(self.curves)
        sign = 1 if self.best == "lowest" else -1

        def extreme(curve: Curve) -> float:
            return min((sign * y for y in curve.y if y is not None), default=math.inf)

        return sorted(self.curves, key=extreme)

    def _map(self, values: Mapping[str, list[str]], told: Sequence[int]) -> dict[str, Any] | None:
        places = [self.facets[i] for i in told]
        if self.map is None or self.map.facet not in places or any(len(curve.x) < 2 for curve in self.curves):
            return None
        others = [name for name in self.facets if name != self.map.facet]
        windows = [
            {
                "at": [values[name].index(value) for name, value in zip(others, at, strict=True) if name in places],
                "points": [{key: rounded(value) for key, value in point.items()} for point in points],
            }
            for at, points in self.map.windows.items()
        ]
        return {"facet": places.index(self.map.facet), "label": self.map.label, "windows": windows}


@dataclass(frozen=True)
class Dot:
    """A number under a name."""

    name: str
    value: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Dots:
    """Names below each other, each with a number and its interval."""

    key: str
    title: str
    axis: Axis
    dots: Sequence[Dot]
    reference: float | None = None
    said: str = ""

    def to_json(self) -> dict[str, Any]:
        """What `page.js` draws."""
        show = percent if self.axis.signed else share
        dots = [
            {
                "name": dot.name,
                "value": rounded(dot.value),
                "low": rounded(dot.low),
                "high": rounded(dot.high),
                "said": show(dot.value),
                "interval": NULL if None in (dot.low, dot.high) else f"[{show(dot.low)}, {show(dot.high)}]",
            }
            for dot in self.dots
        ]
        places = [self.reference, *(value for dot in self.dots for value in (dot.value, dot.low, dot.high))]
        ends = [value for value in places if value is not None]
        return {
            "kind": "dots",
            "title": self.title,
            "axis": vars(self.axis),
            "dots": dots,
            "ends": [show(min(ends)), show(max(ends))] if ends else [NULL, NULL],
            "reference": rounded(self.reference),
            "said": self.said,
        }


@dataclass(frozen=True)
class Square:
    """A number for each two of several names, as colours."""

    key: str
    title: str
    names: Sequence[str]
    values: Sequence[Sequence[float | None]]
    said: str = ""

    def to_json(self) -> dict[str, Any]:
        """What `page.js` draws."""
        values = [list(map(rounded, line)) for line in self.values]
        return {"kind": "square", "title": self.title, "names": list(self.names), "values": values, "said": self.said}


Drawn = Chart | Dots | Square


def rounded(value: float | None) -> float | None:
    """As much of a number as can be seen; None where it is not finite."""
    if value is None or not math.isfinite(value):
        return None
    if value == int(value) and abs(value) < 1e15:
        return int(value)
    return float(f"{value:.{DIGITS}g}")


def curve(
    at: tuple[str, ...],
    rows: Sequence[Mapping[str, Any]],
    across: Callable[[Any], float],
    key: str,
    marks: Marks | None = None,
) -> Curve:
    """A curve of one key of rows, with the band from KEY_low to KEY_high, else of 1.96 standard errors."""
    ends = [(row.get(f"{key}_low"), row.get(f"{key}_high")) for row in rows]
    if all(end == (None, None) for end in ends):
        ends = [_around(row.get(key), row.get(f"{key}_se")) for row in rows]
    low, high = [end[0] for end in ends], [end[1] for end in ends]
    return Curve(at, [across(row) for row in rows], [row.get(key) for row in rows], low, high, marks)


def _around(value: float | None, error: float | None) -> tuple[float | None, float | None]:
    return (None, None) if value is None or error is None else (value - 1.96 * error, value + 1.96 * error)


def together(drawn: Mapping[str, Sequence[Drawn]], facet: str = RESULT) -> list[Drawn]:
    """The charts of several results: those of the same key as one.

    Args:
        drawn: By the names of the results.
        facet: What those names tell apart.
    """
    found: dict[str, list[tuple[str, Drawn]]] = {}
    for name, charts in drawn.items():
        for chart in charts:
            found.setdefault(chart.key, []).append((name, chart))
    return [one for group in found.values() for one in _joined(group, facet)]


def has_choice(chart: Drawn) -> bool:
    """Whether a reader chooses which of several measures it shows; such charts come last."""
    return isinstance(chart, Chart) and chart.single is not None


def _joined(group: Sequence[tuple[str, Drawn]], facet: str) -> list[Drawn]:
    first = group[0][1]
    if isinstance(first, Chart):
        return _joined_charts([(name, chart) for name, chart in group if isinstance(chart, Chart)], facet)
    if isinstance(first, Dots):
        dots = [
            replace(dot, name=f"{name}: {dot.name}" if len(chart.dots) > 1 else name)
            for name, chart in group
            if isinstance(chart, Dots)
            for dot in chart.dots
        ]
        return [replace(first, dots=dots)]
    return [replace(one, title=f"{name}: {one.title}") for name, one in group if isinstance(one, Square)]


def _joined_charts(charts: Sequence[tuple[str, Chart]], named: str) -> list[Drawn]:
    """One chart; maps stand alone where not all have one, for their levels are not those of the others."""
    first = charts[0][1]
    facets = tuple(dict.fromkeys(facet for _, chart in charts for facet in chart.facets))
    curves = [
        replace(one, at=(name, *_values(facets, chart.facets, one.at)))
        for name, chart in charts
        for one in chart.curves
    ]
    alone = [(name, chart) for name, chart in charts if chart.map is not None]
    joined = len(alone) == len(charts)
    shared = _joined_map(charts, facets) if joined else None
    whole = replace(first, facets=(named, *facets), curves=curves, map=shared)
    return [whole, *([] if joined else [replace(chart, title=f"{name}: {chart.title}") for name, chart in alone])]


def _joined_map(charts: Sequence[tuple[str, Chart]], facets: tuple[str, ...]) -> Map:
    """Of charts that all have one."""
    maps = [chart.map for _, chart in charts if chart.map is not None]
    others = tuple(facet for facet in facets if facet != maps[0].facet)
    windows: dict[tuple[str, ...], Sequence[Mapping[str, float | None]]] = {}
    for (name, chart), drawn in zip(charts, maps, strict=True):
        own = [facet for facet in chart.facets if facet != drawn.facet]
        windows |= {(name, *_values(others, own, at)): points for at, points in drawn.windows.items()}
    return replace(maps[0], windows=windows)


def _values(facets: Sequence[str], own: Sequence[str], at: Sequence[str]) -> tuple[str, ...]:
    """A curve's values of all facets; of one that its chart does not have a dash."""
    known = dict(zip(own, at, strict=True))
    return tuple(known.get(facet, "–") for facet in facets)


def level(sigma: float) -> str:
    """A noise level as a value of a facet."""
    return number(sigma)
