"""Figure 7 and Table 3 of arXiv 2502.05743: autoencoders of one noise level each beside a diffusion model.

    python scripts/paper_daes.py             # draw the figure and print the table, from what is stored
    python scripts/paper_daes.py --measure   # measure what is not stored yet: half an hour of one core

Networks: those of `scripts/train_daes.py`, and the snapshot of train_suite's run fashion-60000 after as many training
images. Features: the last block of the encoder, averaged over positions, of 3,000 test images of Fashion-MNIST at
16×16, which no network has seen; a logistic regression on half of them, tested on the other half.

Distances are sliced Wasserstein distances of the features of the training half to those at the level of best accuracy:
of the diffusion model between levels of one network, as `probe --distance-to-best` has them; of the autoencoders
between different networks, as each level has its own. The unit of features is each network's own, so that distances
stand beside what they are over the spread of the best level's features.

Reads and writes daes.csv, and draws daes.png, in scripts/results/papers/.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
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
CODE = f"{Path(__file__).parent / 'train_daes.py'}:Autoencoder"
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
    rows = read(table)
    figure(rows).savefig(table.with_suffix(".png"), dpi=130)
    print(f"drawn: {table.with_suffix('.png')}")
    tell(rows)


def measure(runs: Path, suite: Path, images: int, table: Path) -> None:
    """Probes every network, then takes the distances of the autoencoders; what is stored stays."""
    rows = read(table) if table.exists() else []
    pictures, labels = fashion("t10k")
    with tempfile.TemporaryDirectory() as scratch:
        data = Path(scratch) / "test.npz"
        np.savez(data, images=pictures[..., None], y=labels)
        for name in (DIFFUSION, *DAES):
            file = snapshot((suite if name == DIFFUSION else runs) / name, images)
            if any(row["name"] == name for row in rows) or not file.exists():
                continue
            rows += list(probed(name, file, images, data))
            write(table, rows)
            print(f"{name}: probed", flush=True)
        for input in PREFIXES:
            plain = [row for row in rows if row["name"] in PLAIN and row["input"] == input]
            if len(plain) == len(PLAIN) and any(row["swd_best"] == "" for row in plain):
                add_distances(plain, runs, data, Path(scratch) / "features.safetensors")
                write(table, rows)


def probed(name: str, file: Path, images: int, data: Path) -> Iterator[dict[str, Any]]:
    """Rows of one network at its levels; distances are those of the diffusion model alone."""
    whole = name == DIFFUSION
    sigmas = SIGMAS if whole else DAES[name].sigmas[:1]
    asked = {"input": "both", "distance_to_best": whole, "test_share": TEST_SHARE, **how(name)}
    for row in diffscope.probe(file, data, sigma=sigmas, **asked).rows:
        for input, prefix in PREFIXES.items():
            found: dict[str, Any] = {"name": name, "images": images, "sigma": row["sigma"], "input": input}
            found |= {key: row[f"{prefix}{key}"] for key in ("accuracy", "accuracy_se")}
            yield found | {key: row[f"{prefix}{key}"] if whole else "" for key in DISTANCES}


def how(name: str) -> dict[str, Any]:
    """How a network is read and what of it: a plain autoencoder is no EDM checkpoint."""
    common = {"layer": LAYER, "num_images": IMAGES, "views": 1, "augment": "none", "workers": 0, "progress": False}
    if name == DIFFUSION or DAES[name].preconditioned:
        return common
    own = {"network": CODE, "noise": "edm", "predicts": "x0", "image_size": 16, "channels": 1}
    return {**common, "layer": f"unet.{LAYER}", **own}


def add_distances(rows: Sequence[dict[str, Any]], runs: Path, data: Path, scratch: Path) -> None:
    """Adds to the rows of the plain autoencoders, all of one input, how far each is from the best."""
    features = []
    for row in rows:
        file, sigma = snapshot(runs / row["name"], int(row["images"])), float(row["sigma"])
        asked = {"input": row["input"], "out": scratch, "overwrite": True, **how(row["name"])}
        diffscope.features(file, data, sigma=sigma, **asked)
        z = load_file(scratch)[f"unet.{LAYER}"][0, 0]
        features.append(z[classifiers.split(len(z), TEST_SHARE, 0)[0]])
    best = features[int(np.argmax([float(row["accuracy"]) for row in rows]))]
    for row, z in zip(rows, features, strict=True):
        found = sliced_wasserstein(z, best, seed=0)
        row |= dict(zip(DISTANCES, (found.value, found.error, found.value / spread(best)), strict=True))
        print(f"{row['name']}, {row['input']} input: {found.value:.3g} from the best", flush=True)


def figure(rows: Sequence[Mapping[str, str]]) -> Figure:
    """Accuracy and distances over noise, with clean and with noisy input."""
    drawn = Figure(figsize=(11, 7), layout="constrained")
    panels = drawn.subplots(2, 3, sharex=True)
    words = ("probe accuracy", "SWD to the best level", "SWD over the best level's spread")
    for (accuracy, plain, relative), input in zip(panels, PREFIXES, strict=True):
        for label, names, style in (
            ("diffusion model", (DIFFUSION,), "o-C0"),
            ("autoencoder of the level alone", PLAIN, "s--C1"),
        ):
            found = [row for row in rows if row["input"] == input and row["name"] in names]
            found.sort(key=lambda row: float(row["sigma"]))
            sigma = numbers(found, "sigma")
            accuracy.errorbar(sigma, numbers(found, "accuracy"), numbers(found, "accuracy_se"), fmt=style, label=label,
                              markersize=4, capsize=2)  # fmt: skip
            for axes, key in ((plain, "swd_best"), (relative, "swd_best_relative")):
                axes.plot(sigma, numbers(found, key), style, label=label, markersize=4)
        for number, (name, label) in enumerate(CHANGED.items()):
            (changed,) = (row for row in rows if row["name"] == name and row["input"] == input)
            accuracy.plot(float(changed["sigma"]), float(changed["accuracy"]), "^D"[number], color=f"C{number + 2}",
                          label=label)  # fmt: skip
        for axes, word in zip((accuracy, plain, relative), words, strict=True):
            axes.set(xscale="log", title=f"{word}, {input} input")
    panels[0, 0].legend(fontsize=8)
    panels[0, 1].legend(fontsize=8)
    for axes in panels[1]:
        axes.set_xlabel("σ (bars: a standard error)" if axes is panels[1, 0] else "σ")
    drawn.suptitle(
        f"{int(rows[0]['images']):,} training images seen by each network; distances of autoencoders are between "
        "different networks, of the diffusion model within one",
        fontsize=10,
    )
    return drawn


def tell(rows: Sequence[Mapping[str, str]]) -> None:
    """Prints the figure's numbers, and the table."""
    for input in PREFIXES:
        print(f"{input} input:  σ  diffusion: accuracy (SWD, over spread)  autoencoder: accuracy (SWD, over spread)")
        for sigma, name in zip(SIGMAS, PLAIN, strict=True):
            both = [one(rows, of, input, sigma) for of in (DIFFUSION, name)]
            print(f"{sigma:6g}  " + "  ".join(
                f"{float(row['accuracy']):.3f} ± {float(row['accuracy_se']):.3f} "
                f"({float(row['swd_best']):.3f}, {float(row['swd_best_relative']):.2f})" for row in both))  # fmt: skip
        for name, label in {"sigma-0.023": "plain", **CHANGED, DIFFUSION: "diffusion model"}.items():
            row = one(rows, name, input, 0.023)
            print(f"{label:22} {float(row['accuracy']):.3f} ± {float(row['accuracy_se']):.3f} at σ = 0.023")


def one(rows: Sequence[Mapping[str, str]], name: str, input: str, sigma: float) -> Mapping[str, str]:
    """The row of a network at a level."""
    (found,) = (r for r in rows if r["name"] == name and r["input"] == input and float(r["sigma"]) == sigma)
    return found


def numbers(rows: Sequence[Mapping[str, str]], key: str) -> list[float]:
    """A column of some rows."""
    return [float(row[key]) for row in rows]


if __name__ == "__main__":
    main()
