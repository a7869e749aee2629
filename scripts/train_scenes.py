"""Train the U-Net on which `diffscope probe --masks` is shown: EDM on composed scenes at 32×32, on one core of a CPU.

    python scripts/make_scenes.py --to runs/scenes --part train --scenes 20000 --array
    python scripts/train_scenes.py --minutes 45

Writes RUNS/unet.safetensors (EMA weights, float16) at the end and whenever it stops, and RUNS/state.pt every ten
minutes, from which the same command goes on.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from training import UNET, Training, about_unet, edm_loss, initialise

from diffscope.families.networks.song_unet import SongUNet

SCENES_UNET: dict[str, Any] = {
    **UNET,
    "img_resolution": 32,
    "model_channels": 24,
    "channel_mult": [1, 2, 2],
    "num_blocks": 1,
}
"""0.71 M parameters: at 32×32 a step costs four times what it does at 16×16."""
TOTAL = 384_000
"""Training images to see."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=45, help="stop after so long; the same command goes on")
    parser.add_argument("--runs", type=Path, default=Path("runs/scenes"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    images = np.load(arguments.runs / "images.npz")["images"]
    torch.manual_seed(0)
    network = SongUNet(**SCENES_UNET)
    initialise(network)
    training = Training(network, edm_loss, arguments.runs / "state.pt", bfloat16=True)
    end = time.time() + 60 * arguments.minutes
    training.run(images, np.zeros(len(images), np.uint8), lambda: training.seen < TOTAL and time.time() < end)
    training.export(arguments.runs / "unet.safetensors", about_unet(SCENES_UNET))


if __name__ == "__main__":
    main()
