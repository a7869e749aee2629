"""Run every figure of both papers that needs no training, and compare with the numbers that are stored.

    python scripts/papers.py            # all, on the demo model: a quarter of an hour of one core
    python scripts/papers.py 13 14      # those whose name holds one of these words
    python scripts/papers.py --update   # store what came out

A figure is a command, as the manual's page on the papers has it (M and D are the demo model and its images), and the
numbers of its result that tell the outcome. Ends with 1 where one differs from what is stored in
scripts/results/papers/numbers.json by more than 0.005 of it, or of 1.
"""

from __future__ import annotations

import argparse
import json
import math
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
DEMO = ROOT / "diffscope" / "demo"
NAMES = {"M": str(DEMO / "unet.safetensors"), "D": str(DEMO / "images.zip")}
STORED = ROOT / "scripts" / "results" / "papers" / "numbers.json"
TOLERANCE = 5e-3
"""Relative, and absolute of what is less than 1: accuracies are of 500 images."""
NOISES = ("", *(f"_noise{percent}" for percent in (20, 40, 60, 80)))

Numbers = Mapping[str, float]
Result = Mapping[str, Any]


@dataclass(frozen=True)
class Figure:
    """A figure or table of a paper."""

    name: str
    command: str
    """Without `diffscope`; M and D stand for the demo's files."""
    numbers: Callable[[Result], Numbers]


def windows(key: str) -> Callable[[Result], Numbers]:
    """Takes level and height of every window of a sweep, named after a column."""
    return lambda result: {f"{name} of {found[key]}": found[name] for found in result["window"]
                           for name in ("sigma", "icr")}  # fmt: skip


def by(key: str, *values: str) -> Callable[[Result], Numbers]:
    """Takes some columns of every row, named after another column."""
    return lambda result: {f"{value} at {row[key]:g}" if isinstance(row[key], float) else f"{value} of {row[key]}":
                           row[value] for row in result["rows"] for value in values}  # fmt: skip


def peak(*keys: str) -> Callable[[Result], Numbers]:
    """Takes the best of some columns, where it lies, and the last, of each layer and kind of input."""

    def numbers(result: Result) -> Numbers:
        found: dict[str, float] = {}
        for kind in dict.fromkeys(_kind(row) for row in result["rows"]):
            rows = [row for row in result["rows"] if _kind(row) == kind]
            for key in keys:
                if (there := [row for row in rows if row.get(key) is not None]) == []:
                    continue
                best = max(there, key=lambda row: row[key])
                found |= {f"{kind} best {key}": best[key], f"{kind} sigma of best {key}": best["sigma"],
                          f"{kind} last {key}": there[-1][key]}  # fmt: skip
        return found

    return numbers


def distances(result: Result) -> Numbers:
    """Takes the distances of denoised images at the lowest and the highest level."""
    rows = result["denoised"]
    return {f"fd of {row['encoder']} at {row['sigma']:g}": row["fd"] for row in (rows[0], rows[-1])}


def encoders(result: Result) -> Numbers:
    """Takes the accuracies of the encoders beside the network."""
    return {
        f"{row['encoder']} accuracy{noise}": row[f"accuracy{noise}"] for row in result["beside"] for noise in NOISES
    }


def both(first: Callable[[Result], Numbers], second: Callable[[Result], Numbers]) -> Callable[[Result], Numbers]:
    """Takes the numbers of two."""
    return lambda result: {**first(result), **second(result)}


def _kind(row: Mapping[str, Any]) -> str:
    return " ".join(str(row[key]) for key in ("layer", "input") if row.get(key) is not None)


M1 = "M --data D --num-levels 6"
MIXTURE = "rank=5,delta=0.5,noise=others"
FIGURES = (
    Figure("2606.09718 figure 2", "neighbors M --data D --sigma 0.0393 --pool mean", by("component", "same_class")),
    Figure(
        "2606.09718 figures 3 and 9",
        "probe M --data D",
        both(peak("accuracy", "trace_s", "trace_xi"), windows("layer")),
    ),
    Figure(
        "2606.09718 figure 13",
        "icr M --data D --sigma 0.057 --num-images 250,500,1000,2000",
        by("num_images", "icr", "icr_raw"),
    ),
    Figure("2606.09718 figure 14", "sweep M --data D --augment all", windows("augment")),
    Figure("2502.05743 figure 1a", f"probe {M1} --input both", peak("accuracy", "clean_accuracy")),
    Figure(
        "2502.05743 figures 3, 6 and 13",
        f"probe {M1} --posterior --beside pixels",
        both(peak("csnr", "accuracy", "posterior_csnr", "posterior_accuracy"), distances),
    ),
    Figure(
        "2502.05743 figure 5",
        f"probe mixture:channels=2,side=5,{MIXTURE} --data mixture:count=3000,{MIXTURE} "
        f"--test mixture:count=3000,{MIXTURE},seed=1 --rank 5 --augment none --input clean --posterior --absolute "
        "--sigma 0.002,0.7,20",
        by("sigma", "posterior_absolute_accuracy", "posterior_csnr"),
    ),
    Figure("2502.05743 figure 10", f"probe {M1} --posterior --input clean", peak("posterior_accuracy")),
    Figure(
        "2502.05743 tables 1 and 2",
        f"probe {M1} --head batchnorm-linear --label-noise 0.2,0.4,0.6,0.8 --ensemble 5 "
        "--beside pixels --beside random",
        both(peak(*(f"{kind}{noise}" for kind in ("accuracy", "ensemble_accuracy") for noise in NOISES)), encoders),
    ),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figure", nargs="*", help="words of the figures' names (default: all)")
    parser.add_argument("--update", action="store_true", help="store what came out")
    arguments = parser.parse_args()
    stored = json.loads(STORED.read_text()) if STORED.exists() else {}
    differing = 0
    for figure in FIGURES:
        if arguments.figure and not any(word in figure.name.split() for word in arguments.figure):
            continue
        print(f"{figure.name}: diffscope {figure.command}", flush=True)
        found = dict(figure.numbers(run(figure.command)))
        expected = stored.get(figure.name, {})
        for key, value in found.items():
            same = key in expected and math.isclose(value, expected[key], rel_tol=TOLERANCE, abs_tol=TOLERANCE)
            differing += not same
            was = f"{expected[key]:.4g}" if key in expected else "nothing"
            print(f"  {key:40} {value:10.4g}{'' if same else f'   stored: {was}'}")
        if arguments.update:
            stored[figure.name] = found
            STORED.parent.mkdir(parents=True, exist_ok=True)
            STORED.write_text(json.dumps(stored, indent=1) + "\n")
    if arguments.update:
        return 0
    return int(differing > 0)


def run(command: str) -> Result:
    """Runs a command as a user would, and reads its result."""
    words: Sequence[str] = [NAMES.get(word, word) for word in shlex.split(command)]
    with tempfile.TemporaryDirectory() as folder:
        ran = subprocess.run(
            [sys.executable, "-m", "diffscope", *words, "--json"],
            capture_output=True, text=True, cwd=folder, check=False,
        )  # fmt: skip
    if ran.returncode:
        sys.exit(f"diffscope {command} ended with {ran.returncode}: {ran.stderr.strip()[-500:]}")
    found: Result = json.loads(ran.stdout)
    return found


if __name__ == "__main__":
    sys.exit(main())
