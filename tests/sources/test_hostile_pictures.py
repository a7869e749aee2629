"""Pictures that would take the machine, and files that are none, among good ones."""

from __future__ import annotations

import errno
import io
import os
import socket
import struct
import zipfile
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from limits import read_all
from picture_files import GREY, RGB, pixels, saved, tree
from PIL import Image, PngImagePlugin, TiffImagePlugin

from diffscope.errors import DataError, Exhausted
from diffscope.sources import _decode, _files
from diffscope.sources._decode import decode
from diffscope.sources._room import Room
from diffscope.sources.base import MAX_PIXELS, Target, open_source

MB = 1 << 20


def test_a_line_of_pixels_is_not_stretched_to_a_plane(tmp_path: Path) -> None:
    Image.new("RGB", (1, 20_000)).save(tmp_path / "line.png")
    found = read_all(tmp_path, 256, "adm")
    assert "1 × 20000 pixels would be stretched to 256 × 5120000 before they are cut" in found.said[0]
    assert found.grown < 32 * MB  # 5.5 GB when it was resized


def test_what_admits_a_line_stretches_it_as_ever() -> None:
    picture = Image.fromarray(pixels(0, 40, 1, 3))
    ours = decode(saved(picture, "PNG"), "line", Target(16, 3, "adm"))
    whole = picture.resize((16, 640), Image.Resampling.BICUBIC)
    assert np.array_equal(ours, np.array(whole)[312:328].transpose(2, 0, 1))


def header(width: int, height: int) -> bytes:
    """A PNG whose pixels are missing."""
    content = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + content + struct.pack(">I", zlib.crc32(content))
    return start + struct.pack(">I", 100) + b"IDAT"


@pytest.mark.parametrize(("side", "limit"), [(17, 288), (13_378, MAX_PIXELS)])
def test_the_header_alone_tells_that_a_picture_is_too_large(side: int, limit: int) -> None:
    with pytest.raises(DataError, match=f"Expected at most {limit}; .*`max_pixels=`"):
        decode(header(side, side), "large.png", RGB, limit)


def test_a_higher_limit_lifts_that_of_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", lambda picture: picture.seek(7))
    with pytest.raises(DataError, match="attempt to seek outside sequence"):  # it was let in
        decode(header(20_000, 20_000), "large.png", RGB, 400_000_000)


def in_folder(folder: Path, picture: Image.Image) -> Path:
    picture.save(tree(folder, ("a.png", "c.png")) / "b.png")
    return folder


def in_zip(folder: Path, picture: Image.Image) -> Path:
    with zipfile.ZipFile(folder / "d.zip", "w") as archive:
        for path in sorted(in_folder(folder / "plain", picture).iterdir()):
            archive.write(path, path.name)
    return folder / "d.zip"


def in_parquet(folder: Path, picture: Image.Image) -> Path:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    files = sorted(in_folder(folder / "plain", picture).iterdir())
    parquet.write_table(arrow.table({"image": [path.read_bytes() for path in files]}), folder / "d.parquet")
    return folder / "d.parquet"


@pytest.mark.parametrize("make", [in_folder, in_zip, in_parquet])
def test_a_larger_picture_is_one_unreadable_image(make: Callable[..., Path], tmp_path: Path) -> None:
    path = str(make(tmp_path, Image.fromarray(pixels(0, 16, 17, 3))))
    source = open_source(path, max_pixels=256)
    assert [source.read(index, RGB).shape for index in (0, 2)] == [(3, 16, 16)] * 2
    with pytest.raises(DataError, match=r"17 × 16 pixels\. Expected at most 256"):
        source.read(1, RGB)
    assert open_source(path).read(1, RGB).shape == (3, 16, 16)


def test_a_larger_array_is_refused_too(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", pixels(0, 2, 16, 17, 3))
    with pytest.raises(DataError, match=r"17 × 16 pixels\. Expected at most 256"):
        open_source(str(tmp_path / "a.npy"), max_pixels=256).read(1, RGB)


@pytest.mark.parametrize("mode", ["RGBA", "P", "I;16"])
def test_a_picture_takes_sixteen_bytes_a_pixel_at_most(mode: str, tmp_path: Path) -> None:
    side = 4000
    picture = Image.new(mode, (side, side))
    more: dict[str, Any] = {"transparency": 0} if mode == "P" else {}
    picture.save(tmp_path / "large.png", **more)
    found = read_all(tmp_path)
    assert not found.said
    assert found.grown < 16 * side**2 + 16 * MB


def test_many_threads_take_no_more_than_two(tmp_path: Path) -> None:
    room, inside, most = Room(100), [0], [0]

    def enter(amount: int) -> None:
        with room.of(amount):
            inside[0] += amount
            most[0] = max(most[0], inside[0])
            inside[0] -= amount

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(enter, [10, 60, 500, 45] * 50))
    assert most[0] == 500  # it was alone
    assert room._taken == 0


@pytest.mark.parametrize("tags", [{278: 2**31}, {322: 2**14, 323: 2**14}, {278: 2**32 - 1}])
def test_a_tiff_whose_blocks_are_absurd_is_no_lack_of_memory(tags: dict[int, int]) -> None:
    with Image.open(io.BytesIO(saved(Image.fromarray(pixels(0)), "TIFF"))) as stored:
        assert isinstance(stored, TiffImagePlugin.TiffImageFile)
        _decode._check_blocks(stored, MAX_PIXELS)
        for tag, value in tags.items():
            stored.tag_v2[tag] = value
        with pytest.raises(DataError, match=r"blocks have \d+ bytes") if tags[min(tags)] < 2**32 - 1 else nullcontext():
            _decode._check_blocks(stored, MAX_PIXELS)


@pytest.mark.parametrize(
    "failure",
    [MemoryError(), OSError("out of memory when reading image file"), OSError("decoder error -9")],
)
def test_memory_that_runs_out_is_no_unreadable_image(failure: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise failure

    monkeypatch.setattr(_decode, "_eight_bit", fail)
    with pytest.raises(Exhausted, match=r"Out of memory while decoding a\.png"):
        decode(saved(Image.fromarray(pixels(0)), "PNG"), "a.png", RGB)


@pytest.mark.parametrize(
    ("number", "expected"), [(errno.EMFILE, Exhausted), (errno.ENOMEM, Exhausted), (errno.EACCES, DataError)]
)
def test_a_file_that_the_system_refuses(
    number: int, expected: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    source = open_source(str(tree(tmp_path, ("a.png", "b.png"))))
    before = source.fingerprint([0])
    monkeypatch.setattr(_files, "open", refuse, raising=False)
    with pytest.raises(expected, match=r"a\.png"):
        source.read(0, RGB)
    if expected is DataError:
        assert source.fingerprint([0, 1]) != before
    else:
        with pytest.raises(Exhausted):
            source.fingerprint([0, 1])


def fifo(path: Path) -> None:
    os.mkfifo(path)


def link_to_fifo(path: Path) -> None:
    os.mkfifo(path.with_suffix(".pipe"))
    path.symlink_to(path.with_suffix(".pipe"))


def bound_socket(path: Path) -> None:
    place = os.open(path.parent, os.O_RDONLY)
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(f"/proc/self/fd/{place}/{path.name}")  # the path itself may be too long for a socket
    os.close(place)


STRANGE: list[tuple[Callable[[Path], object], str]] = [
    (fifo, "it is a pipe"),
    (link_to_fifo, "it is a pipe"),
    (bound_socket, "it is a socket"),
    (lambda path: path.symlink_to("/dev/zero"), "it is a device"),
    (lambda path: path.symlink_to("nowhere"), "No such file"),
    (lambda path: path.symlink_to(path), "symbolic links"),
]


@pytest.mark.parametrize(("make", "reason"), STRANGE)
def test_what_is_no_file_is_one_unreadable_image(make: Callable[[Path], object], reason: str, tmp_path: Path) -> None:
    tree(tmp_path, ("a.png", "c.png"))
    make(tmp_path / "b.png")
    source = open_source(str(tmp_path))
    assert len(source) == 3
    assert [source.read(index, GREY).shape for index in (0, 2)] == [(1, 16, 16)] * 2
    with pytest.raises(DataError, match=rf"^Cannot read b\.png: .*{reason}"):
        source.read(1, GREY)
    assert source.fingerprint([0, 1, 2]) != source.fingerprint([0, 2])


@pytest.mark.parametrize(("make", "reason"), STRANGE[:4])
@pytest.mark.parametrize("suffix", ["", ".zip", ".npy", ".npz", ".parquet"])
def test_what_is_no_file_is_no_data(make: Callable[[Path], object], reason: str, suffix: str, tmp_path: Path) -> None:
    make(tmp_path / f"data{suffix}")
    with pytest.raises(DataError, match=reason.removeprefix("it ")):
        open_source(str(tmp_path / f"data{suffix}"))


def test_labels_in_a_pipe_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tree(tmp_path) / "dataset.json")
    with pytest.raises(DataError, match=r"dataset\.json: it is a pipe"):
        open_source(str(tmp_path))


def broken_tiff(compression: str) -> bytes:
    data = bytearray(saved(Image.fromarray(pixels(0, 64, 64, 3)), "TIFF", compression=compression))
    half = len(data) // 2
    data[half : half + 200] = bytes(byte ^ 255 for byte in data[half : half + 200])
    return bytes(data)


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate"])
def test_libtiff_does_not_print(compression: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(DataError, match="decoder error"):
        decode(broken_tiff(compression), "a.tif", RGB)
    assert capfd.readouterr().err == ""


def test_no_program_is_run_for_a_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *_, **__: pytest.fail("Ghostscript was run"))
    with pytest.raises(DataError, match="not a picture that Pillow knows"):
        decode(saved(Image.fromarray(pixels(0)), "EPS"), "a.png", RGB)
