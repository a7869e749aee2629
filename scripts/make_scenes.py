"""Compose scenes of Fashion-MNIST garments with exact masks: a labelled task for `diffscope probe --masks`.

    python scripts/make_scenes.py --to scenes                        # 600 scenes of garments that no training saw
    python scripts/make_scenes.py --to runs/scenes --part train --scenes 20000 --array

A scene is 32×32 grey pixels: a background of one smooth slope, and 2 to 4 garments of 13 to 20 pixels, later ones over
earlier ones. Masks count 0 background, then 1 + the garment's class; a garment's pixels are those that its silhouette
(all that is not black, holes filled) covers by at least half. Written are TO/images/NNNNN.png, TO/masks/NNNNN.png and
TO/masks/classes.txt; with --array TO/images.npz instead of the pictures, as the training script takes them.

Data: Debian's package dataset-fashion-mnist (MIT).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import binary_fill_holes
from training import garments

CLASSES = (
    "background", "T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag",
    "ankle boot",
)  # fmt: skip
SIDE = 32
GARMENTS = (2, 4)
SIZES = (13, 20)
BACKGROUND = (20, 110)
"""Of its corners, in grey levels: garments may be darker or lighter."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", type=Path, required=True)
    parser.add_argument("--part", choices=("train", "t10k"), default="t10k", help="whose garments (default: t10k)")
    parser.add_argument("--scenes", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--array", action="store_true", help="one images.npz in place of pictures")
    arguments = parser.parse_args()
    scenes = made(arguments.part, arguments.scenes, arguments.seed)
    arguments.to.mkdir(parents=True, exist_ok=True)
    masks = arguments.to / "masks"
    masks.mkdir(exist_ok=True)
    (masks / "classes.txt").write_text("".join(f"{name}\n" for name in CLASSES))
    pictures = arguments.to / "images"
    for number, (image, mask) in enumerate(zip(*scenes, strict=True)):
        name = f"{number:08d}.png"  # as diffscope calls the images of an array
        Image.fromarray(mask).save(masks / name)
        if not arguments.array:
            pictures.mkdir(exist_ok=True)
            Image.fromarray(image).save(pictures / name)
    if arguments.array:
        np.savez_compressed(arguments.to / "images.npz", images=scenes[0][..., None])


def made(part: str, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Scenes and masks, uint8 [N, 32, 32]; scene number n is the same in a longer series."""
    images, labels = garments(part)
    scenes = np.empty((count, SIDE, SIDE), np.uint8)
    masks = np.empty((count, SIDE, SIDE), np.uint8)
    for number in range(count):
        scenes[number], masks[number] = _scene(images, labels, np.random.default_rng([seed, number]))
    return scenes, masks


def _scene(images: np.ndarray, labels: np.ndarray, draws: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    scene, mask = _background(draws), np.zeros((SIDE, SIDE), np.uint8)
    for _ in range(draws.integers(GARMENTS[0], GARMENTS[1] + 1)):
        chosen = int(draws.integers(len(images)))
        size = int(draws.integers(SIZES[0], SIZES[1] + 1))
        top, left = draws.integers(0, SIDE - size + 1, 2)
        grey, covered = _fitted(images[chosen], size)
        there = (slice(top, top + size), slice(left, left + size))
        scene[there][covered] = grey[covered]
        mask[there][covered] = 1 + labels[chosen]
    return np.round(scene).astype(np.uint8), mask


def _background(draws: np.random.Generator) -> np.ndarray:
    corners = draws.uniform(*BACKGROUND, (2, 2))
    along = np.linspace(0, 1, SIDE)
    weights = np.stack([1 - along, along])
    return np.asarray(np.einsum("iy,ij,jx->yx", weights, corners, weights))


def _fitted(garment: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Grey levels float32 [size, size] of a garment uint8 [28, 28], and which pixels it covers."""
    silhouette = binary_fill_holes(garment > 0).astype(np.float32)
    share, grey = (_resized(part, size) for part in (silhouette, garment * silhouette))
    return grey / np.maximum(share, 1e-3), share >= 0.5


def _resized(picture: np.ndarray, size: int) -> np.ndarray:
    return np.asarray(Image.fromarray(picture.astype(np.float32)).resize((size, size), Image.Resampling.BOX))


if __name__ == "__main__":
    main()
