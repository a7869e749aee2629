"""Train the two demo models on Fashion-MNIST at 16×16: an EDM U-Net and a SiT in pixel space, on a CPU.

    python scripts/train_demo.py unet --minutes 60
    python scripts/train_demo.py sit --minutes 60
    python scripts/train_demo.py unet --export      # EMA weights, float16, into diffscope/demo/

Training state is written every ten minutes under runs/demo/ and the same command goes on from there. The losses are
EDM's (Karras et al. 2022, table 1: ln σ ~ N(-1.2, 1.2²)) and SiT's (Ma et al. 2024: linear path, velocity).
The data are Debian's package dataset-fashion-mnist (MIT): 28×28 padded to 32×32, then 2×2 means.
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import json
import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from diffscope.families.edm import EDMPrecond
from diffscope.families.networks.song_unet import SongUNet
from diffscope.families.networks.transformer import DiffusionTransformer
from diffscope.families.networks.walk import WalkedNetwork

FASHION = Path("/usr/share/datasets/fashion-mnist")
DEMO = Path(__file__).parent.parent / "diffscope" / "demo"
BATCH, LEARNING_RATE, WARM_UP, EMA_HALF_LIFE = 64, 1e-3, 20_000, 20_000
UNET = {
    "img_resolution": 16, "in_channels": 1, "out_channels": 1, "model_channels": 32, "channel_mult": [1, 2],
    "num_blocks": 2, "attn_resolutions": [8],
}  # fmt: skip
SIT = {
    "input_size": 16, "patch_size": 2, "in_channels": 1, "out_channels": 1, "hidden_size": 80, "depth": 6,
    "num_heads": 5, "label_rows": 11,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=["unet", "sit"])
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--runs", type=Path, default=Path("runs/demo"))
    parser.add_argument("--export", action="store_true", help="write the EMA weights into the package and stop")
    parser.add_argument("--to", type=Path, default=DEMO, help="folder that --export writes into")
    parser.add_argument("--samples", type=Path, help="write a PNG grid of samples and stop")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    run = Run(arguments.model, arguments.runs)
    if arguments.export:
        run.export(arguments.to / f"{arguments.model}.safetensors")
    elif arguments.samples:
        run.sample_grid(arguments.samples)
    else:
        run.train(arguments.minutes)


def fashion(part: str = "train") -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [N, 16, 16] and labels uint8 [N]."""

    def idx(kind: str, offset: int) -> np.ndarray:
        with gzip.open(FASHION / f"{part}-{kind}-ubyte.gz") as f:
            return np.frombuffer(f.read(), np.uint8, offset=offset).copy()

    images = np.pad(idx("images-idx3", 16).reshape(-1, 28, 28), ((0, 0), (2, 2), (2, 2)))
    small = images.reshape(-1, 16, 2, 16, 2).mean((2, 4))
    return np.round(small).astype(np.uint8), idx("labels-idx1", 8)


class Run:
    """One model in training, with its EMA, optimiser and counter on disk."""

    def __init__(self, model: str, folder: Path) -> None:
        self.model, self.file = model, folder / f"{model}.pt"
        torch.manual_seed(0)
        self.network: WalkedNetwork = SongUNet(**UNET) if model == "unet" else DiffusionTransformer(**SIT)
        initialise(self.network)
        self.ema = {name: tensor.detach().clone() for name, tensor in self.network.state_dict().items()}
        self.optimiser = torch.optim.Adam([p for p in self.network.parameters() if p.requires_grad], lr=LEARNING_RATE)
        self.seen = 0
        if self.file.exists():
            state = torch.load(self.file, weights_only=True)
            self.network.load_state_dict(state["model"])
            self.optimiser.load_state_dict(state["opt"])
            self.ema, self.seen = state["ema"], state["seen"]

    def train(self, minutes: float) -> None:
        images, labels = fashion()
        x = torch.from_numpy(images).float()[:, None] / 127.5 - 1
        y = torch.from_numpy(labels).long()
        loss_of: Callable[..., Tensor] = edm_loss if self.model == "unet" else sit_loss
        start = saved = time.time()
        total = 0.0
        while time.time() - start < 60 * minutes:
            # Every step draws from its own seed, so that a resumed run is the run that was never stopped.
            draws = torch.Generator().manual_seed(self.seen)
            batch = torch.randint(len(x), (BATCH,), generator=draws)
            flip = torch.rand(BATCH, generator=draws) < 0.5
            data = torch.where(flip[:, None, None, None], x[batch].flip(3), x[batch])
            loss = loss_of(self.network, data, y[batch], draws)
            self.optimiser.zero_grad(set_to_none=True)
            loss.backward()
            for group in self.optimiser.param_groups:
                group["lr"] = LEARNING_RATE * min(1, (self.seen + BATCH) / WARM_UP)
            nn.utils.clip_grad_norm_(self.network.parameters(), 10.0)
            self.optimiser.step()
            self.seen += BATCH
            self._update_ema()
            total += loss.item()
            if self.seen % (500 * BATCH) == 0:
                rate = self.seen / 1000
                print(f"{rate:.0f} k images, loss {total / 500:.4f}, {time.time() - start:.0f} s", flush=True)
                total = 0.0
            if time.time() - saved > 600:
                self.save()
                saved = time.time()
        self.save()

    def save(self) -> None:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        part = self.file.with_suffix(".part")
        state = {"model": self.network.state_dict(), "opt": self.optimiser.state_dict(), "ema": self.ema}
        torch.save({**state, "seen": self.seen}, part)
        part.rename(self.file)

    def export(self, path: Path) -> None:
        about = {
            "format": "pt", "step": str(self.seen), "step_unit": "images", "weights": "ema",
            "licence": "Apache-2.0; trained on Fashion-MNIST (MIT)",
        }  # fmt: skip
        if self.model == "unet":
            about |= {
                "family": "edm",
                "arguments": json.dumps({"precond": "EDMPrecond", "model_type": "SongUNet", **UNET}),
            }
        else:
            about |= {"family": "sit", "arguments": json.dumps({"path_type": "Linear", "num_heads": SIT["num_heads"]})}
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({name: tensor.half().contiguous() for name, tensor in self.ema.items()}, path, metadata=about)
        print(f"{path}: {path.stat().st_size / 1e6:.2f} MB, {self.seen} images seen")

    def sample_grid(self, path: Path, count: int = 64) -> None:
        self.network.load_state_dict(self.ema)
        x = (edm_samples if self.model == "unet" else sit_samples)(self.network.eval(), count)
        pixels = (x * 127.5 + 128).clamp(0, 255).to(torch.uint8).numpy()[:, 0]
        side = math.isqrt(count)
        grid = pixels.reshape(side, side, 16, 16).transpose(0, 2, 1, 3).reshape(16 * side, 16 * side)
        Image.fromarray(grid).resize((48 * side, 48 * side), Image.Resampling.NEAREST).save(path)

    @torch.no_grad()
    def _update_ema(self) -> None:
        # The ramp keeps the random initial weights out of the average early on.
        beta = 0.5 ** (BATCH / min(EMA_HALF_LIFE, max(self.seen * 0.05, 1e-8)))
        for name, tensor in self.network.state_dict().items():
            self.ema[name].lerp_(tensor, 1 - beta)


def initialise(network: nn.Module) -> None:
    """Xavier weights, zero biases; the last layer of every residual branch starts at zero."""
    last = (
        ".conv1.weight",
        ".proj.weight",
        "aux_conv.weight",
        "adaLN_modulation.1.weight",
        "final_layer.linear.weight",
    )
    for name, parameter in network.named_parameters():
        if name == "pos_embed" or "norm" in name:
            continue
        if parameter.dim() < 2 or (name.endswith(last) and "x_embedder" not in name and ".attn." not in name):
            nn.init.zeros_(parameter)
        elif "embedding_table" in name:
            nn.init.normal_(parameter, std=0.02)
        else:
            nn.init.xavier_uniform_(parameter.view(parameter.shape[0], -1))


def edm_loss(network: nn.Module, data: Tensor, _label: Tensor, draws: torch.Generator) -> Tensor:
    sigma = (torch.randn(len(data), generator=draws) * 1.2 - 1.2).exp()
    noisy = data + sigma[:, None, None, None] * torch.randn(data.shape, generator=draws)
    error = edm_denoise(network, noisy, sigma) - data
    weight = (sigma**2 + 0.25) / (sigma * 0.5) ** 2
    return (weight[:, None, None, None] * error**2).mean()


def edm_denoise(network: nn.Module, x: Tensor, sigma: Tensor) -> Tensor:
    c_skip, c_out = (c[:, None, None, None] for c in EDMPrecond().c_skip_out(sigma))
    out: Tensor = c_skip * x + c_out * network(x / (sigma**2 + 0.25).sqrt()[:, None, None, None], sigma.log() / 4)
    return out


def sit_loss(network: nn.Module, data: Tensor, label: Tensor, draws: torch.Generator) -> Tensor:
    t = torch.rand(len(data), generator=draws)
    noise = torch.randn(data.shape, generator=draws)
    label = torch.where(torch.rand(len(data), generator=draws) < 0.1, 10, label)
    at = t[:, None, None, None]
    out: Tensor = network(at * data + (1 - at) * noise, t, label)
    return ((out - (data - noise)) ** 2).mean()


@torch.no_grad()
def edm_samples(network: nn.Module, count: int, steps: int = 18) -> Tensor:
    """Heun's method on EDM's noise levels, deterministic (Karras et al. 2022, algorithm 1)."""
    ramp = torch.arange(steps) / (steps - 1)
    sigmas = torch.cat([(80 ** (1 / 7) + ramp * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7, torch.zeros(1)])
    x = torch.randn(count, 1, 16, 16, generator=torch.Generator().manual_seed(1)) * 80
    for now, then in itertools.pairwise(sigmas):
        slope = (x - edm_denoise(network, x, now.expand(count))) / now
        step = x + (then - now) * slope
        if then > 0:
            corrected = (step - edm_denoise(network, step, then.expand(count))) / then
            step = x + (then - now) * (slope + corrected) / 2
        x = step
    return x


@torch.no_grad()
def sit_samples(network: nn.Module, count: int, steps: int = 50) -> Tensor:
    """Heun's method on the velocity from t = 0 (noise) to t = 1 (data), null class."""
    x = torch.randn(count, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    label = torch.full((count,), 10)
    for i in range(steps):
        t = torch.full((count,), i / steps)
        slope = network(x, t, label)
        x = x + (slope + network(x + slope / steps, t + 1 / steps, label)) / (2 * steps)
    return x


if __name__ == "__main__":
    main()
