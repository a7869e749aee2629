"""Pictures of a probe: accuracy and ICR over σ on two axes, and what else was asked for.

The first has the form of figures 3 and 10 of Li et al., 2026, https://arxiv.org/abs/2606.09718; those of clean and
noisy input and of CSNR that of figures 1 and 6 of Wang et al., 2025, https://arxiv.org/abs/2502.05743.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from diffscope.report.figures import canvas
from diffscope.report.figures.denoised import denoised_figure
from diffscope.report.text import by_layer, lowest, number
from diffscope.report.words.probe import PREFIXES, distance, noises, ranked, signed
from diffscope.results import ProbeRow, Result, Row, WindowRow

PANELS = 4
"""Layers that have room, those of the best accuracy."""
SIGMA = "noise level σ (noise-to-signal ratio)"
ACCURACY, CONTAMINATION = 0, 1
"""Places in the palette: the same colour means the same axis in all panels."""


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
    height = 3.9 if len(shown) == 1 else 2.6 * len(shown)
    figure = canvas.Figure(figsize=(canvas.WIDTH, height + 0.3 + canvas.legend_height(handles)))
    panels = figure.subplots(len(shown), 1, sharex=True, squeeze=False)[:, 0]
    for axes, probe in zip(panels, shown, strict=True):
        _probe_panel(axes, groups[probe.layer], probe, windows.get(probe.layer), beside)
        lines = _caption(probe, len(shown) > 1).split("\n")
        axes.set_title("\n".join(map(canvas.literal, lines)), loc="left", fontsize=8.5)
    _log_sigma(panels[-1], result.rows)
    few = "" if len(groups) == len(shown) else f"the best {len(shown)} of {len(groups)} layers"
    figure.suptitle(_name(result, shown[0].layer if len(shown) == 1 else few), fontsize=10)
    canvas.legend(figure, handles)
    return figure


def _beside_style(i: int) -> dict[str, Any]:
    """Of the line of an encoder beside the network, which knows no noise."""
    i = 2 + i % (len(canvas.PALETTE) - 2)
    dashes = canvas.DASHES[i] if i != 3 else canvas.DASHES[1]  # k-NN has the dots
    return {"color": canvas.PALETTE[i], "linestyle": dashes, "linewidth": 1.3}


def _probe_panel(
    axes: canvas.Axes,
    rows: Sequence[Row],
    probe: ProbeRow,
    window: WindowRow | None,
    beside: Sequence[Mapping[str, Any]],
) -> None:
    for i, encoder in enumerate(beside):
        axes.axhline(encoder["accuracy"], **_beside_style(i), zorder=2)
    other = axes.twinx()  # above the left axes: what lies under both curves is drawn in those
    if window is not None and window.low is not None and window.high is not None and window.low < window.high:
        axes.axvspan(window.low, window.high, color=canvas.SHADE, linewidth=0, zorder=0.5)
    if probe.icr_sigma is not None:
        axes.axvline(probe.icr_sigma, **canvas.RULE, zorder=1)
    _curve(other, rows, "icr", CONTAMINATION, lowest(rows))
    _curve(axes, rows, "accuracy", ACCURACY, next(row for row in rows if row.sigma == probe.sigma))
    canvas.line(
        axes, rows, _sigma, "knn", color=canvas.PALETTE[ACCURACY], linestyle=canvas.DASHES[3], linewidth=1.1, zorder=2.5
    )
    _coloured(axes, "accuracy", ACCURACY, "left")
    _coloured(other, canvas.ICR, CONTAMINATION, "right")
    other.grid(False)
    other.set_visible(lowest(rows) is not None)


def _curve(axes: canvas.Axes, rows: Sequence[Row], key: str, i: int, best: Row | None) -> None:
    """Line, band and hollow markers; the best point filled."""
    canvas.line(axes, rows, _sigma, key, **canvas.curve_style(i), markerfacecolor="white", zorder=3)
    if f"{key}_low" in rows[0]:
        canvas.band(axes, rows, _sigma, key, color=canvas.PALETTE[i], alpha=0.16)
    if best is not None:
        axes.plot(
            [best.sigma], [canvas.gap(best[key])], **{**canvas.curve_style(i), "markersize": 7}, zorder=5, clip_on=False
        )


def _coloured(axes: canvas.Axes, label: str, i: int, side: str) -> None:
    axes.set_ylabel(label, color=canvas.PALETTE[i])
    axes.tick_params(axis="y", colors=canvas.PALETTE[i])
    axes.spines[side].set_visible(True)
    axes.spines[side].set_color(canvas.PALETTE[i])


def _caption(probe: ProbeRow, named: bool) -> str:
    """Two lines; one would be cut off."""
    name = [f"{canvas.shortened(probe.layer, 40)}: "] if named else []
    best = "".join([*name, f"best accuracy {probe.accuracy:.3f} at σ = {number(probe.sigma)}"])
    parts = []
    if probe.icr_sigma is not None and probe.steps is not None:
        parts.append(f"ICR recommends σ = {number(probe.icr_sigma)}, lowest {distance(probe.steps)}")
    if probe.rank_correlation is not None:
        parts.append(f"rank correlation {signed(probe.rank_correlation)}")
    return "\n".join([best, *(["; ".join(parts)] if parts else [])])


def _beside_handles(beside: Sequence[Mapping[str, Any]]) -> list[Any]:
    names = [canvas.literal(canvas.shortened(Path(encoder["encoder"]).name, 22)) for encoder in beside]
    return [
        canvas.Line2D([], [], **_beside_style(i), label=f"{name} (clean) {encoder['accuracy']:.3f}")
        for i, (name, encoder) in enumerate(zip(names, beside, strict=True))
    ]


def _probe_handles(shown: Sequence[ProbeRow], windows: dict[str, WindowRow]) -> list[Any]:
    handles: list[Any] = [
        canvas.Line2D(
            [], [], **canvas.curve_style(ACCURACY), markerfacecolor="white", label="linear probe (band: 95 %)"
        ),
        canvas.Line2D([], [], color=canvas.PALETTE[ACCURACY], linestyle=canvas.DASHES[3], linewidth=1.1, label="k-NN"),
    ]
    if any(probe.icr_sigma is not None for probe in shown):
        handles += [
            canvas.Line2D(
                [], [], **canvas.curve_style(CONTAMINATION), markerfacecolor="white", label="ICR (band: 95 %)"
            ),
            canvas.Line2D([], [], **canvas.RULE, label="recommended by ICR"),
        ]
    known = [windows[probe.layer] for probe in shown if probe.layer in windows]
    if any(w.low is not None and w.high is not None and w.low < w.high for w in known):
        handles.append(canvas.Patch(color=canvas.SHADE, label="semantic window"))
    return [
        *handles,
        canvas.Line2D([], [], color=canvas.INK, marker="o", linestyle="none", markersize=7, label="best level"),
    ]


# --- CSNR, inputs, noisy labels: of the layer of best accuracy


def _csnr_figure(result: Result, rows: Sequence[Row]) -> canvas.Figure:
    """CSNR above; accuracy of the same features below, and of their absolute values."""
    measured = [prefix for prefix in _probed(rows) if any(row.get(f"{prefix}csnr") is not None for row in rows)]
    probed = [*measured, *(prefix for prefix in _probed(rows) if f"{prefix}csnr" not in rows[0])]
    handles = _input_handles(result, probed)
    figure = canvas.Figure(figsize=(canvas.WIDTH, 5.2 + canvas.legend_height(handles)))
    above, below = figure.subplots(2, 1, sharex=True)
    for i, prefix in enumerate(measured):
        highest = max((row for row in rows if row[f"{prefix}csnr"] is not None), key=lambda row: row[f"{prefix}csnr"])
        _curve(above, rows, f"{prefix}csnr", i, highest)
        _error_band(above, rows, f"{prefix}csnr", i)
    for i, prefix in enumerate(probed):
        _curve(below, rows, f"{prefix}accuracy", i, max(rows, key=lambda row: float(row[f"{prefix}accuracy"])))
    values = [row[f"{prefix}csnr"] for prefix in measured for row in rows if row[f"{prefix}csnr"] is not None]
    if max(values) > 10 * min(values):
        above.set_yscale("log")
        canvas.plain_numbers(above.yaxis, max(values) / min(values))
    above.set_ylabel("CSNR")
    above.set_title("class-wise signal-to-noise ratio (1: classes do not differ)", loc="left", fontsize=8.5)
    below.set_ylabel("accuracy")
    below.set_title("linear probe", loc="left", fontsize=8.5)
    _log_sigma(below, rows)
    figure.suptitle(_name(result, rows[0].layer), fontsize=10)
    canvas.legend(figure, handles)
    return figure


def _input_handles(result: Result, probed: Sequence[str]) -> list[Any]:
    handles: list[Any] = [
        canvas.Line2D([], [], **canvas.curve_style(i), markerfacecolor="white", label=_input(result, prefix))
        for i, prefix in enumerate(probed)
    ]
    return [*handles, canvas.Patch(color=canvas.INK, alpha=0.15, linewidth=0, label="bands: 95 % intervals")]


def _error_band(axes: canvas.Axes, rows: Sequence[Row], key: str, i: int) -> None:
    known = [row for row in rows if row[key] is not None and row[f"{key}_se"] is not None]
    low, high = ([row[key] + side * 1.96 * row[f"{key}_se"] for row in known] for side in (-1, 1))
    axes.fill_between([row.sigma for row in known], low, high, color=canvas.PALETTE[i], alpha=0.16, linewidth=0)


def _distances_figure(result: Result, rows: Sequence[Row]) -> canvas.Figure:
    """Accuracy above; below it how far features are from those of the best level, over the spread of those."""
    probed = [prefix for prefix in _probed(rows) if f"{prefix}swd_best" in rows[0]]
    handles = _input_handles(result, probed)
    figure = canvas.Figure(figsize=(canvas.WIDTH, 5.2 + canvas.legend_height(handles)))
    above, below = figure.subplots(2, 1, sharex=True)
    for i, prefix in enumerate(probed):
        best = max(rows, key=lambda row: float(row[f"{prefix}accuracy"]))
        _curve(above, rows, f"{prefix}accuracy", i, best)
        _curve(below, rows, f"{prefix}swd_best_relative", i, best)
    above.set_ylabel("accuracy")
    above.set_title("linear probe", loc="left", fontsize=8.5)
    below.set_ylabel("over their spread")
    below.set_title("sliced Wasserstein distance to the features of the best level", loc="left", fontsize=8.5)
    _log_sigma(below, rows)
    figure.suptitle(_name(result, rows[0].layer), fontsize=10)
    canvas.legend(figure, handles)
    return figure


def _inputs_figure(result: Result, rows: Sequence[Row]) -> canvas.Figure:
    probed = _probed(rows)
    handles = _input_handles(result, probed)
    figure = canvas.Figure(figsize=(canvas.WIDTH, 4.0 + canvas.legend_height(handles)))
    axes = figure.add_subplot()
    for i, prefix in enumerate(probed):
        key = f"{prefix}accuracy"
        _curve(axes, rows, key, i, max(rows, key=lambda row: float(row[key])))
    axes.set_ylabel("accuracy of the linear probe")
    _log_sigma(axes, rows)
    axes.set_title(_name(result, rows[0].layer))
    canvas.legend(figure, handles)
    return figure


def _labels_figure(result: Result, rows: Sequence[Row]) -> canvas.Figure:
    """Accuracy on clean test labels over σ, a colour for each share of noisy training labels; ensembles dashed."""
    shares = {"": "training labels as given", **{f"_{key}": f"{name} replaced" for key, name in noises(result).items()}}
    ensembles = "ensemble_accuracy" in rows[0]
    handles: list[Any] = [
        canvas.Line2D([], [], color=canvas.PALETTE[i], marker=canvas.MARKERS[i], markerfacecolor="white", label=name)
        for i, name in enumerate(shares.values())
    ]
    handles.append(canvas.Patch(color=canvas.INK, alpha=0.15, linewidth=0, label="bands: 95 % intervals"))
    if ensembles:
        size = result.protocol["probe"]["ensemble"]
        handles.append(
            canvas.Line2D(
                [], [], color=canvas.INK, linestyle=canvas.DASHES[1], label=f"soft vote of {size} neighbouring levels"
            )
        )
    figure = canvas.Figure(figsize=(canvas.WIDTH, 4.0 + canvas.legend_height(handles)))
    axes = figure.add_subplot()
    for i, key in enumerate(shares):
        plain = {"color": canvas.PALETTE[i], "marker": canvas.MARKERS[i], "markerfacecolor": "white"}
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
    _log_sigma(axes, rows)
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
    figure = canvas.Figure(figsize=(canvas.WIDTH, 5.6))
    above, below = figure.subplots(2, 1, sharex=True)
    for i, (encoder, records) in enumerate(shown, start=1):
        most = max(record["fd"] for record in records)
        sigma, value = [r["sigma"] for r in records], [r["fd"] / most for r in records]
        error = [1.96 * (r["fd_se"] or 0.0) / most for r in records]
        above.plot(sigma, value, **canvas.curve_style(i), markerfacecolor="white", zorder=3)
        ends = ([max(0.0, v - side * e) for v, e in zip(value, error, strict=True)] for side in (1, -1))
        above.fill_between(sigma, *ends, color=canvas.PALETTE[i], alpha=0.16, linewidth=0)
        name = canvas.literal(canvas.shortened(Path(encoder).name, 22))
        label = f"{name}: {number(most)} at most"
        handles.append(canvas.Line2D([], [], **canvas.curve_style(i), markerfacecolor="white", label=label))
    key = "posterior_accuracy"
    _curve(below, rows, key, 0, max(rows, key=lambda row: float(row[key])))
    handles.append(canvas.Line2D([], [], **canvas.curve_style(0), markerfacecolor="white", label="linear probe"))
    handles.append(canvas.Patch(color=canvas.INK, alpha=0.15, linewidth=0, label="bands: 95 % intervals"))
    above.set_ylabel("part of the greatest")
    above.set_title("Fréchet distance of the denoised images from the images", loc="left", fontsize=8.5)
    below.set_ylabel("accuracy")
    below.set_title("linear probe of the denoised images", loc="left", fontsize=8.5)
    _log_sigma(below, rows)
    figure.suptitle(_name(result, f"{result.protocol['input']} input"), fontsize=10)
    canvas.legend(figure, handles)
    return figure


# --- what these pictures share


def _probed(rows: Sequence[Row]) -> list[str]:
    return [prefix for prefix in PREFIXES if f"{prefix}accuracy" in rows[0]]


def _input(result: Result, prefix: str) -> str:
    """What the features with this prefix are of."""
    if prefix.startswith("posterior_"):
        return "posterior mean" if prefix == "posterior_" else "absolute values of the posterior mean"
    return f"features, {'clean' if prefix else result.protocol['input']} input"


def _sigma(row: Row) -> float:
    return row.sigma


def _log_sigma(axes: canvas.Axes, rows: Sequence[Row]) -> None:
    levels = [row.sigma for row in rows]
    axes.set_xscale("log")
    axes.set_xlim(min(levels) / 1.25, max(levels) * 1.25)
    canvas.plain_numbers(axes.xaxis, max(levels) / min(levels))
    axes.set_xlabel(SIGMA)


def _name(result: Result, part: str) -> str:
    return canvas.title(Path(str(result.checkpoint.get("path", ""))).name, part)
