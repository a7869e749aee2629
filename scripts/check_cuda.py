"""Everything about a GPU in one command, for whoever has one.

    python scripts/check_cuda.py                 # some minutes; ends with 1 where a check fails
    python scripts/check_cuda.py --device cpu    # the same course on a CPU, small, to try the script itself

1. Features of networks whose CPU values the tests hold to the original ones: CUDA against the CPU in
   fp32, TF32, bf16 and fp16, as the largest difference over the largest feature of the layer.
2. ICR of the demo model over noise levels: CUDA against the CPU, and two runs on CUDA, which must be equal.
3. Batches halved where the GPU's memory runs out (its share is limited to what the model and one small batch take).
4. `--compile`: the same figures.
5. Images a second, share of the machine's peak and of time outside the network, of EDM's full-size U-Net and SiT-XL/2.
6. Two processes with NCCL, where there are two GPUs.

Prints a table for scripts/results/performance.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench_cases import FULL_UNET, SIT_B, SMALL_SIT, SMALL_UNET, write_checkpoint, write_pictures
from safetensors.numpy import load_file

import diffscope

ROOT = Path(__file__).resolve().parents[1]
DEMO = ROOT / "diffscope" / "demo"
GOLDEN = ROOT / "tests" / "data" / "containers"
CHECKPOINTS = (GOLDEN / "edm_ddpmpp.pkl", GOLDEN / "edm_ncsnpp_cond.pkl", DEMO / "sit.safetensors")
BOUNDS = {"fp32": 1e-4, "tf32": 5e-3, "bf16": 6e-2, "fp16": 1e-2}
"""Of the largest feature of a layer: some ten roundings of that precision."""
ICR_BOUND = 2e-3
"""Relative, of ICR in TF32, the default on CUDA."""
SIT_XL = {**SIT_B, "in_channels": 4, "out_channels": 4, "hidden_size": 1152, "depth": 28, "num_heads": 16,
          "label_rows": 1001}  # fmt: skip

Check = Callable[["Bench"], Iterator[tuple[str, str, bool]]]
"""Yields (what, what came out, whether it is right)."""


class Bench:
    """The device, and a folder for files."""

    def __init__(self, device: str, folder: Path) -> None:
        self.device, self.folder, self.real = device, folder, device != "cpu"
        self.precisions = tuple(BOUNDS) if self.real else ("fp32", "bf16")
        write_pictures(folder / "images", 48)

    def features(self, checkpoint: Path, device: str, precision: str) -> dict[str, np.ndarray]:
        """Of all layers at three noise levels."""
        file = self.folder / "features.safetensors"
        diffscope.features(
            checkpoint, self.folder / "images", out=file, layer="all", sigma=(0.05, 0.4, 2.5), device=device,
            precision=precision, overwrite=True, progress=False,
        )  # fmt: skip
        return load_file(file)

    def icr(self, **changed: Any) -> np.ndarray:
        """Of the demo model at six levels."""
        options: dict[str, Any] = {"device": self.device, "num_levels": 6, "num_images": 500, "progress": False}
        result = diffscope.sweep(DEMO / "unet.safetensors", DEMO / "images.zip", **(options | changed))
        return np.array([row["icr"] for row in result.rows])


def goldens(bench: Bench) -> Iterator[tuple[str, str, bool]]:
    for checkpoint in CHECKPOINTS:
        expected = bench.features(checkpoint, "cpu", "fp32")
        layers = [name for name, tensor in expected.items() if tensor.ndim == 4]
        for precision in bench.precisions:
            found = bench.features(checkpoint, bench.device, precision)
            off = max(float(np.abs(found[n] - expected[n]).max() / np.abs(expected[n]).max()) for n in layers)
            yield f"{checkpoint.name}, {len(layers)} layers, {precision}", f"off by {off:.1e}", off < BOUNDS[precision]


def figures(bench: Bench) -> Iterator[tuple[str, str, bool]]:
    reference, found = bench.icr(device="cpu"), bench.icr()
    off = float(np.abs(found / reference - 1).max())
    yield "ICR beside the CPU's", f"off by {off:.1e}", off < ICR_BOUND
    again = bench.icr()
    yield "two runs", "equal" if np.array_equal(found, again) else "differ", np.array_equal(found, again)
    small = float(np.abs(bench.icr(batch_size=7) / found - 1).max())
    yield "batches of 7", f"off by {small:.1e}", small < ICR_BOUND
    if not bench.real:
        return
    compiled = float(np.abs(bench.icr(compile=True) / found - 1).max())
    yield "compiled", f"off by {compiled:.1e}", compiled < ICR_BOUND


def memory(bench: Bench) -> Iterator[tuple[str, str, bool]]:
    if not bench.real:
        return
    expected = bench.icr()
    torch.cuda.empty_cache()
    whole = torch.cuda.get_device_properties(bench.device).total_memory
    torch.cuda.set_per_process_memory_fraction(1e9 / whole, bench.device)
    try:
        found = bench.icr(batch_size=4096)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, bench.device)
    off = float(np.abs(found / expected - 1).max())
    yield "batches of 4,096 in 1 GB", f"halved; off by {off:.1e}", off < ICR_BOUND


def rates(bench: Bench) -> Iterator[tuple[str, str, bool]]:
    networks = (("U-Net, full size", FULL_UNET, SMALL_UNET, "enc.8x8_block3"), ("SiT-XL/2", SIT_XL, SMALL_SIT, "mid"))
    for name, arguments, small, layer in networks:
        file = bench.folder / "network.safetensors"
        write_checkpoint(file, arguments if bench.real else small)
        images = "synthetic:count=512" if "depth" not in arguments or not bench.real else _latents(bench.folder)
        for precision in bench.precisions:
            found = diffscope.bench(file, data=images, layer=layer if bench.real else "mid", device=bench.device,
                                    precision=precision, num_levels=4, augment="none")  # fmt: skip
            told = (
                f"{found['network']['passes_per_second']:.4g} images/s, {found['share']:.2f} of the peak, "
                f"{found['share_outside']:.2f} of the time outside the network"
            )
            yield f"{name}, {precision}", told, True


def _latents(folder: Path) -> Path:
    """Random ones, for a network that takes no pictures."""
    path = folder / "latents.npz"
    rng = np.random.default_rng(0)
    np.savez(path, mean=rng.standard_normal((512, 4, 32, 32)).astype(np.float32))
    return path


def processes(bench: Bench) -> Iterator[tuple[str, str, bool]]:
    if not bench.real or torch.cuda.device_count() < 2:
        return
    command = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "diffscope", "sweep",
               str(DEMO / "unet.safetensors"), "--data", str(DEMO / "images.zip"), "--num-levels", "6",
               "--num-images", "500", "--json"]  # fmt: skip
    ran = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False)
    if ran.returncode:
        yield "two processes", ran.stderr.strip().splitlines()[-1], False
        return
    found = np.array([row["icr"] for row in json.loads(ran.stdout)["rows"]])
    off = float(np.abs(found / bench.icr() - 1).max())
    yield "two processes with NCCL", f"off by {off:.1e}", off < ICR_BOUND


CHECKS: tuple[Check, ...] = (goldens, figures, memory, rates, processes)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1, or cpu to try the script")
    device = parser.parse_args().device
    if device != "cpu" and not torch.cuda.is_available():
        parser.error("no CUDA device is available here, or torch is a build without CUDA")
    name = torch.cuda.get_device_name(device) if device != "cpu" else "CPU"
    print(f"{name}, torch {torch.__version__}, diffscope {diffscope.__version__}\n")
    print("| check | outcome | |\n| --- | --- | --- |")
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(device, Path(folder))
        for check in CHECKS:
            for what, outcome, right in check(bench):
                failed += not right
                print(f"| {what} | {outcome} | {'ok' if right else 'FAILED'} |", flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
