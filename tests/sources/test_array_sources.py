"""Arrays, latents and generated images."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from picture_files import RGB, pixels

from diffscope.errors import DataError, UsageError
from diffscope.sources.arrays import ArraySource
from diffscope.sources.base import Target, open_source
from diffscope.sources.latents import LatentSource


def savez(path: Path, arrays: dict[str, Any]) -> None:
    np.savez(path, **arrays)


@pytest.mark.parametrize(("images", "labels"), [("x", "y"), ("arr_0", "arr_1"), ("images", "labels")])
def test_npz_under_each_spelling(tmp_path: Path, images: str, labels: str) -> None:
    stored = pixels(0, 3, 16, 16, 3)
    savez(tmp_path / "a.npz", {images: stored, labels: np.array([[4], [0], [2]])})
    source = open_source(str(tmp_path / "a.npz"))
    assert source.labels is not None
    assert source.labels.tolist() == [4, 0, 2]
    assert np.array_equal(source.read(2, RGB), stored[2].transpose(2, 0, 1))


@pytest.mark.parametrize("shape", [(3, 16, 16), (3, 16, 16, 1), (3, 16, 16, 3), (3, 16, 16, 4)])
def test_npy_is_memory_mapped(tmp_path: Path, shape: tuple[int, ...]) -> None:
    stored = pixels(0, *shape)
    if shape[-1] == 4:
        stored[..., 3] = 255
    np.save(tmp_path / "a.npy", stored)
    source = open_source(str(tmp_path / "a.npy"))
    assert source.labels is None
    assert isinstance(source, ArraySource)
    assert isinstance(source._images, np.memmap)
    expected = stored[1] if stored.ndim == 3 else stored[1, ..., 0] if shape[-1] == 1 else stored[1, ..., :3]
    expected = np.stack([expected] * 3) if expected.ndim == 2 else expected.transpose(2, 0, 1)
    assert np.array_equal(source.read(1, RGB), expected)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 8, 8, 3), np.float32), r"float32 \[2, 8, 8, 3\]\. Expected uint8"),
        (np.zeros((2, 3, 8, 8), np.uint8), "move the channels last"),
        (np.zeros((2, 8, 8, 5), np.uint8), "C of 1, 3 or 4"),
        (np.zeros((8, 8), np.uint8), "C of 1, 3 or 4"),
        (np.zeros((0, 8, 8, 3), np.uint8), "No images in"),
        (np.array([{}, {}], dtype=object), "pickled objects, which are never loaded"),
    ],
)
@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_arrays_of_anything_else_are_refused(tmp_path: Path, array: np.ndarray, message: str, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    np.save(path, array) if suffix == ".npy" else np.savez(path, x=array)
    with pytest.raises(DataError, match=message):
        open_source(str(path))


def test_npz_without_images_or_with_too_few_labels_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", mu=np.zeros(3), sigma=np.zeros(3))
    with pytest.raises(DataError, match=r"has mu, sigma\. Expected images as x, arr_0, images"):
        open_source(str(tmp_path / "a.npz"))
    np.savez(tmp_path / "b.npz", x=pixels(0, 3, 8, 8, 3), y=np.arange(2))
    with pytest.raises(DataError, match=r"labels \[2\] for 3 images"):
        open_source(str(tmp_path / "b.npz"))


def test_latents_are_mean_and_std_unscaled(tmp_path: Path) -> None:
    mean = np.random.default_rng(0).standard_normal((3, 4, 8, 8)).astype(np.float16)
    np.savez(tmp_path / "with.npz", mean=mean, std=mean**2)
    np.savez(tmp_path / "without.npz", mean=mean)
    known, unknown = (open_source(str(tmp_path / name)) for name in ("with.npz", "without.npz"))
    assert isinstance(known, LatentSource)
    assert isinstance(unknown, LatentSource)
    assert (known.kind, known.has_std, unknown.has_std) == ("latents", True, False)
    assert np.array_equal(known.read(1, RGB), np.stack([mean[1], mean[1] ** 2]).astype(np.float32))
    assert np.array_equal(unknown.read(1, RGB), np.stack([mean[1], 0 * mean[1]]).astype(np.float32))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"mean": np.zeros((2, 8, 8))}, r"float64 \[2, 8, 8\] as mean\. Expected floats \[N, C, h, w\]"),
        ({"mean": np.zeros((2, 4, 8, 8), int)}, "Expected floats"),
        ({"mean": np.zeros((2, 4, 8, 8)), "std": np.zeros((2, 4))}, r"\[2, 4\] as std"),
    ],
)
def test_other_latents_are_refused(tmp_path: Path, arrays: dict[str, np.ndarray], message: str) -> None:
    savez(tmp_path / "a.npz", arrays)
    with pytest.raises(DataError, match=message):
        open_source(str(tmp_path / "a.npz"))


def test_a_latent_that_is_not_finite_is_named(tmp_path: Path) -> None:
    mean = np.zeros((2, 4, 8, 8))
    mean[1, 0, 0, 0] = np.nan
    np.savez(tmp_path / "a.npz", mean=mean)
    source = open_source(str(tmp_path / "a.npz"))
    source.read(0, RGB)
    with pytest.raises(DataError, match="Latent 1"):
        source.read(1, RGB)


def test_generated_images_have_the_spectrum_they_claim() -> None:
    source = open_source("synthetic:count=4000,seed=1")
    target = Target(side=3, channels=2)
    images = np.stack([source.read(index, target).ravel() for index in range(len(source))]).astype(np.float64)
    # Variance estimated from n normals has relative standard deviation √(2/n) = 0.022.
    assert np.abs(images.var(axis=0) * np.arange(1, 19) - 1).max() < 0.1
    assert np.abs(np.corrcoef(images.T) - np.eye(18)).max() < 0.08  # 1/√4000 = 0.016
    assert not np.array_equal(open_source("synthetic:seed=2").read(0, target), source.read(0, target))


@pytest.mark.parametrize("path", ["synthetic:cout=5", "synthetic:count=0", "synthetic:count=x", "synthetic:5"])
def test_misspelt_generated_sources_are_wrong_usage(path: str) -> None:
    with pytest.raises(UsageError, match="synthetic:"):
        open_source(path)
