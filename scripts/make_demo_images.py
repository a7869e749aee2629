"""Write diffscope/demo/images.zip: 2,000 test images of Fashion-MNIST at 16×16 in EDM's dataset layout, with classes.

    python scripts/make_demo_images.py

The images are those that the demo models were not trained on; the file is the same bytes at every run.
"""

from __future__ import annotations

import argparse
import io
import json
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image
from train_demo import DEMO
from training import fashion

COUNT = 2000
NAMES = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]
"""Of its classes: https://github.com/zalandoresearch/fashion-mnist#labels."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", type=Path, default=DEMO, help="folder to write into")
    path = parser.parse_args().to / "images.zip"
    images, labels = fashion("t10k")
    chosen = np.sort(np.random.default_rng(0).permutation(len(images))[:COUNT])
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        table = []
        for number, index in enumerate(chosen):
            name = f"{number // 1000:05d}/img{number:08d}.png"
            png = io.BytesIO()
            Image.fromarray(images[index]).save(png, "PNG", optimize=True)
            archive.writestr(zipfile.ZipInfo(name), png.getvalue())
            table.append([name, int(labels[index])])
        archive.writestr(zipfile.ZipInfo("dataset.json"), json.dumps({"labels": table, "class_names": NAMES}))
    print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
