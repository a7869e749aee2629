"""Study the alarm of `diffscope track` on the tables of scripts/results/suite, without training.

    python scripts/study_onset.py             # every rule that was tried, on both halves of the suite
    python scripts/study_onset.py --runs      # the chosen one, run by run
    python scripts/study_onset.py --simulate  # how often it fires on plateaus and drifts like those of the suite
    python scripts/study_onset.py --curve     # copies at the alarm and false alarms, over limits

Choosing half: Fashion-MNIST, U-Nets trained from scratch. Judging half: CIFAR-10, transformers, fine-tuning. A rule
sees snapshots one after the other. Of a memorizing run it is told at which step it fires, the share of copies (d₁/d₂ <
1/3) by then, and the copies at the checkpoint that it names; of another run, whether it fires.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from simulate_onset import ar1

from diffscope.numerics import FloatArray
from diffscope.studies.track import alarm
from diffscope.studies.track.alarm import Limit, Pooled, fires
from diffscope.studies.track.cells import LEVELS
from diffscope.studies.track.onset import Snapshot, fluctuation, judge

TABLES = Path(__file__).parent / "results" / "suite"
MEMORIZING = ("fashion-64", "fashion-128", "fashion-64-cosine", "fashion-64-classes", "fashion-256", "fashion-512",
              "cifar-64", "cifar-128", "cifar-256", "sit-64", "sit-128", "fine-tuned-128", "fine-tuned-64",
              "fine-tuned-cifar-64")  # fmt: skip
BLOCKS = 16


@dataclass(frozen=True)
class Table:
    """One run as it was measured."""

    name: str
    columns: dict[str, list[str]]
    copies: dict[int, float]
    """Share by step."""

    @property
    def memorizes(self) -> bool:
        return self.name in MEMORIZING

    @property
    def undecided(self) -> bool:
        """Meant to memorize, and not seen to: an alarm is neither early nor false."""
        return self.memorizes and max(self.copies.values(), default=0.0) < 0.01

    @property
    def judging(self) -> bool:
        return not self.name.startswith("fashion")

    @property
    def steps(self) -> list[int]:
        return sorted({int(step) for step in self.columns["step"]})

    @property
    def layers(self) -> list[str]:
        return list(dict.fromkeys(self.columns["layer"]))

    @property
    def pooled_layers(self) -> list[str]:
        """Those of the alarm (`cells.layers_of`)."""
        places = (0, 2, 3) if "blocks.1" in self.layers else (0, 1, 2)
        return [self.layers[place] for place in places]

    def values(self, column: str, layer: str, sigma: float) -> FloatArray:
        """[T]"""
        rows = [
            (int(step), float(value or "nan"))
            for step, at, level, value in zip(
                self.columns["step"], self.columns["layer"], self.columns["sigma"], self.columns[column], strict=True
            )
            if at == layer and abs(float(level) - sigma) < 1e-9
        ]
        return np.array([value for _, value in sorted(rows)])

    def pooled(self, column: str, layers: Sequence[str], sigmas: Sequence[float]) -> Pooled:
        """The mean of logarithms, with replicates where the column has them."""
        prefix = "y" if column == "icr" else column
        cells = [(layer, sigma) for layer in layers for sigma in sigmas]
        y = np.stack([np.log(np.abs(self.values(column, *cell))) for cell in cells], 1)
        if f"{prefix}_1" in self.columns:
            blocks = np.stack(
                [np.stack([self.values(f"{prefix}_{g}", *cell) for g in range(1, BLOCKS + 1)], 1) for cell in cells], 1
            )
        else:
            blocks = np.repeat(y[..., None], 2, axis=2)
        return Pooled.of(y, blocks)

    def copied(self, step: int | None) -> float | None:
        """Share of copies at a step, between those measured by the later one."""
        later = [at for at in sorted(self.copies) if step is not None and at >= step]
        return self.copies[later[0]] if later else None


def read_tables() -> list[Table]:
    found = []
    for path in sorted(TABLES.glob("*.csv.gz")):
        rows = list(csv.DictReader(io.StringIO(gzip.decompress(path.read_bytes()).decode())))
        name = path.name.removesuffix(".csv.gz")
        copies = TABLES / f"{name}-copies.csv"
        shares = list(csv.DictReader(io.StringIO(copies.read_text()))) if copies.exists() else []
        columns = {key: [row[key] for row in rows] for key in rows[0]}
        found.append(Table(name, columns, {int(row["step"]): float(row["share"]) for row in shares}))
    return found


# --- rules: a run → index of the snapshot at which it fires

Rule = Callable[[Table], int | None]


def of_icr(
    rise: float, errors: float, sigmas: Sequence[float] = LEVELS, layers: slice = slice(0, 3), persist: int = 2
) -> Rule:
    """The pooled rise of ICR alone."""
    return lambda table: fires(
        {"icr": table.pooled("icr", table.pooled_layers[layers], sigmas).rises()},
        {"icr": Limit(rise, errors)},
        persist,
        fallen=True,
    )


def of_column(column: str, rise: float, errors: float = 0.0, first: bool = False) -> Rule:
    """Any other column alone; `first`: it stands in the rows of the first layer alone."""
    return lambda table: fires(
        {column: table.pooled(column, table.pooled_layers[: 1 if first else 3], LEVELS).rises()},
        {column: Limit(rise, errors)},
        2,
        fallen=not first,
    )


def of_gap(of: str, gap: float) -> Rule:
    """The loss on other images above that on those trained on, itself, not its rise."""

    def rule(table: Table) -> int | None:
        here, there = (table.pooled(name, table.layers[:1], LEVELS) for name in ("loss", of))
        above = there.y - here.y > np.log1p(gap)
        return next((t for t in range(1, len(above)) if above[t - 1] and above[t]), None)

    return rule


def of_cusum(column: str, allowance: float = 0.5, threshold: float = 5.0) -> Rule:
    """Page's CUSUM over steps from snapshot to snapshot, in units of their own scatter so far.

    Page, "Continuous inspection schemes", 1954, https://doi.org/10.1093/biomet/41.1-2.100.
    """

    def rule(table: Table) -> int | None:
        total = 0.0
        for t, z in _standardised(table, column):
            total = max(0.0, total + z - allowance)
            if total > threshold:
                return t
        return None

    return rule


def of_e_detector(column: str, bet: float = 0.5, level: float = 0.05) -> Rule:
    """Shiryaev and Roberts' sum of e-processes, one begun at each snapshot, against "does not rise".

    Shin, Ramdas and Rinaldo, "E-detectors", 2022, https://arxiv.org/abs/2203.03532: its expectation grows by one a
    snapshot at most, so that it exceeds T/`level` in T snapshots with probability `level`.
    """

    def rule(table: Table) -> int | None:
        total = 0.0
        for t, z in _standardised(table, column):
            total = (total + 1) * math.exp(bet * z - bet**2 / 2)
            if total > len(table.steps) / level:
                return t
        return None

    return rule


def _standardised(table: Table, column: str) -> list[tuple[int, float]]:
    """(t, z): steps of the pooled quantity up to t over their scatter so far and their paired error, the larger."""
    layers = table.pooled_layers if column == "icr" else table.layers[:1]
    one = table.pooled(column, layers, LEVELS)
    steps = np.diff(one.y)
    found = []
    for t in range(FROM, len(steps)):
        before = steps[max(0, t - 10) : t]
        scatter = 1.4826 * float(np.median(np.abs(before - np.median(before))))
        error = one.rise(t, t + 1).se
        found.append((t + 1, float(steps[t]) / max(scatter, error, 1e-12)))
    return found


FROM = 5
"""Steps from snapshot to snapshot before their scatter is known."""


def of_cell(layer: int, sigma: float, preset: str) -> Rule:
    """One cell, as `--layer --sigma` takes it."""

    def rule(table: Table) -> int | None:
        one = table.pooled("icr", table.pooled_layers[layer : layer + 1], [sigma])
        snapshots = [
            Snapshot(step, "", float(np.exp(y)), blocks.tolist(), 1)
            for step, y, blocks in zip(table.steps, one.y, one.blocks, strict=True)
        ]
        fired = judge("", sigma, snapshots, preset, online=True).fired_at
        return None if fired is None else table.steps.index(fired)

    return rule


def both(icr: Limit, loss: str, limit: Limit, persist: int = alarm.PERSIST) -> Rule:
    """ICR and a loss together."""

    def rule(table: Table) -> int | None:
        rises = {
            "icr": table.pooled("icr", table.pooled_layers, LEVELS).rises(),
            loss: table.pooled(loss, table.layers[:1], LEVELS).rises(),
        }
        return fires(rises, {"icr": icr, loss: limit}, persist)

    return rule


def chosen(loss: str | None = alarm.VIEWS) -> Rule:
    limits = alarm.limits_of(loss)
    if loss == alarm.GAP:
        return of_gap("loss_holdout", limits[loss].rise)
    return of_icr(limits["icr"].rise, limits["icr"].errors) if loss is None else both(limits["icr"], loss, limits[loss])


RULES: dict[str, Rule] = {
    "one cell: default layer, σ .3, preset long": of_cell(0, 0.3, "long"),
    "one cell: default layer, σ .3, preset short": of_cell(0, 0.3, "short"),
    "one cell: first decoder block, σ .3, short": of_cell(1, 0.3, "short"),
    "ICR, three layers, σ .14–.6, 2 % and 3 errors": of_icr(0.02, 3),
    "the same, 3 %": of_icr(0.03, 3),
    "the same, 5 %": of_icr(0.05, 3),
    "the same, σ .06–.3, 2 %": of_icr(0.02, 3, (0.06, 0.14, 0.3)),
    "the same, σ .06–.3, 5 %": of_icr(0.05, 3, (0.06, 0.14, 0.3)),
    "the same, first decoder block alone, 3 %": of_icr(0.03, 3, LEVELS, slice(1, 2)),
    "the same, three levels of the default layer, 3 %": of_icr(0.03, 3, LEVELS, slice(0, 1)),
    "trace ratio tr Σξ/tr Σs, 10 %": of_column("nc1_trace", 0.10),
    "alignment on unit features, 10 %": of_column("alignment", 0.10),
    "spikiness, 50 %": of_column("spikiness", 0.5),
    "effective rank, 10 %": of_column("effective_rank", 0.1),
    "loss on views, 2 % and 3 errors": of_column("loss_views", 0.02, 3, first=True),
    "loss on views, 5 % and 3 errors": of_column("loss_views", 0.05, 3, first=True),
    "loss on views, 10 % and 3 errors": of_column("loss_views", 0.10, 3, first=True),
    "loss on views above that on the images, factor 2": of_gap("loss_views", 1.0),
    "loss on views above that on the images, factor 3": of_gap("loss_views", 2.0),
    "degrees of freedom on views, 5 %": of_column("loss_views_freedom", 0.05, 0, first=True),
    "held-out loss, 5 % and 3 errors": of_column("loss_holdout", 0.05, 3, first=True),
    "held-out loss above training loss, 10 %": of_gap("loss_holdout", 0.1),
    "held-out loss above training loss, 20 %": of_gap("loss_holdout", 0.2),
    "held-out loss above training loss, 50 %": of_gap("loss_holdout", 0.5),
    "CUSUM of ICR (allowance .5, threshold 5)": of_cusum("icr"),
    "CUSUM of the loss on views": of_cusum("loss_views"),
    "CUSUM of the loss on views, threshold 20": of_cusum("loss_views", threshold=20),
    "e-detector of ICR, 5 % a run": of_e_detector("icr"),
    "e-detector of the loss on views": of_e_detector("loss_views"),
    "CHOSEN, ICR alone": chosen(None),
    "CHOSEN, with the loss on views": chosen(),
    "CHOSEN, with --holdout": chosen(alarm.GAP),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", action="store_true", help="the chosen rule, run by run")
    parser.add_argument("--simulate", action="store_true", help="plateaus and drifts like those of the other runs")
    parser.add_argument("--curve", action="store_true", help="copies and false alarms over limits")
    arguments = parser.parse_args()
    tables = read_tables()
    if arguments.runs:
        by_run(tables)
    elif arguments.simulate:
        simulated([table for table in tables if not table.memorizes])
    elif arguments.curve:
        by_limit(tables)
    else:
        by_rule(tables)


def by_rule(tables: Sequence[Table]) -> None:
    for judging in (False, True):
        half = [table for table in tables if table.judging == judging and not table.undecided]
        memorizing = [table for table in half if table.memorizes]
        others = [table for table in half if not table.memorizes]
        print(
            f"\n{'Judging' if judging else 'Choosing'} half: {len(memorizing)} memorizing runs, {len(others)} others\n"
        )
        print("| rule | fires | copies then, median | most | false alarms |\n| --- | --- | --- | --- | --- |")
        for name, rule in RULES.items():
            found = [(table, rule(table)) for table in memorizing]
            copied = [table.copied(None if t is None else table.steps[t]) for table, t in found]
            known = [share for share in copied if share is not None]
            false = [table.name for table in others if rule(table) is not None]
            shares = f"{percent(np.median(known))} | {percent(max(known))}" if known else "– | –"
            fired = sum(t is not None for _, t in found)
            print(f"| {name} | {fired} of {len(found)} | {shares} | {len(false)}: {', '.join(false) or '–'} |")


def by_run(tables: Sequence[Table]) -> None:
    """The chosen rule, and what it would be with held-out images."""
    heads = ("run", "half", "lowest ICR", "1 % copies", "5 % copies", "at the end", "alarm", "copies then", "kept",
             "copies there", "with --holdout", "copies then")  # fmt: skip
    print(f"| {' | '.join(heads)} |\n|{' --- |' * len(heads)}")
    for table in sorted(tables, key=lambda table: (not table.memorizes, table.judging, table.name)):
        icr = table.pooled("icr", table.pooled_layers, LEVELS)
        fired, held = chosen()(table), chosen(alarm.GAP)(table)
        rises = {"icr": icr.rises(), "loss_views": table.pooled("loss_views", table.layers[:1], LEVELS).rises()}
        keep = table.steps[alarm.to_keep(rises, alarm.limits_of("loss_views"), fired)]
        step, held_step = (None if t is None else table.steps[t] for t in (fired, held))
        cells = [
            table.name, "judging" if table.judging else "choosing", thousands(table.steps[int(np.argmin(icr.y))]),
            thousands(first_above(table, 0.01)), thousands(first_above(table, 0.05)),
            percent(table.copied(table.steps[-1])), thousands(step), percent(table.copied(step)),
            thousands(keep), percent(table.copied(keep)), thousands(held_step), percent(table.copied(held_step)),
        ]  # fmt: skip
        print(f"| {' | '.join(cells)} |")


def by_limit(tables: Sequence[Table]) -> None:
    """Both halves together: what a stricter or a looser limit of the loss would do."""
    print("| limit of the loss | limit of ICR | fires | copies then, median | most | false alarms |")
    print("| --- | --- | --- | --- | --- | --- |")
    decided = [table for table in tables if not table.undecided]
    memorizing, others = ([table for table in decided if table.memorizes == kind] for kind in (True, False))
    for loss in (0.02, 0.05, 0.10, 0.20, 0.40):
        for icr in (0.0, 0.01, 0.02, 0.05):
            # A limit below nothing leaves ICR out.
            rule = both(Limit(icr or -1.0 + 1e-9, 1 if icr else -1e9), "loss_views", Limit(loss, 3))
            found = [(table, rule(table)) for table in memorizing]
            known = [table.copied(table.steps[t]) or 0.0 for table, t in found if t is not None and table.copies]
            shares = f"{percent(float(np.median(known)))} | {percent(max(known))}" if known else "– | –"
            false = sum(rule(table) is not None for table in others)
            fired = sum(t is not None for _, t in found)
            print(f"| {loss:.0%} | {f'{icr:.0%}' if icr else 'none'} | {fired} of {len(found)} | {shares} | {false} |")


SIMULATED, SNAPSHOTS, BETWEEN = 500, 100, 0.95
"""Runs of each kind, snapshots of each, correlation of the estimate's error between neighbours."""


def simulated(others: Sequence[Table]) -> None:
    """Share of runs in which the alarm fires: plateaus, drifts as in the second half, and ICR drifting up alone."""
    print("| like | scatter of ICR, of the loss | drift a snapshot, of both | plateau | drifting | ICR drifting up |")
    print("| --- | --- | --- | --- | --- | --- |")
    rng = np.random.default_rng(0)
    limits = alarm.limits_of("loss_views")
    for table in others:
        found = {
            "icr": table.pooled("icr", table.pooled_layers, LEVELS),
            "loss_views": table.pooled("loss_views", table.layers[:1], LEVELS),
        }
        half = len(table.steps) // 2
        scatter = {name: fluctuation(one.y[half:]) or 0.0 for name, one in found.items()}
        slope = {name: float(np.polyfit(np.arange(half), one.y[-half:], 1)[0]) for name, one in found.items()}
        errors = {name: one.rise(half, len(one.y) - 1).se for name, one in found.items()}
        shares = []
        for drift in ({}, slope, {"icr": abs(slope["icr"])}):
            fired = 0
            for _ in range(SIMULATED):
                rises = {
                    name: simulate(drift.get(name, 0.0), scatter[name], errors[name], rng).rises() for name in found
                }
                fired += fires(rises, limits, alarm.PERSIST) is not None
            shares.append(percent(fired / SIMULATED))
        print(
            f"| {table.name} | {scatter['icr']:.2%}, {scatter['loss_views']:.2%} | "
            f"{slope['icr']:+.2%}, {slope['loss_views']:+.2%} | "
            f"{' | '.join(shares)} |"
        )


def simulate(slope: float, scatter: float, error: float, rng: np.random.Generator) -> Pooled:
    """A run that drifts, with a scatter of its own (AR(1), 0.5) and the error of the images it is measured on."""
    own = scatter * ar1(rng.standard_normal((1, SNAPSHOTS)), 0.5)[0]
    # The error of a difference of two snapshots far apart is √2 of each one's.
    blocks = error / 2**0.5 * BLOCKS**0.5 * ar1(rng.standard_normal((1, SNAPSHOTS, BLOCKS)), BETWEEN)[0]
    mean = blocks.mean(1)
    y = slope * np.arange(SNAPSHOTS) + own + mean
    return Pooled(y, y[:, None] - (blocks - mean[:, None]) / (BLOCKS - 1))


def first_above(table: Table, share: float) -> int | None:
    return next((step for step in sorted(table.copies) if table.copies[step] >= share), None)


def thousands(step: int | None) -> str:
    return "–" if step is None else f"{step / 1000:.4g} k"


def percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f} %"


if __name__ == "__main__":
    main()
