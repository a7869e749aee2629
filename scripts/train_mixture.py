"""Train a three-layer ReLU MLP as the denoiser of a mixture of low-rank Gaussians, in minutes on one core.

    python scripts/train_mixture.py subspaces     # for figures 5 and 12: three subspaces of five directions in R^50
    python scripts/train_mixture.py lines         # for figure 15: three lines in R^50

Figures 5, 12 and 15 of "Understanding Representation Dynamics of Diffusion Models via Low-Dimensional Modeling", 2025,
https://arxiv.org/abs/2502.05743; appendix A.3 says: an MLP of three layers, ReLU, 1,024 wide, 200 epochs with a DDPM
schedule, Adam. The text that we have leaves out the number of steps and the learning rate: 500 steps (its figures use
some up to 280) and 1e-3 are ours; at 1e-4 two hundred epochs are too few for the classes to part. The network predicts
the data, as the paper's loss (equation 2) has it.

The state is saved every ten minutes under runs/mixture/, and the same command goes on from there. The weights, in
NAME.safetensors beside it, are measured as anybody's own network:

    diffscope probe runs/mixture/subspaces.safetensors --network scripts/train_mixture.py:MixtureMlp \\
        --noise ddpm:linear,steps=500,beta_start=0.0001,beta_end=0.02 --predicts x0 --image-size 5 --channels 2 \\
        --data mixture:count=3000,rank=5,delta=0.5,noise=others --layer second.1 --augment none --posterior --absolute
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from diffscope.families.base import NoiseConvention
from diffscope.sources.base import Target, open_source

NOISE = "ddpm:linear,steps=500,beta_start=0.0001,beta_end=0.02"
STEPS = 500
IMAGES, BATCH, LEARNING_RATE = 3000, 128, 1e-3
CHANNELS, SIDE = 2, 5
"""R^50, the smallest images that have it."""
SAVE_EVERY_SECONDS = 600


@dataclass(frozen=True)
class Mixture:
    """The mixture that a network is trained on."""

    rank: int
    delta: float

    @property
    def spelling(self) -> str:
        """What the model and the images have in common."""
        return f"classes=3,rank={self.rank},delta={self.delta},noise=others"

    @property
    def model(self) -> str:
        """The exact denoiser."""
        return f"mixture:channels={CHANNELS},side={SIDE},{self.spelling}"

    def images(self, count: int, seed: int) -> tuple[Tensor, np.ndarray]:
        """Images [count, 2, 5, 5] and their labels [count]."""
        source = open_source(f"mixture:count={count},seed={seed},{self.spelling}")
        assert source.labels is not None
        drawn = [source.read(index, Target(SIDE, CHANNELS)) for index in range(count)]
        return torch.from_numpy(np.stack(drawn)), source.labels


MIXTURES = {"subspaces": Mixture(rank=5, delta=0.5), "lines": Mixture(rank=1, delta=0.2)}


class MixtureMlp(nn.Module):
    """Three layers, the first of which is also told the step, as sines and cosines of it.

    Args:
        numbers: Of an image.
        width: Of both hidden layers.
        waves: Sines, and as many cosines.
    """

    def __init__(self, numbers: int = CHANNELS * SIDE**2, width: int = 1024, waves: int = 64) -> None:
        super().__init__()
        self.register_buffer("frequencies", torch.exp(-math.log(10_000) / (waves - 1) * torch.arange(waves)))
        self.first = nn.Sequential(nn.Linear(numbers + 2 * waves, width), nn.ReLU())
        self.second = nn.Sequential(nn.Linear(width, width), nn.ReLU())
        self.third = nn.Linear(width, numbers)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Predicts the data from noisy data x (B, C, H, W), at the scale of the schedule, at step t (B,)."""
        angles = t[:, None] * self.get_buffer("frequencies")
        hidden = self.first(torch.cat([x.flatten(1), angles.sin(), angles.cos()], 1))
        predicted: Tensor = self.third(self.second(hidden))
        return predicted.view(x.shape)


def schedule() -> NoiseConvention:
    """That of NOISE, as diffscope reads it."""
    from diffscope.families._named_noise import named_noise

    return named_noise(NOISE).convention


class Training:
    """The network in training, epoch by epoch; each draws from a seed of its own, so that a stopped run goes on as if
    it had not been stopped."""

    def __init__(self, mixture: Mixture, file: Path) -> None:
        torch.manual_seed(0)
        self.network, self.file, self.epoch = MixtureMlp(), file, 0
        self.images = mixture.images(IMAGES, seed=0)[0]
        self.optimiser = torch.optim.Adam(self.network.parameters(), lr=LEARNING_RATE)
        noise = schedule()
        self.sigmas = torch.tensor([noise.to_sigma(step) for step in range(STEPS)])
        if file.exists():
            state = torch.load(file, weights_only=True)
            self.network.load_state_dict(state["model"])
            self.optimiser.load_state_dict(state["opt"])
            self.epoch = state["epoch"]

    def run(self, epochs: int) -> None:
        """Train until so many epochs are done, over all runs."""
        saved = time.time()
        while self.epoch < epochs:
            loss = self._train_epoch()
            self.epoch += 1
            if self.epoch % 10 == 0:
                print(f"epoch {self.epoch}, loss {loss:.4f}", flush=True)
            if time.time() - saved > SAVE_EVERY_SECONDS:
                self.save()
                saved = time.time()
        self.save()

    def _train_epoch(self) -> float:
        draws = torch.Generator().manual_seed(self.epoch)
        total = 0.0
        for some in torch.randperm(len(self.images), generator=draws).split(BATCH):
            data = self.images[some]
            steps = torch.randint(STEPS, (len(data),), generator=draws)
            sigma = self.sigmas[steps][:, None, None, None]
            noisy = (data + sigma * torch.randn(data.shape, generator=draws)) / (1 + sigma**2).sqrt()
            loss = ((self.network(noisy, steps) - data) ** 2).mean()
            self.optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimiser.step()
            total += loss.item() * len(data)
        return total / len(self.images)

    def save(self) -> None:
        """Write the state, and the weights alone."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        part = self.file.with_suffix(".part")
        state = {"model": self.network.state_dict(), "opt": self.optimiser.state_dict(), "epoch": self.epoch}
        torch.save(state, part)
        part.rename(self.file)
        weights = {name: tensor.contiguous() for name, tensor in self.network.state_dict().items()}
        facts = {"format": "pt", "step": str(self.epoch), "step_unit": "epochs", "weights": "model"}
        save_file(weights, part, facts)
        part.rename(self.file.with_suffix(".safetensors"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mixture", choices=list(MIXTURES))
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--runs", type=Path, default=Path("runs/mixture"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    Training(MIXTURES[arguments.mixture], arguments.runs / f"{arguments.mixture}.pt").run(arguments.epochs)


if __name__ == "__main__":
    main()
