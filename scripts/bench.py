"""What diffscope costs against a naive script, as ratios of CPU time measured in one run.

    python scripts/bench.py                  # the full table: hours on two cores
    python scripts/bench.py --quick          # every case at a size that takes seconds, as CI runs it
    python scripts/bench.py demo-fp32 track  # some cases

The naive script is what anybody would write (`naive` below): for each noise level a new loader that decodes and
augments anew, whole forward passes with a hook, all features kept, a generalised eigenproblem at the end. Either side
is a process of its own on one thread; its CPU time counts from the loaded model to the numbers, children included.
A and B alternate; the median of the repeats is taken, and the smallest and largest ratio stand beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

LEVELS = (0.1, 0.2, 0.4, 0.8, 1.6)
DEMO_UNET = {
    "img_resolution": 32, "in_channels": 3, "out_channels": 3, "model_channels": 32,
    "channel_mult": [1, 2, 2], "num_blocks": 2, "attn_resolutions": [8],
}  # fmt: skip
FULL_UNET = {
    "img_resolution": 32, "in_channels": 3, "out_channels": 3, "model_channels": 128, "channel_mult": [2, 2, 2],
    "num_blocks": 4, "attn_resolutions": [16],
}  # fmt: skip
SMALL_UNET = {**DEMO_UNET, "model_channels": 16, "num_blocks": 1}
SIT_B = {
    "input_size": 32, "patch_size": 2, "in_channels": 3, "out_channels": 3, "hidden_size": 768, "depth": 12,
    "num_heads": 12, "label_rows": 11,
}  # fmt: skip
SMALL_SIT = {**SIT_B, "hidden_size": 96, "depth": 4, "num_heads": 4}


@dataclass(frozen=True)
class Case:
    """One ratio of the table."""

    target: float
    """Naive over ours, at least."""
    network: dict[str, Any]
    small: dict[str, Any]
    layer: str
    images: int
    precision: str = "fp32"
    checkpoints: int = 1


CASES = {
    "full-fp32": Case(3.3, FULL_UNET, SMALL_UNET, "enc.8x8_block3", 32),
    "full-bf16": Case(7.0, FULL_UNET, SMALL_UNET, "enc.8x8_block3", 32, "bf16"),
    "demo-fp32": Case(4.5, DEMO_UNET, SMALL_UNET, "enc.8x8_block1", 256),
    "demo-bf16": Case(6.0, DEMO_UNET, SMALL_UNET, "enc.8x8_block1", 256, "bf16"),
    "sit-fp32": Case(2.5, SIT_B, SMALL_SIT, "blocks.5", 32),
    "track": Case(4.0, DEMO_UNET, SMALL_UNET, "enc.8x8_block1", 256, checkpoints=10),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"some of {', '.join(CASES)}; all by default")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="small networks, one repeat: whether it works at all")
    parser.add_argument("--side", choices=["naive", "ours"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    unknown = set(arguments.cases) - set(CASES)
    if unknown:
        parser.error(f"no case {', '.join(sorted(unknown))}; there are {', '.join(CASES)}")
    if arguments.side:
        print(json.dumps(run_side(arguments.side, arguments.cases[0], arguments.folder, arguments.quick)))
        return
    print("case           naive s    ours s   ratio   (range)        target   ours: overhead MB")
    for name in arguments.cases or CASES:
        compare(name, 1 if arguments.quick else arguments.repeats, arguments.quick)


def compare(name: str, repeats: int, quick: bool) -> None:
    case = CASES[name]
    with tempfile.TemporaryDirectory() as folder:
        prepare(case, Path(folder), quick)
        times: dict[str, list[float]] = {"naive": [], "ours": []}
        memory = 0.0
        for repeat in range(repeats):
            # The side that goes first alternates: what a machine does in the meantime falls on both alike.
            for side in ("naive", "ours") if repeat % 2 == 0 else ("ours", "naive"):
                command = [sys.executable, __file__, name, "--side", side, "--folder", folder]
                environment = os.environ | {"OMP_NUM_THREADS": "1", "DIFFSCOPE_CACHE_DIR": f"{folder}/cache{repeat}"}
                done = subprocess.run(
                    command + (["--quick"] if quick else []),
                    env=environment,
                    capture_output=True,
                    text=True,
                    check=False,
                )
                if done.returncode:
                    sys.exit(f"{name}, {side}: {done.stderr.strip()[-2000:]}")
                found = json.loads(done.stdout)
                times[side].append(found["cpu"])
                memory = max(memory, found["memory"]) if side == "ours" else memory
    ratios = [a / b for a, b in zip(times["naive"], times["ours"], strict=True)]
    naive_time, ours_time = median(times["naive"]), median(times["ours"])
    print(
        f"{name:<12} {naive_time:>9.2f} {ours_time:>9.2f} {naive_time / ours_time:>7.2f}"
        f"   ({min(ratios):.2f}–{max(ratios):.2f})   {case.target:>6.1f}   {memory:>8.0f}",
        flush=True,
    )


def prepare(case: Case, folder: Path, quick: bool) -> None:
    """Pictures as JPEG files, and checkpoints with random weights."""
    import torch
    from PIL import Image
    from safetensors.torch import save_file

    from diffscope.families.networks.song_unet import SongUNet
    from diffscope.families.networks.transformer import DiffusionTransformer

    rng = np.random.default_rng(0)
    (folder / "images").mkdir()
    for number in range(min(case.images, 128) if quick else case.images):
        coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
        coarse.resize((32, 32), Image.Resampling.BICUBIC).save(folder / "images" / f"{number:05d}.jpg", quality=90)
    arguments = case.small if quick else case.network
    for number in range(2 if quick and case.checkpoints > 1 else case.checkpoints):
        torch.manual_seed(number)
        network = DiffusionTransformer(**arguments) if "depth" in arguments else SongUNet(**arguments)
        for name, parameter in network.named_parameters():
            if parameter.dim() > 1 and name != "pos_embed":
                torch.nn.init.xavier_uniform_(parameter.view(parameter.shape[0], -1))
            elif name != "pos_embed":
                torch.nn.init.constant_(parameter, float("norm" in name and name.endswith("weight")))
        about = {"format": "pt", "step": str(number + 1), "step_unit": "images", "weights": "ema"}
        if "depth" in arguments:
            about |= {
                "family": "sit",
                "arguments": json.dumps({"path_type": "Linear", "num_heads": arguments["num_heads"]}),
            }
        else:
            constructor = {"precond": "EDMPrecond", "model_type": "SongUNet", **arguments}
            about |= {"family": "edm", "arguments": json.dumps(constructor)}
        save_file(dict(network.state_dict()), folder / f"{number:04d}.safetensors", metadata=about)


def run_side(side: str, name: str, folder: Path, quick: bool) -> dict[str, float]:
    import torch

    torch.set_num_threads(1)
    case = CASES[name]
    run: Callable[[Case, Path, bool], Iterator[None]] = naive if side == "naive" else ours
    steps = run(case, folder, quick)
    next(steps)  # imports and loading
    resident, before = _resident(), _cpu()
    start = time.perf_counter()
    for _ in steps:
        pass
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"cpu": _cpu() - before, "wall": time.perf_counter() - start, "memory": peak - resident}


def layer_of(case: Case, quick: bool) -> str:
    if not quick:
        return case.layer
    return "blocks.1" if "depth" in case.small else "enc.8x8_block0"


def ours(case: Case, folder: Path, quick: bool) -> Iterator[None]:
    import diffscope
    from diffscope import api

    checkpoints, images = sorted(map(str, folder.glob("*.safetensors"))), str(folder / "images")
    options: dict[str, Any] = {
        "layers": (layer_of(case, quick),), "sigmas": LEVELS, "precision": case.precision, "workers": 0,
    }  # fmt: skip
    api.load(checkpoints[0])
    yield
    if case.checkpoints > 1:
        diffscope.track(checkpoints, images, **options)
    elif case.images < 4 * 64:  # too few for a wide layer's covariance: all but the numbers at the end
        _moments(checkpoints[0], images, options)
    else:
        diffscope.sweep(checkpoints[0], images, **options)
    yield


def _moments(checkpoint: str, images: str, options: dict[str, Any]) -> None:
    from diffscope import api
    from diffscope.features import Extractor, Inputs
    from diffscope.moments import BlockAccumulator
    from diffscope.studies.settings import Settings

    job = api.prepare_job(checkpoint, images, Settings(**options))
    extractor = Extractor(job.denoiser, Inputs(job.source, job.plan), job.plan)
    for number in range(job.blocks):
        sums = [BlockAccumulator(2, job.plan.width(job.plan.layers[0])) for _ in LEVELS]
        for features in extractor.run(job.block(number).tolist()):
            sums[features.level].update(features.z)
        for accumulator in sums:
            accumulator.finish()


def naive(case: Case, folder: Path, quick: bool) -> Iterator[None]:
    """As performance.md words it: one loader a level, Pillow's augmentation, whole passes, eigenvalues at the end."""
    import scipy.linalg
    import torch
    from torch.utils.data import DataLoader, Dataset

    from diffscope import api

    checkpoints = sorted(map(str, folder.glob("*.safetensors")))
    api.load(checkpoints[0])
    yield

    class Views(Dataset):  # type: ignore[type-arg]
        files = sorted((folder / "images").glob("*.jpg"))

        def __len__(self) -> int:
            return len(self.files)

        def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
            from PIL import Image

            image = Image.open(self.files[index]).convert("RGB")
            return pillow_view(image), pillow_view(image)

    for checkpoint in checkpoints:
        _, denoiser = api.load(checkpoint)
        features: list[torch.Tensor] = []
        module = denoiser.network.get_submodule(layer_of(case, quick))

        def keep(_module: object, _inputs: object, out: torch.Tensor, to: list[torch.Tensor] = features) -> None:
            to.append(out.detach().cpu())

        hook = module.register_forward_hook(keep)
        for sigma in LEVELS:
            z: list[list[np.ndarray]] = [[], []]
            for views in DataLoader(Views(), batch_size=64, num_workers=0 if quick else 2):
                for v, x in enumerate(views):
                    features.clear()
                    with torch.no_grad():
                        noisy = x + sigma * torch.randn_like(x)
                        denoiser.denoise(noisy, torch.full((len(x),), sigma), denoiser.label(None, x.device))
                    out = features[-1]
                    z[v].append((out.mean((2, 3)) if out.dim() == 4 else out.mean(1)).numpy())
            first, second = (np.concatenate(side).astype(np.float64) for side in z)
            shared, rest = np.cov((first + second) / 2, rowvar=False), np.cov((first - second) / 2, rowvar=False)
            # More channels than images would stop it: a ridge, as anybody would add.
            scipy.linalg.eigh(shared - rest, rest + 1e-6 * np.trace(rest) * np.eye(len(rest)), eigvals_only=True)
        hook.remove()
    yield


def pillow_view(image: Any) -> Any:
    import torch
    from PIL import Image, ImageEnhance, ImageOps

    image = ImageOps.expand(image, 4)
    left, top = random.randint(0, 8), random.randint(0, 8)
    image = image.crop((left, top, left + 32, top + 32))
    if random.random() < 0.5:
        image = ImageOps.mirror(image)
    if random.random() < 0.8:
        changes = [ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color, None]
        random.shuffle(changes)
        for change in changes:
            if change is None:
                hue, saturation, value = image.convert("HSV").split()
                shift = int(random.uniform(-0.1, 0.1) * 255)
                hue = hue.point([(h + shift) % 256 for h in range(256)])
                image = Image.merge("HSV", (hue, saturation, value)).convert("RGB")
            else:
                image = change(image).enhance(random.uniform(0.6, 1.4))
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 127.5 - 1


def _cpu() -> float:
    """Of this process and its children that have ended."""
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def _resident() -> float:
    """MB."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


if __name__ == "__main__":
    main()
