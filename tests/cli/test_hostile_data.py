"""What stands among good images and is none: left out and counted, on one line."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from commands import EDM, EDM_CLASSES, FEW, SIT_LATENTS, diffscope, in_a_process
from PIL import Image

MEASURED = ("icr", EDM, "--sigma", "0.5", *FEW, "--json")


@pytest.fixture
def mixed(pictures: Path, tmp_path: Path) -> Path:
    """144 good pictures, and four that cannot be read."""
    folder = tmp_path / "mixed" / "cat"
    folder.mkdir(parents=True)
    for path in sorted(pictures.rglob("*.png"))[:140]:
        shutil.copy(path, folder)
    os.mkfifo(folder / "pipe.png")
    (folder / "dangling.png").symlink_to("nowhere")
    # Pillow warns of its tags, libtiff of its pixels.
    Image.new("RGB", (20, 20)).save(folder / "broken.tif", compression="tiff_lzw")
    data = bytearray((folder / "broken.tif").read_bytes())
    data[8:40] = bytes(255 - byte for byte in data[8:40])
    (folder / "broken.tif").write_bytes(data)
    Image.new("RGB", (21, 20)).save(folder / "larger.png")
    return folder.parent


def test_they_are_left_out_and_counted_on_one_line(mixed: Path) -> None:
    ran = in_a_process(*MEASURED, "--data", mixed, "--max-pixels", "400")
    assert ran.code == 0, ran.err
    assert len(ran.err.splitlines()) == 1
    assert "4 unreadable images were left out" in ran.err
    assert sorted(entry["file"] for entry in ran.json["data"]["skipped"]) == [
        "cat/broken.tif", "cat/dangling.png", "cat/larger.png", "cat/pipe.png",
    ]  # fmt: skip
    assert ran.json["protocol"]["max_pixels"] == 400


def test_with_strict_they_are_an_error(mixed: Path) -> None:
    ran = diffscope(*MEASURED, "--data", mixed, "--strict")
    assert (ran.code, ran.out, ran.err.count("\n")) == (1, "", 1)
    assert ran.err.startswith("error: Cannot read cat/")


def test_memory_that_runs_out_ends_the_run(mixed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from diffscope.sources import _decode

    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(_decode, "_lanczos", fail)
    ran = diffscope(*MEASURED, "--data", mixed)
    assert (ran.code, ran.out, ran.err.count("\n")) == (1, "", 1)
    assert "Out of memory while decoding cat/" in ran.err


def test_the_usual_limit_stands_in_no_protocol(pictures: Path) -> None:
    hashes = [
        diffscope(*MEASURED, "--data", pictures, *more).json["protocol"]["hash"]
        for more in ((), ("--max-pixels", "178956970"), ("--max-pixels", "400"))
    ]
    assert hashes[0] == hashes[1] != hashes[2]


def test_a_limit_of_nothing_is_wrong_usage(pictures: Path) -> None:
    ran = diffscope(*MEASURED, "--data", pictures, "--max-pixels", "0")
    assert (ran.code, ran.err) == (2, "error: --max-pixels 0: expected at least 1\n")


@pytest.mark.parametrize(("command", "levels"), [("icr", ("--sigma", "0.5")), ("track", ("--sigma", "0.5"))])
def test_fewer_images_than_asked_for_are_told_once(
    command: str, levels: tuple[str, ...], pictures: Path, tmp_path: Path
) -> None:
    checkpoint = tmp_path / "network-000001.pkl"
    shutil.copy(EDM, checkpoint)
    choices = ("--layer", "enc.8x8_block1", "--augment", "none", "--num-images", "300", "--json")
    ran = diffscope(command, checkpoint, "--data", pictures, *levels, *choices)
    assert ran.code == 0, ran.err
    assert ran.err.count(f"--num-images 300: {pictures} has 200, and all of them are used") == 1
    assert "--num-images" not in diffscope(*MEASURED, "--data", pictures).err


def test_labels_that_are_missing_are_said_where_they_would_stand(pictures: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", np.zeros((8, 20, 20, 3), np.uint8), np.zeros((8, 3)))
    ran = diffscope("icr", EDM_CLASSES, "--data", tmp_path / "a.npz", "--class", "label", "--sigma", "0.5")
    assert (ran.code, ran.out) == (1, "")
    assert "in an .npz whole numbers [N] as y, arr_1 or labels" in ran.err


def test_a_first_latent_that_is_broken_is_skipped_as_any_other(tmp_path: Path) -> None:
    mean = np.random.default_rng(0).standard_normal((144, 4, 8, 8))
    mean[0, 0, 0, 0] = np.nan
    np.savez(tmp_path / "latents.npz", mean=mean)
    options = ("--config", "num_heads=4", "--augment", "none", "--t", "0.5", "--json")
    ran = diffscope("icr", SIT_LATENTS, "--data", tmp_path / "latents.npz", *options)
    assert ran.code == 0, ran.err
    assert [entry["file"] for entry in ran.json["data"]["skipped"]] == ["00000000"]
