"""How often the rules of `diffscope/studies/track/onset.py` err, and how long they wait: simulated training runs.

    python scripts/simulate_onset.py
    python scripts/simulate_onset.py --rule short --runs 4000 --seed 1

Runs, by the logarithm of their ICR at snapshot t = 1…T:
  rich     0.3 + 0.5 t^−0.7, falling throughout
  plateau  the same up to t₀, then constant
  bump     rich with + 4 % for four snapshots, half-way
  mem x    the same up to t₀, then + x for each snapshot
To each come the run's own fluctuation, an AR(1) with coefficient φ, and the error of the estimate: G = 16 blocks whose
errors are AR(1) with 0.95 between snapshots, so that the jackknife of the replicates is right for singles and pairs.

Printed: the shares of runs in which the rule fires (false alarms), on the plateau also of those that `judge` calls
turned in the end; for mem the share found, the share of that before the minimum, and the delay after it, median (90 %).
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import numpy as np

from diffscope.numerics import FloatArray
from diffscope.studies.track.onset import PRESETS, Rule, Snapshot, fire, fluctuation, judge

BLOCKS = 16
BETWEEN_SNAPSHOTS = 0.95
"""Correlation of the estimation error of neighbouring snapshots."""


Cell = tuple[float, float, float]
Series = tuple[FloatArray, FloatArray]
"""log ICR [runs, T] and its replicates [runs, T, G]."""


@dataclass(frozen=True)
class Setting:
    """What a preset is for: T snapshots with the minimum at t₀, memorizing by `rates` for each snapshot."""

    length: int
    minimum: int
    rates: tuple[float, ...]


SETTINGS = {"long": Setting(100, 30, (0.005, 0.01, 0.03)), "short": Setting(20, 7, (0.03, 0.05, 0.10))}

CELLS = (
    (0.003, 0.0, 0.01),
    (0.01, 0.0, 0.01),
    (0.01, 0.0, 0.03),
    (0.005, 0.5, 0.01),
    (0.01, 0.5, 0.01),
    (0.015, 0.5, 0.01),
    (0.02, 0.5, 0.01),
)
"""Fluctuation (standard deviation, relative), its φ, standard error of the estimate (relative)."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rule", choices=[*PRESETS, "both"], default="both")
    parser.add_argument("--runs", type=int, default=1000, help="for each number (default 1000: a minute or two)")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    for name in PRESETS if arguments.rule == "both" else [arguments.rule]:
        setting = SETTINGS[name]
        print(f"{name}: {setting.length} snapshots, minimum at {setting.minimum}, {arguments.runs} runs each")
        head = ["fluct.", "phi", "SE", "rich", "bump", "plateau", "turned", "measured"]
        print("".join(f"{word:>9}" for word in head) + "".join(f"{f'mem {x:.1%}':>22}" for x in setting.rates))
        for cell in CELLS:
            # The same draws for every cell and rule: what differs between rows is not chance.
            print(line(name, setting, cell, arguments.runs, np.random.default_rng(arguments.seed)), flush=True)


def line(name: str, setting: Setting, cell: Cell, runs: int, rng: np.random.Generator) -> str:
    """One row of the table; the fluctuation measured is the median over runs of the plateau."""
    rule = PRESETS[name]
    alarms = [
        np.mean([index is not None for index in fired(rule, simulate(curve, cell, runs, rng))])
        for curve in (rich(setting), bump(setting))
    ]
    flat = simulate(plateau(setting), cell, runs, rng)
    alarms.append(np.mean([index is not None for index in fired(rule, flat)]))
    alarms.append(np.mean([turned(name, y, blocks) for y, blocks in zip(*flat, strict=True)]))
    measured = np.median([fluctuation(y) for y in flat[0]])
    found = [delays(fired(rule, simulate(memorizing(setting, x), cell, runs, rng)), setting) for x in setting.rates]
    size, phi, error = cell
    shares = "".join(f"{share:9.4f}" for share in alarms)
    return f"{size:9.1%}{phi:9.1f}{error:9.1%}{shares}{measured:9.2%}" + "".join(f"{text:>22}" for text in found)


def fired(rule: Rule, series: Series) -> list[int | None]:
    return [fire(y, blocks, rule)[0] for y, blocks in zip(*series, strict=True)]


def turned(name: str, y: FloatArray, blocks: FloatArray) -> bool:
    """Whether `judge` says so once the run is over."""
    snapshots = [
        Snapshot(t, "", icr, replicates, 1)
        for t, (icr, replicates) in enumerate(zip(np.exp(y).tolist(), blocks.tolist(), strict=True))
    ]
    return judge("", 1.0, snapshots, name).state == "turned"


def delays(indices: list[int | None], setting: Setting) -> str:
    delay = np.array([index - (setting.minimum - 1) for index in indices if index is not None])
    if not len(delay):
        return "0"
    middle, late = np.quantile(delay, [0.5, 0.9])
    return f"{len(delay) / len(indices):.3f} {np.mean(delay < 0):.3f} {middle:.0f} ({late:.0f})"


def falling(t: FloatArray) -> FloatArray:
    return np.asarray(np.log(0.3 + 0.5 * t**-0.7))


def rich(setting: Setting) -> FloatArray:
    return falling(np.arange(1.0, setting.length + 1))


def plateau(setting: Setting) -> FloatArray:
    return falling(np.minimum(np.arange(1.0, setting.length + 1), setting.minimum))


def bump(setting: Setting) -> FloatArray:
    y = rich(setting)
    half = setting.length // 2
    y[half : half + 4] += np.log(1.04)
    return y


def memorizing(setting: Setting, rate: float) -> FloatArray:
    t = np.arange(1.0, setting.length + 1)
    return np.asarray(plateau(setting) + np.log1p(rate * np.maximum(t - setting.minimum, 0)))


def simulate(curve: FloatArray, cell: Cell, runs: int, rng: np.random.Generator) -> Series:
    """log ICR as it would be measured along a curve [T], with its block replicates."""
    size, phi, error = cell
    own = size * ar1(rng.standard_normal((runs, len(curve))), phi)
    blocks = error * BLOCKS**0.5 * ar1(rng.standard_normal((runs, len(curve), BLOCKS)), BETWEEN_SNAPSHOTS)
    mean = blocks.mean(2)
    y = curve + own + mean
    # Without block g the estimate moves by −(error of g − mean)/(G − 1); replicates are centred on the estimate.
    return y, y[..., None] - (blocks - mean[..., None]) / (BLOCKS - 1)


def ar1(innovations: FloatArray, phi: float) -> FloatArray:
    """Stationary series of variance 1 along the second axis, from white noise [runs, T, ...]."""
    x = np.array(innovations)
    for t in range(1, x.shape[1]):
        x[:, t] = phi * x[:, t - 1] + (1 - phi**2) ** 0.5 * innovations[:, t]
    return x


if __name__ == "__main__":
    main()
