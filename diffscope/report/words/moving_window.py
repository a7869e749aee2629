"""The semantic window over a training run in words: where it lies, how it moves, where it is lost."""

from __future__ import annotations

from diffscope.names import first_few
from diffscope.report.text import number
from diffscope.report.words.series import LAST, ROWS
from diffscope.results import Result, WindowRow


def swept_layers(result: Result) -> list[str]:
    """Those whose window is known at each snapshot."""
    return list(dict.fromkeys(window.layer for window in result.window))


def told(result: Result) -> list[WindowRow]:
    """Those that a table shows: of a long run first and last ones and some between."""
    steps = sorted({one.step for one in result.window if one.step is not None})
    every = max(1, len(steps) // (ROWS - LAST))
    shown = {step for place, step in enumerate(steps) if place % every == 0 or place >= len(steps) - LAST}
    return [window for window in result.window if window.step is None or window.step in shown]


def window_lines(result: Result) -> list[str]:
    """Of each layer, where its window was first and last, and where it was lost."""
    lines = []
    for layer in swept_layers(result):
        found = [window for window in result.window if window.layer == layer and window.shape == "u"]
        if not found:
            lines.append(f"{layer}: no snapshot has a semantic window.")
            continue
        first, last = found[0], found[-1]
        lost = [
            window.step
            for window in result.window
            if window.layer == layer and window.shape != "u" and (window.step or 0) > (first.step or 0)
        ]
        moved = f"{layer}: the window lies at σ = {number(first.sigma)} at step {first.step:,}"
        if last is not first:
            moved += f", at {number(last.sigma)} at step {last.step:,}"
        gone = f"; there is none at step {first_few([f'{step:,}' for step in lost])}" if lost else ""
        lines.append(f"{moved}{gone}.")
    return lines
