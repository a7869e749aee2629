"""Small pictures, written on the spot, for the tests of this folder."""

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from diffscope.sources.base import Target

RGB = Target(side=16, channels=3)
GREY = Target(side=16, channels=1)


def pixels(seed: int = 0, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape or (16, 16, 3), dtype=np.uint8)


def tree(root: Path, names: tuple[str, ...] = ("cat/b.png", "cat/a.png", "dog/a.png", "emu/x/y.png")) -> Path:
    """A folder of small pictures, each its own."""
    for seed, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels(seed)).save(root / name)
    return root


def zipped(folder: Path, file: Path, wrapper: str = "") -> Path:
    with zipfile.ZipFile(file, "w") as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, wrapper + path.relative_to(folder).as_posix())
    return file


def saved(picture: Image.Image, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return buffer.getvalue()
