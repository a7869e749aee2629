"""Views against Pillow, against plain loops, and against the promise that they are functions of their key alone."""

import colorsys
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance

from diffscope import seeding, views
from diffscope.errors import UsageError
from diffscope.options.settings import AUGMENTATIONS
from diffscope.seeding import Stream
from diffscope.views import Augmentation, Draw, augmented_view, view_noise

LEVEL = 1 / 255
"""One step of an 8-bit image, in [0, 1]."""


def pictures(count: int = 5, channels: int = 3, side: int = 32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, channels, side, side), dtype=torch.uint8, generator=generator)


def smooth_picture(side: int = 48) -> np.ndarray:
    """uint8 [side, side, 3]: waves, one direction and frequency for each channel."""
    y, x = np.mgrid[:side, :side] / side
    waves = [np.sin(3 * x + 2 * y), np.cos(5 * x * y), np.sin(4 * y - x)]
    return (127.5 + 127.5 * np.stack(waves, -1)).astype(np.uint8)


def floats(picture: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255


def neutral_draws(**changed: float) -> np.ndarray:
    """One view in which every parameter stands in the middle of its range, but those named."""
    draws = np.full((1, len(Draw)), 0.5)
    for name, value in changed.items():
        draws[0, Draw[name]] = value
    return draws


def test_none_is_the_image_in_data_units() -> None:
    images = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    view = augmented_view(images, [0], 0, Augmentation("none"), seed=0)
    expected = np.arange(256, dtype=np.float32) / np.float32(127.5) - np.float32(1)
    assert view.dtype == torch.float32
    assert np.array_equal(view.numpy().ravel(), expected)


@pytest.mark.parametrize("name", ["crop", "crop+flip"])
@pytest.mark.parametrize("strength", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("side", [28, 32])
def test_crop_and_flip_against_a_plain_loop(name: str, strength: float, side: int) -> None:
    images = pictures(20, side=side)
    view = augmented_view(images, range(20), 1, Augmentation(name, strength), seed=3)
    margin = int(side * strength / 8 + 0.5)
    for index, image in enumerate(images.numpy()):
        uniform = seeding.uniforms(3, Stream.AUGMENT, index, 1, len(Draw))
        padded = np.pad(image, ((0, 0), (margin, margin), (margin, margin)))
        top, left = (int(uniform[which] * (2 * margin + 1)) for which in (Draw.TOP, Draw.LEFT))
        expected = padded[:, top : top + side, left : left + side]
        if "flip" in name and uniform[Draw.FLIP] < 0.5:
            expected = expected[:, :, ::-1]
        assert np.array_equal(view[index].numpy(), expected / np.float32(127.5) - np.float32(1))


# Pillow truncates its result to 8 bits (one level). Contrast and saturation also round the grey that they blend
# with (half a level for "L", half for its mean), which enters with |1 - factor| of at most 0.4.
@pytest.mark.parametrize(
    ("parameter", "enhance", "tolerance"),
    [
        ("BRIGHTNESS", ImageEnhance.Brightness, 1.01),
        ("CONTRAST", ImageEnhance.Contrast, 1.41),
        ("SATURATION", ImageEnhance.Color, 1.21),
    ],
)
@pytest.mark.parametrize("uniform", [0.0, 0.2, 0.5, 0.9])
def test_colours_against_pillow(
    parameter: str, enhance: Callable[[Image.Image], ImageEnhance._Enhance], tolerance: float, uniform: float
) -> None:
    picture = smooth_picture()
    ours = views._jitter(floats(picture), neutral_draws(**{parameter: uniform}), strength=1.0)
    factor = 1 + 0.4 * (2 * uniform - 1)
    theirs = floats(np.array(enhance(Image.fromarray(picture)).enhance(factor)))
    assert (ours - theirs).abs().max() <= tolerance * LEVEL


@pytest.mark.parametrize("uniform", [0.0, 0.3, 0.75])
def test_hue_against_colorsys(uniform: float) -> None:
    picture = floats(smooth_picture(16))
    ours = views._jitter(picture, neutral_draws(HUE=uniform), strength=1.0)
    turn = 0.1 * (2 * uniform - 1)
    for before, after in zip(picture[0].flatten(1).T.tolist(), ours[0].flatten(1).T.tolist(), strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*before)
        # float32 against float64: a few roundings of 6e-8, at hues of up to 6
        assert after == pytest.approx(colorsys.hsv_to_rgb((hue + turn) % 1, saturation, value), abs=2e-6)


@pytest.mark.parametrize("steps", [-25, -7, 0, 13])
def test_hue_against_pillow(steps: int) -> None:
    picture = smooth_picture()
    hsv = np.array(Image.fromarray(picture).convert("HSV"))
    hsv[..., 0] = (hsv[..., 0].astype(int) + steps) % 255  # Pillow's circle has 255 steps
    bands = [Image.fromarray(band) for band in hsv.transpose(2, 0, 1)]
    theirs = floats(np.array(Image.merge("HSV", bands).convert("RGB")))
    ours = views._jitter(floats(picture), neutral_draws(HUE=0.5 + steps / 255 / 0.2), strength=1.0)
    # Hue cut to 1/255 of a turn moves a colour by up to 6 levels; saturation and value add one each.
    assert (ours - theirs).abs().max() <= 8 * LEVEL


def test_jitter_is_brightness_contrast_saturation_hue_in_this_order() -> None:
    whole = {"BRIGHTNESS": 0.9, "CONTRAST": 0.1, "SATURATION": 0.95, "HUE": 0.2}
    pixels = floats(smooth_picture())
    at_once = views._jitter(pixels, neutral_draws(**whole), strength=1.0)
    for parameter, uniform in whole.items():
        pixels = views._jitter(pixels, neutral_draws(**{parameter: uniform}), strength=1.0)
    # Neutral steps in between cost a few float32 roundings, which hue multiplies by up to 6.
    assert torch.allclose(at_once, pixels, atol=5e-6)


def test_grey_images_meet_brightness_and_contrast_as_coloured_ones_do() -> None:
    grey = torch.from_numpy(smooth_picture()[..., :1].transpose(2, 0, 1).copy())[None]
    one = augmented_view(grey, [4], 0, Augmentation(), seed=0)
    three = augmented_view(grey.expand(1, 3, -1, -1), [4], 0, Augmentation(), seed=0)
    # The luma weights sum to 1 up to rounding, and grey has neither saturation nor hue.
    assert torch.allclose(one.expand_as(three), three, atol=1e-6)


@pytest.mark.parametrize("uniform", [0.0, 0.35, 0.98])
def test_rotation_against_pillow(uniform: float) -> None:
    picture = smooth_picture(49)
    ours = views._rotate(floats(picture), neutral_draws(ANGLE=uniform), strength=1.0)
    degrees = 15 * (2 * uniform - 1)
    theirs = floats(np.array(Image.fromarray(picture).rotate(degrees, Image.Resampling.BILINEAR)))
    # In the interior both interpolate between the same four pixels; Pillow then rounds to 8 bits.
    assert (ours - theirs)[..., 10:-10, 10:-10].abs().max() <= 1.01 * LEVEL


def test_rotation_fills_with_black() -> None:
    white = torch.ones(1, 1, 32, 32)
    turned = views._rotate(white, neutral_draws(ANGLE=0.0), strength=1.0)
    assert turned[0, 0, 0, 0] == 0
    assert torch.allclose(turned[0, 0, 8:24, 8:24], torch.ones(16, 16), atol=1e-6)


@pytest.mark.parametrize(("side", "middle"), [(32, 28), (48, 42), (28, 25)])
def test_center_is_the_middle_seven_eighths_against_pillow(side: int, middle: int) -> None:
    pixels = floats(smooth_picture(side))[:, :1]
    ours = views._center(pixels, strength=1.0)
    edge = (side - middle) // 2
    cut = Image.fromarray(pixels[0, 0, edge : edge + middle, edge : edge + middle].numpy())
    theirs = np.array(cut.resize((side, side), Image.Resampling.BILINEAR))
    # Both in float32, with weights computed differently.
    assert np.abs(ours[0, 0].numpy() - theirs).max() < 1e-5


@pytest.mark.parametrize("name", AUGMENTATIONS)
@pytest.mark.parametrize(("channels", "side"), [(3, 32), (1, 32), (3, 33)])
def test_a_view_does_not_depend_on_its_batch(name: str, channels: int, side: int) -> None:
    images = pictures(15, channels, side)
    kept = images.clone()
    whole = augmented_view(images, range(15), 1, Augmentation(name), seed=0)
    for size in (1, 7):
        parts = [
            augmented_view(images[i : i + size], range(i, min(i + size, 15)), 1, Augmentation(name), seed=0)
            for i in range(0, 15, size)
        ]
        assert torch.equal(torch.cat(parts), whole)
    assert torch.equal(images, kept)
    assert whole.shape == images.shape
    # bilinear weights sum to 1 up to rounding
    assert whole.min() >= -1 - 1e-5
    assert whole.max() <= 1 + 1e-5


@pytest.mark.parametrize("channels", [1, 3])
def test_a_view_does_not_depend_on_the_number_of_threads(channels: int) -> None:
    images = pictures(3, channels, side=256)  # large enough for torch to split the work
    kept = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(augmented_view(images, range(3), 0, Augmentation(AUGMENTATIONS[-1]), seed=0))
    finally:
        torch.set_num_threads(kept)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


@pytest.mark.parametrize("name", AUGMENTATIONS[1:])
def test_seed_index_and_view_each_change_the_view(name: str) -> None:
    image = pictures(1).expand(8, -1, -1, -1)
    augmentation = Augmentation(name)
    ours = augmented_view(image, range(8), 0, augmentation, seed=0)
    assert torch.equal(ours, augmented_view(image, range(8), 0, augmentation, seed=0))
    # Of eight crops, one may repeat by chance (1 in 81); hardly all of them.
    assert not torch.equal(ours, augmented_view(image, range(8), 0, augmentation, seed=1))
    assert not torch.equal(ours, augmented_view(image, range(8), 1, augmentation, seed=0))
    assert not torch.equal(ours, augmented_view(image, range(8, 16), 0, augmentation, seed=0))
    assert not torch.equal(ours[0], ours[1])


def test_view_0_is_augmented_too() -> None:
    images = pictures()
    plain = augmented_view(images, range(5), 0, Augmentation("none"), seed=0)
    assert not torch.equal(augmented_view(images, range(5), 0, Augmentation(), seed=0), plain)


def test_a_longer_chain_keeps_the_crop_and_flip_of_the_shorter() -> None:
    images = pictures(6)
    moved = augmented_view(images, range(6), 0, Augmentation("crop+flip"), seed=0)
    draws = views._draws(0, range(6), 0)
    recoloured = 2 * views._jitter((moved + 1) / 2, draws, strength=1.0) - 1
    # Going through [-1, 1] and back costs a rounding, which contrast and hue may multiply.
    assert torch.allclose(augmented_view(images, range(6), 0, Augmentation(), seed=0), recoloured, atol=1e-5)


def test_draws_are_uniform() -> None:
    draws = views._draws(0, range(9000), 0)
    # A uniform mean of 9000 has standard deviation 0.289/√9000 = 0.003; its variance is 1/12.
    assert np.abs(draws.mean(0) - 0.5).max() < 0.015
    assert np.abs(draws.var(0) - 1 / 12).max() < 0.005
    correlation = np.corrcoef(draws.T) - np.eye(len(Draw))
    assert np.abs(correlation).max() < 0.05
    offsets = np.bincount(np.floor(draws[:, Draw.TOP] * 9).astype(int), minlength=9)
    # each of -4 … 4 a thousand times, ± 4.5 standard deviations of 30
    assert offsets.min() > 865
    assert offsets.max() < 1135


def test_strength_zero_leaves_only_the_flip() -> None:
    images = pictures(12)
    view = augmented_view(images, range(12), 0, Augmentation(AUGMENTATIONS[-1], strength=0), seed=0)
    flipped = augmented_view(images, range(12), 0, Augmentation("crop+flip", strength=0), seed=0)
    # Neutral colour steps, rotation by 0 and a resize to the same size cost roundings only.
    assert torch.allclose(view, flipped, atol=1e-5)


@pytest.mark.parametrize("strength", [-0.1, 2.6, float("nan"), float("inf")])
def test_impossible_strengths_are_wrong_usage(strength: float) -> None:
    with pytest.raises(UsageError, match=r"`augment_strength=` .* Expected a number from 0 to 2\.5"):
        Augmentation("crop", strength)


def test_an_unknown_augmentation_is_wrong_usage() -> None:
    with pytest.raises(UsageError, match=r"'flip\+crop'.*crop\+flip"):
        Augmentation("flip+crop")


def test_generated_floats_pass_and_are_never_augmented() -> None:
    images = torch.randn(2, 3, 8, 8)
    assert torch.equal(augmented_view(images, [0, 1], 0, Augmentation("none"), seed=0), images)
    with pytest.raises(UsageError, match="`augment=none`"):
        augmented_view(images, [0, 1], 0, Augmentation("crop"), seed=0)


def test_an_empty_batch_is_an_empty_view() -> None:
    assert augmented_view(pictures(0), [], 0, Augmentation(AUGMENTATIONS[3]), seed=0).shape == (0, 3, 32, 32)
    assert view_noise([], 0, (3, 4, 4), seed=0).shape == (0, 3, 4, 4)


def test_noise_is_keyed_and_independent_of_its_batch() -> None:
    whole = view_noise(range(9), 1, (3, 8, 8), seed=2)
    assert whole.dtype == torch.float32
    assert torch.equal(whole[4:5], view_noise([4], 1, (3, 8, 8), seed=2))
    assert not torch.equal(whole, view_noise(range(9), 0, (3, 8, 8), seed=2))
    assert not torch.equal(whole, view_noise(range(9), 1, (3, 8, 8), seed=3))
    assert not torch.equal(whole, view_noise(range(9), 1, (3, 8, 8), seed=2, stream=Stream.LATENT))
    assert abs(whole.std().item() - 1) < 0.1  # 1728 values: standard deviation of the estimate 0.017
