"""`--labels CSV`: classes of images by their names."""

from __future__ import annotations

from pathlib import Path

import pytest
from commands import diffscope
from picture_files import tree

from diffscope.errors import DataError
from diffscope.sources.base import Source, open_source

NAMES = ("a/1.png", "b, c/2.png", "b, c/3.png")


@pytest.fixture
def source(tmp_path: Path) -> Source:
    return open_source(str(tree(tmp_path / "plain", NAMES)))


def written(tmp_path: Path, text: str) -> str:
    (tmp_path / "labels.csv").write_text(text, encoding="utf-8")
    return str(tmp_path / "labels.csv")


@pytest.mark.parametrize(
    ("text", "labels", "classes"),
    [
        ('file,class\na/1.png,dog\n"b, c/2.png",cat\n"b, c/3.png",dog\n', [1, 0, 1], ["cat", "dog"]),
        ('\ufeffclass,who,file\r\n9,me,a/1.png\r\n0,me,"b, c/2.png"\r\n9,me,"./b, c/3.png"\r\n', [9, 0, 9], None),
        ('file,class\na/1.png,1\nelsewhere.png,x\n\n"b, c/2.png",2\n"b, c/3.png",3', [1, 2, 3], None),
        ('file,class\na/1.png,1\n"b, c/2.png",1a\n"b, c/3.png",2', [0, 1, 2], ["1", "1a", "2"]),
        ('file,class\na/1.png,"say ""x"""\n"b, c/2.png",y\n"b, c/3.png",y\n', [0, 1, 1], ['say "x"', "y"]),
    ],
)
def test_classes(source: Source, text: str, labels: list[int], classes: list[str] | None, tmp_path: Path) -> None:
    before = open_source(source.path).fingerprint([0, 1])
    source.use_labels(written(tmp_path, text))
    assert source.labels is not None
    assert (source.labels.tolist(), str(source.labels.dtype), source.class_names) == (labels, "int64", classes)
    assert (source.fingerprint([0, 1]) == before) == (labels[:2] == [0, 1])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: the columns are none"),
        ("name,class\n", "line 1: the columns are name, class"),
        ("file,class,class\n", "line 1: the columns are file, class, class"),
        ("file,class\na/1.png\n", "line 2: 1 columns where the first line has 2"),
        ("file,class\na/1.png,1\nb, c/2.png,1\n", "line 3: 3 columns where the first line has 2"),
        ('file,class\n"a/1.png,1\n', "line 2: "),
        ("file,class\na/1.png,\n", "line 2: its class is empty"),
        ("file,class\n,1\n", "line 2: its file is empty"),
        ("file,class\na/1.png,1\n\na/1.png,2\n", "line 4: 'a/1.png' is of class '1' in a line before, of '2' here"),
        ("file,class\na/1.png,1\n", "has no line for b, c/2.png (2 of 3 images are missing)"),
        ('file,class\na/1.png,99999999999\n"b, c/2.png",1\n"b, c/3.png",1\n', "has the label 99999999999"),
    ],
)
def test_what_is_wrong_is_named_by_its_line(source: Source, text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        source.use_labels(written(tmp_path, text))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_no_text(source: Source, tmp_path: Path) -> None:
    (tmp_path / "bytes.csv").write_bytes(b"file,class\n\xff\xfe,1\n")
    for name, reason in (("bytes.csv", "it is not UTF-8"), ("nowhere.csv", "No such file")):
        with pytest.raises(DataError, match=reason):
            source.use_labels(str(tmp_path / name))


def test_on_the_command_line(tmp_path: Path) -> None:
    """A probe of images in one folder, whose classes stand in the file alone."""
    folder = tree(tmp_path / "plain", tuple(f"{number:03d}.png" for number in range(80)))
    lines = [f"{number:03d}.png,{('even', 'odd')[number % 2]}" for number in range(80)]
    path = written(tmp_path, "\n".join(["file,class", *lines]))
    given = ("probe", "toy:d=4,side=8", "--data", folder, "--augment", "none", "--sigma", "0.3", "--json")
    assert "labels" in diffscope(*given).err
    ran = diffscope(*given, "--labels", path)
    assert ran.code == 0, ran.err
    assert "even" in ran.out
    assert diffscope(*given, "--labels", tmp_path / "nowhere.csv").code == 1
