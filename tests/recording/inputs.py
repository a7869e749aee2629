"""The files that the commands of the table read, small and always the same, under short names in one folder."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from commands import DATA, write_pictures

import diffscope

DEMO = Path(diffscope.__file__).parent / "demo"
COPIES = {
    "unet.safetensors": DEMO / "unet.safetensors",
    "sit.safetensors": DEMO / "sit.safetensors",
    "images.zip": DEMO / "images.zip",
    "edm.pkl": DATA / "containers" / "edm_ddpmpp.pkl",
    "edm_cond.pkl": DATA / "containers" / "edm_ncsnpp_cond.pkl",
    "sit_latents.pt": DATA / "sit" / "train_dump.pt",
    "diffusers-dit": DATA / "sit" / "diffusers-dit",
    "diffusers-vae": DATA / "sit" / "diffusers-vae",
    "series": DATA / "series",
}


def write_inputs(folder: Path) -> None:
    for name, source in COPIES.items():
        (shutil.copytree if source.is_dir() else shutil.copy)(source, folder / name)
    write_pictures(folder / "pictures", 150)
    _write_damaged(folder)
    rng = np.random.default_rng(0)
    mean = rng.standard_normal((130, 4, 8, 8)).astype(np.float32)
    np.savez(folder / "latents.npz", mean=mean, std=np.full_like(mean, 0.1))
    np.savez(folder / "held.npz", images=rng.integers(0, 256, (80, 16, 16, 1), dtype=np.uint8))
    steps = [25600 * number for number in range(1, 17)]
    rows = [f"{step},{20 - number},{max(0, number - 8) / 10:.1f}" for number, step in enumerate(steps)]
    (folder / "copies.csv").write_text("step,fid,copied\n" + "\n".join(rows) + "\n", "utf-8")


def _write_damaged(folder: Path) -> None:
    """Pictures of which one cannot be read, and a checkpoint cut in half."""
    damaged = write_pictures(folder / "damaged", 144)
    (damaged / "dog" / "0061.png").write_bytes(b"no picture")
    whole = COPIES["sit_latents.pt"].read_bytes()
    (folder / "damaged.pt").write_bytes(whole[: len(whole) // 2])
