"""What the same verdict costs: the naive script, a sweep, and a sweep that stops where it knows enough.

    python scripts/bench_verdict.py            # a quarter of an hour of one core
    python scripts/bench_verdict.py --quick    # 200 images: whether it works at all

The demo model and its 2,000 images, as JPEG files, 12 noise levels, one layer, float32 and bfloat16. Each is a process
of its own on one thread; its CPU time counts from the loaded model to the verdict, children included. Passes are views
through the network. The naive script (`bench_naive.py`) ends with numbers, of which a reader makes the verdict.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from bench import in_a_process
from bench_cases import TWELVE_LEVELS, Case
from bench_naive import naive

DEMO = Path(__file__).resolve().parents[1] / "diffscope" / "demo"
ACCURACY = 0.05
SIDES = ("naive", "sweep", "accuracy")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="?", help=argparse.SUPPRESS)
    parser.add_argument("--quick", action="store_true", help="200 images and three levels")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        print(json.dumps(once(arguments.side, arguments.part, arguments.folder, arguments.quick)))
        return
    print("precision   by             CPU s    passes   verdict")
    with tempfile.TemporaryDirectory() as folder:
        write_demo(Path(folder), 200 if arguments.quick else 2000)
        for precision in ("fp32", "bf16"):
            for side in SIDES:
                found = in_a_process(side, precision, Path(folder), arguments.quick, program=__file__)
                print(
                    f"{precision:<11} {side:<12} {found['cpu']:>7.1f} {found['passes']:>9,}   {found['verdict']}",
                    flush=True,
                )


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


def once(side: str, precision: str, folder: Path, quick: bool) -> dict[str, Any]:
    from bench import run_steps

    levels = TWELVE_LEVELS[::5] if quick else TWELVE_LEVELS
    case = Case(0, {}, {"depth": 0}, "enc.8x8_block1", 0, levels, precision=precision)
    told: dict[str, Any] = {}
    steps = naive(case, folder, False) if side == "naive" else ours(side, case, folder, told)
    found = run_steps(steps)
    count = len(list((folder / "images").iterdir()))
    told = told or {"passes": 2 * count * len(levels), "verdict": "–"}
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
        checkpoint, folder / "images", layer=case.layer, sigma=case.levels, precision=case.precision, workers=0,
        progress=False, **limits,
    )  # fmt: skip
    passes = 2 * sum(row["n"] for row in result.rows)
    told.update(passes=passes, verdict=f"{result.window[0].shape}, lowest at {result.window[0].lowest_sigma:g}")
    yield


if __name__ == "__main__":
    main()
