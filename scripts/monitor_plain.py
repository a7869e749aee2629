"""A plain PyTorch loop that watches its own ICR: `python scripts/monitor_plain.py --steps 2000`"""

import argparse
import zipfile

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import diffscope


class Denoiser(nn.Module):
    # D(x; σ) with EDM's preconditioning, x [B, 1, 16, 16] and sigma [B]: anybody's network, no layer of ours.
    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Sequential(nn.Conv2d(2, 32, 3, padding=1), nn.SiLU())
        self.trunk = nn.Sequential(nn.Conv2d(32, 32, 3, 2, 1), nn.SiLU(), nn.Conv2d(32, 32, 3, padding=1))
        self.leave = nn.Sequential(nn.SiLU(), nn.ConvTranspose2d(32, 1, 4, 2, 1))

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        sigma = sigma[:, None, None, None]
        scale = (sigma**2 + 0.25).rsqrt()
        h = self.trunk(self.enter(torch.cat([x * scale, (sigma.log() / 4).expand_as(x)], dim=1)))
        return (0.5 * scale) ** 2 * x + 0.5 * sigma * scale * self.leave(h)


def demo_images() -> np.ndarray:
    """uint8 [512, 16, 16]."""
    with zipfile.ZipFile(f"{diffscope.__path__[0]}/demo/images.zip") as archive:
        return np.stack([np.asarray(Image.open(archive.open(name))) for name in archive.namelist()[:512]])


def loss_of(network: nn.Module, data: Tensor) -> Tensor:
    sigma = (torch.randn(len(data), 1, 1, 1) * 1.2 - 1.2).exp()  # its distribution and the weight are EDM's
    error = network(data + sigma * torch.randn_like(data), sigma.flatten()) - data
    return ((sigma**2 + 0.25) / (0.5 * sigma) ** 2 * error**2).mean()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=2000)
    steps = parser.parse_args().steps
    images = demo_images()
    data = torch.from_numpy(images)[:, None] / 127.5 - 1
    network = Denoiser()
    ema = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(0.99))
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-3)
    monitor = diffscope.Monitor(images, posterior_mean=ema)
    for step in range(1, steps + 1):
        optimiser.zero_grad()
        loss_of(network, data[torch.randint(len(data), (64,))]).backward()
        optimiser.step()
        ema.update_parameters(network)
        if step % max(1, steps // 10) == 0:
            row = monitor(ema, step)
            print(f"step {step}: ICR {row['icr']}, {monitor.onset.state}", flush=True)
