"""The three networks that were not written for diffscope, their files, and how they are named on a command line."""

from __future__ import annotations

from pathlib import Path

from commands import DATA

HERE = Path(__file__).parent
NETWORKS = HERE / "networks"
FILES = DATA / "own"
SIDE = ("--image-size", "16", "--channels", "3")

EPS = ("--network", f"{NETWORKS / 'eps_unet.py'}:UNet", "--noise", "ddpm:linear", *SIDE)
FLOW = (
    *("--network", f"{NETWORKS / 'flow_transformer.py'}:FlowTransformer", "--arguments", '{"image_size": 16}'),
    *("--noise", "flow:data=1", "--call", "sample=x,timestep=t,class_labels=y:2:2", *SIDE),
)
SIGMA = ("--network", f"{NETWORKS / 'sigma_denoiser.py'}:make", "--noise", "edm", *SIDE)

EPS_FILE, FLOW_FILE = str(FILES / "eps_unet.pt"), str(FILES / "flow_transformer.pt")
SIGMA_FILES = [str(FILES / f"sigma-{step}.pt") for step in (60, 240, 600)]
SIGMA_FILE = SIGMA_FILES[-1]

CASES = {
    "eps": (EPS_FILE, EPS, "eps"),
    "flow": (FLOW_FILE, FLOW, "velocity"),
    "sigma": (SIGMA_FILE, SIGMA, "denoised"),
}
"""Checkpoint, what is said of its network, and what it predicts."""
