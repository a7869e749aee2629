"""Train a classic DDPM with the diffusers library, for figure 11 of arXiv 2502.05743: ε of a thousand linear steps.

    python scripts/train_ddpm.py [--runs runs] [--images 64000]

A quarter of an hour of one core; the state is saved every ten minutes, and the same command goes on. Writes RUNS/ddpm/,
a pipeline's folder with the EMA weights. Fashion-MNIST at 16×16, all 60,000 images.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from torch import Tensor, nn
from training import Training, fashion

STEPS = 1000
SCHEDULE: Any = DDPMScheduler(num_train_timesteps=STEPS, beta_schedule="linear")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--images", type=int, default=64_000, help="training images to see")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network: Any = UNet2DModel(
        sample_size=16,
        in_channels=1,
        out_channels=1,
        layers_per_block=1,
        block_out_channels=(32, 64),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=8,
    )
    training = Training(network, epsilon_loss, arguments.runs / "ddpm-state.pt")
    images, labels = fashion()
    training.run(images, labels, lambda: training.seen < arguments.images)
    network.load_state_dict(training.ema)
    pipeline: Any = DDPMPipeline(unet=network, scheduler=SCHEDULE)
    pipeline.save_pretrained(arguments.runs / "ddpm")


def epsilon_loss(network: nn.Module, data: Tensor, _label: Tensor, draws: torch.Generator) -> Tensor:
    """The simple loss of Ho et al., 2020, https://arxiv.org/abs/2006.11239, equation 14."""
    step = torch.randint(STEPS, (len(data),), generator=draws)
    noise = torch.randn(data.shape, generator=draws)
    noisy = SCHEDULE.add_noise(data, noise, step)
    error: Tensor = network(noisy, step).sample - noise
    return (error**2).mean()


if __name__ == "__main__":
    main()
