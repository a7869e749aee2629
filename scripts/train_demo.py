"""Train the two demo models on Fashion-MNIST at 16×16: an EDM U-Net and a SiT in pixel space, on a CPU.

    python scripts/train_demo.py unet --minutes 60
    python scripts/train_demo.py sit --minutes 60
    python scripts/train_demo.py unet --export      # EMA weights, float16, into diffscope/demo/

Training state is written every ten minutes under runs/demo/ and the same command goes on from there. The losses are
EDM's (`training.py`) and SiT's (Ma et al. 2024: linear path, velocity).
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from training import NULL_CLASS, UNET, Training, about_sit, about_unet, edm_loss, fashion, initialise, velocity_loss

from diffscope.api import load
from diffscope.families.networks.song_unet import SongUNet
from diffscope.families.networks.transformer import DiffusionTransformer
from diffscope.families.networks.walk import WalkedNetwork
from diffscope.sampling import sample

DEMO = Path(__file__).parent.parent / "diffscope" / "demo"
SIT: dict[str, Any] = {
    "input_size": 16, "patch_size": 2, "in_channels": 1, "out_channels": 1, "hidden_size": 80, "depth": 6,
    "num_heads": 5, "label_rows": NULL_CLASS + 1,
}  # fmt: skip
ABOUT = {"unet": about_unet(UNET), "sit": about_sit(SIT)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=list(ABOUT))
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--runs", type=Path, default=Path("runs/demo"))
    parser.add_argument("--export", action="store_true", help="write the EMA weights into the package and stop")
    parser.add_argument("--to", type=Path, default=DEMO, help="folder that --export writes into")
    parser.add_argument("--samples", type=Path, help="write a PNG grid of samples and stop")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    training = start(arguments.model, arguments.runs)
    if arguments.export:
        path = arguments.to / f"{arguments.model}.safetensors"
        training.export(path, ABOUT[arguments.model])
        print(f"{path}: {path.stat().st_size / 1e6:.2f} MB, {training.seen} images seen")
    elif arguments.samples:
        sample_grid(training, ABOUT[arguments.model], arguments.samples)
    else:
        images, labels = fashion()
        begin = time.time()
        training.run(images, labels, lambda: time.time() - begin < 60 * arguments.minutes)


def start(model: str, folder: Path) -> Training:
    """The model's training, from its last saved state where there is one."""
    torch.manual_seed(0)
    network: WalkedNetwork = SongUNet(**UNET) if model == "unet" else DiffusionTransformer(**SIT)
    initialise(network)
    return Training(network, edm_loss if model == "unet" else velocity_loss, folder / f"{model}.pt")


def sample_grid(training: Training, about: dict[str, str], path: Path, side: int = 8) -> None:
    """A PNG of side × side samples, of the weights as they are exported; null class."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.safetensors"
        training.export(file, about)
        x = torch.cat(list(sample(load(str(file))[1], range(side**2))))
    pixels = (x * 127.5 + 128).clamp(0, 255).to(torch.uint8).numpy()[:, 0]
    size = side * pixels.shape[1]
    grid = pixels.reshape(side, side, *pixels.shape[1:]).transpose(0, 2, 1, 3).reshape(size, size)
    Image.fromarray(np.ascontiguousarray(grid)).resize((3 * size, 3 * size), Image.Resampling.NEAREST).save(path)


if __name__ == "__main__":
    main()
