"""What the training scripts share: data at 16×16, EDM's and SiT's losses, a training state that outlives its process.

The data are Debian's package dataset-fashion-mnist (MIT): 28×28 padded to 32×32, then 2×2 means.
"""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from diffscope.families._preconditioners import EDMPrecond

FASHION = Path("/usr/share/datasets/fashion-mnist")
BATCH, LEARNING_RATE, WARM_UP, EMA_HALF_LIFE = 64, 1e-3, 20_000, 20_000
SAVE_EVERY_SECONDS = 600
NULL_CLASS = 10
"""Row of the class table of our transformers that stands for no class."""
UNET: dict[str, Any] = {
    "img_resolution": 16, "in_channels": 1, "out_channels": 1, "model_channels": 32, "channel_mult": [1, 2],
    "num_blocks": 2, "attn_resolutions": [8],
}  # fmt: skip

Loss = Callable[[nn.Module, Tensor, Tensor, torch.Generator], Tensor]


def garments(part: str = "train") -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [N, 28, 28] as they are, and labels uint8 [N]."""

    def idx(kind: str, offset: int) -> np.ndarray:
        with gzip.open(FASHION / f"{part}-{kind}-ubyte.gz") as f:
            return np.frombuffer(f.read(), np.uint8, offset=offset).copy()

    return idx("images-idx3", 16).reshape(-1, 28, 28), idx("labels-idx1", 8)


def fashion(part: str = "train") -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [N, 16, 16] and labels uint8 [N]."""
    images, labels = garments(part)
    padded = np.pad(images, ((0, 0), (2, 2), (2, 2)))
    small = padded.reshape(-1, 16, 2, 16, 2).mean((2, 4))
    return np.round(small).astype(np.uint8), labels


def at_rate(_seen: int) -> float:
    """The learning rate of a run that keeps it, as a share of LEARNING_RATE, after so many images."""
    return 1.0


class Training:
    """One network in training: its EMA, optimiser and count of images seen, kept in a file.

    Every step draws from a seed of its own, so that a resumed run is the run that was never stopped. `bfloat16` runs
    the network in that precision where autocast allows; weights, EMA and loss stay float32. `rate` is the learning rate
    as a share of LEARNING_RATE after so many images, times the warm-up.
    """

    def __init__(
        self,
        network: nn.Module,
        loss: Loss,
        file: Path,
        bfloat16: bool = False,
        rate: Callable[[int], float] = at_rate,
    ) -> None:
        self.network, self.loss, self.file, self.bfloat16, self.rate = network, loss, file, bfloat16, rate
        self.ema = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
        self.optimiser = torch.optim.Adam(
            [p for p in network.parameters() if p.requires_grad], lr=LEARNING_RATE, fused=True
        )
        self.seen = 0
        if file.exists():
            state = torch.load(file, weights_only=True)
            network.load_state_dict(state["model"])
            self.optimiser.load_state_dict(state["opt"])
            self.ema, self.seen = state["ema"], state["seen"]

    def run(self, images: np.ndarray, labels: np.ndarray, goes_on: Callable[[], bool]) -> None:
        """Train on images uint8 [N, 16, 16] or [N, 16, 16, C] while `goes_on()`, asked before each step; the state is
        saved as it goes and at the end."""
        coloured = images.reshape(*images.shape[:3], -1)
        x = torch.from_numpy(coloured).movedim(-1, 1).float().contiguous() / 127.5 - 1
        y = torch.from_numpy(labels).long()
        start = saved = time.time()
        total = 0.0
        while goes_on():
            draws = torch.Generator().manual_seed(self.seen)
            batch = torch.randint(len(x), (BATCH,), generator=draws)
            flip = torch.rand(BATCH, generator=draws) < 0.5
            data = torch.where(flip[:, None, None, None], x[batch].flip(3), x[batch])
            total += self._step(data, y[batch], draws)
            if self.seen % (500 * BATCH) == 0:
                print(f"{self.seen // 1000} k images, loss {total / 500:.4f}, {time.time() - start:.0f} s", flush=True)
                total = 0.0
            if time.time() - saved > SAVE_EVERY_SECONDS:
                self.save()
                saved = time.time()
        self.save()

    def save(self) -> None:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        part = self.file.with_suffix(".part")
        state = {"model": self.network.state_dict(), "opt": self.optimiser.state_dict(), "ema": self.ema}
        torch.save({**state, "seen": self.seen}, part)
        part.rename(self.file)

    def export(self, path: Path, about: Mapping[str, str]) -> None:
        """The EMA weights as float16 safetensors; `about` says family and constructor arguments."""
        facts = {
            "format": "pt", "step": str(self.seen), "step_unit": "images", "weights": "ema",
            "licence": "Apache-2.0; trained on Fashion-MNIST (MIT)",
        }  # fmt: skip
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.part")
        save_file({name: tensor.half().contiguous() for name, tensor in self.ema.items()}, part, {**facts, **about})
        part.rename(path)

    def _step(self, data: Tensor, label: Tensor, draws: torch.Generator) -> float:
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bfloat16):
            loss = self.loss(self.network, data, label, draws)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        for group in self.optimiser.param_groups:
            group["lr"] = LEARNING_RATE * min(1, (self.seen + BATCH) / WARM_UP) * self.rate(self.seen)
        nn.utils.clip_grad_norm_(self.network.parameters(), 10.0)
        self.optimiser.step()
        self.seen += BATCH
        self._update_ema()
        return loss.item()

    @torch.no_grad()
    def _update_ema(self) -> None:
        # The ramp keeps the random initial weights out of the average early on.
        beta = 0.5 ** (BATCH / min(EMA_HALF_LIFE, max(self.seen * 0.05, 1e-8)))
        for name, tensor in self.network.state_dict().items():
            self.ema[name].lerp_(tensor, 1 - beta)


def about_unet(arguments: Mapping[str, object]) -> dict[str, str]:
    """What a file of U-Net weights must say of itself to be read again."""
    constructor = {"precond": "EDMPrecond", "model_type": "SongUNet", **arguments}
    return {"family": "edm", "arguments": json.dumps(constructor)}


def about_sit(arguments: Mapping[str, object]) -> dict[str, str]:
    """What a file of transformer weights must say of itself to be read again."""
    constructor = {"path_type": "Linear", "num_heads": arguments["num_heads"]}
    return {"family": "sit", "arguments": json.dumps(constructor)}


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
    """EDM's training loss (Karras et al. 2022, table 1): ln σ ~ N(-1.2, 1.2²), weight 1/c_out²."""
    sigma = (torch.randn(len(data), generator=draws) * 1.2 - 1.2).exp()
    noisy = data + sigma[:, None, None, None] * torch.randn(data.shape, generator=draws)
    error = edm_denoise(network, noisy, sigma) - data
    return (_edm_weight(sigma) * error**2).mean()


def conditional_edm_loss(network: nn.Module, data: Tensor, label: Tensor, draws: torch.Generator) -> Tensor:
    """`edm_loss` of a network that is told the class, one-hot over ten; one label in ten is dropped."""
    sigma = (torch.randn(len(data), generator=draws) * 1.2 - 1.2).exp()
    noisy = data + sigma[:, None, None, None] * torch.randn(data.shape, generator=draws)
    told = nn.functional.one_hot(label, 10).float() * (torch.rand(len(data), 1, generator=draws) >= 0.1)
    error = edm_denoise(network, noisy, sigma, told) - data
    return (_edm_weight(sigma) * error**2).mean()


def _edm_weight(sigma: Tensor) -> Tensor:
    return ((sigma**2 + 0.25) / (sigma * 0.5) ** 2)[:, None, None, None]


def edm_denoise(network: nn.Module, x: Tensor, sigma: Tensor, label: Tensor | None = None) -> Tensor:
    c_skip, c_out = (c[:, None, None, None] for c in EDMPrecond().c_skip_out(sigma))
    scaled = x / (sigma**2 + 0.25).sqrt()[:, None, None, None]
    out: Tensor = c_skip * x + c_out * network(scaled, sigma.log() / 4, label)
    return out


def velocity_loss(network: nn.Module, data: Tensor, label: Tensor, draws: torch.Generator) -> Tensor:
    """SiT's loss on the linear path, t = 1 the data (Ma et al. 2024); one label in ten is dropped."""
    t = torch.rand(len(data), generator=draws)
    noise = torch.randn(data.shape, generator=draws)
    label = torch.where(torch.rand(len(data), generator=draws) < 0.1, NULL_CLASS, label)
    at = t[:, None, None, None]
    out: Tensor = network(at * data + (1 - at) * noise, t, label)
    return ((out - (data - noise)) ** 2).mean()
