"""ICR, accuracy and other measures over noise levels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from diffscope.report.page.charts import Axis, Chart, Curve, Dot, Dots, Drawn, Marks, curve
from diffscope.report.page.measures import measures_chart
from diffscope.report.text import best_of, number
from diffscope.report.words import segmentation, variation
from diffscope.report.words import window as words
from diffscope.results import Result, Row, WindowRow

SIGMA = Axis("noise level σ (noise-to-signal ratio)", log=True)
ICR = Axis("ICR (lower: more semantic)")
SHARE = Axis("accuracy")
LAYER = "layer"

Groups = Mapping[tuple[str, ...], Sequence[Row]]


def charts(result: Result, has_own: Sequence[str] = ()) -> list[Drawn]:
    """ICR over noise levels, or of one level by layer; then whatever else the rows hold.

    Args:
        result: Of `icr`, `sweep` or `probe`.
        has_own: Keys of rows that have charts of their own beside these.
    """
    facets, groups = _groups(result)
    if all(len(rows) == 1 for rows in groups.values()):
        return _of_one_level(groups)
    windows = {(window.layer, *_member(result, window)): window for window in result.window}
    curves = [curve(at, rows, _sigma, "icr", _marks(result, windows.get(at), rows)) for at, rows in groups.items()]
    main = Chart("icr over sigma", "ICR over noise levels", SIGMA, ICR, facets, curves, best="lowest",
                 said="Bands: 95 % intervals.")  # fmt: skip
    return [main, *measures_chart("sigma", groups, facets, SIGMA, _sigma, ("icr", *has_own))]


def accuracy_charts(result: Result, kinds: Mapping[str, str]) -> list[Drawn]:
    """Accuracy of a probe over noise levels.

    Args:
        result: Of `probe`.
        kinds: Keys of accuracies, and how a reader is told of what was probed.
    """
    _, groups = _groups(result)
    levels = sorted({row.sigma for row in result.rows})
    found = {key: name for key, name in kinds.items() if any(row.get(key) is not None for row in result.rows)}
    curves = [
        curve((name, layer), rows, _sigma, key) for key, name in found.items() for (layer, *_), rows in groups.items()
    ]
    curves += [_beside(encoder, levels) for encoder in result.sections.get("beside", ())]
    said = "Bands: 95 % intervals over test images."
    if "beside" in result.sections:
        said += " Level lines: encoders beside the network, of images without noise."
    title = "Accuracy of the linear probe"
    if all(len(rows) == 1 for rows in groups.values()):
        return [_dots("accuracy", title, SHARE, curves)]
    return [Chart("accuracy over sigma", title, SIGMA, SHARE, ("probed", LAYER), curves, best="highest", said=said)]


def _beside(encoder: Mapping[str, Any], levels: Sequence[float]) -> Curve:
    """Of an encoder that knows no noise: the same at all levels."""
    at = ("features", f"{Path(encoder['encoder']).name} (clean)")
    low, high = ([encoder.get(f"accuracy_{end}")] * len(levels) for end in ("low", "high"))
    return Curve(at, levels, [encoder["accuracy"]] * len(levels), low, high)


def segmentation_charts(result: Result) -> list[Drawn]:
    """Mean intersection over union of a probe of pixels over noise levels, of noisy and clean input."""
    rows = sorted(result.rows, key=_sigma)
    curves = [
        curve((of.input,), rows, _sigma, f"{segmentation.prefix(of, result)}miou", _reach(of.low, of.high, of.sigma))
        for of in result.segmentation
    ]
    if len(rows) == 1:
        return [_dots("miou", "mIoU", Axis("mIoU"), curves)]
    return [
        Chart("miou over sigma", "mIoU over noise levels", SIGMA, Axis("mIoU"), ("input",), curves, best="highest",
              said="Bands: 95 % intervals over test images.")
    ]  # fmt: skip


def change_charts(rows: Sequence[Mapping[str, float]]) -> list[Drawn]:
    """Paired differences of ICR over noise levels, or of one level by layer."""
    by_layer: dict[str, list[Mapping[str, float]]] = {}
    for row in rows:
        by_layer.setdefault(str(row["layer"]), []).append(row)
    curves = [curve((layer,), sorted(group, key=_sigma), _sigma, "change") for layer, group in by_layer.items()]
    title, axis = "Change of ICR", Axis("change of ICR, new against old", signed=True)
    said = "Bands: 95 % intervals of each row alone. Below zero: the new one is more semantic."
    if all(len(one.x) == 1 for one in curves):
        return [_dots("change", title, axis, curves, reference=0.0, said=said)]
    return [Chart("change over sigma", title, SIGMA, axis, (LAYER,), curves, reference=0.0, said=said)]


# --- what they share


def _groups(result: Result) -> tuple[tuple[str, ...], Groups]:
    """Rows of each curve by rising sigma, by the values of the facets, which come first."""
    facets = (LAYER, *([variation.HEADING[result.varied]] if result.varied else []))
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in result.rows:
        groups.setdefault((row.layer, *_member(result, row)), []).append(row)
    return facets, {at: sorted(rows, key=_sigma) for at, rows in groups.items()}


def _member(result: Result, record: Row | WindowRow) -> list[str]:
    return [variation.member(record)] if result.varied else []


def _of_one_level(groups: Groups) -> list[Drawn]:
    curves = [curve(at, rows, _sigma, "icr") for at, rows in groups.items()]
    levels = sorted({row.sigma for rows in groups.values() for row in rows})
    at = f" at σ = {number(levels[0])}" if len(levels) == 1 else ""
    return [_dots(f"icr{at}", f"ICR{at}", ICR, curves, said="Bars: 95 % intervals.")]


def _dots(
    key: str, title: str, axis: Axis, curves: Sequence[Curve], reference: float | None = None, said: str = ""
) -> Dots:
    """Curves of one point, one below the other."""
    dots = [
        Dot(", ".join(one.at), one.y[0], one.low[0] if one.low else None, one.high[0] if one.high else None)
        for one in curves
    ]
    return Dots(key, title, axis, dots, reference, said)


def _sigma(row: Mapping[str, float]) -> float:
    return float(row["sigma"])


def _marks(result: Result, window: WindowRow | None, rows: Sequence[Row]) -> Marks | None:
    """Of a layer: its window and the recommended level."""
    if window is None or window.sigma is None:
        return None
    best = best_of(result, window.layer, rows)
    lowest = "" if best is None or window.sigma_error is None else f", ICR lowest at σ = {number(best.sigma)}"
    name = "lowest at" if window.sigma_error is None else "dashed: recommended"
    found = f"{words.HEADLINE[words.shape(window)]}; {name} σ = {number(window.sigma)}{lowest}"
    return _reach(window.low, window.high, window.sigma, found)


def _reach(low: float | None, high: float | None, sigma: float | None, said: str = "") -> Marks:
    span = None if low is None or high is None or low >= high else (low, high)
    shaded = "" if span is None else f"shaded: σ = {number(low)} to {number(high)}, which cannot be told from the best"
    return Marks("; ".join(filter(None, (said, shaded))), span, sigma)
