"""What the same verdict costs: the naive script, a sweep, and a sweep that stops where it knows enough.

    python scripts/bench_verdict.py                       # the demo: a quarter of an hour of one core
    python scripts/bench_verdict.py full-fp32 full-bf16   # three quarters of an hour
    python scripts/bench_verdict.py --quick               # 200 images of the demo: whether it works at all

demo: the demo model and its 2,000 images, as JPEG files, 12 noise levels. full: EDM's U-Net of CIFAR-10 size (55.7 M
parameters) with random weights and 240 images made up, in five views at two noise levels, which its 256 features need:
what that costs is what a trained network costs; what it finds, and how soon, means nothing. One layer each. Each side
is a process of its own on one thread; its CPU time counts from the loaded model to the verdict, children included.
Passes are views through the network. The naive script (`bench_naive.py`) ends with numbers, of which a reader makes the
verdict.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from bench import in_a_process
from bench_cases import FULL_UNET, TWELVE_LEVELS, Case, write_checkpoint, write_pictures
from bench_naive import naive

DEMO = Path(__file__).resolve().parents[1] / "diffscope" / "demo"
ACCURACY = 0.05
SIDES = ("naive", "sweep", "accuracy")
DEMO_CASE = Case(0, {}, {"depth": 0}, "enc.8x8_block1", 2000, TWELVE_LEVELS)
FULL_CASE = Case(0, FULL_UNET, FULL_UNET, "enc.8x8_block3", 240, (0.2, 0.8), views=5)
WORK = {
    f"{name}-{precision}": replace(case, precision=precision)
    for name, case in (("demo", DEMO_CASE), ("full", FULL_CASE))
    for precision in ("fp32", "bf16")
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"some of {', '.join(WORK)}; of the demo by default")
    parser.add_argument("--quick", action="store_true", help="200 images and three levels")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - set(WORK):
        parser.error(f"no part {', '.join(sorted(unknown))}; there are {', '.join(WORK)}")
    if arguments.side:
        print(json.dumps(once(arguments.side, WORK[arguments.parts[0]], arguments.folder, arguments.quick)))
        return
    print("work        by             CPU s    passes   verdict")
    for name in arguments.parts or ("demo-fp32", "demo-bf16"):
        with tempfile.TemporaryDirectory() as folder:
            write(name, Path(folder), arguments.quick)
            for side in SIDES:
                found = in_a_process(side, name, Path(folder), arguments.quick, program=__file__)
                print(
                    f"{name:<11} {side:<12} {found['cpu']:>7.1f} {found['passes']:>9,}   {found['verdict']}", flush=True
                )


def write(name: str, folder: Path, quick: bool) -> None:
    """What both sides read."""
    if name.startswith("demo"):
        write_demo(folder, 200 if quick else WORK[name].images)
    else:
        write_pictures(folder / "images", WORK[name].images)
        write_checkpoint(folder / "unet.safetensors", WORK[name].network)


def write_demo(folder: Path, count: int) -> None:
    """The demo's pictures as files, and its network."""
    import shutil

    import numpy as np
    from PIL import Image

    from diffscope.sources.base import Target, open_source

    source = open_source(str(DEMO / "images.zip"))
    (folder / "images").mkdir()
    for number in range(count):
        pixels = np.repeat(source.read(number, Target(16, 1)), 3, axis=0).transpose(1, 2, 0)
        Image.fromarray(pixels).save(folder / "images" / f"{number:05d}.jpg", quality=95)
    shutil.copy(DEMO / "unet.safetensors", folder)


def once(side: str, case: Case, folder: Path, quick: bool) -> dict[str, Any]:
    from bench import run_steps

    case = replace(case, levels=case.levels[::5]) if quick else case
    told: dict[str, Any] = {}
    steps = naive(case, folder, False) if side == "naive" else ours(side, case, folder, told)
    found = run_steps(steps)
    count = len(list((folder / "images").iterdir()))
    told = told or {"passes": case.views * count * len(case.levels), "verdict": "–"}
    return {**found, **told}


def ours(side: str, case: Case, folder: Path, told: dict[str, Any]) -> Iterator[None]:
    import diffscope
    from diffscope import api
    from diffscope.allocation import keep_large_blocks

    keep_large_blocks()
    checkpoint = str(folder / "unet.safetensors")
    api.load(checkpoint)
    yield
    limits: dict[str, Any] = {"accuracy": ACCURACY} if side == "accuracy" else {}
    result = diffscope.sweep(
        checkpoint, folder / "images", layer=case.layer, sigma=case.levels, precision=case.precision, views=case.views,
        workers=0, progress=False, **limits,
    )  # fmt: skip
    passes = case.views * sum(row["n"] for row in result.rows)
    told.update(passes=passes, verdict=f"{result.window[0].shape}, lowest at {result.window[0].lowest_sigma:g}")
    yield


if __name__ == "__main__":
    main()
