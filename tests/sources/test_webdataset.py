"""Tar shards: what is an image, where its class stands, and what is refused."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from picture_files import RGB, pixels, saved, tree
from PIL import Image

from diffscope.errors import DataError
from diffscope.sources.base import Source, open_source
from diffscope.sources.webdataset import _expanded


def png(seed: int) -> bytes:
    return saved(Image.fromarray(pixels(seed)), "PNG")


def tar(path: Path, members: dict[str, bytes], form: int = tarfile.PAX_FORMAT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=form) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def names(source: Source) -> list[str]:
    return [source.name(index) for index in range(len(source))]


def refused(path: object) -> str:
    with pytest.raises(DataError) as caught:
        open_source(str(path))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_images_are_read_from_their_places(form: int, tmp_path: Path) -> None:
    long = "x" * 95  # with its folder longer than a plain header holds
    members = {"b/2.png": png(2), f"b/{long}.png": png(3), "a/1.png": png(1), "a/1.txt": b"a caption"}
    source = open_source(str(tar(tmp_path / "a.tar", members, form)))
    assert names(source) == ["a/1.png", "b/2.png", f"b/{long}.png"]
    alone = open_source(str(tree(tmp_path / "plain", ("0.png", "1.png", "2.png", "3.png"))))
    for index, same in enumerate((1, 2, 3)):
        assert np.array_equal(source.read(index, RGB), alone.read(same, RGB))
        assert (source.checksum(index), source.size(index)) == (alone.checksum(same), alone.size(same))
    assert source.stored_size(0) == (16, 16)
    assert (source.labels, source.class_names) == (None, None)


@pytest.mark.parametrize(
    ("said", "labels", "classes"),
    [
        ({"1.cls": b"7", "2.cls": b"0\n"}, [7, 0], None),
        ({"1.json": b'{"label": "dog", "x": 1}', "2.json": b'{"cls": "cat"}'}, [1, 0], ["cat", "dog"]),
        ({"1.json": b'{"class": 4}', "2.json": b"5"}, [4, 5], None),
        ({"1.cls": b"3", "1.json": b'{"label": 9}', "2.cls": b"4"}, [3, 4], None),
        ({"1.json": b'{"caption": "a dog"}', "2.json": b"{}"}, None, None),
        ({"other.cls": b"3"}, None, None),
    ],
)
def test_classes(said: dict[str, bytes], labels: list[int] | None, classes: list[str] | None, tmp_path: Path) -> None:
    source = open_source(str(tar(tmp_path / "a.tar", {"1.png": png(1), **said, "2.png": png(2)})))
    assert (None if source.labels is None else source.labels.tolist()) == labels
    assert source.class_names == classes


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"1.cls": b"7", "2.cls": b"seven"}, "2.cls in .*a.tar is b'seven'"),
        ({"1.cls": b"7", "2.json": b'{"label": "dog"}'}, "both as numbers and as names"),
        ({"1.cls": b"7", "2.cls": b"-1"}, "has the label -1"),
        ({"1.cls": b"7", "2.cls": b"1.5"}, "has the class 1.5"),
        ({"1.cls": b"7", "2.cls": b"1" + b" " * (1 << 16)}, "2.cls in .*a.tar has 65537 bytes"),
        ({"1.jpg": b""}, "a sample with two images, 1.png and 1.jpg"),
    ],
)
def test_what_cannot_be_told_is_refused(members: dict[str, bytes], message: str, tmp_path: Path) -> None:
    found = refused(tar(tmp_path / "a.tar", {"1.png": png(1), "2.png": png(2), **members}))
    start, _, end = message.partition(".*")
    assert start in found
    assert end in found


def test_further_pictures_of_a_sample_have_endings_of_two_parts(tmp_path: Path) -> None:
    assert names(open_source(str(tar(tmp_path / "a.tar", {"1.png": png(1), "1.mask.png": png(2)})))) == ["1.png"]


def test_several_shards(tmp_path: Path) -> None:
    for number in range(3):
        tar(tmp_path / f"s/data-{number:03d}.tar", {"1.png": png(number), "1.cls": b"%d" % number})
    whole = open_source(str(tmp_path / "s" / "data-{000..002}.tar"))
    assert names(whole) == ["data-000.tar/1.png", "data-001.tar/1.png", "data-002.tar/1.png"]
    assert whole.labels is not None
    assert whole.labels.tolist() == [0, 1, 2]
    (tmp_path / "s" / "index.json").write_text("{}")
    folder = open_source(str(tmp_path / "s"))
    assert folder.fingerprint([0, 2]) == whole.fingerprint([0, 2])
    assert names(open_source(str(tmp_path / "s" / "data-{001..001}.tar"))) == ["1.png"]
    assert "2 of 4 shards are missing, the first" in refused(tmp_path / "s" / "data-{001..004}.tar")


def test_braces() -> None:
    assert _expanded("a-{08..10}.tar") == ["a-08.tar", "a-09.tar", "a-10.tar"]
    assert _expanded("{1..0}/{9..10}.tar") == ["1/9.tar", "1/10.tar", "0/9.tar", "0/10.tar"]
    with pytest.raises(DataError, match="more than 100000 shards"):
        _expanded("{0..999}-{0..999}.tar")


def test_a_folder_with_images_or_folders_beside_a_tar_is_one_of_images(tmp_path: Path) -> None:
    tar(tmp_path / "plain" / "old.tar", {"1.png": png(1)})
    tree(tmp_path / "plain", ("cat/a.png", "dog/b.png"))
    assert names(open_source(str(tmp_path / "plain"))) == ["cat/a.png", "dog/b.png"]


def test_nothing_that_is_no_plain_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        for name, kind in (
            ("link.png", tarfile.SYMTYPE),
            ("hard.png", tarfile.LNKTYPE),
            ("pipe.png", tarfile.FIFOTYPE),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    assert "No images in" in refused(path)


def damaged(path: Path) -> bytes:
    return tar(path, {"1.png": png(1), "2.png": png(2)}).read_bytes()


def test_a_damaged_tar_is_refused_and_no_end_is_taken_for_one(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    whole = damaged(path)
    second = whole.index(b"2.png")
    for data, message in (
        (b"", "Cannot read"),
        (b"not a tar", "Cannot read"),
        (gzip.compress(whole), "unpack it (gunzip)"),
        (whole[: second + 600], "unexpected end of data"),
        (whole[:second] + b"!" * 512 + whole[second + 512 :], f"the header at byte {second} is damaged"),
        (whole[: second + 100], f"the header at byte {second} is damaged"),
    ):
        path.write_bytes(data)
        found = refused(path)
        assert "a.tar as a tar" in found
        assert message in found


def test_a_tar_that_was_cut_meanwhile_is_one_unreadable_image(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    whole = damaged(path)
    source = open_source(str(path))
    path.write_bytes(whole[: whole.index(b"2.png")])
    source.read(0, RGB)
    with pytest.raises(DataError, match=r"Cannot read 2\.png: .*ends before it does"):
        source.read(1, RGB)
