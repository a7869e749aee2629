"""Figures of both papers that need trained runs, from those of `scripts/train_suite.py`.

    python scripts/paper_runs.py                          # draw them and print the tables, from what is stored
    python scripts/paper_runs.py --measure --runs runs/suite   # measure what is not stored yet

arXiv 2606.09718: Figure 10 (a memorizing model over noise levels), 12 (class separation, silhouette over such a run),
15 (layers). arXiv 2502.05743: Figures 8 and 9 (number of training images). Classes are told apart on 3,000 test
images of Fashion-MNIST at 16×16, which no run has seen: a logistic regression on 2,250 of them, tested on 750.

Writes scripts/results/papers/: classes.csv (a row for each run, snapshot and noise level), copies.csv (the share of 256
samples that copy, of runs without a table in results/suite) and the figures.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import spearmanr
from train_suite import RUNS, SNAPSHOTS, snapshot
from training import fashion

import diffscope

RESULTS = Path(__file__).parent / "results"
PAPERS, SUITE = RESULTS / "papers", RESULTS / "suite"
SIGMAS = (0.02, 0.06, 0.14, 0.3, 0.6, 1.2, 2.5, 5.0)
TRACKED = 0.3
"""The level at which runs are followed."""
SMALL = ("fashion-64", "fashion-128", "fashion-1000", "fashion-10000", "fashion-60000")
NARROW = ("narrow-64", "narrow-1000", "narrow-10000", "narrow-60000")
AT, LONG = 96_000, 480_000
COMPARED = (
    ("width 12", SMALL, AT),
    ("width 8", NARROW, AT),
    ("width 12", ("fashion-64", "fashion-128", "fashion-60000"), LONG),
)
"""Runs on different numbers of images, after equal numbers of images seen."""
FOLLOWED = "fashion-64"
KEYS = ("accuracy", "accuracy_se", "knn", "icr", "icr_low", "icr_high", "separation", "separation_se", "silhouette")
IMAGES, SAMPLES, SAMPLE_STEPS = 3_000, 256, 12


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", action="store_true", help="measure what is not stored yet")
    parser.add_argument("--runs", type=Path, nargs="*", default=[Path("runs/suite")], help="folders of runs")
    arguments = parser.parse_args()
    PAPERS.mkdir(parents=True, exist_ok=True)
    if arguments.measure:
        torch.set_num_threads(1)
        measure_classes(arguments.runs)
        measure_copies(arguments.runs)
    classes = read(PAPERS / "classes.csv")
    copies = {(row["run"], int(row["step"])): float(row["share"]) for row in read(PAPERS / "copies.csv")}
    for name, draw in (
        ("sizes", lambda: sizes(classes, copies)),
        ("memorizing", lambda: memorizing(classes)),
        ("separation", lambda: separation(classes)),
        ("layers", layers),
    ):
        draw().savefig(PAPERS / f"{name}.png", dpi=150)
        print(f"drawn: {PAPERS / name}.png")


def measure_classes(folders: Sequence[Path]) -> None:
    """Probes every snapshot wanted, a row for each noise level; what is stored stays."""
    path = PAPERS / "classes.csv"
    rows = read(path) if path.exists() else []
    there = {(row["run"], int(row["step"]), float(row["sigma"])) for row in rows}
    images, labels = fashion("t10k")
    with tempfile.TemporaryDirectory() as scratch:
        data = Path(scratch) / "test.npz"
        np.savez(data, images=images[..., None], y=labels)
        for run, step, sigmas in wanted():
            file = next((f for folder in folders if (f := snapshot(folder / run, step)).exists()), None)
            missing = [sigma for sigma in sigmas if (run, step, sigma) not in there]
            if file is None or not missing:
                continue
            result = diffscope.probe(file, data, sigma=missing, num_images=IMAGES, progress=False)
            for row in result.rows:
                rows.append({"run": run, "step": step, "sigma": row["sigma"], **{key: row[key] for key in KEYS}})
            write(path, rows)
            print(f"{run} {step}: {len(missing)} levels", flush=True)


def wanted() -> Iterable[tuple[str, int, Sequence[float]]]:
    """(run, step, noise levels) of all probes."""
    for _, runs, step in COMPARED:
        for run in runs:
            yield run, nearest(run, step), SIGMAS
    every = RUNS[FOLLOWED].total // SNAPSHOTS
    for step in (1_600, 3_200, 6_400, *range(every, RUNS[FOLLOWED].total + 1, 3 * every)):
        yield FOLLOWED, step, (TRACKED,)


def nearest(run: str, step: int) -> int:
    """The snapshot of a run that is nearest to a number of images seen."""
    every = RUNS[run].total // SNAPSHOTS
    return min(every * round(step / every), RUNS[run].total)


def measure_copies(folders: Sequence[Path]) -> None:
    """Counts copies among samples of the runs that have no table in results/suite."""
    path = PAPERS / "copies.csv"
    rows = read(path) if path.exists() else []
    known = {(row["run"], int(row["step"])) for row in rows}
    for run, step in ((run, nearest(run, step)) for _, runs, step in COMPARED for run in runs):
        if (run, step) in known:
            continue
        stored = SUITE / f"{run}-copies.csv"
        if stored.exists():
            by_step = {int(row["step"]): row["share"] for row in read(stored)}
            measured = min(by_step, key=lambda there: abs(there - step))
            rows.append({"run": run, "step": step, "measured_at": measured, "share": by_step[measured]})
            continue
        folder = next((f for f in folders if snapshot(f / run, step).exists()), None)
        if folder is None:
            continue
        file, data = snapshot(folder / run, step), folder / run / "images.npz"
        found = diffscope.memorization(file, data, samples=SAMPLES, steps=SAMPLE_STEPS, progress=False)
        rows.append({"run": run, "step": step, "measured_at": step, "share": found.rows[0]["share"]})
        print(f"{run}: {rows[-1]['share']:.3f} of {SAMPLES} samples copy", flush=True)
    write(path, rows)


def sizes(classes: Sequence[dict[str, str]], copies: dict[tuple[str, int], float]) -> Figure:
    """Figures 8 and 9 of arXiv 2502.05743: accuracy over noise by the number of training images, and its peak."""
    figure = Figure(figsize=(11, 3.4 * len(COMPARED)), layout="constrained")
    for row, (width, names, step) in zip(figure.subplots(len(COMPARED), 3), COMPARED, strict=True):
        there = [run for run in names if of(classes, run, nearest(run, step))]
        title = f"{width}, {step:,} images seen"
        for key, words, axes in (("accuracy", "probe accuracy", row[0]), ("icr", "ICR", row[1])):
            for run in there:
                found = of(classes, run, nearest(run, step))
                sigma, values = ([float(r[column]) for r in found] for column in ("sigma", key))
                colour = f"C{SMALL.index(run.replace('narrow', 'fashion'))}"
                axes.plot(sigma, values, ".-", color=colour, label=f"{RUNS[run].images:,}")
                if key == "accuracy":
                    error = np.array([float(r["accuracy_se"]) for r in found])
                    axes.fill_between(sigma, values - error, values + error, color=colour, alpha=0.12, linewidth=0)
            axes.set(xscale="log", xlabel="σ", ylabel=words, title=title)
        row[0].legend(title="training images", fontsize=8)
        _peaks(row[2], classes, copies, [(run, nearest(run, step)) for run in there], title)
    return figure


def _peaks(
    axes: Axes,
    classes: Sequence[dict[str, str]],
    copies: dict[tuple[str, int], float],
    snapshots: Sequence[tuple[str, int]],
    title: str,
) -> None:
    count = [RUNS[run].images for run, _ in snapshots]
    curves = [[float(r["accuracy"]) for r in of(classes, run, step)] for run, step in snapshots]
    best, rise = [max(curve) for curve in curves], [max(curve) - curve[0] for curve in curves]
    axes.plot(count, best, "o-", label="best accuracy")
    axes.plot(count, [1 - copies[one] for one in snapshots], "s--", label="1 − share of copies")
    axes.plot(count, rise, "^:", label=f"best accuracy less that at σ = {SIGMAS[0]:g}")
    axes.set(xscale="log", xlabel="training images", ylim=(-0.03, 1.03), title=title)
    axes.legend(fontsize=8)
    for (run, step), b, r in zip(snapshots, best, rise, strict=True):
        print(f"{run:15} {step:7,} best accuracy {b:.3f}, rise {r:.3f}, copies {copies[run, step]:.3f}")


def memorizing(classes: Sequence[dict[str, str]]) -> Figure:
    """Figure 10 of arXiv 2606.09718: ICR and accuracy over noise, of a memorizing model and of another."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    shown = (
        (FOLLOWED, RUNS[FOLLOWED].total, "memorizing: 64 images"),
        ("fashion-60000", nearest("fashion-60000", AT), "60,000 images"),
    )
    for axes, (run, step, title) in zip(figure.subplots(1, 2, sharey=True), shown, strict=True):
        found = of(classes, run, step)
        sigma = [float(r["sigma"]) for r in found]
        icr = np.array([[float(r[key]) for r in found] for key in ("icr", "icr_low", "icr_high")])
        accuracy = np.array([float(r["accuracy"]) for r in found])
        error = np.array([float(r["accuracy_se"]) for r in found])
        axes.plot(sigma, icr[0], "o-", color="C0", label="ICR")
        axes.fill_between(sigma, icr[1], icr[2], color="C0", alpha=0.15, linewidth=0)
        axes.errorbar(sigma, accuracy, error, fmt="s--", color="C1", label="probe accuracy", capsize=2)
        axes.set(xscale="log", xlabel="σ", title=title, ylim=(0, 1.1))
        axes.legend()
        print(f"{run} at {step}: rank correlation of ICR and accuracy {_ranked(list(icr[0]), list(accuracy)):+.2f}")
    return figure


def separation(classes: Sequence[dict[str, str]]) -> Figure:
    """Figure 12 of arXiv 2606.09718: metrics that need classes, beside ICR and copies, over a memorizing run."""
    every = sorted({int(r["step"]) for r in classes if r["run"] == FOLLOWED})
    found = [(step, r) for step in every for r in of(classes, FOLLOWED, step) if float(r["sigma"]) == TRACKED]
    steps = [step for step, _ in found]
    copied = [(int(r["step"]), float(r["share"])) for r in read(SUITE / f"{FOLLOWED}-copies.csv")]
    icr = [(int(r["step"]), float(r["icr"])) for r in _table(FOLLOWED) if float(r["sigma"]) == TRACKED
           and r["layer"] == "enc.8x8_block1"]  # fmt: skip
    figure = Figure(figsize=(9, 6.4), layout="constrained")
    panels = figure.subplots(2, 2, sharex=True).flat
    curves: tuple[tuple[str, Sequence[int], Sequence[float]], ...] = (
        ("ICR of the training images", [step for step, _ in icr], [value for _, value in icr]),
        ("share of samples that copy", [step for step, _ in copied], [share for _, share in copied]),
        ("class separation (test images)", steps, [float(r["separation"]) for _, r in found]),
        ("silhouette (test images)", steps, [float(r["silhouette"]) for _, r in found]),
    )
    for axes, (name, x, y) in zip(panels, curves, strict=True):
        axes.plot(x, y, "o-", markersize=3)
        axes.set(xscale="log", title=name, xlabel="training images seen")
    shares = dict(copied)
    told = [shares[min(shares, key=lambda there: abs(there - step))] for step in steps]
    for key in ("separation", "silhouette", "icr", "accuracy"):
        print(f"{FOLLOWED}: rank correlation of copies with {key} (test images): "
              f"{_ranked(told, [float(r[key]) for _, r in found]):+.2f}")  # fmt: skip
    return figure


def layers() -> Figure:
    """Figure 15 of arXiv 2606.09718: ICR of four layers, over noise with many images and over training with few."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    noise, training = figure.subplots(1, 2)
    rich = _table("fashion-60000")
    last = max(int(r["step"]) for r in rich)
    few = _table(FOLLOWED)
    for layer in dict.fromkeys(r["layer"] for r in rich):
        over = [(float(r["sigma"]), float(r["icr"])) for r in rich if r["layer"] == layer and int(r["step"]) == last]
        noise.plot(*zip(*over, strict=True), "o-", label=layer)
        run = [(int(r["step"]), float(r["icr"])) for r in few if r["layer"] == layer and float(r["sigma"]) == TRACKED]
        training.plot(*zip(*run, strict=True), "o-", markersize=3, label=layer)
        print(f"{layer}: lowest over noise at σ = {min(over, key=lambda p: p[1])[0]:g}; "
              f"over training at {min(run, key=lambda p: p[1])[0]:,}")  # fmt: skip
    noise.set(xscale="log", xlabel="σ", ylabel="ICR", title=f"60,000 images, {last:,} seen")
    training.set(xscale="log", xlabel="training images seen", title=f"64 images, σ = {TRACKED:g}")
    noise.legend(fontsize=8)
    return figure


def of(classes: Sequence[dict[str, str]], run: str, step: int) -> list[dict[str, str]]:
    """Rows of one snapshot, by noise level."""
    found = [row for row in classes if row["run"] == run and int(row["step"]) == step]
    return sorted(found, key=lambda row: float(row["sigma"]))


def _table(run: str) -> list[dict[str, str]]:
    with gzip.open(SUITE / f"{run}.csv.gz", "rt", newline="") as file:
        return [row for row in csv.DictReader(io.StringIO(file.read())) if row["icr"]]


def _ranked(a: Sequence[float], b: Sequence[float]) -> float:
    return float(spearmanr(a, b).statistic)


def read(path: Path) -> list[dict[str, Any]]:
    """Rows of a CSV file."""
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def write(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Writes rows, numbers with six digits."""
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({key: f"{value:.6g}" if isinstance(value, float) else value for key, value in row.items()})


if __name__ == "__main__":
    main()
