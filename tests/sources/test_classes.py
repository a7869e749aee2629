"""Names of classes, splits that are none, and images of which only some have a class."""

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import diffscope
from picture_files import pixels, tree, zipped

from diffscope.errors import DataError
from diffscope.sources.base import Source, open_source

PAIR = ("00000/0.png", "00000/1.png")


def refused(path: object) -> str:
    with pytest.raises(DataError) as caught:
        open_source(str(path))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def listed(folder: Path, **content: object) -> Path:
    """Two images of classes 2 and 0 in EDM's layout."""
    tree(folder, PAIR)
    labels = [[name, label] for name, label in zip(PAIR, (2, 0), strict=True)]
    (folder / "dataset.json").write_text(json.dumps({"labels": labels} | content))
    return folder


def labels_of(source: Source) -> list[int] | None:
    return None if source.labels is None else source.labels.tolist()


@pytest.mark.parametrize(
    ("said", "names"),
    [
        ({"class_names": ["cat", "dog", "emu"]}, ["cat", "dog", "emu"]),
        ({"classes": ["cat", "cat", "emu", "of none"]}, ["cat", "cat", "emu", "of none"]),
        ({"classes": {"2": "emu", "0": "cat", "1": "dog"}}, ["cat", "dog", "emu"]),
        ({"classes": 10}, None),
        ({"class_names": None}, None),
    ],
)
def test_dataset_json_names_the_classes_that_it_numbers(tmp_path: Path, said: Any, names: list[str] | None) -> None:
    folder = listed(tmp_path / "edm", **said)
    for source in (open_source(str(folder)), open_source(str(zipped(folder, tmp_path / "edm.zip", "edm/")))):
        assert (labels_of(source), source.class_names) == ([2, 0], names)
    bare = open_source(str(listed(tmp_path / "bare")))
    assert bare.fingerprint([0, 1]) == open_source(str(folder)).fingerprint([0, 1])  # a name changes no number


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (["cat", "dog"], "has the label 2 and 2 class names"),
        ([0, 1, 2], "names its classes in an unknown form"),
        ({"0": "cat", "2": "emu"}, "names its classes in an unknown form"),
        ({"cat": 0, "dog": 1, "emu": 2}, "names its classes in an unknown form"),
    ],
)
def test_names_that_do_not_fit_are_refused(tmp_path: Path, said: object, message: str) -> None:
    found = refused(listed(tmp_path / "edm", class_names=said))
    assert found.startswith(f"{tmp_path / 'edm' / 'dataset.json'} {message}. Expected")


@pytest.mark.parametrize("key", ["class_names", "label_names"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_an_npz_names_its_classes(tmp_path: Path, key: str, order: str) -> None:
    def of(names: np.ndarray) -> Any:
        return {key: names}

    names = np.array(["cat", "ülk", "emu"]).astype(f"{order}U3")
    images: Any = {"x": pixels(0, 2, 8, 8, 3), "y": np.array([2, 0])}
    np.savez_compressed(tmp_path / "a.npz", **images, **of(names))
    np.savez(tmp_path / "latents.npz", mean=np.zeros((2, 4, 2, 2)), y=np.array([2, 0]), **of(names))
    for name in ("a.npz", "latents.npz"):
        source = open_source(str(tmp_path / name))
        assert (labels_of(source), source.class_names) == ([2, 0], ["cat", "ülk", "emu"])
    np.savez(tmp_path / "pickled.npz", **images, **of(names.astype(object)))
    np.savez(tmp_path / "numbers.npz", **images, **of(np.arange(3)))
    for name in ("pickled.npz", "numbers.npz"):
        source = open_source(str(tmp_path / name))
        assert (labels_of(source), source.class_names) == ([2, 0], None)
    for wrong, message in ((names[:2], "label 2 and 2 class names"), (names[None], "class names of")):
        np.savez(tmp_path / "wrong.npz", **images, **of(wrong))
        assert message in refused(tmp_path / "wrong.npz")
    beyond = np.frombuffer(np.full(9, 0x110000, "<u4").tobytes(), "<U3")
    np.savez(tmp_path / "wrong.npz", **images, **of(beyond))
    assert "class names that are no text" in refused(tmp_path / "wrong.npz")


def test_splits_are_no_classes(tmp_path: Path) -> None:
    names = ("train/cat/0.png", "train/dog/0.png", "Test/cat/0.png", "Test/dog/1.png")
    folder = tree(tmp_path / "sets", names)
    archive, wrapped = zipped(folder, tmp_path / "sets.zip"), zipped(folder, tmp_path / "wrapped.ZIP", "my/sets/")
    for path, inside in ((folder, ""), (archive, ""), (wrapped, "/my/sets")):
        found = refused(path)
        assert found.endswith(
            f"splits in place of classes: Test, train. Give one of them, such as {path}{inside}/train."
        )
        for split in ("train", "Test", "train/"):
            source = open_source(f"{path}{inside}/{split}")
            assert source.name(0).startswith("cat/")
            assert (source.class_names, labels_of(source)) == (["cat", "dog"], [0, 1])
            assert source.path == f"{path}{inside}/{split}"
    assert open_source(f"{archive}/train").fingerprint([0, 1]) == open_source(f"{folder}/train").fingerprint([0, 1])
    assert refused(f"{archive}/trian") == (
        f"Nothing at {archive}/trian: the zip has the folders Test, train. Check the spelling."
    )
    assert "Nothing at" in refused(tmp_path / "nowhere.zip" / "train")


def test_one_split_alone(tmp_path: Path) -> None:
    """A zip passes through what wraps all of it; of a folder the split is asked for."""
    folder = tree(tmp_path / "sets", ("train/cat/0.png", "train/dog/0.png"))
    assert open_source(str(zipped(folder, tmp_path / "sets.zip"))).class_names == ["cat", "dog"]
    assert f"Give one of them, such as {folder}/train." in refused(folder)


def test_what_is_named_as_a_split_among_classes_is_one(tmp_path: Path) -> None:
    assert open_source(str(tree(tmp_path, ("bus/0.png", "train/0.png")))).class_names == ["bus", "train"]


def test_listed_labels_go_before_splits(tmp_path: Path) -> None:
    tree(tmp_path, ("train/0.png", "test/0.png"))
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": [["test/0.png", 4], ["train/0.png", 5]]}))
    assert labels_of(open_source(str(tmp_path))) == [4, 5]


COUNT, WITHOUT = 80, 3
"""Images, and those of them without a class: the last."""


def loose(root: Path) -> Path:
    """Class folders, and images that lie beside them."""
    names = [f"{('cat', 'dog')[number % 2]}/{number:02d}.png" for number in range(COUNT - WITHOUT)]
    return tree(root / "mixed", (*names, *(f"{number}.png" for number in range(COUNT - WITHOUT, COUNT))))


def in_list(root: Path) -> Path:
    names = tuple(f"{number:02d}.png" for number in range(COUNT))
    folder = tree(root / "mixed", names)
    labels = [[name, number % 2] for number, name in enumerate(names[:-WITHOUT])]
    (folder / "dataset.json").write_text(json.dumps({"labels": [*labels, [names[-1], None]]}))
    return folder


def in_tar(root: Path) -> Path:
    plain = tree(root / "plain", tuple(f"{number:02d}.png" for number in range(COUNT)))
    with tarfile.open(root / "mixed.tar", "w") as archive:
        for number, path in enumerate(sorted(plain.iterdir())):
            archive.add(path, path.name)
            if number < COUNT - WITHOUT:
                info = tarfile.TarInfo(f"{path.stem}.cls")
                info.size = 1
                archive.addfile(info, io.BytesIO(b"01"[number % 2 : number % 2 + 1]))
    return root / "mixed.tar"


@pytest.mark.parametrize("make", [loose, in_list, in_tar])
def test_where_only_some_have_a_class_all_are_measured_and_a_probe_counts_them(
    tmp_path: Path, make: Callable[[Path], Path]
) -> None:
    path = make(tmp_path)
    source = open_source(str(path))
    assert (len(source), source.labels, source.class_names) == (COUNT, None, None)
    assert source.lacking == f"{WITHOUT} of {COUNT} images have no class, such as 77.png"
    given = ("toy:d=4,side=8", "--data", path, "--augment", "none", "--sigma", "0.3")
    assert diffscope("icr", *given).code == 0
    ran = diffscope("probe", *given)
    assert (ran.code, ran.err.splitlines()[-1]) == (
        1,
        f"error: probe needs labels, and in {path} {source.lacking}; complete them, or say all of them by --labels",
    )
    near = diffscope("neighbors", *given, "--json")
    assert near.code == 0
    assert source.lacking in near.json["rows"][0]["notes"][0]
