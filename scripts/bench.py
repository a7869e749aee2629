"""What diffscope costs: against a naive script, against the machine's limit, and as its work grows.

    python scripts/bench.py                     # everything: hours on two cores
    python scripts/bench.py --quick             # every part at a size that takes seconds, as CI runs it
    python scripts/bench.py demo-fp32 outside   # some parts

Ratios are CPU time of the naive script (`bench_naive.py`) over ours. Either side is a process of its own on one thread;
its CPU time counts from the loaded model to the numbers, children included. A and B alternate; the median of the
repeats is taken, and the smallest and largest ratio stand beside it. Shares are the walk's FLOP/s over those of the
machine's best convolution (U-Nets) or matrix product (transformers), measured in turns in one process.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from bench_cases import (
    CASES,
    DEMO_UNET,
    FULL_UNET,
    SIT_B,
    SMALL_SIT,
    SMALL_UNET,
    TWELVE_LEVELS,
    Case,
    prepare,
    write_checkpoint,
    write_pictures,
)
from bench_naive import naive

SHARES = {
    "share-unet-fp32": (FULL_UNET, SMALL_UNET, "enc.8x8_block3", "fp32", 32, 0.75),
    "share-unet-bf16": (FULL_UNET, SMALL_UNET, "enc.8x8_block3", "bf16", 32, 0.82),
    "share-sit-fp32": (SIT_B, SMALL_SIT, "blocks.5", "fp32", 8, 0.75),
}
"""Network, what --quick takes, layer, precision, views a batch, target."""
OTHERS = ("outside", "memory", "images", "width", "track-overhead")
"""Time outside the network; memory of 12 levels; growth with images and with channels; `track` over 50 checkpoints."""


def main() -> None:
    parts = [*CASES, *SHARES, *OTHERS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"some of {', '.join(parts)}; all by default")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="small networks, one repeat: whether it works at all")
    parser.add_argument("--side", choices=[*SIDES], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    unknown = set(arguments.parts) - set(parts)
    if unknown:
        parser.error(f"no part {', '.join(sorted(unknown))}; there are {', '.join(parts)}")
    if arguments.side:
        side = SIDES[arguments.side]
        print(json.dumps(side(arguments.parts[0], arguments.folder, arguments.quick)))
        return
    chosen, repeats = arguments.parts or parts, 1 if arguments.quick else arguments.repeats
    if ratios := [name for name in chosen if name in CASES]:
        print("part              naive s    ours s   ratio   (range)        target   ours: MB beyond the model")
        for name in ratios:
            compare(name, repeats, arguments.quick)
    if shares := [name for name in chosen if name in SHARES]:
        print("part               GFLOP/s of the walk   of the limit   share   (range)       target")
        for name in shares:
            share(name, repeats, arguments.quick)
    for name in [name for name in chosen if name in OTHERS]:
        globals()[name.replace("-", "_")](repeats, arguments.quick)


# Ratios


def compare(name: str, repeats: int, quick: bool) -> None:
    case = CASES[name]
    with tempfile.TemporaryDirectory() as folder:
        prepare(case, Path(folder), quick)
        times: dict[str, list[float]] = {"naive": [], "ours": []}
        memory = 0.0
        for repeat in range(repeats):
            # The side that goes first alternates: what a machine does in the meantime falls on both alike.
            for side in ("naive", "ours") if repeat % 2 == 0 else ("ours", "naive"):
                found = in_a_process(side, name, Path(folder), quick, f"{folder}/cache{repeat}")
                times[side].append(found["cpu"])
                memory = max(memory, found["memory"]) if side == "ours" else memory
    ratios = [a / b for a, b in zip(times["naive"], times["ours"], strict=True)]
    naive_time, ours_time = median(times["naive"]), median(times["ours"])
    print(
        f"{name:<15} {naive_time:>9.2f} {ours_time:>9.2f} {naive_time / ours_time:>7.2f}"
        f"   ({min(ratios):.2f}–{max(ratios):.2f})   {case.target:>6.1f}   {memory:>8.0f}",
        flush=True,
    )


def in_a_process(side: str, name: str, folder: Path, quick: bool, cache: str = "", program: str = __file__) -> Any:
    command = [sys.executable, program, name, "--side", side, "--folder", str(folder)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "DIFFSCOPE_CACHE_DIR": cache or f"{folder}/cache"}
    command += ["--quick"] if quick else []
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{name}, {side}: {done.stderr.strip()[-2000:]}")
    return json.loads(done.stdout)


def run_case(run: Callable[[Case, Path, bool], Iterator[None]], name: str, folder: Path, quick: bool) -> dict[str, Any]:
    return run_steps(run(CASES[name], folder, quick))


def run_steps(steps: Iterator[None]) -> dict[str, Any]:
    import torch

    torch.set_num_threads(1)
    next(steps)  # imports and loading
    resident, before = _resident(), _cpu()
    start = time.perf_counter()
    for _ in steps:
        pass
    return {"cpu": _cpu() - before, "wall": time.perf_counter() - start, "memory": _peak() - resident}


def ours(case: Case, folder: Path, quick: bool) -> Iterator[None]:
    import diffscope
    from diffscope import api
    from diffscope.allocation import keep_large_blocks

    keep_large_blocks()  # as the program does
    checkpoints, images = sorted(map(str, folder.glob("*.safetensors"))), str(folder / "images")
    options: dict[str, Any] = {
        "layer": (case.layer_of(quick),), "sigma": case.levels, "precision": case.precision, "workers": 0,
    }  # fmt: skip
    vae: dict[str, Any] = {"vae": str(folder / "vae")} if case.latent else {}
    api.load(checkpoints[0])
    yield
    if case.checkpoints > 1:
        diffscope.track(checkpoints, images, **options)
    elif case.images < 4 * 64:  # too few for a wide layer's covariance: all but the numbers at the end
        moments(checkpoints[0], images, options, vae)
    else:
        diffscope.sweep(checkpoints[0], images, **options)
    yield


def moments(checkpoint: str, images: str, options: dict[str, Any], vae: dict[str, Any]) -> dict[str, float]:
    """The blocks of a sweep, without what is read from them; its CPU time, and that of the network alone."""
    from diffscope.extraction import Batch, Extractor, Inputs
    from diffscope.measure.opening import open_images, open_job
    from diffscope.moments import BlockAccumulator
    from diffscope.options.settings import Loading, Settings

    spent = 0.0

    class Timed(Extractor):
        def _walk(self, batch: Batch, sigma: float) -> Any:
            nonlocal spent
            start = time.process_time()
            found = super()._walk(batch, sigma)
            spent += time.process_time() - start
            return found

    settings = Settings(**options)
    job = open_job(checkpoint, open_images(settings, images), settings, Loading(**vae))
    start = time.process_time()
    extractor = Timed(job.denoiser, Inputs(job.source, job.plan), job.plan)
    for number in range(job.blocks):
        sums = [BlockAccumulator(2, job.plan.width(job.plan.layers[0])) for _ in job.levels]
        for features in extractor.run(job.block(number).tolist()):
            sums[features.level].update(features.z)
        for accumulator in sums:
            accumulator.finish().to_arrays()
    return {"cpu": time.process_time() - start, "network": spent}


# Shares of the machine's limit


def share(name: str, repeats: int, quick: bool) -> None:
    network, small, *_, target = SHARES[name]
    with tempfile.TemporaryDirectory() as folder:
        write_checkpoint(Path(folder) / "0000.safetensors", small if quick else network)
        found = [in_a_process("share", name, Path(folder), quick) for _ in range(repeats)]
    walks, limits = ([each[key] / 1e9 for each in found] for key in ("walk", "limit"))
    shares = [walk / limit for walk, limit in zip(walks, limits, strict=True)]
    print(
        f"{name:<16} {median(walks):>21.0f} {median(limits):>14.0f} {median(shares):>7.2f}"
        f"   ({min(shares):.2f}–{max(shares):.2f})   {target:>6.2f}",
        flush=True,
    )


def share_once(name: str, folder: Path, quick: bool) -> dict[str, float]:
    import torch

    from diffscope import api
    from diffscope.allocation import keep_large_blocks
    from diffscope.studies.bench.machine_limit import conv_limit, linear_limit
    from diffscope.studies.bench.walk_rate import walk_rate

    torch.set_num_threads(1)
    keep_large_blocks()
    _network, small, layer, precision, batch, _target = SHARES[name]
    _, denoiser = api.load(str(folder / "0000.safetensors"))
    limit = linear_limit if "sit" in name else conv_limit
    seconds = 0.2 if quick else 4.0
    layer = layer if not quick else "blocks.1" if "depth" in small else "enc.8x8_block0"
    limits, walks = [], []
    for _ in range(1 if quick else 3):
        limits.append(limit(precision, seconds=seconds))
        walks.append(walk_rate(denoiser, layer, batch, precision, seconds=2 * seconds).flops_per_second)
    return {"walk": max(walks), "limit": max(limits)}


# What is not the network, memory, and growth


def outside(repeats: int, quick: bool) -> None:
    """Of the full-size sweep's CPU time, at most 2 %."""
    with tempfile.TemporaryDirectory() as folder:
        prepare(CASES["full-fp32"], Path(folder), quick)
        found = [in_a_process("outside", "full-fp32", Path(folder), quick) for _ in range(repeats)]
    shares = [100 * (1 - each["network"] / each["cpu"]) for each in found]
    print(f"outside the network, full size: {median(shares):.2f} % ({min(shares):.2f}–{max(shares):.2f}); target 2 %")


def outside_once(name: str, folder: Path, quick: bool) -> dict[str, float]:
    import torch

    from diffscope.allocation import keep_large_blocks

    torch.set_num_threads(1)
    keep_large_blocks()
    case = CASES[name]
    options = {"layer": (case.layer_of(quick),), "sigma": case.levels, "workers": 0}
    return moments(str(folder / "0000.safetensors"), str(folder / "images"), options, {})


def memory(repeats: int, quick: bool) -> None:
    """Peak beyond the loaded model, full size, 12 levels, one layer: at most 600 MB."""
    with tempfile.TemporaryDirectory() as folder:
        prepare(CASES["full-fp32"], Path(folder), quick)
        found = in_a_process("memory", "full-fp32", Path(folder), quick)
    print(f"memory beyond the loaded model, full size, 12 levels: {found['memory']:.0f} MB; target 600 MB")


def memory_once(name: str, folder: Path, quick: bool) -> dict[str, float]:
    import torch

    from diffscope import api
    from diffscope.allocation import keep_large_blocks

    torch.set_num_threads(1)
    keep_large_blocks()
    case = CASES[name]
    checkpoint = str(folder / "0000.safetensors")
    api.load(checkpoint)
    resident = _resident()
    options = {"layer": (case.layer_of(quick),), "sigma": TWELVE_LEVELS, "workers": 0}
    moments(checkpoint, str(folder / "images"), options, {})
    return {"memory": _peak() - resident}


def images(repeats: int, quick: bool) -> None:
    """Time linear in images, memory not growing with them."""
    with tempfile.TemporaryDirectory() as folder:
        write_checkpoint(Path(folder) / "0000.safetensors", SMALL_UNET if quick else DEMO_UNET)
        counts = (100, 200) if quick else (1000, 4000, 16000)
        write_pictures(Path(folder) / "images", counts[-1])
        for count in counts:
            found = in_a_process(f"sweep-{count}", "demo-fp32", Path(folder), quick, f"{folder}/cache{count}")
            print(
                f"{count:>6} images: {found['cpu']:.1f} s, {1000 * found['cpu'] / count:.2f} ms an image, "
                f"{found['memory']:.0f} MB beyond the model",
                flush=True,
            )


def sweep_once(count: int, folder: Path) -> dict[str, float]:
    import torch

    import diffscope
    from diffscope import api
    from diffscope.allocation import keep_large_blocks

    torch.set_num_threads(1)
    keep_large_blocks()
    checkpoint = str(folder / "0000.safetensors")
    api.load(checkpoint)
    resident, before = _resident(), _cpu()
    options: dict[str, Any] = {"layer": ("mid",), "sigma": (0.1, 1.0), "num_images": count, "workers": 0}
    diffscope.sweep(checkpoint, str(folder / "images"), **options)
    return {"cpu": _cpu() - before, "memory": _peak() - resident}


def width(repeats: int, quick: bool) -> None:
    """What is read from the moments, by channels: the whole row, and ICR with its interval alone."""
    found = in_a_process("width", "demo-fp32", Path(tempfile.gettempdir()), quick)
    for d, row, alone in found:
        print(f"d = {d:>5}: a row of all metrics {row:.2f} s, ICR with its interval {alone:.2f} s", flush=True)


def width_once(quick: bool) -> list[tuple[int, float, float]]:
    import numpy as np
    import torch

    from diffscope.metrics.base import Context, measure_all
    from diffscope.metrics.icr import estimate
    from diffscope.moments import BlockAccumulator, Moments
    from diffscope.numerics import threads_for

    torch.set_num_threads(1)
    found = []
    for d in (16, 32) if quick else (64, 256, 512, 1152):
        rng = np.random.default_rng(d)
        blocks = []
        for _ in range(16):
            accumulator = BlockAccumulator(2, d)
            for _ in range(4):
                z = rng.standard_normal((max(8, d // 12), 1, d)) + rng.standard_normal((max(8, d // 12), 2, d))
                accumulator.update(torch.from_numpy(z))
            blocks.append(accumulator.finish())
        start = time.process_time()
        measure_all(Moments.from_blocks(blocks), Context())
        middle = time.process_time()
        with threads_for(d):
            estimate(Moments.from_blocks(blocks))
        found.append((d, middle - start, time.process_time() - middle))
    return found


def track_overhead(repeats: int, quick: bool) -> None:
    """`track` over 50 checkpoints: what comes beside the passes, decoding and views, hashing and numbers included."""
    with tempfile.TemporaryDirectory() as folder:
        count, images = (2, 100) if quick else (50, 1000)
        for number in range(count):
            write_checkpoint(Path(folder) / f"{number:04d}.safetensors", SMALL_UNET if quick else DEMO_UNET, number)
        write_pictures(Path(folder) / "images", images)
        found = in_a_process("track", "demo-fp32", Path(folder), quick)
    beside = found["cpu"] - found["network"]
    print(
        f"track, {count} checkpoints, {images} images, demo-sized network: {found['cpu']:.1f} s, of which "
        f"{100 * beside / found['cpu']:.1f} % beside the passes ({1000 * beside / count:.0f} ms a checkpoint); "
        "target 5 %"
    )


def track_once(folder: Path, quick: bool) -> dict[str, float]:
    import torch

    import diffscope
    from diffscope import api
    from diffscope.allocation import keep_large_blocks
    from diffscope.extraction import Batch, Extractor

    torch.set_num_threads(1)
    keep_large_blocks()
    checkpoints = sorted(map(str, folder.glob("*.safetensors")))
    api.load(checkpoints[0])
    spent, walk = 0.0, Extractor._walk

    def timed(self: Extractor, batch: Batch, sigma: float) -> Any:
        nonlocal spent
        start = time.thread_time()
        found = walk(self, batch, sigma)
        spent += time.thread_time() - start
        return found

    Extractor._walk = timed  # type: ignore[method-assign]
    before = _cpu()
    diffscope.track(checkpoints, str(folder / "images"), sigma=0.3, layer=("mid",), workers=0)
    return {"cpu": _cpu() - before, "network": spent}


SIDES: dict[str, Callable[[str, Path, bool], Any]] = {
    "naive": lambda name, folder, quick: run_case(naive, name, folder, quick),
    "ours": lambda name, folder, quick: run_case(ours, name, folder, quick),
    "share": share_once,
    "outside": outside_once,
    "memory": memory_once,
    "width": lambda name, folder, quick: width_once(quick),
    "track": lambda name, folder, quick: track_once(folder, quick),
    **{
        f"sweep-{count}": lambda name, folder, quick, count=count: sweep_once(count, folder)  # type: ignore[misc]
        for count in (100, 200, 1000, 4000, 16000)
    },
}


def _cpu() -> float:
    """Of this process and its children that have ended."""
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def _peak() -> float:
    """MB of memory at most, so far: of this program alone, where getrusage would count its parent's before it began."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 / 1e6 for line in file if line.startswith("VmHWM"))


def _resident() -> float:
    """MB."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


if __name__ == "__main__":
    main()
