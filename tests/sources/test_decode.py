"""Decoding and fitting: what each kind of picture looks like to the network."""

import json
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from picture_files import GREY, RGB, pixels, saved
from PIL import Image
from safetensors.numpy import load_file

from diffscope.errors import DataError
from diffscope.sources._decode import decode
from diffscope.sources.base import Target

GOLDEN = Path(__file__).parents[1] / "data" / "sit" / "center_crop"


@pytest.mark.parametrize("case", sorted(json.loads(GOLDEN.with_suffix(".json").read_text())["cases"]))
def test_adm_crop_against_the_original(case: str) -> None:
    golden = load_file(GOLDEN.with_suffix(".safetensors"))
    ours = decode(saved(Image.fromarray(golden[f"{case}/in"]), "PNG"), case, Target(32, 3, "adm"))
    difference = np.abs(ours.transpose(1, 2, 0).astype(int) - golden[f"{case}/out"])
    assert difference.max() <= 1  # Pillow's own rounding has changed by one between versions


def test_lanczos_crop_takes_the_central_square() -> None:
    picture = pixels(0, 40, 61, 3)
    ours = decode(saved(Image.fromarray(picture), "PNG"), "picture", RGB)
    square = Image.fromarray(picture[:, 10:50]).resize((16, 16), Image.Resampling.LANCZOS)
    assert np.array_equal(ours, np.array(square).transpose(2, 0, 1))


def test_bilinear_resizes_the_shorter_side_and_then_cuts() -> None:
    """As torchvision rounds: 16 · 61 / 40 = 24.4 becomes 24, of which 4 are cut on either side."""
    picture = pixels(0, 40, 61, 3)
    ours = decode(saved(Image.fromarray(picture), "PNG"), "picture", Target(16, 3, "bilinear"))
    resized = Image.fromarray(picture).resize((24, 16), Image.Resampling.BILINEAR)
    assert np.array_equal(ours, np.array(resized)[:, 4:20].transpose(2, 0, 1))
    line = saved(Image.fromarray(pixels(0, 2, 4000, 3)), "PNG")
    with pytest.raises(DataError, match="would be stretched to 512000 × 256"):
        decode(line, "line", Target(256, 3, "bilinear"), max_pixels=10_000_000)


@pytest.mark.parametrize("resize", ["lanczos", "adm", "bilinear"])
def test_a_picture_that_fits_is_untouched(resize: Literal["lanczos", "adm", "bilinear"]) -> None:
    picture = pixels(0)
    target = Target(16, 3, resize)
    assert np.array_equal(decode(saved(Image.fromarray(picture), "PNG"), "picture", target), picture.transpose(2, 0, 1))


@pytest.mark.parametrize(("orientation", "quarter_turns"), [(3, 2), (6, 3), (8, 1)])
@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_exif_orientation_is_applied(orientation: int, quarter_turns: int, form: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = pixels(0)
    ours = decode(saved(Image.fromarray(picture), form, exif=exif), "picture", RGB)
    assert np.array_equal(ours, np.rot90(picture, quarter_turns).transpose(2, 0, 1))


def test_grey_and_coloured_fit_either_network() -> None:
    grey = pixels(0, 16, 16)
    as_colour = decode(saved(Image.fromarray(grey), "PNG"), "grey", RGB)
    assert np.array_equal(as_colour, np.stack([grey] * 3))
    assert np.array_equal(decode(saved(Image.fromarray(grey), "PNG"), "grey", GREY), grey[None])
    colour = pixels(1)
    as_grey = decode(saved(Image.fromarray(colour), "PNG"), "colour", GREY)
    # "L" rounds to the nearest level.
    assert np.abs(as_grey[0] - colour @ [0.299, 0.587, 0.114]).max() <= 0.51


@pytest.mark.parametrize(("form", "tolerance"), [("TIFF", 0), ("JPEG", 3)])  # JPEG loses a few levels
def test_cmyk(form: str, tolerance: int) -> None:
    red = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    ours = decode(saved(red, form), "red", RGB).astype(int)
    assert np.abs(ours - np.array([255, 0, 0])[:, None, None]).max() <= tolerance


@pytest.mark.parametrize(("form", "stored"), [("PNG", np.uint16), ("TIFF", np.uint16), ("PPM", np.int32)])
def test_sixteen_bit_grey_is_scaled_not_clipped(form: str, stored: type) -> None:
    values = np.linspace(0, 65535, 256).round().reshape(16, 16)
    ours = decode(saved(Image.fromarray(values.astype(stored)), form), "ramp", GREY)
    assert np.array_equal(ours[0], np.arange(256).reshape(16, 16))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_lies_over_white(mode: str) -> None:
    if mode == "P":
        picture = Image.new("P", (16, 16), 0)
        picture.putpalette([10, 20, 30, 40, 50, 60])
        data, expected = saved(picture, "PNG", transparency=0), [255, 255, 255]
    else:
        colour = {"RGBA": (100, 0, 200, 51), "LA": (100, 51)}[mode]
        data = saved(Image.new(mode, (16, 16), colour), "PNG")
        # 51/255 is a fifth: 255 - (255 - v)/5
        expected = [224, 204, 244] if mode == "RGBA" else [224] * 3
    assert decode(data, "picture", RGB)[:, 0, 0].tolist() == expected


def test_an_opaque_palette_and_black_and_white() -> None:
    palette = Image.new("P", (16, 16), 1)
    palette.putpalette([10, 20, 30, 40, 50, 60])
    assert decode(saved(palette, "PNG"), "palette", RGB)[:, 0, 0].tolist() == [40, 50, 60]
    assert decode(saved(Image.new("1", (16, 16), 1), "PNG"), "one bit", RGB)[:, 0, 0].tolist() == [255] * 3


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM"])
def test_every_promised_format_is_read(form: str) -> None:
    assert decode(saved(Image.fromarray(pixels(0)), form), form, RGB).shape == (3, 16, 16)


def test_a_decompression_bomb_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(DataError, match="more pixels than Pillow admits"):
        decode(saved(Image.fromarray(pixels(0)), "PNG"), "bomb", RGB)


def test_float_pictures_and_odd_channel_counts_are_refused() -> None:
    floating = saved(Image.fromarray(np.zeros((16, 16), np.float32)), "TIFF")
    with pytest.raises(DataError, match=r"Cannot read heights\.tif: .*floats of unknown range"):
        decode(floating, "heights.tif", RGB)
    with pytest.raises(DataError, match="takes 4"):
        decode(saved(Image.fromarray(pixels(0)), "PNG"), "picture", Target(16, 4))
