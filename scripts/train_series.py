"""Train the series of snapshots on which `diffscope track` is shown: EDM U-Nets on Fashion-MNIST at 16×16, on a CPU.

    python scripts/train_series.py rich        # 60,000 training images
    python scripts/train_series.py limited     # 128: far into memorization
    python scripts/train_series.py fixture     # 64, a network of 0.14 M parameters: the series that the tests carry

Each writes runs/series/NAME/: images.npz (what it trains on), snapshot-IMAGES.safetensors (EMA weights, float16) at
the few first steps of a doubling series and every 12,800 images from there on, and state.pt every ten minutes, from
which the same command goes on. runs/series/held-out.npz are the 10,000 test images that none of them sees.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from training import BATCH, UNET, Training, about_unet, edm_loss, fashion, initialise

from diffscope.families.networks.song_unet import SongUNet

EVERY = 12_800
FIRST = (1_600, 3_200, 6_400)  # a network learns most at the very beginning


@dataclass(frozen=True)
class Series:
    images: int
    total: int  # training images to see
    network: dict[str, Any]


SERIES = {
    "rich": Series(60_000, 64 * EVERY, UNET),
    "limited": Series(128, 64 * EVERY, UNET),
    "fixture": Series(64, 96 * EVERY, {**UNET, "model_channels": 12, "attn_resolutions": []}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("series", choices=list(SERIES))
    parser.add_argument("--minutes", type=float, default=180, help="stop after so long; the same command goes on")
    parser.add_argument("--runs", type=Path, default=Path("runs/series"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    train(SERIES[arguments.series], arguments.runs / arguments.series, arguments.minutes)


def train(series: Series, folder: Path, minutes: float) -> None:
    images, labels = fashion()
    chosen = np.random.default_rng(0).permutation(len(images))[: series.images]
    folder.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(folder / "images.npz", images=images[chosen][..., None], y=labels[chosen])
    held_out, held_out_labels = fashion("t10k")
    np.savez_compressed(folder.parent / "held-out.npz", images=held_out[..., None], y=held_out_labels)

    torch.manual_seed(0)
    network = SongUNet(**series.network)
    initialise(network)
    training = Training(network, edm_loss, folder / "state.pt", bfloat16=True)
    start = time.time()

    def goes_on() -> bool:
        if training.seen in FIRST or (training.seen and training.seen % EVERY == 0):
            snapshot = folder / f"snapshot-{training.seen:07d}.safetensors"
            if not snapshot.exists():
                training.export(snapshot, about_unet(series.network))
        return training.seen < series.total and time.time() - start < 60 * minutes

    assert all(step % BATCH == 0 for step in (*FIRST, EVERY))
    training.run(images[chosen], labels[chosen], goes_on)


if __name__ == "__main__":
    main()
