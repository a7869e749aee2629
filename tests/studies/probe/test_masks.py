"""Masks on disk: what is refused and in which words, and that they are cut as their images are."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from PIL import Image

from diffscope.errors import DataError
from diffscope.sources.base import Source, Target, open_source
from diffscope.studies.probe.masks import VOID, Masks, fitted, open_masks

TARGET = Target(16, 3)


def write(path: Path, pixels: np.ndarray, **how: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **how)


def stored(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.array(picture)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four images of 20 × 24 in two folders, and masks of classes 0, 1 and void."""
    for number, name in enumerate(("a/one", "a/two", "b/one", "b/two")):
        write(tmp_path / f"images/{name}.jpg", np.full((20, 24, 3), 50 * number, np.uint8))
        mask = np.zeros((20, 24), np.uint8)
        mask[:, 12:] = 1
        mask[0] = VOID
        write(tmp_path / f"masks/{name}.png", mask)
    return tmp_path


def source(folder: Path) -> Source:
    return open_source(str(folder / "images"))


def opened(folder: Path, indices: list[int] | None = None) -> Masks:
    return open_masks(str(folder / "masks"), source(folder), [0, 1, 2, 3] if indices is None else indices, TARGET)


def refused(folder: Path, *words: str) -> None:
    with pytest.raises(DataError) as caught:
        opened(folder)
    assert not [word for word in words if word not in str(caught.value)], caught.value
    assert "\n" not in str(caught.value)


def test_they_are_found_by_their_images_names(folder: Path) -> None:
    masks = opened(folder)
    assert (masks.classes, masks.class_names) == (2, None)
    assert masks.read(0).shape == (16, 16)
    assert sorted(np.unique(masks.read(0))) == [0, 1, VOID]
    (folder / "masks" / "classes.txt").write_text("sky\nsea\nland\n")
    assert opened(folder).class_names == ("sky", "sea", "land")
    assert opened(folder).classes == 3


def test_the_fingerprint_is_that_of_the_masks_used(folder: Path) -> None:
    before, some = opened(folder), opened(folder, [0, 1])
    assert before.fingerprint != some.fingerprint
    mask = stored(folder / "masks/b/two.png")
    write(folder / "masks/b/two.png", mask, compress_level=0)  # other bytes, the same classes
    assert opened(folder).fingerprint == before.fingerprint
    mask[3, 3] = 1
    write(folder / "masks/b/two.png", mask)
    assert opened(folder).fingerprint != before.fingerprint
    assert opened(folder, [0, 1]).fingerprint == some.fingerprint


def test_a_palette_is_its_numbers(folder: Path) -> None:
    before = opened(folder).read(0)
    coloured = Image.fromarray(stored(folder / "masks/a/one.png"))
    coloured.putpalette([number * 7 % 256 for number in range(768)])
    assert coloured.mode == "P"
    coloured.save(folder / "masks/a/one.png")
    assert (opened(folder).read(0) == before).all()


def test_a_missing_one(folder: Path) -> None:
    (folder / "masks/b/one.png").unlink()
    (folder / "masks/b/two.png").unlink()
    refused(folder, "2 of 4 images have no mask", "b/one.jpg, needs b/one.png")
    assert opened(folder, [0, 1]).classes == 2  # those of images that are not used need not be there


def test_no_folder(tmp_path: Path) -> None:
    write(tmp_path / "images/one.png", np.zeros((4, 4), np.uint8))
    with pytest.raises(DataError, match="no such folder; expected one of class-index PNGs"):
        open_masks(str(tmp_path / "masks"), source(tmp_path), [0], TARGET)


def test_another_size(folder: Path) -> None:
    write(folder / "masks/a/two.png", np.zeros((24, 20), np.uint8))
    refused(folder, "mask a/two.png", "24 × 20", "its image has 20 × 24")


def test_an_image_that_is_turned_upright_has_its_upright_size(folder: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.zeros((24, 20, 3), np.uint8)).save(folder / "images/a/one.jpg", exif=exif)
    assert source(folder).stored_size(0) == (20, 24)
    assert opened(folder).classes == 2


def test_an_index_beyond_the_classes(folder: Path) -> None:
    (folder / "masks/classes.txt").write_text("sky\nsea\n")
    assert opened(folder).classes == 2
    mask = np.zeros((20, 24), np.uint8)
    mask[4, 5] = 2
    write(folder / "masks/b/one.png", mask)
    refused(folder, "mask b/one.png: class 2", "classes.txt names 0 to 1", "255 is void")


@pytest.mark.parametrize(
    ("pixels", "words"),
    [
        (np.zeros((20, 24, 3), np.uint8), ("mode RGB", "8 bits a pixel")),
        (np.zeros((20, 24), np.uint16), ("mode I;16", "8 bits a pixel")),
        (np.zeros((20, 24), bool), ("mode 1", "8 bits a pixel")),
    ],
)
def test_what_is_no_class_index(folder: Path, pixels: np.ndarray, words: tuple[str, ...]) -> None:
    write(folder / "masks/a/one.png", pixels)
    refused(folder, "one.png", *words)


def test_what_is_no_picture(folder: Path) -> None:
    (folder / "masks/a/one.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(20))
    refused(folder, "one.png: cannot be read as a PNG", "replace it")
    write(folder / "masks/a/one.png", np.zeros((20, 24), np.uint8), format="BMP")
    refused(folder, "one.png: cannot be read as a PNG")


@pytest.mark.parametrize(("value", "words"), [(0, "class 0 alone"), (VOID, "nothing but void (255)")])
def test_one_class_is_no_task(folder: Path, value: int, words: str) -> None:
    for path in (folder / "masks").rglob("*.png"):
        write(path, np.full((20, 24), value, np.uint8))
    refused(folder, words, "at least two classes")


@pytest.mark.parametrize("text", ["sky\n", "sky\nsky\n", "\n".join(f"c{k}" for k in range(256))])
def test_class_names(folder: Path, text: str) -> None:
    (folder / "masks/classes.txt").write_text(text)
    refused(folder, "classes.txt", "one a line and none twice")


def test_two_images_of_one_mask(folder: Path) -> None:
    write(folder / "images/a/one.png", np.zeros((20, 24), np.uint8))
    with pytest.raises(DataError, match=r"a/one.jpg and a/one.png would both have the mask a/one.png"):
        opened(folder, list(range(5)))


@pytest.mark.parametrize("resize", ["lanczos", "adm", "bilinear"])
@pytest.mark.parametrize("shape", [(20, 24), (40, 32), (70, 45), (16, 16), (12, 30)])
def test_a_mask_is_cut_as_its_image_is(
    resize: Literal["lanczos", "adm", "bilinear"], shape: tuple[int, int], tmp_path: Path
) -> None:
    """An image of two grey levels with a straight edge: but at the edge, its mask says which is where."""
    for horizontal in (False, True):
        mask = np.zeros(shape, np.uint8)
        if horizontal:
            mask[: shape[0] // 2] = 1
        else:
            mask[:, : shape[1] // 2] = 1
        write(tmp_path / "images/one.png", 200 * mask)
        target = Target(16, 1, resize)
        image = open_source(str(tmp_path / "images")).read(0, target)[0]
        found = fitted(mask, target)
        assert found.shape == (16, 16)
        sure = np.abs(image.astype(int) - 100) > 80
        assert sure.mean() > 0.7
        assert ((image > 100) == found)[sure].all()
