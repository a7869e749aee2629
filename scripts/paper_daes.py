"""Figure 7 and Table 3 of arXiv 2502.05743: autoencoders of one noise level each beside a diffusion model.

    python scripts/paper_daes.py             # draw the figure and print the table, from what is stored
    python scripts/paper_daes.py --measure   # measure what is not stored yet: half an hour of one core

Networks: those of `scripts/train_daes.py`, and the snapshot of train_suite's run fashion-60000 after as many training
images. Features: the last block of the encoder, averaged over positions and flattened, of 3,000 test images of
Fashion-MNIST at 16×16, which no network has seen; a logistic regression on half of them, tested on the other half.
Beside them the same of the network with random weights, that the floor is known.

Distances are sliced Wasserstein distances of the features of the training half to those at the level of best accuracy:
of the diffusion model between levels of one network, as `probe --distance-to-best` has them; of the autoencoders
between different networks, as each level has its own. The unit of features is each network's own, so that distances
stand beside what they are over the spread of the best level's features.

What the diffusion model is better by, image by image, is of flattened features of clean input, 3,000 images to train on
and 3,000 to test.

Reads and writes daes.csv and daes-paired.csv, and draws daes.png, in scripts/results/papers/.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from paper_runs import PAPERS, read, write
from safetensors.numpy import load_file
from train_daes import DAES, SIGMAS
from train_suite import snapshot
from training import fashion

import diffscope
from diffscope.distributions.sliced import sliced_wasserstein, spread
from diffscope.studies.probe import classifiers

DIFFUSION = "fashion-60000"
LAYER = "enc.8x8_block1"
IMAGES, TEST_SHARE = 3_000, 0.5
PAIRED_IMAGES = 6_000
CODE = f"{Path(__file__).parent / 'train_daes.py'}:Autoencoder"
UNTRAINED = "untrained"
POOLS = ("flatten", "mean")
PREFIXES = {"clean": "clean_", "noisy": ""}
DISTANCES = ("swd_best", "swd_best_se", "swd_best_relative")
PLAIN = tuple(f"sigma-{sigma:g}" for sigma in SIGMAS)
CHANGED = {"edm-0.023": "+ EDM preconditioning", "levels-0.023": "+ three noise levels"}
"""Of Table 3, beside the plain one of the same level."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", action="store_true", help="measure what is not stored yet")
    parser.add_argument("--runs", type=Path, default=Path("runs/daes"), help="folder of the autoencoders")
    parser.add_argument("--suite", type=Path, default=Path("runs/suite"), help="folder of the diffusion model's run")
    parser.add_argument("--images", type=int, default=32_000, help="training images seen")
    parser.add_argument("--to", type=Path, default=PAPERS, help="folder of table and figure")
    arguments = parser.parse_args()
    table = arguments.to / "daes.csv"
    if arguments.measure:
        torch.set_num_threads(1)
        measure(arguments.runs, arguments.suite, arguments.images, table)
        if not (pairs := arguments.to / "daes-paired.csv").exists():
            write(pairs, list(paired(arguments.runs, arguments.suite, arguments.images)))
    rows = read(table)
    figure(rows).savefig(table.with_suffix(".png"), dpi=100)
    print(f"drawn: {table.with_suffix('.png')}")
    tell(rows)
    for row in read(arguments.to / "daes-paired.csv"):
        print(f"{row['sigma']:>11}  diffusion less autoencoder {float(row['difference']):+.4f} ± "
              f"{float(row['difference_se']):.4f}")  # fmt: skip


def measure(runs: Path, suite: Path, images: int, table: Path) -> None:
    """Probes every network, then takes the distances of the autoencoders; what is stored stays."""
    rows = read(table) if table.exists() else []
    with tempfile.TemporaryDirectory() as scratch:
        data = _test_images(Path(scratch))
        for pool, name in itertools.product(POOLS, (DIFFUSION, *DAES)):
            file = snapshot((suite if name == DIFFUSION else runs) / name, images)
            if any(row["name"] == name and row["pool"] == pool for row in rows) or not file.exists():
                continue
            rows += list(probed(name, file, images, data, pool))
            write(table, rows)
            print(f"{name}, {pool}: probed", flush=True)
        for pool, input in itertools.product(POOLS, PREFIXES):
            plain = [row for row in of(rows, pool, input) if row["name"] in PLAIN]
            if len(plain) == len(PLAIN) and any(row["swd_best"] == "" for row in plain):
                add_distances(plain, runs, data, Path(scratch) / "features.safetensors")
                write(table, rows)


def probed(name: str, file: Path, images: int, data: Path, pool: str) -> Iterator[dict[str, Any]]:
    """Rows of one network at its levels; distances and the untrained network are those of the diffusion model alone."""
    whole = name == DIFFUSION
    sigmas = SIGMAS if whole else DAES[name].sigmas[:1]
    asked = {"input": "both", "distance_to_best": whole, "test_share": TEST_SHARE, "pool": pool, **how(name)}
    result = diffscope.probe(file, data, sigma=sigmas, beside=("random",) if whole else (), **asked)
    for row in result.rows:
        for input, prefix in PREFIXES.items():
            found: dict[str, Any] = {"name": name, "images": images, "pool": pool, "sigma": row["sigma"]}
            found |= {"input": input} | {key: row[f"{prefix}{key}"] for key in ("accuracy", "accuracy_se")}
            yield found | {key: row[f"{prefix}{key}"] if whole else "" for key in DISTANCES}
    for row in result.sections.get("beside", ()):
        floor = {"name": UNTRAINED, "images": 0, "pool": pool, "sigma": "", "input": "clean"}
        yield floor | {key: row[key] for key in ("accuracy", "accuracy_se")} | dict.fromkeys(DISTANCES, "")


def how(name: str) -> dict[str, Any]:
    """How a network is read and what of it: a plain autoencoder is no EDM checkpoint."""
    common = {"layer": LAYER, "num_images": IMAGES, "views": 1, "augment": "none", "workers": 0, "progress": False}
    if name == DIFFUSION or DAES[name].preconditioned:
        return common
    own = {"network": CODE, "noise": "edm", "predicts": "x0", "image_size": 16, "channels": 1}
    return {**common, "layer": f"unet.{LAYER}", **own}


def paired(runs: Path, suite: Path, images: int) -> Iterator[dict[str, Any]]:
    """Both accuracies and their difference at each level, then the differences' means; errors are over images."""
    with tempfile.TemporaryDirectory() as scratch:
        data, file = _test_images(Path(scratch)), Path(scratch) / "features.safetensors"
        asked = {"pool": "flatten", "input": "clean", "out": file, "overwrite": True}

        def features(name: str, folder: Path, sigmas: Sequence[float]) -> dict[str, np.ndarray]:
            named = {**how(name), "num_images": PAIRED_IMAGES, **asked}
            diffscope.features(snapshot(folder / name, images), data, sigma=sigmas, **named)
            return load_file(file)

        whole = features(DIFFUSION, suite, SIGMAS)
        train, test = classifiers.split(PAIRED_IMAGES, TEST_SHARE, 0)
        labels = whole["label"]
        differences = []
        for level, (sigma, name) in enumerate(zip(SIGMAS, PLAIN, strict=True)):
            both = whole[LAYER][level, 0], features(name, runs, [sigma])[f"unet.{LAYER}"][0, 0]
            right = [
                classifiers.linear_probe(z[train], labels[train], z[test], "sklearn", "cpu").labels == labels[test]
                for z in both
            ]
            differences.append(right[0] * 1.0 - right[1])
            print(f"{name}: paired", flush=True)
            accuracies = {"diffusion": right[0].mean(), "autoencoder": right[1].mean()}
            yield {"sigma": f"{sigma:g}", **accuracies, **_mean(differences[-1])}
        half = len(SIGMAS) // 2
        for key, of_levels in (("lower five", differences[:half]), ("upper five", differences[half:])):
            yield {"sigma": key, "diffusion": "", "autoencoder": "", **_mean(np.mean(of_levels, 0))}


def _mean(x: np.ndarray) -> dict[str, float]:
    return {"difference": float(x.mean()), "difference_se": float(x.std(ddof=1) / len(x) ** 0.5)}


def _test_images(folder: Path) -> Path:
    pictures, labels = fashion("t10k")
    np.savez(folder / "test.npz", images=pictures[..., None], y=labels)
    return folder / "test.npz"


def add_distances(rows: Sequence[dict[str, Any]], runs: Path, data: Path, scratch: Path) -> None:
    """Adds to the rows of the plain autoencoders, all of one pool and input, how far each is from the best."""
    features = []
    for row in rows:
        file, sigma = snapshot(runs / row["name"], int(row["images"])), float(row["sigma"])
        asked = {"input": row["input"], "pool": row["pool"], "out": scratch, "overwrite": True, **how(row["name"])}
        diffscope.features(file, data, sigma=sigma, **asked)
        z = load_file(scratch)[f"unet.{LAYER}"][0, 0]
        features.append(z[classifiers.split(len(z), TEST_SHARE, 0)[0]])
    best = features[int(np.argmax([float(row["accuracy"]) for row in rows]))]
    for row, z in zip(rows, features, strict=True):
        found = sliced_wasserstein(z, best, seed=0)
        row |= dict(zip(DISTANCES, (found.value, found.error, found.value / spread(best)), strict=True))
        print(f"{row['name']}, {row['pool']}, {row['input']} input: {found.value:.3g} from the best", flush=True)


def figure(rows: Sequence[Mapping[str, str]]) -> Figure:
    """Accuracy and distances over noise, a row for each pool and input."""
    kinds = list(itertools.product(POOLS, PREFIXES))
    drawn = Figure(figsize=(10, 2.4 * len(kinds) + 1.2), layout="constrained")
    panels = drawn.subplots(len(kinds), 3, sharex=True)
    for line, (pool, input) in zip(panels, kinds, strict=True):
        _row(line, of(rows, pool, input), floor(rows, pool))
        line[0].set_ylabel(f"{'flattened' if pool == 'flatten' else 'mean over positions'},\n{input} input")
    for axes, word in zip(panels[0], ("accuracy of a linear probe", "SWD to the best level",
                                      "the same over the best's spread"), strict=True):  # fmt: skip
        axes.set_title(word, fontsize=10)
    for axes in panels[-1]:
        axes.set_xlabel("σ")
    handles, labels = panels[0, 0].get_legend_handles_labels()
    drawn.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=9)
    drawn.suptitle(
        f"{int(rows[0]['images']):,} training images seen by each network (bars: a standard error). Distances of "
        "autoencoders\nare between different networks, of the diffusion model between levels of one.",
        fontsize=10,
    )
    return drawn


def _row(line: Sequence[Axes], rows: Sequence[Mapping[str, str]], floor: float) -> None:
    accuracy, plain, relative = line
    for label, names, style in (
        ("diffusion model", (DIFFUSION,), "o-C0"),
        ("autoencoder of the level alone", PLAIN, "s--C1"),
    ):
        found = sorted((row for row in rows if row["name"] in names), key=lambda row: float(row["sigma"]))
        sigma = numbers(found, "sigma")
        errors = numbers(found, "accuracy_se")
        accuracy.errorbar(sigma, numbers(found, "accuracy"), errors, fmt=style, label=label, markersize=4, capsize=2)
        for axes, key in ((plain, "swd_best"), (relative, "swd_best_relative")):
            axes.plot(sigma, numbers(found, key), style, label=label, markersize=4)
    for number, (name, label) in enumerate(CHANGED.items()):
        (changed,) = (row for row in rows if row["name"] == name)
        x, y, style = float(changed["sigma"]), float(changed["accuracy"]), "^D"[number] + f"C{number + 2}"
        accuracy.plot(x, y, style, label=f"{label}, σ = {x:g}", markerfacecolor="none", markersize=8, zorder=3)
    accuracy.axhline(floor, color="0.4", linestyle=":", label="untrained network, clean input")
    accuracy.set_xscale("log")
    for axes in (plain, relative):
        axes.set(xscale="log", ylim=(0, None))


def tell(rows: Sequence[Mapping[str, str]]) -> None:
    """Prints the figure's numbers, and the table."""
    for pool, input in itertools.product(POOLS, PREFIXES):
        print(f"{pool}, {input} input (untrained: {floor(rows, pool):.3f}); "
              "σ, diffusion model and autoencoder: accuracy (SWD, over the spread)")  # fmt: skip
        for sigma, name in zip(SIGMAS, PLAIN, strict=True):
            both = [one(of(rows, pool, input), network, sigma) for network in (DIFFUSION, name)]
            print(f"{sigma:6g}  " + "  ".join(
                f"{float(row['accuracy']):.3f} ± {float(row['accuracy_se']):.3f} "
                f"({float(row['swd_best']):.3f}, {float(row['swd_best_relative']):.2f})" for row in both))  # fmt: skip
        for name, label in {"sigma-0.023": "plain", **CHANGED, DIFFUSION: "diffusion model"}.items():
            row = one(of(rows, pool, input), name, 0.023)
            print(f"{label:22} {float(row['accuracy']):.3f} ± {float(row['accuracy_se']):.3f} at σ = 0.023")


def of(rows: Sequence[Any], pool: str, input: str) -> list[Any]:
    """Rows of trained networks, of one pool and input."""
    return [row for row in rows if row["pool"] == pool and row["input"] == input and row["name"] != UNTRAINED]


def floor(rows: Sequence[Mapping[str, str]], pool: str) -> float:
    """Accuracy of the untrained network."""
    (found,) = (row for row in rows if row["name"] == UNTRAINED and row["pool"] == pool)
    return float(found["accuracy"])


def one(rows: Sequence[Mapping[str, str]], name: str, sigma: float) -> Mapping[str, str]:
    """The row of a network at a level."""
    (found,) = (row for row in rows if row["name"] == name and float(row["sigma"]) == sigma)
    return found


def numbers(rows: Sequence[Mapping[str, str]], key: str) -> list[float]:
    """A column of some rows."""
    return [float(row[key]) for row in rows]


if __name__ == "__main__":
    main()
