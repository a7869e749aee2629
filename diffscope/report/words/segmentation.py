"""A probe of pixels in words and cells: at which noise level, and of which input, segmentation is best."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from diffscope.report.text import COLUMNS, interval, metric, number, share
from diffscope.results import Result, Row, SegmentationRow


def prefix(of: SegmentationRow, result: Result) -> str:
    """Of the keys of an input: what was asked for has none."""
    return "" if of is result.segmentation[0] else f"{of.input}_"


def layers(result: Result) -> str:
    """The layer, or how many there are."""
    names = layer_names(result)
    return names[0] if len(names) == 1 else f"{len(names)} layers"


def layer_names(result: Result) -> list[str]:
    """Of those that are concatenated."""
    return [str(name) for name in result.protocol["layers"]]


def columns(result: Result) -> dict[str, Callable[[Row], str]]:
    """Headings and how a row fills them; of clean input where it was probed beside noisy."""
    shown = {key: COLUMNS[key] for key in ("σ", "t")}
    for of in result.segmentation:
        key, name = prefix(of, result), "" if len(result.segmentation) == 1 else f"{of.input} "
        shown[f"{name}mIoU"] = metric(f"{key}miou", share)
        shown[f"{name}95 %"] = _ends(f"{key}miou")
        shown[f"{name}pixels"] = metric(f"{key}pixel_accuracy", share)
    if len(result.segmentation) > 1:
        shown["clean − noisy"] = lambda row: f"{_signed(row['clean_gain'])} {_reach(row)}".strip()
    return shown


def _reach(row: Row) -> str:
    low, high = row["clean_gain_low"], row["clean_gain_high"]
    return "" if low is None else f"[{_signed(low)}, {_signed(high)}]"


def _ends(key: str) -> Callable[[Row], str]:
    return lambda row: interval(row[f"{key}_low"], row[f"{key}_high"])


class ClassLine(NamedTuple):
    """IoU of one class at the best level of each input."""

    name: str
    values: tuple[str, ...]


def class_lines(result: Result) -> list[ClassLine]:
    """Of each class that a test image has."""
    best = [(best_row(of, result), prefix(of, result)) for of in result.segmentation]
    return [
        ClassLine(
            class_name(result, k),
            tuple(f"{share(row[f'{key}iou_{k}'])} {_ends(f'{key}iou_{k}')(row)}" for row, key in best),
        )
        for k in range(result.data["classes"])
        if best[0][0][f"iou_{k}"] is not None
    ]


def class_columns(result: Result) -> dict[str, Callable[[ClassLine], str]]:
    """Headings of the table of classes."""

    def value(number: int) -> Callable[[ClassLine], str]:
        return lambda line: line.values[number]

    headings = [f"IoU, {of.input} input, σ = {number(of.sigma)}" for of in result.segmentation]
    return {"class": lambda line: line.name, **{heading: value(n) for n, heading in enumerate(headings)}}


def class_name(result: Result, k: int) -> str:
    """By name where there are names."""
    names = result.data.get("class_names")
    return f"class {k}" if names is None else str(names[k])


def best_row(of: SegmentationRow, result: Result) -> Row:
    """The row of the best level of an input."""
    return next(row for row in result.rows if row.sigma == of.sigma)


def headline(result: Result) -> str:
    """The best level of each input."""
    return "; ".join(
        f"{of.input} input: best mIoU {share(of.miou)} at σ = {number(of.sigma)}" for of in result.segmentation
    )


def findings(result: Result) -> list[str]:
    """What was probed, and a sentence or two of each input."""
    head = {"linear": "A linear head", "mlp": "A vote of ten MLPs"}[result.protocol["segmentation"]["pixel_head"]]
    features = f"{result.rows[0].d} features a pixel, of {', '.join(layer_names(result))}"
    images = f"{result.data['train']} images to train on and {result.data['test']} to test"
    return [f"{head} on {features}; {images}.", *(_finding(result, of) for of in result.segmentation)]


def _finding(result: Result, of: SegmentationRow) -> str:
    ends = "" if of.miou_low is None else f" (95 % interval {interval(of.miou_low, of.miou_high)})"
    levels = sorted(row.sigma for row in result.rows)
    told = [f"{of.input.capitalize()} input: best mIoU {share(of.miou)}{ends} at σ = {number(of.sigma)}"]
    told[0] += ", " + _curve(of, levels) if len(levels) > 1 else ""
    if of.gain is not None:
        known = "" if of.gain_low is None else f" (95 % interval {_signed(of.gain_low)} to {_signed(of.gain_high)})"
        told.append(f"That is {_signed(of.gain)}{known} beside noisy input at its own best level, on the same images")
    return ". ".join(told) + "."


def _curve(of: SegmentationRow, levels: Sequence[float]) -> str:
    """Whether it is a peak, and how wide."""
    span = f"levels from σ = {number(of.low)} to {number(of.high)} cannot be told apart from it"
    if of.low == of.high:
        span = "all other levels are worse"
    if levels[0] < of.low and of.high < levels[-1]:
        return f"a peak between less and more noise: {span}"
    return span


def _signed(value: float | None) -> str:
    return "–" if value is None else f"{value:+.4f}".replace("-", "−")
