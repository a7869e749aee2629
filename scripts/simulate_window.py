"""How often two errors of the recommended noise level hold the truth, and how far off it is.

    python scripts/simulate_window.py [--draws 150]

Curves: five measured at 34 levels (tests/data/measured_curves.json), and of each the closest one whose curvature jumps
at the minimum: log ICR a(x − x0)² to its left, b(x − x0)² + c(x − x0)³ to its right, at most 0. Each draw takes K
levels over a range whose ends are random, with errors of the covariance that the measured replicates have.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy.optimize import least_squares

from diffscope.numerics import FloatArray
from diffscope.studies.sweep.recommended import grid_step, minimum, natural_spline, recommend, scatter_of_minimum
from diffscope.studies.sweep.window import semantic_window

CURVES = Path(__file__).parent.parent / "tests" / "data" / "measured_curves.json"
Curve = Callable[[FloatArray], FloatArray]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=150)
    draws = parser.parse_args().draws
    print("| K | curve | n | bias | worst | held | held with h/8 | window holds |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for levels in (12, 8, 7, 6, 5):
        for record in json.loads(CURVES.read_text()):
            x, log_icr, y = (np.array(record[key]) for key in ("log10_sigma", "log_icr", "replicates"))
            smooth = natural_spline(x, log_icr)
            kinked, x0 = with_a_jump(x, log_icr)
            report(f"{record['network'][:4]} {record['layer']}", smooth, minimum(x, log_icr), x, y, levels, draws)
            report(f"{record['network'][:4]} {record['layer']}, jump", kinked, x0, x, y, levels, draws)


def with_a_jump(x: FloatArray, log_icr: FloatArray) -> tuple[Curve, float]:
    """The curve whose curvature jumps at its minimum that is closest to these values, and where that is."""

    def curve(parameters: FloatArray, at: FloatArray) -> FloatArray:
        a, b, c, x0, lowest = parameters
        right = np.maximum(at - x0, 0)
        return np.where(at < x0, lowest + a * (at - x0) ** 2, np.minimum(0, lowest + b * right**2 + c * right**3))

    best = int(np.argmin(log_icr))
    near = (x > x[best] - 1.3) & (x < x[best] + 1.5)
    start, bounds = [0.03, 0.13, 0.05, x[best], log_icr[best]], ([0, 0, 0, -3, -3], [3, 3, 3, 1, 0])
    fit = least_squares(lambda p: curve(p, x[near]) - log_icr[near], start, bounds=bounds).x
    return lambda at: curve(fit, at), float(fit[3])


def report(name: str, curve: Curve, truth: float, x: FloatArray, y: FloatArray, levels: int, draws: int) -> None:
    rng, scatter, blocks = np.random.default_rng(levels), y - y.mean(0), len(y)
    errors, held, held_by_less, inside = [], [], [], []
    for _ in range(draws):
        at = np.linspace(x[0] + rng.uniform(0, 0.3), x[-1] - rng.uniform(0, 0.3), levels)
        error = np.sqrt((blocks - 1) / blocks) * rng.standard_normal(blocks) @ scatter
        spread = natural_spline(x, np.column_stack([error, (scatter + error).T]))(at)
        values, replicates = curve(at) + spread[:, 0], curve(at) + spread[:, 1:].T
        best = int(np.argmin(values))
        if best in (0, levels - 1):
            continue
        found = recommend(at, values, replicates, best)
        less = np.hypot(scatter_of_minimum(at, replicates), grid_step(at, best) / 8)
        errors.append(found.x - truth)
        held.append(abs(errors[-1]) <= 2 * found.se)
        held_by_less.append(abs(errors[-1]) <= 2 * less)
        window = semantic_window(10**at, np.exp(values), replicates)
        if window.shape == "u" and window.low is not None and window.high is not None:
            inside.append(np.log10(window.low) <= truth <= np.log10(window.high))
    if errors:
        shares = " | ".join(f"{np.mean(values):.2f}" if values else "–" for values in (held, held_by_less, inside))
        worst = np.max(np.abs(errors))
        print(f"| {levels} | {name} | {len(errors)} | {np.mean(errors):+.3f} | {worst:.2f} | {shares} |", flush=True)


if __name__ == "__main__":
    main()
