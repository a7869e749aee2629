"""Trains the networks beside it for a few seconds each: python tests/own/train.py FOLDER writes tests/data/own."""

# mypy: ignore-errors

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image

HERE = Path(__file__).parent
SIDE = 16
KINDS = {"eps_unet": "UNet", "flow_transformer": "FlowTransformer", "sigma_denoiser": "Denoiser"}
ARGUMENTS = {"eps_unet": {}, "flow_transformer": {"image_size": SIDE}, "sigma_denoiser": {"width": 24}}


def images(folder: Path) -> torch.Tensor:
    """[N, 3, SIDE, SIDE] in [-1, 1]."""
    pictures = [
        Image.open(path).resize((SIDE, SIDE), Image.Resampling.LANCZOS) for path in sorted(folder.rglob("*.png"))
    ]
    return torch.stack([torch.tensor(np.asarray(one)).permute(2, 0, 1) / 127.5 - 1 for one in pictures])


def training(name: str, data: torch.Tensor, steps: int) -> Iterator[tuple[torch.nn.Module, float]]:
    """The network and its loss after each step."""
    sys.path.insert(0, str(HERE / "networks"))
    code = importlib.import_module(name)
    torch.manual_seed(0)
    network = getattr(code, KINDS[name])(**ARGUMENTS[name])
    optimizer = torch.optim.Adam(network.parameters(), 2e-3)
    for _ in range(steps):
        loss = code.loss(network, data[torch.randint(0, len(data), (32,))])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield network, float(loss.detach())


def stored(network: torch.nn.Module, prefix: str = "") -> dict[str, torch.Tensor]:
    """Its weights in 16 bits, to keep the files small."""
    return {prefix + name: value.half() for name, value in network.state_dict().items()}


def main(folder: Path) -> None:
    from commands import write_pictures

    data = images(write_pictures(folder / "pictures", 64))
    *_, (network, _) = training("eps_unet", data, 600)
    torch.save({"state_dict": stored(network, "net."), "global_step": 600}, folder / "eps_unet.pt")
    *_, (network, _) = training("flow_transformer", data, 600)
    torch.save(stored(network), folder / "flow_transformer.pt")
    average = None
    for step, (network, _) in enumerate(training("sigma_denoiser", data, 600), 1):
        now = {name: value.clone() for name, value in network.state_dict().items()}
        average = now if average is None else {name: 0.98 * average[name] + 0.02 * now[name] for name in now}
        if step in (60, 240, 600):
            ema = {name: value.half() for name, value in average.items()}
            torch.save({"model": stored(network), "ema": ema, "step": step}, folder / f"sigma-{step}.pt")


if __name__ == "__main__":
    sys.path.insert(0, str(HERE.parent))
    main(Path(sys.argv[1]))
