"""Measure the runs of `scripts/train_suite.py` as tables on which rules can be studied without training.

    python scripts/measure_suite.py                  # every run that is finished
    python scripts/measure_suite.py fashion-64       # this one, as far as it is; what has been measured stays

Writes scripts/results/suite/RUN.csv.gz, a row for each snapshot, layer and noise level: all metrics, the replicates of
log ICR (y_1 …), and of the network's output (once a level, in the rows of the default layer): the loss on the training
images as they are (`loss`), on views that training never saw (`loss_views`) and on 64 held-out images (`loss_holdout`),
each with its replicates, degrees of freedom, and the stable ranks of the weights. And RUN-copies.csv: the share of 256
samples that copy a training image, by d₁/d₂ < 1/3 and < 1/2, with intervals.

ICR is that of the first 512 images in two views each, of fewer in more; losses are those of 128 in two views.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from train_suite import ORDER, RUNS, snapshot

import diffscope
from diffscope.extraction import Inputs
from diffscope.families.base import Denoiser
from diffscope.measure.opening import open_images, open_job
from diffscope.measure.run import measure
from diffscope.metrics.base import scalar_keys
from diffscope.options.settings import Loading, Settings
from diffscope.results import Row
from diffscope.studies.track.loss import denoising_loss, plain

TABLES = Path(__file__).parent / "results" / "suite"
SIGMAS = (0.06, 0.14, 0.3, 0.6, 1.2)
LAYERS = {
    "unet": ("enc.8x8_block1", "dec.8x8_block0", "dec.8x8_block2", "dec.16x16_block0"),
    "sit": ("blocks.1", "blocks.2", "blocks.3", "blocks.4"),
}
IMAGES, VIEWS, LOSS_IMAGES, HELD_OUT = 512, 384, 128, 64
SAMPLE_STEPS = 12
SHARES, ENDS = ("share", "share_half"), ("", "_low", "_high")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="*", help="names of runs, as far as they are (default: all that are finished)")
    parser.add_argument("--runs", type=Path, default=Path("runs/suite"))
    parser.add_argument("--to", type=Path, default=TABLES)
    parser.add_argument("--no-copies", action="store_true", help="leave the samples for later")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    finished = [name for name in ORDER if snapshot(arguments.runs / name, RUNS[name].total).exists()]
    arguments.to.mkdir(parents=True, exist_ok=True)
    for name in arguments.run or finished:
        folder = arguments.runs / name
        table, copied = arguments.to / f"{name}.csv.gz", arguments.to / f"{name}-copies.csv"
        last = max(step_of(path) for path in folder.glob("snapshot-*.safetensors"))
        if not table.exists() or steps_in(gzip.decompress(table.read_bytes()).decode())[-1] < last:
            write_compressed(table, rows(name, folder))
        if not arguments.no_copies and (not copied.exists() or steps_in(copied.read_text())[-1] < last):
            copied.write_text(as_csv(copies(name, folder)))
        print(name, flush=True)


def step_of(path: Path) -> int:
    return int(path.stem.split("-")[1])


def steps_in(table: str) -> list[int]:
    return [int(row["step"]) for row in csv.DictReader(io.StringIO(table))]


def rows(name: str, folder: Path) -> Iterator[dict[str, Any]]:
    run = RUNS[name]
    count = min(run.images, IMAGES)
    settings = Settings(
        layer=LAYERS["sit" if run.network == "sit" else "unet"],
        sigma=SIGMAS,
        num_images=count,
        views=max(2, VIEWS // count),
    )
    # Training sees flips, so that only a crop or another colour is new to the network.
    source = open_images(settings, str(folder / "images.npz"))
    held = open_images(settings, str(folder / "held-out.npz"))
    inputs: dict[str, Inputs] = {}

    def shared(key: str, images: Any, plan: Any) -> Inputs:
        return inputs.setdefault(key, Inputs(images, plan, keep=1 << 30))

    for path in sorted(folder.glob("snapshot-*.safetensors")):
        job = open_job(str(path), source, settings, Loading())
        found = measure(job, inputs=shared("icr", source, job.plan))
        found.parts.clear()
        few = replace(settings, num_images=min(count, LOSS_IMAGES), views=2)
        seen = open_job(str(path), source, few, Loading())
        unseen = open_job(str(path), held, replace(few, num_images=HELD_OUT), Loading())
        losses = {
            "loss": denoising_loss(seen, shared("plain", source, plain(seen.plan)), ignore),
            "loss_views": denoising_loss(seen, shared("views", source, seen.plan), ignore),
            "loss_holdout": denoising_loss(unseen, shared("held", held, plain(unseen.plan)), ignore),
        }
        ranks = stable_ranks(job.denoiser)
        step = step_of(path)
        for row in found.rows:
            yield record(step, row, losses if row.layer == found.rows[0].layer else {}, ranks)


def ignore(passes: int) -> None:
    pass


def record(step: int, row: Row, losses: dict[str, Any], ranks: dict[str, float]) -> dict[str, Any]:
    level = SIGMAS.index(row.sigma)
    keys = [key for key in scalar_keys() if not key.endswith("_se") or key in ("trace_icr_se", "alignment_se")]
    said: dict[str, Any] = {"step": step, "layer": row.layer, "sigma": row.sigma, **{key: row[key] for key in keys}}
    said.update({f"y_{g}": value for g, value in enumerate(row["replicates"] or (), start=1)})
    for kind in ("loss", "loss_views", "loss_holdout"):
        if losses:
            loss = losses[kind][level]
            said.update({kind: loss.mean, f"{kind}_freedom": loss.freedom})
            said.update({f"{kind}_{g}": value for g, value in enumerate(loss.replicates, start=1)})
    return {**said, **(ranks if losses and level == 0 else {})}


def stable_ranks(denoiser: Denoiser) -> dict[str, float]:
    """Mean ‖W‖²_F/‖W‖²₂ of all weight matrices, and of those of the lowest resolution or the later half."""
    found = {
        key: float(tensor.square().sum() / torch.linalg.matrix_norm(tensor.flatten(1), 2) ** 2)
        for key, tensor in denoiser.network.state_dict().items()
        if tensor.dim() >= 2 and min(tensor.flatten(1).shape) > 4 and "resample" not in key
    }
    deep = [value for key, value in found.items() if "8x8" in key or any(f"blocks.{n}." in key for n in (2, 3, 4))]
    return {"stable_rank": float(np.mean([*found.values()])), "stable_rank_deep": float(np.mean(deep))}


def copies(name: str, folder: Path) -> Iterator[dict[str, Any]]:
    """Of every snapshot; of a run that is not meant to memorize, of every sixth back from the last."""
    files = [str(path) for path in sorted(folder.glob("snapshot-*.safetensors"))]
    files = files[::-1][::6][::-1] if RUNS[name].images > 1000 else files
    found = diffscope.memorization(files, str(folder / "images.npz"), steps=SAMPLE_STEPS, progress=False)
    for row in found.rows:
        yield {key: row[key] for key in ("step", *(f"{kind}{end}" for kind in SHARES for end in ENDS))}


def as_csv(records: Iterator[dict[str, Any]]) -> str:
    rows, text = list(records), io.StringIO()
    names = list(dict.fromkeys(key for row in rows for key in row))
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: f"{value:.6g}" if isinstance(value, float) else value for key, value in row.items()})
    return text.getvalue()


def write_compressed(path: Path, records: Iterator[dict[str, Any]]) -> None:
    text = as_csv(records)
    part = path.with_suffix(".part")
    # Without name and time: the same numbers are the same bytes.
    with open(part, "wb") as raw, gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as file:
        file.write(text.encode())
    part.rename(path)


if __name__ == "__main__":
    main()
