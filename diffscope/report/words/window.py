"""The semantic window in words: what the shape of a curve means for the user, and what to do next."""

from __future__ import annotations

from collections.abc import Sequence

from diffscope.report.text import NULL, best_of, by_layer, interval, number, share
from diffscope.results import Result, WindowRow

HEADLINE = {
    "u": "semantic window found",
    "rising": "no semantic window, ICR rises with noise",
    "falling": "no semantic window yet, ICR still falls",
    "flat": "no semantic window, ICR is flat",
    "unclear": "undecided",
}

MEANING = {
    "u": "ICR falls and rises again, so the levels measured enclose its minimum. Take features at the recommended "
    "level; the other levels in the window do equally well as far as these images can tell.",
    "rising": "Features are best at the smallest noise and only get worse. Memorizing networks look like this; so does "
    "a range that begins above the minimum. Measure smaller levels (--sigma), then compare with an earlier checkpoint.",
    "falling": "Features still improve at the largest noise, so the minimum is not enclosed. Measure larger levels "
    "(--sigma); if the model's range ends here, take features at its end.",
    "flat": "No level is worse than the best by more than chance and 2 %, so the level hardly matters for this layer. "
    "To resolve finer differences measure more images (--num-images), or look at another layer.",
    "unclear": "These levels do not decide on a shape, so none is claimed. Measure more images (--num-images) or more "
    "levels over a wider range (--sigma).",
}
"""Both by shape, a shape of null standing as `unclear`."""

SURE = 2
"""Standard errors of a recommended level that hold the truth in 95 % (`studies/sweep/recommended.py`)."""

ACROSS_LAYERS = (
    "ICR is an average over a layer's features, free of the bias of few images: layers of different width may be "
    "compared by it as it is. ICR raw may not: its bias grows with features per image."
)
"""Sections 2 and 3.2 of the estimator's page."""


def ranked(result: Result) -> list[WindowRow]:
    """Windows by lowest ICR.

    Layers that are not to be ranked come after the others, those of which nothing is known last.
    """
    return sorted(result.window, key=lambda window: (window.icr is None, not window.is_ranked, window.icr or 0.0))


def ranking(windows: Sequence[WindowRow]) -> str:
    """What the order of layers rests on, and which are left out of it."""
    left = [window.layer for window in windows if not window.is_ranked]
    return ACROSS_LAYERS + (f" Not ranked, for too few features: {', '.join(left)}." if left else "")


def shape(window: WindowRow) -> str:
    """The shape of a curve; `unclear` where none is claimed."""
    return window.shape or "unclear"


def finding(result: Result, window: WindowRow) -> str:
    """What was found for one layer: a few sentences with the numbers, without its notes."""
    if window.icr is None or window.sigma is None:
        return "No level has an ICR."
    return " ".join([*_levels(result, window), *_reach(window)])


def spent(result: Result) -> str:
    """Of a sweep with an accuracy: what it took, and what it came to."""
    told = result.accuracy
    assert told is not None
    took, saved = told["passes"], 1 - told["passes"] / told["passes_full"]
    ended = "" if told["reached"] else "Accuracy not reached: "
    reason = told["reason"] if ended else told["reason"][0].upper() + told["reason"][1:]
    text = f"{ended}{reason}. {took:,} of {told['passes_full']:,} forward passes, {100 * saved:.0f} % saved"
    if len({row.n for row in result.rows if row["icr"] is not None}) < 2:
        return f"{text}."
    return (
        f"{text}; levels that no longer decide anything were given fewer images, and have wider intervals in the table."
    )


def _levels(result: Result, window: WindowRow) -> list[str]:
    """The recommended level, and the best measured one, which for a U lies beside it."""
    row = best_of(result, window.layer, by_layer(result.rows).get(window.layer, []))
    ends = NULL if row is None else interval(row.get("icr_low"), row.get("icr_high"))
    icr = share(window.icr) if ends == NULL else f"{share(window.icr)} (95 % interval {ends})"
    native = "" if window.t is None else f" (the model's t = {number(window.t)})"
    level = f"σ = {number(window.sigma)}{native}"
    if window.shape != "u" or window.sigma_error is None:
        return [f"Lowest ICR {icr} at {level}."]
    measured = "" if row is None else f" at σ = {number(row.sigma)}"
    return [f"Recommended {level}, {how_sure(window)}.", f"Lowest ICR measured: {icr}{measured}."]


def how_sure(window: WindowRow) -> str:
    """The interval of a recommended level."""
    assert window.sigma is not None
    assert window.sigma_error is not None
    low, high = (window.sigma * 10 ** (sign * SURE * window.sigma_error) for sign in (-1, 1))
    return f"95 % interval {number(low)} to {number(high)}"


def _reach(window: WindowRow) -> list[str]:
    if window.low is None or window.high is None:
        return []
    if window.low == window.high:
        return ["Every other level is distinguishable from it."]
    reach = f"σ = {number(window.low)} to {number(window.high)}"
    if window.shape == "u":
        return [f"Window: {reach}, which cannot be told apart from the best."]
    return [f"Levels from {reach} cannot be told apart from the best."]
