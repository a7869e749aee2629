"""Every script runs, on as little as it takes."""

from __future__ import annotations

import csv
import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import save_file

ROOT = Path(__file__).parents[1]
FASHION = Path("/usr/share/datasets/fashion-mnist")

needs_fashion = pytest.mark.skipif(not FASHION.exists(), reason="the data set's package is not installed")


def run(script: str, *arguments: str, cwd: Path) -> str:
    command = [sys.executable, str(ROOT / "scripts" / script), *arguments]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@needs_fashion
@pytest.mark.parametrize("model", ["unet", "sit"])
def test_training_saves_resumes_and_samples(model: str, tmp_path: Path) -> None:
    runs = str(tmp_path / "runs")
    for _ in range(2):
        run("train_demo.py", model, "--minutes", "0.01", "--runs", runs, cwd=tmp_path)
    run("train_demo.py", model, "--runs", runs, "--samples", "samples.png", cwd=tmp_path)
    assert (tmp_path / "samples.png").stat().st_size > 1000
    run("train_demo.py", model, "--runs", runs, "--export", "--to", str(tmp_path), cwd=tmp_path)
    with safe_open(tmp_path / f"{model}.safetensors", "numpy") as file:
        assert int(file.metadata()["step"]) >= 128  # both runs trained, the second on top of the first


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The fixture's series as far as its first snapshot, which is due after 1,600 images."""
    runs = tmp_path_factory.mktemp("runs")
    seen = [0]
    # The second process gets there, but on a busy machine.
    for minutes in ("0.01", *["0.1"] * 10):
        run("train_series.py", "fixture", "--minutes", minutes, "--runs", str(runs), cwd=runs)
        seen.append(torch.load(runs / "fixture" / "state.pt", weights_only=True)["seen"])
        assert seen[-1] > seen[-2]
        if len(seen) > 2 and seen[-1] > 1600:
            break
    return runs / "fixture"


@needs_fashion
def test_a_series_goes_on_to_its_snapshots(series: Path) -> None:
    first = series / "snapshot-0001600.safetensors"
    with safe_open(first, "numpy") as file:
        assert file.metadata()["step"] == "1600"
        assert file.metadata()["weights"] == "ema"
    assert np.load(series / "images.npz")["images"].shape == (64, 16, 16, 1)
    assert np.load(series.parent / "held-out.npz")["images"].shape == (10_000, 16, 16, 1)


@needs_fashion
def test_copies_are_counted_once_a_snapshot(series: Path, tmp_path: Path) -> None:
    def measured(*more: str) -> list[dict[str, str]]:
        out = tmp_path / "copies.csv"
        run("measure_copies.py", str(series), "--samples", "4", "--out", str(out), *more, cwd=tmp_path)
        with open(out, newline="") as file:
            return list(csv.DictReader(file))

    rows = measured("--grid", "grid.png")
    assert rows[0]["step"] == "1600"
    assert rows[0]["samples"] == "4"
    # A network that has hardly begun draws what is as far from one image as from another.
    assert float(rows[0]["copies_half"]) == 0
    assert 0.7 < float(rows[0]["median_ratio"]) <= 1
    with Image.open(tmp_path / "grid.png") as picture:
        assert picture.size == (6 * (4 * 34 + 2), 6 * (18 + 2))
    kept = (tmp_path / "copies.csv").read_text().replace(rows[0]["median_d1"], "1.2345")
    (tmp_path / "copies.csv").write_text(kept)
    assert measured()[0]["median_d1"] == "1.2345"


@pytest.fixture(scope="module")
def copies() -> ModuleType:
    spec = importlib.util.spec_from_file_location("measure_copies", ROOT / "scripts" / "measure_copies.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look up their annotations
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_nearest_is_what_all_distances_say(copies: ModuleType, chunk: int) -> None:
    rng = np.random.default_rng(0)
    training = rng.integers(0, 256, (7, 4, 4), dtype=np.uint8)
    scaled = (training / 127.5 - 1).astype(np.float32)
    flipped = scaled[:, :, ::-1]
    samples = np.stack([scaled[3], flipped[5], 0.9 * scaled[0], *rng.uniform(-1, 1, (4, 4, 4))]).astype(np.float32)
    found = copies.nearest(samples, training, chunk)
    for n, ours in enumerate(samples.astype(np.float64)):
        plain, mirrored = (np.sqrt(((ours - theirs) ** 2).sum((1, 2))) for theirs in (scaled, flipped))
        both = np.minimum(plain, mirrored)
        assert found.image[n] == both.argmin()
        assert found.mirrored[n] == (mirrored < plain)[both.argmin()]
        # Copies lie at the rounding of their pixels to float32, 16 · 6e-8.
        assert np.allclose((found.d1[n], found.d2[n]), np.sort(both)[:2], atol=1e-6)
    assert list(found.image[:3]) == [3, 5, 0]
    assert list(found.mirrored[:2]) == [False, True]
    assert (found.ratio[:3] < copies.THIRD).all()


def test_equal_and_mirrored_images_count_once(copies: ModuleType) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 4, 4), dtype=np.uint8)
    doubled = np.concatenate([images, images[1:2], images[2:, :, ::-1]])
    assert np.array_equal(copies.distinct(doubled), images)


def test_intervals_of_shares_are_the_exact_ones(copies: ModuleType) -> None:
    # By hand: no hit in n leaves (1 - p)^n = 0.025; and 5 of 10 as tabulated.
    assert copies.clopper_pearson(0, 64) == pytest.approx((0, 1 - 0.025 ** (1 / 64)))
    assert copies.clopper_pearson(64, 64) == pytest.approx((0.025 ** (1 / 64), 1))
    assert copies.clopper_pearson(5, 10) == pytest.approx((0.1871, 0.8129), abs=1e-4)


@needs_fashion
def test_demo_images_are_those_that_ship(tmp_path: Path) -> None:
    run("make_demo_images.py", "--to", str(tmp_path), cwd=tmp_path)
    assert (tmp_path / "images.zip").read_bytes() == (ROOT / "diffscope" / "demo" / "images.zip").read_bytes()


def test_probe_finds_separable_classes_and_no_others(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 400)
    separable = labels[:, None] * 4.0 + rng.standard_normal((400, 3))
    noise = rng.standard_normal((400, 3))
    layer = np.stack([separable, noise])[:, None].astype(np.float32)
    save_file({"a": layer, "sigma": np.array([0.1, 1.0]), "label": labels}, tmp_path / "f.safetensors")
    lines = run("probe_features.py", "f.safetensors", cwd=tmp_path).splitlines()
    scores = [float(line.split(",")[2]) for line in lines[1:]]
    assert scores[0] > 0.95
    assert 0.35 < scores[1] < 0.65
