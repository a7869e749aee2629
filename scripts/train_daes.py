"""Train denoising autoencoders, each at one noise level, as the diffusion model of `scripts/train_suite.py` is trained.

    python scripts/train_daes.py                  # all of them, 32,000 training images each: 45 minutes of one core
    python scripts/train_daes.py sigma-0.296      # these
    python scripts/train_daes.py --images 64000   # go on

Figure 7 and Table 3 of "Understanding Representation Dynamics of Diffusion Models via Low-Dimensional Modeling", 2025,
https://arxiv.org/abs/2502.05743. Network, initial weights, order of the images, batches, learning rate and EMA are
those of train_suite's run fashion-60000, whose snapshot after as many images is the diffusion model beside them. The
text that we have leaves out the figure's noise levels and those of the table; here the figure has the ten of the
paper's Figure 1(a), and the table's choices are ours.

A plain one reads data + σ·noise as it is and predicts the data by a squared error; `+EDM preconditioning` puts EDM's
scales and weight around the network, which then is an EDM checkpoint; `+multi-level noise` draws one of three levels
for each image. Dropout, the table's third change, our network does not have.

Each run writes RUNS/NAME/snapshot-IMAGES.safetensors (EMA weights, float16) every 16,000 images and at its end, and
state.pt every ten minutes, from which the same command goes on. A plain one is measured as anybody's own network, at
its level:

    diffscope probe runs/daes/sigma-0.296/snapshot-0032000.safetensors --network scripts/train_daes.py:Autoencoder \\
        --noise edm --predicts x0 --image-size 16 --channels 1 --data test.npz --sigma 0.296 \\
        --layer unet.enc.8x8_block1
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from train_suite import SMALL, Run, data, snapshot
from training import BATCH, Training, about_unet, edm_denoise, initialise

from diffscope.families.networks.song_unet import SongUNet

SIGMAS = (0.002, 0.008, 0.023, 0.060, 0.140, 0.296, 0.585, 1.088, 1.923, 3.257)
"""Appendix A.3, of Figure 1(a)."""
EVERY = 16_000
"""Training images between snapshots, as in the diffusion model's run."""


@dataclass(frozen=True)
class Dae:
    sigmas: tuple[float, ...]
    preconditioned: bool = False


DAES = {
    **{f"sigma-{sigma:g}": Dae((sigma,)) for sigma in SIGMAS},
    "edm-0.023": Dae((0.023,), preconditioned=True),
    "levels-0.023": Dae((0.023, 0.140, 0.585)),
}


class Autoencoder(nn.Module):
    """The diffusion model's U-Net without EDM's scales."""

    def __init__(self) -> None:
        super().__init__()
        self.unet = SongUNet(**SMALL)
        initialise(self.unet)

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Predicts the data from data + σ·noise x (B, 1, 16, 16) at σ (B,), of which it is told as EDM's networks."""
        predicted: Tensor = self.unet(x, sigma.log() / 4, None)
        return predicted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="*", help=f"default: all of {', '.join(DAES)}")
    parser.add_argument("--images", type=int, default=32_000, help="training images to see, a multiple of 64")
    parser.add_argument("--runs", type=Path, default=Path("runs/daes"))
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.name if name not in DAES]:
        parser.error(f"no autoencoder {unknown[0]!r}; there are {', '.join(DAES)}")
    if arguments.images < BATCH or arguments.images % BATCH:
        parser.error(f"--images {arguments.images}: expected a multiple of {BATCH}")
    torch.set_num_threads(1)
    for name in arguments.name or DAES:
        train(name, arguments.runs, arguments.images)


def train(name: str, runs: Path, total: int) -> None:
    """Train one until it has seen so many images."""
    dae, folder = DAES[name], runs / name
    if snapshot(folder, total).exists():
        return
    print(f"{name}: {dae}", flush=True)
    torch.manual_seed(0)
    network = Autoencoder()
    trained: nn.Module = network.unet if dae.preconditioned else network
    about = about_unet(SMALL) if dae.preconditioned else {}

    def loss(network: nn.Module, data: Tensor, _label: Tensor, draws: torch.Generator) -> Tensor:
        sigma = torch.tensor(dae.sigmas)[torch.randint(len(dae.sigmas), (len(data),), generator=draws)]
        noisy = data + sigma[:, None, None, None] * torch.randn(data.shape, generator=draws)
        if not dae.preconditioned:
            plain: Tensor = ((network(noisy, sigma) - data) ** 2).mean()
            return plain
        weight = ((sigma**2 + 0.25) / (sigma * 0.5) ** 2)[:, None, None, None]
        return (weight * (edm_denoise(network, noisy, sigma) - data) ** 2).mean()

    training = Training(trained, loss, folder / "state.pt", bfloat16=True)

    def goes_on() -> bool:
        due = training.seen and (training.seen % EVERY == 0 or training.seen == total)
        if due and not (path := snapshot(folder, training.seen)).exists():
            training.export(path, about)
        return training.seen < total

    images, labels, *_ = data(Run("fashion", 60_000), Path())
    training.run(images, labels, goes_on)


if __name__ == "__main__":
    main()
