"""Zips, arrays and tables of images that claim, or become, more than they are."""

from __future__ import annotations

import json
import os
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from limits import read_all
from picture_files import GREY, RGB, pixels, saved, tree, zipped
from PIL import Image

from diffscope.errors import DataError
from diffscope.sources import _npz
from diffscope.sources.base import open_source

MB = 1 << 20
ZEROS = 200 * MB


def black(path: Path, names: tuple[str, ...], size: int = ZEROS) -> Path:
    """A zip whose members of that size deflate to a thousandth."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name in names:
            with archive.open(name, "w") as member:
                for _ in range(size // MB):
                    member.write(bytes(MB))
        archive.writestr("z.png", saved(Image.fromarray(pixels(0)), "PNG"))
    return path


def patched(path: Path, name: str, place: int, value: bytes, local: int | None = None) -> Path:
    """The zip with some bytes of a member's entry in the directory replaced, and of its own header."""
    data = bytearray(path.read_bytes())
    entry = data.rindex(b"PK\x01\x02", 0, data.rindex(name.encode()))
    data[entry + place : entry + place + len(value)] = value
    if local is not None:
        (start,) = struct.unpack_from("<I", data, entry + 42)
        data[start + local : start + local + len(value)] = value
    path.write_bytes(data)
    return path


def test_a_member_is_not_unpacked_beyond_what_a_picture_has(tmp_path: Path) -> None:
    found = read_all(black(tmp_path / "a.zip", ("a.png",)), max_pixels=1000)
    assert f"it has {ZEROS} bytes, expected at most" in found.said[0]
    assert len(found.said) == 1
    assert found.grown < 64 * MB


def test_a_member_that_lies_about_its_size_is_not_unpacked_further(tmp_path: Path) -> None:
    path = patched(black(tmp_path / "a.zip", ("a.png",)), "a.png", 24, struct.pack("<I", 1000), local=22)
    found = read_all(path)
    assert [said[:29] for said in found.said] == ["DataError: Cannot read a.png "]
    assert found.grown < 64 * MB


def test_labels_are_not_unpacked_beyond_what_they_need(tmp_path: Path) -> None:
    found = read_all(black(tmp_path / "a.zip", ("dataset.json",)))
    assert "dataset.json" in found.said[0]
    assert "expected at most" in found.said[0]
    assert found.grown < 64 * MB


@pytest.mark.parametrize(
    ("place", "value", "local", "reason"),
    [
        (6, struct.pack("<H", 255), 4, "version 25.5"),
        (8, struct.pack("<H", 1), 6, "encrypted"),
        (10, struct.pack("<H", 99), 8, "method 99"),
        (42, struct.pack("<I", 2**32 - 2), None, "Cannot read"),
    ],
)
def test_what_a_zip_may_be_and_we_cannot_read(
    place: int, value: bytes, local: int | None, reason: str, tmp_path: Path
) -> None:
    path = zipped(tree(tmp_path / "plain", ("a.png", "b.png")), tmp_path / "a.zip")
    patched(path, "b.png", place, value, local)
    with pytest.raises(DataError, match=reason) as caught:
        open_source(str(path)).read(1, RGB)
    assert "\n" not in str(caught.value)


def test_a_member_without_a_name_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("no-name", b"nothing")
        archive.writestr("a.png", saved(Image.fromarray(pixels(0)), "PNG"))
    path.write_bytes(path.read_bytes().replace(b"no-name", b"\0o-name"))  # a name ends at its first zero
    source = open_source(str(path))
    assert [source.name(index) for index in range(len(source))] == ["a.png"]


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_methods_without_a_bound_are_refused(method: int, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", method) as archive:
        archive.writestr("a.png", saved(Image.fromarray(pixels(0)), "PNG"))
    with pytest.raises(DataError, match=f"method {method}, expected stored or deflated"):
        open_source(str(tmp_path / "a.zip")).read(0, RGB)


LABELS: list[tuple[str, str]] = [
    ("[" * 100_000, "too deep"),
    ('{"labels": [["a.png", -1], ["b.png", 0]]}', "label -1. Expected classes from 0 to 2147483647"),
    ('{"labels": [["a.png", 1' + "0" * 30 + '], ["b.png", 0]]}', r"label 1e\+30"),
    ('{"labels": [["a.png", 1' + "0" * 400 + '], ["b.png", 0]]}', "beyond 10"),
    ('{"labels": [["a.png", 1' + "0" * 5000 + '], ["b.png", 0]]}', "is not JSON"),
    ('{"labels": [[[], 1]]}', "unknown labels"),
]


@pytest.mark.parametrize(("text", "message"), LABELS)
@pytest.mark.parametrize("form", ["folder", "zip"])
def test_labels_that_are_no_classes(text: str, message: str, form: str, tmp_path: Path) -> None:
    folder = tree(tmp_path / "plain", ("a.png", "b.png"))
    (folder / "dataset.json").write_text(text)
    path = folder if form == "folder" else zipped(folder, tmp_path / "a.zip")
    with pytest.raises(DataError, match=message) as caught:
        open_source(str(path))
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("labels", "shown"), [(np.array([0, -3]), "-3"), (np.array([0, 2**64 - 1], np.uint64), str(2**64 - 1))]
)
def test_labels_of_arrays_that_are_no_classes(labels: np.ndarray, shown: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=pixels(0, 2, 16, 16, 3), y=labels)
    with pytest.raises(DataError, match=f"has the label {shown}. Expected classes from 0"):
        open_source(str(tmp_path / "a.npz"))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("order", ["C", "F"])
def test_large_arrays_are_read_where_they_lie(
    save: Callable[..., None], order: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = np.array(pixels(0, 5, 16, 16, 3), order=order)
    stored[1:3] = 0
    save(tmp_path / "a.npz", pad=np.zeros(3), x=stored, y=np.arange(5))
    small = open_source(str(tmp_path / "a.npz"))
    monkeypatch.setattr(_npz, "IN_MEMORY", 0)
    large = open_source(str(tmp_path / "a.npz"))
    assert isinstance(large._images, np.memmap)  # type: ignore[attr-defined]
    assert large.fingerprint(range(5)) == small.fingerprint(range(5))
    assert np.array_equal(large.read(4, RGB), stored[4].transpose(2, 0, 1))


def test_a_genuine_black_data_set_takes_little_memory(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", x=np.zeros((30, 2000, 2000, 3), np.uint8))
    found = read_all(tmp_path / "a.npz", first=2)  # more would bring the file's pages in
    assert found.said == []
    assert found.grown < 150 * MB  # 24 MB for two images, 16 bytes a pixel to decode one


def test_an_array_for_which_the_disk_is_too_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez_compressed(tmp_path / "a.npz", x=pixels(0, 5, 16, 16, 3))
    monkeypatch.setattr(_npz, "IN_MEMORY", 0)
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("", (), {"free": 5000}))
    with pytest.raises(DataError, match=r"has 3968 bytes when unpacked, and .* has 5000 free\. Save it as \.npy"):
        open_source(str(tmp_path / "a.npz"))


def test_damage_in_a_large_array_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez(tmp_path / "a.npz", x=pixels(0, 5, 16, 16, 3))
    data = bytearray((tmp_path / "a.npz").read_bytes())
    data[1000] ^= 1
    (tmp_path / "a.npz").write_bytes(data)
    for limit in (MB, 0):
        monkeypatch.setattr(_npz, "IN_MEMORY", limit)
        with pytest.raises(DataError, match=r"Bad CRC-32 for file 'x\.npy'"):
            open_source(str(tmp_path / "a.npz"))


def npy(text: str, version: bytes = b"\x01\x00", length: int | None = None) -> bytes:
    size = struct.pack("<H" if version == b"\x01\x00" else "<I", len(text) if length is None else length)
    return b"\x93NUMPY" + version + size + text.encode() + bytes(100)


def described(shape: str, descr: str = "'|u1'") -> str:
    return f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}\n"


HEADERS: list[tuple[bytes, str]] = [
    (npy(described("(1099511627776, 1048576, 1048576, 3)")), "its header says .* there are 100"),
    (npy(described("(100, 8, 8, 3)")), "its header says .* there are 100"),
    (npy(described("(-1, 8, 8, 3)")), "Expected an array of numbers"),
    (npy(described("(1,) * 9")), "Cannot read"),
    (npy(described("(1, 1, 1, 1, 1, 1, 1, 1, 1)")), "Expected an array of numbers"),
    (npy(described("(5,)", "'|O'")), "pickled objects"),
    (npy(described("(5,)", "'|V2000000000'")), "Expected an array of numbers"),
    (npy(described("(5,)", "[('a', '<f4')]")), "Expected an array of numbers"),
    (npy(described("(" + "-" * 9000 + "1,)")), "Cannot read"),
    (npy(described("(" + "(" * 4000 + ")" * 4000 + ",)")), "Cannot read"),
    (npy(described("(1, 8, 8, 3)"), b"\x02\x00", 2**32 - 1), "Cannot read"),
    (npy(described("(1, 8, 8, 3)"), b"\x09\x00"), "Cannot read"),
    (npy(described("(0, 8, 8, 3)")), "No images in"),
]


@pytest.mark.parametrize(("data", "message"), HEADERS)
@pytest.mark.parametrize("form", ["npy", "npz"])
def test_headers_of_arrays_are_not_believed(data: bytes, message: str, form: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{form}"
    if form == "npy":
        path.write_bytes(data)
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x.npy", data)
    with pytest.raises(DataError, match=message) as caught:
        open_source(str(path))
    assert len(str(caught.value)) < 500
    assert "\n" not in str(caught.value)


def test_a_member_of_an_npz_has_no_more_than_its_header_says(tmp_path: Path) -> None:
    """Of 300 MB of zeros behind the header of one image nothing is unpacked."""
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", npy(described("(1, 8, 8, 3)")) + bytes(300 * MB))
    found = read_all(tmp_path / "a.npz")
    assert "its header says uint8 [1, 8, 8, 3], 192 bytes, and there are" in found.said[0]
    assert found.grown < 64 * MB


def parquet_of(path: Path, **columns: Any) -> Path:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    metadata = {b"huggingface": b"[" * 100_000}
    parquet.write_table(arrow.table(columns).replace_schema_metadata(metadata), path, store_schema=False)
    return path


def test_deep_metadata_of_parquet_is_passed_over_and_an_empty_cell_skipped(tmp_path: Path) -> None:
    picture = saved(Image.fromarray(pixels(0)), "PNG")
    source = open_source(str(parquet_of(tmp_path / "a.parquet", image=[picture, None, picture])))
    assert source.read(2, RGB).shape == (3, 16, 16)
    with pytest.raises(DataError, match=r"Row 1 .* holds no picture"):
        source.read(1, RGB)
    assert source.fingerprint([0, 1]) != source.fingerprint([0, 2])


def test_a_dictionary_in_parquet_makes_no_more_than_the_limit(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    indices = arrow.array(np.zeros(20_000, np.int32))
    path = parquet_of(tmp_path / "a.parquet", image=arrow.DictionaryArray.from_arrays(indices, [os.urandom(100_000)]))
    assert path.stat().st_size < 2 * MB
    found = read_all(path, first=1)
    assert "a row group has more than" in found.said[0]
    assert found.grown < 900 * MB  # 2.1 GB and more when it was read at once


def containers(folder: Path) -> Iterator[tuple[str, bytes]]:
    plain = tree(folder / "plain")
    (plain / "dataset.json").write_text(json.dumps({"labels": None}))
    yield "a.zip", zipped(plain, folder / "whole.zip").read_bytes()
    arrays: dict[str, Any] = {"x": pixels(0, 3, 8, 8, 3), "y": np.arange(3)}
    for save in (np.savez, np.savez_compressed):
        save(folder / "whole.npz", **arrays)
        yield "a.npz", (folder / "whole.npz").read_bytes()
    np.savez(folder / "whole.npz", mean=np.ones((3, 4, 2, 2)), std=np.ones((3, 4, 2, 2)))
    yield "a.npz", (folder / "whole.npz").read_bytes()
    np.save(folder / "whole.npy", arrays["x"])
    yield "a.npy", (folder / "whole.npy").read_bytes()


def test_damage_anywhere_is_one_line(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    refused: list[str] = []
    for name, whole in containers(tmp_path):
        for _ in range(150):
            data = bytearray(whole)
            for place in rng.integers(0, len(data), rng.integers(1, 4)):
                data[place] = rng.integers(0, 256)
            data = data[: rng.integers(1, len(data))] if rng.random() < 0.2 else data
            (tmp_path / name).write_bytes(data)
            try:
                source = open_source(str(tmp_path / name))
                source.fingerprint(range(len(source)))
                for index in range(len(source)):
                    source.read(index, GREY)
            except DataError as error:
                refused.append(str(error))
    assert len(refused) > 200
    assert not [text for text in refused if "\n" in text]


def test_a_row_group_without_its_rows_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of them, so that what is kept of the first is counted when the second is read."""
    parquet = pytest.importorskip("pyarrow.parquet")
    picture = saved(Image.fromarray(pixels(0)), "PNG")
    path = parquet_of(tmp_path / "a.parquet", image=[picture] * 4)
    parquet.write_table(parquet.read_table(path), path, row_group_size=2, store_schema=False)
    source = open_source(str(path))
    assert source.read(3, RGB).shape == (3, 16, 16)
    monkeypatch.setattr(parquet.ParquetFile, "iter_batches", lambda *_, **__: iter(()))
    with pytest.raises(DataError, match="row group 0 has 0 rows, not as it says"):
        source.read(0, RGB)
