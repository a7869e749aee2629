"""What stands among good images and is none: left out and counted, on one line."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from commands import EDM, FEW, diffscope, in_a_process
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
