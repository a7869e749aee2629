"""Pictures of a probe: accuracy and ICR over σ, and what else was asked for.

The first shows what figures 3 and 10 of Li et al., 2026, https://arxiv.org/abs/2606.09718, do, in two panels: on two
axes of one panel, how alike two curves look is a matter of their scales. Those of clean and noisy input and of CSNR
have the form of figures 1 and 6 of Wang et al., 2025, https://arxiv.org/abs/2502.05743.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from diffscope.report.figures import canvas
from diffscope.report.figures.denoised import denoised_figure
from diffscope.report.text import CORRELATED, by_layer, lowest, number
from diffscope.report.words.probe import PREFIXES, distance, noises, ranked, signed
from diffscope.results import ProbeRow, Result, Row, WindowRow

PANELS = 4
"""Layers that have room, those of the best accuracy."""
SIGMA = "noise level σ (noise-to-signal ratio)"
ACCURACY, CONTAMINATION = 0, 1
"""Places in the palette: the same colour means the same quantity in all panels."""


def figures(result: Result) -> dict[str, canvas.Figure]:
    """probe, csnr, and where they were asked for distances, inputs, labels and denoised.

    Of a single level, which is no curve, the last alone.
    """
    groups = by_layer(result.rows)
    # Pictures are of a result that was not read from a file.
    denoised = {} if result.pictures is None else {"denoised": denoised_figure(result, result.pictures)}
    if max(map(len, groups.values())) < 2:
        return denoised
    best = groups[ranked(result)[0].layer]
    drawn = {"probe": _probe_figure(result, groups)}
    if any(row["csnr"] is not None for row in best):
        drawn["csnr"] = _csnr_figure(result, best)
    if "swd_best" in best[0]:
        drawn["distances"] = _distances_figure(result, best)
    if len(_probed(best)) > 1:
        drawn["inputs"] = _inputs_figure(result, best)
    if noises(result) or "ensemble_accuracy" in best[0]:
        drawn["labels"] = _labels_figure(result, best)
    if result.sections.get("denoised"):
        drawn["tradeoff"] = _tradeoff_figure(result, best)
    return drawn | denoised


# --- accuracy and ICR


def _probe_figure(result: Result, groups: dict[str, list[Row]]) -> canvas.Figure:
    shown = ranked(result)[:PANELS]
    windows = {window.layer: window for window in result.window}
    beside = result.sections.get("beside", ())[: len(canvas.PALETTE) - 2]
    handles = [*_probe_handles(shown, windows), *_beside_handles(beside)]
    side_by_side = len(shown) > 1 and not canvas.is_narrow()
    height = 2.3 * len(shown) if side_by_side else 5.4 * len(shown)
    figure = canvas.figure(height + 0.3, handles, (1.15 if side_by_side else 1) * canvas.WIDTH)
    grid = (len(shown), 2) if side_by_side else (2 * len(shown), 1)
    panels = figure.subplots(*grid, sharex=True, squeeze=False).reshape(len(shown), 2)
    for (above, below), probe in zip(panels, shown, strict=True):
        rows, window = groups[probe.layer], windows.get(probe.layer)
        _accuracy_panel(above, rows, probe, beside)
        _icr_panel(below, rows)
        for axes in (above, below):
            _mark_level(axes, probe, window)
        best, agreement = _captions(probe, rows, len(shown) > 1)
        canvas.small_title(above, *best, share=0.46 if side_by_side else 0.85)
        canvas.small_title(below, *agreement, share=0.46 if side_by_side else 0.85)
    for axes in panels[-1] if side_by_side else panels.ravel()[-1:]:
        canvas.level_axis(axes, [row.sigma for row in result.rows], SIGMA)
    few = "" if len(groups) == len(shown) else f"the best {len(shown)} of {len(groups)} layers"
    figure.suptitle(_name(result, shown[0].layer if len(shown) == 1 else few))
    canvas.legend(figure, handles)
    return figure


def _beside_style(i: int) -> dict[str, Any]:
    """Of the line of an encoder beside the network, which knows no noise."""
    i = 2 + i % (len(canvas.PALETTE) - 2)
    dashes = canvas.DASHES[i] if i != 3 else canvas.DASHES[1]  # k-NN has the dots
    return {"color": canvas.PALETTE[i], "linestyle": dashes, "linewidth": 1.3}


def _accuracy_panel(
    axes: canvas.Axes, rows: Sequence[Row], probe: ProbeRow, beside: Sequence[Mapping[str, Any]]
) -> None:
    for i, encoder in enumerate(beside):
        axes.axhline(encoder["accuracy"], **_beside_style(i), zorder=2)
    _curve(axes, rows, "accuracy", ACCURACY, next(row for row in rows if row.sigma == probe.sigma))
    canvas.line(
        axes, rows, _sigma, "knn", color=canvas.PALETTE[ACCURACY], linestyle=canvas.DASHES[3], linewidth=1.1, zorder=2.5
    )
    axes.set_ylabel("accuracy")


def _icr_panel(axes: canvas.Axes, rows: Sequence[Row]) -> None:
    _curve(axes, rows, "icr", CONTAMINATION, lowest(rows))
    axes.set_ylabel(canvas.ICR)
    if lowest(rows) is None:
        canvas.say_no_icr(axes)


def _mark_level(axes: canvas.Axes, probe: ProbeRow, window: WindowRow | None) -> None:
    """The window of ICR, and the level that it recommends."""
    if window is not None and window.low is not None and window.high is not None and window.low < window.high:
        axes.axvspan(window.low, window.high, color=canvas.shade(), linewidth=0, zorder=0.5)
    if probe.icr_sigma is not None:
        axes.axvline(probe.icr_sigma, **canvas.rule(), zorder=1)


def _curve(axes: canvas.Axes, rows: Sequence[Row], key: str, i: int, best: Row | None) -> None:
    """Line, band and hollow markers; the best point filled."""
    canvas.line(axes, rows, _sigma, key, **canvas.curve_style(i), markerfacecolor=canvas.paper(), zorder=3)
    if f"{key}_low" in rows[0]:
        canvas.band(axes, rows, _sigma, key, color=canvas.PALETTE[i], alpha=0.16)
    if best is not None:
        axes.plot(
            [best.sigma], [canvas.gap(best[key])], **{**canvas.curve_style(i), "markersize": 7}, zorder=5, clip_on=False
        )


def _captions(probe: ProbeRow, rows: Sequence[Row], named: bool) -> tuple[list[str], list[str]]:
    """What stands above accuracy, and what above ICR."""
    name = [canvas.shortened(probe.layer, 40)] if named else []
    best = f"best accuracy {probe.accuracy:.3f} at σ = {number(probe.sigma)}"
    parts = []
    if probe.icr_sigma is not None and probe.steps is not None:
        parts.append(f"ICR recommends σ = {number(probe.icr_sigma)}, lowest {distance(probe.steps)}")
    levels = sum(row.get("icr") is not None for row in rows)
    if probe.rank_correlation is not None and levels >= CORRELATED:
        parts.append(f"rank correlation {signed(probe.rank_correlation)}")
    return [*name, best], parts


def _beside_handles(beside: Sequence[Mapping[str, Any]]) -> list[Any]:
    names = [canvas.literal(canvas.shortened(Path(encoder["encoder"]).name, 22)) for encoder in beside]
    return [
        canvas.Line2D([], [], **_beside_style(i), label=f"{name} (clean) {encoder['accuracy']:.3f}")
        for i, (name, encoder) in enumerate(zip(names, beside, strict=True))
    ]


def _probe_handles(shown: Sequence[ProbeRow], windows: dict[str, WindowRow]) -> list[Any]:
    of = f" of {canvas.literal(shown[0].layer)}" if len(shown) == 1 else ""
    handles: list[Any] = [
        canvas.Line2D(
            [], [], **canvas.curve_style(ACCURACY), markerfacecolor=canvas.paper(), label=f"linear probe{of}"
        ),
        canvas.Line2D([], [], color=canvas.PALETTE[ACCURACY], linestyle=canvas.DASHES[3], linewidth=1.1, label="k-NN"),
    ]
    if any(probe.icr_sigma is not None for probe in shown):
        handles += [
            canvas.Line2D(
                [], [], **canvas.curve_style(CONTAMINATION), markerfacecolor=canvas.paper(), label=f"ICR{of}"
            ),
            canvas.Line2D([], [], **canvas.rule(), label="recommended by ICR"),
        ]
    known = [windows[probe.layer] for probe in shown if probe.layer in windows]
    if any(w.low is not None and w.high is not None and w.low < w.high for w in known):
        handles.append(canvas.Patch(color=canvas.shade(), label="semantic window"))
    return [*handles, canvas.bands_handle(), canvas.filled_handle("filled: best level")]


# --- CSNR, inputs, noisy labels: of the layer of best accuracy


def _csnr_figure(result: Result, rows: Sequence[Row]) -> canvas.Figure:
    """CSNR above; accuracy of the same features below, and of their absolute values."""
    measured = [prefix for prefix in _probed(rows) if any(row.get(f"{prefix}csnr") is not None for row in rows)]
    probed = [*measured, *(prefix for prefix in _probed(rows) if f"{prefix}csnr" not in rows[0])]
    handles = _input_handles(result, probed, rows[0].layer)
    figure = canvas.figure(5.2, handles)
    above, below = figure.subplots(2, 1, sharex=True)
    for i, prefix in enumerate(measured):
        highest = max((row for row in rows if row[f"{prefix}csnr"] is not None), key=lambda row: row[f"{prefix}csnr"])
        _curve(above, rows, f"{prefix}csnr", i, highest)
        canvas.error_band(above, rows, _sigma, f"{prefix}csnr", color=canvas.PALETTE[i], alpha=0.16)
    for i, prefix in enumerate(probed):
        _curve(below, rows, f"{prefix}accuracy", i, max(rows, key=lambda row: float(row[f"{prefix}accuracy"])))
    values = [row[f"{prefix}csnr"] for prefix in measured for row in rows if row[f"{prefix}csnr"] is not None]
    if max(values) > 10 * min(values):
        above.set_yscale("log")
        canvas.plain_numbers(above.yaxis, max(values) / min(values))
    above.set_ylabel("CSNR")
    canvas.small_title(above, "class-wise signal-to-noise ratio (1: classes do not differ)")
    below.set_ylabel("accuracy")
    canvas.small_title(below, "linear probe")
    canvas.level_axis(below, [row.sigma for row in rows], SIGMA)
    figure.suptitle(_name(result, rows[0].layer))
    canvas.legend(figure, handles)
    return figure


def _input_handles(result: Result, probed: Sequence[str], layer: str) -> list[Any]:
    handles: list[Any] = [
        canvas.Line2D(
            [], [], **canvas.curve_style(i), markerfacecolor=canvas.paper(), label=_input(result, prefix, layer)
        )
        for i, prefix in enumerate(probed)
    ]
    return [*handles, canvas.bands_handle(), canvas.filled_handle("filled: highest")]


def _distances_figure(result: Result, rows: Sequence[Row]) -> canvas.Figure:
    """Accuracy above; below it how far features are from those of the best level, over the spread of those."""
    probed = [prefix for prefix in _probed(rows) if f"{prefix}swd_best" in rows[0]]
    handles = _input_handles(result, probed, rows[0].layer)
    figure = canvas.figure(5.2, handles)
    above, below = figure.subplots(2, 1, sharex=True)
    for i, prefix in enumerate(probed):
        best = max(rows, key=lambda row: float(row[f"{prefix}accuracy"]))
        _curve(above, rows, f"{prefix}accuracy", i, best)
        _curve(below, rows, f"{prefix}swd_best_relative", i, best)
    above.set_ylabel("accuracy")
    canvas.small_title(above, "linear probe")
    below.set_ylabel("over their spread")
    canvas.small_title(below, "sliced Wasserstein distance to the features of the best level")
    canvas.level_axis(below, [row.sigma for row in rows], SIGMA)
    figure.suptitle(_name(result, rows[0].layer))
    canvas.legend(figure, handles)
    return figure


def _inputs_figure(result: Result, rows: Sequence[Row]) -> canvas.Figure:
    probed = _probed(rows)
    handles = _input_handles(result, probed, rows[0].layer)
    figure = canvas.figure(4.0, handles)
    axes = figure.add_subplot()
    for i, prefix in enumerate(probed):
        key = f"{prefix}accuracy"
        _curve(axes, rows, key, i, max(rows, key=lambda row: float(row[key])))
    axes.set_ylabel("accuracy of the linear probe")
    canvas.level_axis(axes, [row.sigma for row in rows], SIGMA)
    axes.set_title(_name(result, rows[0].layer))
    canvas.legend(figure, handles)
    return figure


def _labels_figure(result: Result, rows: Sequence[Row]) -> canvas.Figure:
    """Accuracy on clean test labels over σ, a colour for each share of noisy training labels; ensembles dashed."""
    shares = {"": "training labels as given", **{f"_{key}": f"{name} replaced" for key, name in noises(result).items()}}
    ensembles = "ensemble_accuracy" in rows[0]
    handles: list[Any] = [
        canvas.Line2D(
            [], [], color=canvas.PALETTE[i], marker=canvas.MARKERS[i], markerfacecolor=canvas.paper(), label=name
        )
        for i, name in enumerate(shares.values())
    ]
    handles.append(canvas.bands_handle())
    if ensembles:
        size = result.protocol["probe"]["ensemble"]
        handles.append(
            canvas.Line2D(
                [], [], color=canvas.ink(), linestyle=canvas.DASHES[1], label=f"soft vote of {size} neighbouring levels"
            )
        )
    figure = canvas.figure(4.0, handles)
    axes = figure.add_subplot()
    for i, key in enumerate(shares):
        plain = {"color": canvas.PALETTE[i], "marker": canvas.MARKERS[i], "markerfacecolor": canvas.paper()}
        canvas.line(axes, rows, _sigma, f"accuracy{key}", **plain, zorder=3)
        canvas.band(axes, rows, _sigma, f"accuracy{key}", color=canvas.PALETTE[i], alpha=0.1)
        if ensembles:
            canvas.line(
                axes,
                rows,
                _sigma,
                f"ensemble_accuracy{key}",
                color=canvas.PALETTE[i],
                linestyle=canvas.DASHES[1],
                zorder=2.5,
            )
    axes.set_ylabel("accuracy on clean test labels")
    canvas.level_axis(axes, [row.sigma for row in rows], SIGMA)
    axes.set_title(_name(result, rows[0].layer))
    canvas.legend(figure, handles)
    return figure


def _tradeoff_figure(result: Result, rows: Sequence[Row]) -> canvas.Figure:
    """Distance of the denoised images from the images above, each encoder in parts of its greatest; accuracy below.

    It has the form of figure 3 of Wang et al., 2025, https://arxiv.org/abs/2502.05743.
    """
    found: dict[str, list[Mapping[str, Any]]] = {}
    for record in result.sections["denoised"]:
        found.setdefault(record["encoder"], []).append(record)
    shown = list(found.items())[: len(canvas.PALETTE) - 1]
    handles: list[Any] = []
    figure = canvas.figure(5.6 + 0.6)
    above, below = figure.subplots(2, 1, sharex=True)
    for i, (encoder, records) in enumerate(shown, start=1):
        most = max(record["fd"] for record in records)
        sigma, value = [r["sigma"] for r in records], [r["fd"] / most for r in records]
        error = [1.96 * (r["fd_se"] or 0.0) / most for r in records]
        above.plot(sigma, value, **canvas.curve_style(i), markerfacecolor=canvas.paper(), zorder=3)
        ends = ([max(0.0, v - side * e) for v, e in zip(value, error, strict=True)] for side in (1, -1))
        above.fill_between(sigma, *ends, color=canvas.PALETTE[i], alpha=0.16, linewidth=0)
        name = canvas.literal(canvas.shortened(Path(encoder).name, 22))
        label = f"{name}: {number(most)} at most"
        handles.append(canvas.Line2D([], [], **canvas.curve_style(i), markerfacecolor=canvas.paper(), label=label))
    key = "posterior_accuracy"
    _curve(below, rows, key, 0, max(rows, key=lambda row: float(row[key])))
    handles.append(canvas.Line2D([], [], **canvas.curve_style(0), markerfacecolor=canvas.paper(), label="linear probe"))
    handles.append(canvas.bands_handle())
    handles.append(canvas.filled_handle("filled: best accuracy"))
    above.set_ylabel("part of the greatest")
    canvas.small_title(above, "Fréchet distance of the denoised images from the images")
    below.set_ylabel("accuracy")
    canvas.small_title(below, "linear probe of the denoised images")
    canvas.level_axis(below, [row.sigma for row in rows], SIGMA)
    figure.suptitle(_name(result, f"{result.protocol['input']} input"))
    canvas.legend(figure, handles)
    return figure


# --- what these pictures share


def _probed(rows: Sequence[Row]) -> list[str]:
    return [prefix for prefix in PREFIXES if f"{prefix}accuracy" in rows[0]]


def _input(result: Result, prefix: str, layer: str) -> str:
    """What the features with this prefix are of."""
    if prefix.startswith("posterior_"):
        return "posterior mean" if prefix == "posterior_" else "absolute values of the posterior mean"
    return canvas.literal(f"{layer}, {'clean' if prefix else result.protocol['input']} input")


def _sigma(row: Row) -> float:
    return row.sigma


def _name(result: Result, part: str) -> str:
    return canvas.title(Path(str(result.checkpoint.get("path", ""))).name, part)
