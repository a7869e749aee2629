"""`--data-range LOW,HIGH`: arrays of floats and uint16, which do not say themselves what is black and what is white."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import EDM, diffscope
from numpy.typing import NDArray
from picture_files import GREY, RGB, pixels

from diffscope.errors import DataError
from diffscope.options.settings import AUGMENTATIONS
from diffscope.sources import arrays
from diffscope.sources.arrays import AT_ONCE
from diffscope.sources.base import Source, Target, open_source
from diffscope.views import Augmentation, augmented_view

LEVELS = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
FORMS: dict[str, tuple[Any, tuple[float, float]]] = {
    "float32": (lambda x: (x / 255).astype(np.float32), (0, 1)),
    "float64": (lambda x: x / 255, (0, 1)),
    "big-endian": (lambda x: (x / 255).astype(">f4"), (0, 1)),
    "about 0": (lambda x: x / 127.5 - 1, (-1, 1)),
    "uint16": (lambda x: x.astype(np.uint16) * 257, (0, 65535)),
}


def source_of(images: NDArray[Any], *data_range: float) -> Source:
    return arrays.in_memory(images, data_range)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("target", [RGB, GREY, Target(16, 3, "adm"), Target(16, 3, "bilinear")])
def test_floats_that_were_uint8_give_its_very_numbers(form: str, target: Target) -> None:
    make, data_range = FORMS[form]
    eight, floats = source_of(LEVELS), source_of(make(LEVELS), *data_range)
    read = floats.read(0, target)
    assert (read.dtype, floats.kind, floats.are_pictures, eight.are_pictures) == (np.float32, "floats", True, True)
    views = [
        augmented_view(torch.from_numpy(np.array(x))[None], [0], 0, Augmentation("none"), 0)
        for x in (eight.read(0, target), read)
    ]
    assert torch.equal(*views)
    assert np.array_equal(floats.picture(0, target), eight.picture(0, target))


@pytest.mark.parametrize("name", AUGMENTATIONS)
@pytest.mark.parametrize("channels", [1, 3])
def test_views_of_floats_are_those_of_uint8(name: str, channels: int) -> None:
    images = pixels(0, 8, 16, 16, channels)
    target, augmentation = Target(16, channels), Augmentation(name)
    eight, floats = source_of(images), source_of((images / 255).astype(np.float32), 0, 1)
    batches = [torch.from_numpy(np.stack([s.read(i, target) for i in range(8)])) for s in (eight, floats)]
    first, second = (augmented_view(x, range(8), 1, augmentation, 0, pictures=True) for x in batches)
    # A float32 in [-1, 1] is off by 2^-25, which contrast and saturation stretch by 1.4 each; and a few roundings.
    assert (first - second).abs().max() <= 1e-6


def test_a_figure_is_that_of_uint8(tmp_path: Path) -> None:
    images = pixels(0, 80, 8, 8, 1)
    np.savez(tmp_path / "eight.npz", x=images)
    np.savez(tmp_path / "floats.npz", x=(images / 255).astype(np.float32))
    command = ("icr", "toy:d=4,side=8", "--sigma", "0.3", "--json")
    eight = diffscope(*command, "--augment", "none", "--data", tmp_path / "eight.npz").json
    floats = ("--data", tmp_path / "floats.npz", "--data-range", "0,1")
    ran = diffscope(*command, "--augment", "none", *floats)
    assert ran.json["rows"][0]["icr"] == eight["rows"][0]["icr"]
    assert ran.json["protocol"]["data_range"] == [0, 1]
    assert "data_range" not in eight["protocol"]


def test_nothing_is_rounded_to_eight_bits() -> None:
    ramp = np.linspace(0, 1, 4096, dtype=np.float64).reshape(1, 64, 64)
    read = source_of(ramp, 0, 1).read(0, Target(64, 1))
    assert np.abs(read[0] - (2 * ramp[0] - 1)).max() < 1.2e-7  # two roundings of float32
    assert len(np.unique(read)) > 4000


@pytest.mark.parametrize("resize", ["lanczos", "adm", "bilinear"])
@pytest.mark.parametrize("side", [8, 24])
def test_resizing_and_grey_are_those_of_pictures_but_for_their_rounding(resize: Any, side: int) -> None:
    images = 64 + pixels(3, 1, 16, 20, 3) // 2  # none that Lanczos or a cubic takes beyond black or white
    for channels in (1, 3):
        target = Target(side, channels, resize)
        eight = source_of(images).read(0, target).astype(np.float64)
        floats = (source_of(images / 255, 0, 1).read(0, target) + 1) * 127.5
        # Pillow rounds to whole grey levels after each direction, and after the change to grey.
        assert np.abs(eight - floats).max() < 2.5
        assert floats.min() >= 0
        assert floats.max() <= 255.0001


def refused(images: NDArray[Any], *data_range: float) -> str:
    with pytest.raises(DataError) as caught:
        source_of(images, *data_range)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_lies_outside_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.linspace(-0.25, 1.5, 5 * 8 * 8).reshape(5, 8, 8)
    images[:2] = images[:2].clip(0)
    for at_once in (AT_ONCE, 1):
        monkeypatch.setattr(arrays, "AT_ONCE", at_once)
        found = refused(images, 0, 1)
        assert "`data_range=0,1`: the numbers of array span 0 to 1.5, and one lies outside in image 3." in found
        assert source_of(images, 0, 1.5).kind == "floats"
        whole = images.copy()
        whole[1, 2, 3] = np.nan
        assert "span 0 to 1.5, and one is NaN in image 1" in refused(whole, 0, 1.5)
        whole[1, 2, 3] = -np.inf
        assert "span -inf to 1.5, and one lies outside in image 1" in refused(whole, 0, 1.5)


def test_what_needs_no_range_and_what_lacks_one() -> None:
    floats = np.zeros((2, 8, 8, 3), np.float32)
    assert "such as `data_range=0,1` or `data_range=-1,1`" in refused(floats)
    assert "is for arrays of floats or uint16" in refused(pixels(0, 2, 8, 8, 3), 0, 255)
    assert "C of 1 or 3, or uint8 with alpha" in refused(np.zeros((2, 8, 8, 4)), 0, 1)
    assert "Expected uint8" in refused(np.zeros((2, 8, 8, 3), np.int64), 0, 1)
    for path in ("synthetic:count=4", "mixture:count=4"):
        with pytest.raises(DataError, match=r"`data_range=0,1` is for arrays of floats"):
            open_source(path, data_range=(0, 1))


def test_the_range_is_part_of_the_fingerprint() -> None:
    images = pixels(0, 3, 8, 8, 3) / 1000
    assert source_of(images, 0, 1).fingerprint([0]) == source_of(images, 0, 1).fingerprint([0])
    assert source_of(images, 0, 1).fingerprint([0]) != source_of(images, 0, 2).fingerprint([0])


@pytest.mark.parametrize("spelled", ["1,0", "0", "0,1,2", "0,nan", "-inf,0", "0,0", "a,b"])
def test_a_range_that_is_none_is_wrong_usage(spelled: str, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((4, 8, 8, 3), np.float32))
    for command in (("icr", "--sigma", "0.3"), ("memorization",)):
        ran = diffscope(command[0], EDM, "--data", tmp_path / "a.npy", "--data-range", spelled, *command[1:])
        assert (ran.code, ran.err.startswith(f"error: --data-range {spelled}: expected")) == (2, True), ran.err
