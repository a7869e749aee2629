"""ICR of several results in one picture: of sweeps over noise, or of training runs over their steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from diffscope.report.figures import canvas
from diffscope.report.words import series, together
from diffscope.results import Record

Curve = Mapping[str, Any]

FIRED: dict[str, Any] = {"marker": "|", "markersize": 15, "markeredgewidth": 2, "linestyle": "none"}


def figure_of(record: Record) -> canvas.Figure:
    """A curve a result and layer with its band; of more than eight curves the best of each result."""
    shown = together.shown(record["curves"], canvas.DISTINCT)
    is_run = record["across"] == "step"
    names = together.names(shown)
    coloured = shown if len(shown) <= canvas.DISTINCT else _best(shown, canvas.BEST)
    handles = canvas.curve_handles([names[shown.index(c)] for c in coloured], len(shown) - len(coloured), "results")
    handles += [canvas.bands_handle(), canvas.filled_handle("filled: lowest measured")]
    if any(curve.get("recommended") is not None for curve in coloured):
        handles.append(
            canvas.Line2D([], [], **{**canvas.rule(), "linewidth": 0.9}, label="recommended σ, in its colour")
        )
    if any(curve.get("fired_at") is not None for curve in coloured):
        mark = {**FIRED, "markersize": 9}
        handles.append(canvas.Line2D([], [], color=canvas.ink(), **mark, label="memorization onset fired"))
    if record["unlike"]:
        handles.append(canvas.Line2D([], [], linestyle="none", label=canvas.literal(together.unlike(record))))
    figure = canvas.figure(4.0, handles)
    axes = figure.add_subplot()
    for curve in shown:
        rows = _rows(record, curve)
        if curve not in coloured:
            canvas.line(axes, rows, _across(record), "icr", color=canvas.faint(), linewidth=0.8, zorder=1.5)
        else:
            _draw(axes, rows, curve, record, coloured.index(curve), 0.16 if len(coloured) <= 3 else 0.1)
    if is_run:
        steps = [row["step"] for row in record["rows"]]
        canvas.step_axis(axes, steps, series.AXIS.get(str(record["step_unit"]), "training step"))
    else:
        levels = [row["sigma"] for row in record["rows"]]
        canvas.level_axis(axes, levels, "noise level σ (noise-to-signal ratio)")
    axes.set_ylabel(canvas.ICR)
    axes.set_title(canvas.title(together.shared(shown)))
    canvas.legend(figure, handles)
    return figure


def _draw(axes: canvas.Axes, rows: canvas.Rows, curve: Curve, record: Record, i: int, alpha: float) -> None:
    across, dense = _across(record), {"marker": None} if len(rows) > canvas.MARKED else {}
    look = canvas.curve_style(i) | dense
    canvas.line(
        axes, rows, across, "icr", **look, markerfacecolor=canvas.paper(), zorder=3 + 0.1 * (canvas.DISTINCT - i)
    )
    canvas.band(axes, rows, across, "icr", color=canvas.PALETTE[i], alpha=alpha)
    if curve["at"] is not None:
        axes.plot([curve["at"]], [curve["icr"]], **canvas.curve_style(i), markersize=7, zorder=5, clip_on=False)
    if curve.get("recommended") is not None:
        axes.axvline(curve["recommended"], **{**canvas.rule(), "color": canvas.PALETTE[i], "linewidth": 0.9}, zorder=2)
    fired = [row for row in rows if row["step"] == curve["fired_at"]] if curve.get("fired_at") is not None else []
    axes.plot([row["step"] for row in fired], [row["icr"] for row in fired], color=canvas.PALETTE[i], **FIRED, zorder=6)


def _best(curves: Sequence[Curve], count: int) -> list[Curve]:
    """Of lowest ICR, in their order."""
    least = sorted(curves, key=lambda curve: (curve["icr"] is None, curve["icr"]))[:count]
    return [curve for curve in curves if curve in least]


def _rows(record: Record, curve: Curve) -> canvas.Rows:
    keys = ("result", "layer", *(["sigma"] if record["across"] == "step" else []))
    return [row for row in record["rows"] if all(row[key] == curve[key] for key in keys)]


def _across(record: Record) -> canvas.Across:
    return lambda row: float(row[record["across"]])
