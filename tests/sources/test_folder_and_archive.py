"""Folders and zips: names, classes, EDM's labels, fingerprints, damaged pictures."""

import json
from pathlib import Path

import numpy as np
import pytest
from picture_files import RGB, pixels, saved, tree, zipped
from PIL import Image

from diffscope.errors import DataError
from diffscope.sources.base import Source, open_source


def test_first_level_folders_are_the_classes(tmp_path: Path) -> None:
    source = open_source(str(tree(tmp_path)))
    assert [source.name(index) for index in range(4)] == ["cat/a.png", "cat/b.png", "dog/a.png", "emu/x/y.png"]
    assert source.labels is not None
    assert source.labels.tolist() == [0, 0, 1, 2]
    assert source.class_names == ["cat", "dog", "emu"]
    assert np.array_equal(source.read(1, RGB), pixels(0).transpose(2, 0, 1))


def test_images_beside_folders_are_no_classes(tmp_path: Path) -> None:
    source = open_source(str(tree(tmp_path, ("a.png", "b/c.png"))))
    assert source.labels is None
    assert source.class_names is None


def test_other_files_and_hidden_ones_are_passed_over(tmp_path: Path) -> None:
    tree(tmp_path, ("a/1.png", "a/2.JPG", "__MACOSX/a/1.png", ".cache/3.png", "a/.4.png"))
    (tmp_path / "a" / "notes.txt").write_text("no image")
    (tmp_path / "README").write_text("no image")
    for source in (open_source(str(tmp_path)), open_source(str(zipped(tmp_path, tmp_path.parent / "all.zip")))):
        assert len(source) == 2


def test_links_to_folders_are_followed_but_not_for_ever(tmp_path: Path) -> None:
    tree(tmp_path / "elsewhere", ("1.png",))
    tree(tmp_path / "data", ("a/1.png",))
    (tmp_path / "data" / "b").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data" / "a" / "loop").symlink_to(tmp_path / "data")
    source = open_source(str(tmp_path / "data"))
    assert [source.name(index) for index in range(len(source))] == ["a/1.png", "b/1.png"]


@pytest.mark.parametrize("wrapper", ["", "photos/", "my/photos/"])
def test_a_zip_equals_the_folder_that_was_zipped(tmp_path: Path, wrapper: str) -> None:
    folder = open_source(str(tree(tmp_path / "photos")))
    archive = open_source(str(zipped(tmp_path / "photos", tmp_path / "photos.zip", wrapper)))
    assert archive.class_names == folder.class_names
    assert archive.fingerprint(range(4)) == folder.fingerprint(range(4))
    for index in range(4):
        assert archive.name(index) == folder.name(index)
        assert np.array_equal(archive.read(index, RGB), folder.read(index, RGB))


def edm_layout(root: Path, labels: object) -> Path:
    tree(root, ("00000/img00000000.png", "00000/img00000001.png"))
    (root / "dataset.json").write_text(json.dumps({"labels": labels}))
    return root


def both_forms(folder: Path, wrapper: str = "") -> list[Source]:
    return [open_source(str(folder)), open_source(str(zipped(folder, folder.parent / "edm.zip", wrapper)))]


@pytest.mark.parametrize("wrapper", ["", "cifar/"])
def test_labels_of_edm_layout_go_by_name(tmp_path: Path, wrapper: str) -> None:
    labels = [["00000/img00000001.png", 3], ["00000/img00000000.png", 9]]
    folder, archive = both_forms(edm_layout(tmp_path / "edm", labels), wrapper)
    for source in (folder, archive):
        assert source.name(0) == "00000/img00000000.png"
        assert source.labels is not None
        assert source.labels.tolist() == [9, 3]
        assert source.class_names is None
    assert folder.fingerprint([0, 1]) == archive.fingerprint([0, 1])


@pytest.mark.parametrize(
    "labels", [None, [["00000/img00000000.png", [0.1, 0.9]], ["00000/img00000001.png", [1.0, 0.0]]]]
)
def test_null_and_vector_labels_are_no_labels(tmp_path: Path, labels: object) -> None:
    for source in both_forms(edm_layout(tmp_path / "edm", labels)):
        assert source.labels is None


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (5, "unknown labels"),
        ([1, 2], "unknown labels"),
    ],
)
def test_labels_that_do_not_fit_are_refused(tmp_path: Path, labels: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_source(str(edm_layout(tmp_path, labels)))


def test_a_dataset_json_that_is_no_json_is_refused(tmp_path: Path) -> None:
    (edm_layout(tmp_path, None) / "dataset.json").write_text("{")
    with pytest.raises(DataError, match="is not JSON"):
        open_source(str(tmp_path))


def test_a_dataset_json_about_something_else_is_passed_over(tmp_path: Path) -> None:
    (tree(tmp_path) / "dataset.json").write_text('{"name": "animals"}')
    assert open_source(str(tmp_path)).class_names == ["cat", "dog", "emu"]


def test_fingerprint_changes_with_one_byte_of_a_used_image_and_with_its_label(tmp_path: Path) -> None:
    folder = edm_layout(tmp_path, [["00000/img00000000.png", 0], ["00000/img00000001.png", 1]])
    before = [open_source(str(folder)).fingerprint(used) for used in ([0], [1])]
    file = folder / "00000" / "img00000001.png"
    data = bytearray(file.read_bytes())
    data[-20] ^= 1
    file.write_bytes(data)
    after = [open_source(str(folder)).fingerprint(used) for used in ([0], [1])]
    assert after[0] == before[0]
    assert after[1] != before[1]
    edm_layout(tmp_path, [["00000/img00000000.png", 5], ["00000/img00000001.png", 1]])
    assert open_source(str(folder)).fingerprint([0]) != before[0]


@pytest.mark.parametrize("form", ["PNG", "JPEG", "BMP", "TIFF"])
@pytest.mark.parametrize("kept", [0.0, 0.3, 0.7])
def test_a_truncated_picture_is_named(form: str, kept: float, tmp_path: Path) -> None:
    tree(tmp_path, ("good.png",))
    whole = saved(Image.fromarray(pixels(0, 200, 200, 3)), form)
    (tmp_path / "cut.png").write_bytes(whole[: int(len(whole) * kept)])
    for source in (open_source(str(tmp_path)), open_source(str(zipped(tmp_path, tmp_path.parent / "cut.zip")))):
        with pytest.raises(DataError, match=r"^Cannot read cut\.png .*Replace or remove the file\.$"):
            source.read(0, RGB)
        assert source.read(1, RGB).shape == (3, 16, 16)


def test_damage_inside_a_zip_is_one_unreadable_image(tmp_path: Path) -> None:
    path = zipped(tree(tmp_path / "plain", ("a.png", "b.png")), tmp_path / "plain.zip")
    data = bytearray(path.read_bytes())
    data[100] ^= 255  # within the first picture
    path.write_bytes(data)
    source = open_source(str(path))
    with pytest.raises(DataError, match=r"Cannot read a\.png in .*plain\.zip"):
        source.read(0, RGB)
    assert source.read(1, RGB).shape == (3, 16, 16)
