"""How many samples of each snapshot are copies of training images.

    python scripts/measure_copies.py runs/series/fixture
    python scripts/measure_copies.py runs/series/fixture --samples 64 --grid copies.png

RUN_FOLDER is one of `train_series.py`: images.npz and snapshot-IMAGES.safetensors. From each snapshot the same samples
are drawn (`diffscope.sampling`, one seed for all), cut to [-1, 1] as a picture is, and compared with all training
images by Euclidean distance over their pixels in [-1, 1]. Training flips: an image and its mirror image count as one,
at the smaller of their two distances, and images that agree in every pixel count once.

With d1 the distance of the nearest training image and d2 that of the second nearest, a sample is a copy where
d1/d2 < 1/3, and by a looser measure where d1/d2 < 1/2. The ratio and its third are those of Yoon et al., "Diffusion
Probabilistic Models Generalize when They Fail to Memorize", 2023; mirror images, equal images and the half are ours.
How often that errs: of 1,000 test images that no network has seen, 0, 0 and 1 count as copies of the 64, 128 and 60,000
training images of the three series by the third, 7, 5 and 4 by the half.

The CSV, RUN_FOLDER/copies.csv unless --out says otherwise, has a line a snapshot: shares of copies with their 95 %
interval (Clopper & Pearson 1934, exact for independent samples) and medians of d1 and d1/d2. Lines that are there are
kept and not computed again, so that the same command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy.special import betaincinv

from diffscope.api import load
from diffscope.sampling import sample
from diffscope.store import write_atomically

COLUMNS = (
    "step", "samples", "copies_third", "copies_third_low", "copies_third_high", "copies_half", "copies_half_low",
    "copies_half_high", "median_d1", "median_ratio",
)  # fmt: skip
THIRD, HALF = 1 / 3, 1 / 2
CHUNK = 4096
"""Training images compared at a time: 8 MB in float64 at 16×16, and as much again for every 256 samples."""
Row = dict[str, str]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="RUN_FOLDER")
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--out", type=Path, help="CSV, by default RUN_FOLDER/copies.csv")
    parser.add_argument("--every", type=int, default=1, help="take every so-manieth snapshot, from the first on")
    parser.add_argument("--grid", type=Path, help="PNG: the last snapshot's 16 smallest ratios, sample beside image")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.samples < 1 or arguments.every < 1:
        parser.error("--samples and --every are at least 1")
    snapshots = sorted(arguments.folder.glob("snapshot-*.safetensors"), key=step_of)[:: arguments.every]
    if not snapshots:
        parser.error(f"{arguments.folder}: no snapshot-*.safetensors in it")
    out = arguments.out or arguments.folder / "copies.csv"
    rows = read_rows(out)
    if others := {row["samples"] for row in rows.values()} - {str(arguments.samples)}:
        parser.error(f"{out} holds lines of {', '.join(others)} samples; say --samples so, or another --out")
    training = distinct(np.load(arguments.folder / "images.npz")["images"][..., 0])
    print(f"{len(training)} distinct training images, {len(snapshots)} snapshots", file=sys.stderr)

    for snapshot in snapshots:
        last = arguments.grid and snapshot == snapshots[-1]
        step = step_of(snapshot)
        if step in rows and not last:
            continue
        begin = time.time()
        samples = draw(snapshot, arguments.samples)
        found = nearest(samples, training)
        if step not in rows:
            rows[step] = {"step": str(step), "samples": str(len(samples)), **measures(found)}
            write_rows(out, rows)
        row = rows[step]
        print(
            f"{step}: copies {row['copies_third']} (1/3), {row['copies_half']} (1/2), median ratio "
            f"{row['median_ratio']}, {time.time() - begin:.0f} s",
            file=sys.stderr,
        )
        if last:
            picture(samples, training, found).save(arguments.grid, "PNG")


def step_of(snapshot: Path) -> int:
    return int(snapshot.stem.removeprefix("snapshot-"))


def distinct(images: np.ndarray) -> np.ndarray:
    """uint8 [N, S, S] → those that differ from each other and from each other's mirror image, in their order."""
    flat, mirrored = (np.ascontiguousarray(part).reshape(len(images), -1) for part in (images, images[:, :, ::-1]))
    keys = [min(a.tobytes(), b.tobytes()) for a, b in zip(flat, mirrored, strict=True)]
    first = {key: index for index, key in reversed(list(enumerate(keys)))}
    return images[sorted(first.values())]


def draw(snapshot: Path, count: int) -> np.ndarray:
    """Samples float32 [count, S, S] in [-1, 1]."""
    _, denoiser = load(str(snapshot))
    return torch.cat(list(sample(denoiser, range(count)))).clamp(-1, 1).numpy()[:, 0]


@dataclass(frozen=True)
class Found:
    """The training images nearest to each of n samples."""

    d1: np.ndarray
    """float64 [n], distance of the nearest."""
    d2: np.ndarray
    """float64 [n], distance of the second nearest."""
    image: np.ndarray
    """int64 [n], which is the nearest."""
    mirrored: np.ndarray
    """bool [n], whether its mirror image is the nearer."""

    @property
    def ratio(self) -> np.ndarray:
        """d1/d2, float64 [n] in [0, 1]."""
        return self.d1 / self.d2


def nearest(samples: np.ndarray, training: np.ndarray, chunk: int = CHUNK) -> Found:
    """samples float32 [n, S, S] in [-1, 1]; training uint8 [N, S, S], N at least 2, all distinct."""
    if len(training) < 2:
        raise SystemExit("at least 2 distinct training images are needed, for the ratio of two distances")
    # In float64 a square loses 1e-13 to cancellation in |a - b|² = |a|² + |b|² - 2ab; in float32 copies would drown.
    ours = samples.reshape(len(samples), -1).astype(np.float64)
    square = (ours**2).sum(1)[:, None]
    best = np.full((len(ours), 2), np.inf)
    image = np.zeros(len(ours), np.int64)
    mirrored = np.zeros(len(ours), bool)
    every = np.arange(len(ours))
    for start in range(0, len(training), chunk):
        theirs = training[start : start + chunk].astype(np.float64) / 127.5 - 1
        flips = (theirs.reshape(len(theirs), -1), theirs[:, :, ::-1].reshape(len(theirs), -1))
        plain, flipped = (square + (t**2).sum(1) - 2 * ours @ t.T for t in flips)
        squares = np.minimum(plain, flipped)
        at = squares.argmin(1)
        closer = squares[every, at] < best[:, 0]
        image[closer], mirrored[closer] = start + at[closer], (flipped < plain)[every, at][closer]
        best = np.sort(np.concatenate([best, np.partition(squares, min(1, len(theirs) - 1), 1)[:, :2]], 1), 1)[:, :2]
    d1, d2 = np.sqrt(np.maximum(best, 0)).T
    return Found(d1, d2, image, mirrored)


def measures(found: Found) -> Row:
    """The columns but for the first two."""
    row: Row = {}
    for name, limit in (("copies_third", THIRD), ("copies_half", HALF)):
        copies, count = int((found.ratio < limit).sum()), len(found.ratio)
        low, high = clopper_pearson(copies, count)
        row |= {name: f"{copies / count:.4f}", f"{name}_low": f"{low:.4f}", f"{name}_high": f"{high:.4f}"}
    return {**row, "median_d1": f"{np.median(found.d1):.4f}", "median_ratio": f"{np.median(found.ratio):.4f}"}


def clopper_pearson(hits: int, count: int, level: float = 0.95) -> tuple[float, float]:
    """The interval of a share: its ends leave (1 - level)/2 of the binomial's probability to either side of `hits`."""
    tail = (1 - level) / 2
    low = betaincinv(hits, count - hits + 1, tail) if hits else 0.0
    high = betaincinv(hits + 1, count - hits, 1 - tail) if hits < count else 1.0
    return float(low), float(high)


def read_rows(path: Path) -> dict[int, Row]:
    """Lines of an earlier run by step; none where there is no file."""
    if not path.exists():
        return {}
    with open(path, newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise SystemExit(f"{path}: not a file of this script; say another --out")
        return {int(row["step"]): row for row in reader}


def write_rows(path: Path, rows: dict[int, Row]) -> None:
    def write(part: Path) -> None:
        with open(part, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows[step] for step in sorted(rows))

    write_atomically(path, write)


def picture(samples: np.ndarray, training: np.ndarray, found: Found, columns: int = 4, scale: int = 6) -> Image.Image:
    """The 16 samples of the smallest ratios, smallest first, each left of its nearest training image (as it is nearer:
    mirrored or not); grey between the pairs."""
    chosen = np.argsort(found.ratio, kind="stable")[:16]
    side, gap = samples.shape[1], 2
    lines = -(-len(chosen) // columns)
    height, width = side + gap, 2 * side + gap
    canvas = np.full((lines * height + gap, columns * width + gap), 128, np.uint8)
    for place, n in enumerate(chosen):
        ours = np.round((samples[n] + 1) * 127.5).astype(np.uint8)
        theirs = training[found.image[n]]
        pair = np.concatenate([ours, theirs[:, ::-1] if found.mirrored[n] else theirs], 1)
        top, left = gap + place // columns * height, gap + place % columns * width
        canvas[top : top + side, left : left + 2 * side] = pair
    image = Image.fromarray(canvas)
    return image.resize((scale * image.width, scale * image.height), Image.Resampling.NEAREST)


if __name__ == "__main__":
    main()
