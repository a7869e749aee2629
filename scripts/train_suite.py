"""Train the suite of small runs on which the alarm of `diffscope track` is studied, on one core of a CPU.

    python scripts/train_suite.py                     # all runs, one after the other
    python scripts/train_suite.py fashion-64 sit-128  # these
    python scripts/train_suite.py --list

Each run writes RUNS/NAME/: images.npz (what it trains on), held-out.npz (500 images that it never sees),
snapshot-IMAGES.safetensors (EMA weights, float16) at 43 steps, and state.pt every ten minutes, from which the same
command goes on. A run that is finished is left alone; one that is fine-tuned trains the run that it starts from first.
Runs with few images are meant to memorize them, the others not; whether they do is measured, not assumed.

Data: Fashion-MNIST (Debian's dataset-fashion-mnist) and, by --cifar FILE, a zip of CIFAR-10 pictures, CLASS/NAME.jpg in
any folder; both averaged to 16×16.
"""

from __future__ import annotations

import argparse
import io
import math
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn
from training import (
    BATCH,
    NULL_CLASS,
    UNET,
    Training,
    about_sit,
    about_unet,
    at_rate,
    conditional_edm_loss,
    edm_loss,
    fashion,
    initialise,
    velocity_loss,
)

from diffscope.families.networks.song_unet import SongUNet
from diffscope.families.networks.transformer import DiffusionTransformer

FIRST, SNAPSHOTS = (1_600, 3_200, 6_400), 30  # a network learns most at the very beginning
HELD_OUT = 500
SMALL = {**UNET, "model_channels": 12, "attn_resolutions": []}
"""0.14 M parameters; UNET has 1.03 M."""
NARROW = {**SMALL, "model_channels": 8}
"""Of two thirds of the width."""
SIT: dict[str, Any] = {
    "input_size": 16, "patch_size": 2, "in_channels": 1, "out_channels": 1, "hidden_size": 64, "depth": 5,
    "num_heads": 4, "label_rows": NULL_CLASS + 1,
}  # fmt: skip


@dataclass(frozen=True)
class Run:
    data: str
    """fashion, cifar, or cifar-grey."""
    images: int
    total: int = 480_000
    """Training images to see, a multiple of SNAPSHOTS · BATCH."""
    network: str = "small"
    """small, narrow, large, conditional (a small one that is told the class), or sit."""
    rate: str = "constant"
    """constant; cosine (to nothing at the end); drop (to a tenth after three quarters)."""
    start: str | None = None
    """The run whose last snapshot this one starts from."""


RUNS = {
    # few images: meant to memorize
    "fashion-64": Run("fashion", 64),
    "cifar-64": Run("cifar", 64, 576_000),
    "fashion-128": Run("fashion", 128),
    "cifar-128": Run("cifar", 128, 672_000),
    "fashion-256": Run("fashion", 256, network="large"),
    "cifar-256": Run("cifar", 256, 960_000, network="large"),
    "fashion-512": Run("fashion", 512, 960_000, network="large"),
    "sit-64": Run("fashion", 64, 576_000, network="sit"),
    "sit-128": Run("fashion", 128, 960_000, network="sit"),
    "fashion-64-cosine": Run("fashion", 64, rate="cosine"),
    "fashion-64-classes": Run("fashion", 64, 384_000, network="conditional"),
    "fine-tuned-128": Run("fashion", 128, start="fashion-60000"),
    "fine-tuned-64": Run("fashion", 64, 240_000, start="fashion-60000"),
    "fine-tuned-cifar-64": Run("cifar-grey", 64, 240_000, start="fashion-60000"),
    # many
    "fashion-60000": Run("fashion", 60_000),
    "fashion-10000": Run("fashion", 10_000, 192_000),
    "cifar-4500": Run("cifar", 4_500, 384_000),
    "sit-60000": Run("fashion", 60_000, 384_000, network="sit"),
    "fashion-60000-cosine": Run("fashion", 60_000, 192_000, rate="cosine"),
    "fashion-60000-drop": Run("fashion", 60_000, 192_000, rate="drop"),
    "fine-tuned-4500": Run("cifar-grey", 4_500, 288_000, start="fashion-60000"),
    # figures over the number of training images, at two widths
    "fashion-1000": Run("fashion", 1_000, 96_000),
    "narrow-64": Run("fashion", 64, 96_000, "narrow"),
    "narrow-1000": Run("fashion", 1_000, 96_000, "narrow"),
    "narrow-10000": Run("fashion", 10_000, 96_000, "narrow"),
    "narrow-60000": Run("fashion", 60_000, 96_000, "narrow"),
}
SIZES = ("narrow-64", "narrow-1000", "narrow-10000", "narrow-60000", "fashion-1000")
"""What the alarm is not studied on."""
ORDER = (
    *("fashion-64", "fashion-60000", "cifar-64", "fine-tuned-128", "cifar-4500", "fashion-128", "sit-64", "sit-60000"),
    *("fine-tuned-4500", "fashion-64-classes", "fashion-60000-drop", "fashion-64-cosine", "fashion-10000"),
    *("cifar-128", "fine-tuned-64", "fine-tuned-cifar-64", "fashion-60000-cosine"),
    *("fashion-256", "sit-128", "cifar-256", "fashion-512"),
)
"""What it is: both kinds from the beginning, the longest last."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="*", help="names of runs (default: all)")
    parser.add_argument("--list", action="store_true", help="print the runs and how far they are, and stop")
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop after so long; the same command goes on")
    parser.add_argument("--runs", type=Path, default=Path("runs/suite"))
    parser.add_argument("--cifar", type=Path, default=Path("../shared/data/cifar10-jpeg.zip"))
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.run if name not in RUNS]:
        parser.error(f"no run {unknown[0]!r}; there are {', '.join(RUNS)}")
    if arguments.list:
        for name in (*ORDER, *SIZES):
            there = sorted((arguments.runs / name).glob("snapshot-*.safetensors"))
            print(f"{name:22} {len(there):3} of {SNAPSHOTS + len(FIRST)} snapshots  {RUNS[name]}")
        return
    torch.set_num_threads(1)
    end = time.time() + 60 * arguments.minutes
    for name in arguments.run or (*ORDER, *SIZES):
        train(name, arguments.runs, arguments.cifar, end)


def train(name: str, runs: Path, cifar: Path, end: float) -> None:
    """Train a run to its last snapshot, or until `end` (seconds since the epoch)."""
    run, folder = RUNS[name], runs / name
    if snapshot(folder, run.total).exists():
        return
    if run.start is not None:
        train(run.start, runs, cifar, end)
    if time.time() > end:
        return
    print(f"{name}: {run}", flush=True)
    images, labels, held_out, held_out_labels = data(run, cifar)
    folder.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(folder / "images.npz", images=images, y=labels)
    np.savez_compressed(folder / "held-out.npz", images=held_out, y=held_out_labels)

    network, loss, about = _network(run)
    if run.start is not None:
        weights = load_file(snapshot(runs / run.start, RUNS[run.start].total))
        network.load_state_dict({key: tensor.float() for key, tensor in weights.items()})
    # A transformer of this size is faster in float32.
    training = Training(network, loss, folder / "state.pt", bfloat16=run.network != "sit", rate=_rate(run))
    every = run.total // SNAPSHOTS
    assert all(step % BATCH == 0 for step in (*FIRST, every))

    def goes_on() -> bool:
        due = training.seen in FIRST or (training.seen and training.seen % every == 0)
        if due and not (path := snapshot(folder, training.seen)).exists():
            training.export(path, about)
        return training.seen < run.total and time.time() < end

    training.run(images, labels, goes_on)


def snapshot(folder: Path, seen: int) -> Path:
    return folder / f"snapshot-{seen:07d}.safetensors"


def data(run: Run, cifar: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Training images uint8 [N, 16, 16, C] and labels, then held-out ones: first and last of one fixed order."""
    if run.data == "fashion":
        images, labels = fashion()
        others, other_labels = fashion("t10k")
        chosen = np.random.default_rng(0).permutation(len(images))[: run.images]
        return images[chosen][..., None], labels[chosen], others[:HELD_OUT, ..., None], other_labels[:HELD_OUT]
    images, labels = _pictures(cifar, "L" if run.data == "cifar-grey" else "RGB")
    order = np.random.default_rng(0).permutation(len(images))
    chosen, kept = order[: run.images], order[-HELD_OUT:]
    assert run.images + HELD_OUT <= len(images)
    return images[chosen], labels[chosen], images[kept], labels[kept]


def _pictures(archive: Path, mode: str) -> tuple[np.ndarray, np.ndarray]:
    """All pictures of a zip, 32×32, averaged to uint8 [N, 16, 16, C]; labels by the names of their folders."""
    with zipfile.ZipFile(archive) as file:
        names = sorted(name for name in file.namelist() if name.endswith(".jpg"))
        pixels = [np.asarray(Image.open(io.BytesIO(file.read(name))).convert(mode)) for name in names]
    classes = [Path(name).parent.name for name in names]
    known = sorted(set(classes))
    large = np.stack(pixels).reshape(len(names), 16, 2, 16, 2, -1)
    small = np.round(large.mean((2, 4))).astype(np.uint8)
    return small, np.array([known.index(name) for name in classes], np.uint8)


def _network(run: Run) -> tuple[nn.Module, Callable[..., torch.Tensor], dict[str, str]]:
    """Network, loss, and what its files say of it."""
    torch.manual_seed(0)
    channels = 3 if run.data == "cifar" else 1
    if run.network == "sit":
        transformer = DiffusionTransformer(**SIT)
        initialise(transformer)
        return transformer, velocity_loss, about_sit(SIT)
    size: dict[str, Any] = {"large": UNET, "narrow": NARROW}.get(run.network, SMALL)
    arguments = {**size, "in_channels": channels, "out_channels": channels}
    if run.network == "conditional":
        arguments["label_dim"] = 10
    unet = SongUNet(**arguments)
    initialise(unet)
    return unet, conditional_edm_loss if run.network == "conditional" else edm_loss, about_unet(arguments)


def _rate(run: Run) -> Callable[[int], float]:
    if run.rate == "cosine":
        return lambda seen: 0.5 * (1 + math.cos(math.pi * seen / run.total))
    if run.rate == "drop":
        return lambda seen: 1.0 if seen < 0.75 * run.total else 0.1
    return at_rate


if __name__ == "__main__":
    main()
