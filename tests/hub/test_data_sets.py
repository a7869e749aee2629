"""Data sets on the Hub: trees of images, Parquet, archives; which set is taken where there are several."""

from __future__ import annotations

import io
import json
import threading
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import EDM, FEW, diffscope, write_pictures
from fake_hub import TOKEN, FakeHub, Files
from PIL import Image

from diffscope.errors import DataError
from diffscope.sources.base import Target, open_source

RGB = Target(16, 3)
DATA = "hf://datasets/o/n"


def tree(folder: Path, count: int, prefix: str = "") -> Files:
    write_pictures(folder, count)
    return {prefix + f.relative_to(folder).as_posix(): f.read_bytes() for f in sorted(folder.rglob("*.png"))}


def parquet(
    pictures: list[bytes], labels: list[int | None] | None, declared: bool = True, column: str = "image"
) -> bytes:
    """As the `datasets` library writes it, or (not `declared`) as anything else might."""
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    cells = [{"bytes": data, "path": f"{number}.png"} for number, data in enumerate(pictures)] if declared else pictures
    columns: dict[str, Any] = {column: cells, "id": list(range(len(pictures)))}
    features: dict[str, Any] = {column: {"_type": "Image"}, "id": {"dtype": "int64", "_type": "Value"}}
    if labels is not None:
        columns["label"] = labels
        features["label"] = {"names": ["cat", "dog"], "_type": "ClassLabel"}
    table = arrow.table(columns)
    if declared:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    parquet.write_table(table, sink := io.BytesIO(), row_group_size=3)
    return sink.getvalue()


def refusal(text: str) -> str:
    with pytest.raises(DataError) as caught:
        open_source(text)
    assert str(caught.value).isprintable()
    assert text in str(caught.value)
    return str(caught.value)


def test_a_tree_of_images(hub: FakeHub, tmp_path: Path) -> None:
    files = tree(tmp_path / "pictures", 24)
    commit = hub.add("o/n", {**files, "README.md": b"#", "notes/more.txt": b""}, kind="dataset")
    source, local = open_source(DATA), open_source(str(tmp_path / "pictures"))
    assert (source.path, source.kind, len(source), source.class_names) == (DATA, "images", 24, ["cat", "dog"])
    assert getattr(source, "revision", None) == commit
    assert source.fingerprint([0, 5]) == local.fingerprint([0, 5])
    assert np.array_equal(source.read(5, RGB), local.read(5, RGB))
    assert len(set(hub.downloads())) == 24
    assert "README.md" not in hub.downloads()


def test_folders_around_the_images(hub: FakeHub, tmp_path: Path) -> None:
    hub.add("o/n", tree(tmp_path / "pictures", 24, "data/train/"), kind="dataset")
    assert open_source(DATA).class_names == ["cat", "dog"]
    assert open_source(f"{DATA}/data/train").class_names == ["cat", "dog"]
    cats = open_source(f"{DATA}@main/data/train/cat")
    assert (len(cats), cats.labels) == (12, None)


def test_listed_labels(hub: FakeHub, tmp_path: Path) -> None:
    files = tree(tmp_path / "pictures", 4)
    listed = {"labels": [[name, number] for number, name in enumerate(files)]}
    hub.add("o/n", {**files, "dataset.json": json.dumps(listed).encode()}, kind="dataset")
    labels = open_source(DATA).labels
    assert labels is not None
    assert labels.tolist() == [0, 1, 2, 3]


def test_splits_are_listed(hub: FakeHub, tmp_path: Path) -> None:
    train, test = tree(tmp_path / "a", 4, "train/"), tree(tmp_path / "b", 2, "test/")
    hub.add("o/n", {**train, **test}, kind="dataset")
    assert f"2 sets of images in it; give one as /PATH, such as {DATA}/test; all: test, train" in refusal(DATA)
    assert hub.downloads() == []
    assert len(open_source(f"{DATA}/train")) == 4


def test_offline(hub: FakeHub, tmp_path: Path, offline: Callable[[], None]) -> None:
    hub.add("o/n", tree(tmp_path / "pictures", 6), kind="dataset")
    first = open_source(DATA).fingerprint([1])
    next((tmp_path / "hf").rglob("0003.png")).unlink()
    offline()
    assert "1 of 6 files are not in the cache, such as 'dog/0003.png'" in refusal(DATA)
    hub.repos.clear()
    assert open_source(f"{DATA}/cat").name(0) == "0000.png"
    assert first
    assert "HF_HUB_OFFLINE" in refusal("hf://datasets/o/else")


def test_an_archive(hub: FakeHub, tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    np.savez(tmp_path / "x.npz", x=images, y=np.arange(5))
    data = (tmp_path / "x.npz").read_bytes()
    commit = hub.add("o/n", {"images.npz": data, "assets/logo.png": b"not asked for"}, kind="dataset")
    for text in (DATA, f"{DATA}@{commit}/images.npz"):
        source = open_source(text)
        assert (source.path, len(source)) == (text, 5)
    hub.add("o/two", {"a.npz": data, "b/c.zip": data}, kind="dataset")
    assert "all: a.npz, b/c.zip" in refusal("hf://datasets/o/two")
    assert "no images" in refusal("hf://datasets/o/two/b/c.zip").lower()


def test_splits_in_a_zip(hub: FakeHub, tmp_path: Path) -> None:
    tree(tmp_path / "a" / "train", 4)
    tree(tmp_path / "a" / "test", 2)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for path in (tmp_path / "a").rglob("*.png"):
            archive.write(path, path.relative_to(tmp_path / "a").as_posix())
    hub.add("o/n", {"sets/a.zip": (tmp_path / "a.zip").read_bytes()}, kind="dataset")
    found = refusal(DATA)
    assert found == (
        f"{DATA}/sets/a.zip holds splits in place of classes: test, train. Give one of them, such as "
        f"{DATA}/sets/a.zip/train."
    )
    source = open_source(f"{DATA}/sets/a.zip/train")
    assert (source.path, source.class_names, len(source)) == (f"{DATA}/sets/a.zip/train", ["cat", "dog"], 4)
    assert "the zip has the folders test, train" in refusal(f"{DATA}/sets/a.zip/trian")


def test_what_is_no_data_set(hub: FakeHub) -> None:
    hub.add("o/n", {"README.md": b"#", "train.csv": b""}, kind="dataset")
    hub.add("o/closed", {"train.zip": b""}, kind="dataset", gated=True)
    assert "no images in it, as Parquet, zip, arrays or a tree of them; it holds README.md, train.csv" in refusal(DATA)
    assert "close: train.csv" in refusal(f"{DATA}/train.cvs")
    assert f"Cannot take images from '{DATA}/train.csv'" in refusal(f"{DATA}/train.csv")
    assert "no such dataset repository" in refusal("hf://datasets/o/gone")
    assert "a gated repository" in refusal("hf://datasets/o/closed")
    assert "expected a data set, hf://datasets/OWNER/NAME" in refusal("hf://o/n")


def test_parquet(hub: FakeHub, tmp_path: Path) -> None:
    pictures = list(tree(tmp_path / "pictures", 10).values())
    shards = {
        "data/train-00000-of-00002.parquet": parquet(pictures[:6], [0, 1, 0, 1, 0, 1]),
        "data/train-00001-of-00002.parquet": parquet(pictures[6:], [1, 1, 1, 1]),
    }
    commit = hub.add("o/n", {**shards, "assets/logo.png": b"", "data/metadata.parquet": b""}, kind="dataset")
    for text in (DATA, f"{DATA}/data", f"{DATA}/data/train"):
        source = open_source(text)
        assert (source.path, len(source), source.class_names) == (text, 10, ["cat", "dog"])
        assert source.labels is not None
        assert source.labels.tolist() == [0, 1, 0, 1, 0, 1, 1, 1, 1, 1]
        assert getattr(source, "revision", None) == commit
    assert len(open_source(f"{DATA}/data/train-00001-of-00002.parquet")) == 4
    assert len(hub.downloads()) == 2
    local = open_source(str(tmp_path / "pictures"))
    wanted = [local.read(index, RGB) for index in range(10)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda index: source.read(index, RGB), [9, 0, 5, 6, 3, 2, 8, 7, 1, 4]))
    assert all(np.array_equal(image, wanted[i]) for i, image in zip([9, 0, 5, 6, 3, 2, 8, 7, 1, 4], found, strict=True))
    assert source.fingerprint([0]) != source.fingerprint([1])


def test_parquet_of_little_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diffscope.sources._parquet.KEPT", 1)
    pictures = list(tree(tmp_path / "pictures", 10).values())
    (tmp_path / "a.parquet").write_bytes(parquet(pictures, None, declared=False))
    source = open_source(str(tmp_path / "a.parquet"))
    assert source.labels is None
    indices = [0, 9, 3, 0, 6, 1]
    assert [source.checksum(i) for i in indices] == [
        open_source(str(tmp_path / "pictures")).checksum(i) for i in indices
    ]


def test_parquet_sets_are_listed(hub: FakeHub, tmp_path: Path) -> None:
    data = parquet(list(tree(tmp_path / "pictures", 4).values()), None)
    names = ["b/test/0000.parquet", "b/test/0001.parquet", "a/train-00000-of-00001-0a1b.parquet", "a/valid.parquet"]
    hub.add("o/n", dict.fromkeys(names, data), kind="dataset")
    assert "3 sets of images in it" in refusal(DATA)
    assert "all: a/train, a/valid, b/test" in refusal(DATA)
    assert [len(open_source(f"{DATA}/{path}")) for path in ("a/train", "a/valid", "b", "b/test")] == [4, 4, 8, 8]
    assert "close: a/train" in refusal(f"{DATA}/a/trian")


def test_parquet_offline(hub: FakeHub, tmp_path: Path, offline: Callable[[], None]) -> None:
    data = parquet(list(tree(tmp_path / "pictures", 4).values()), None)
    hub.add("o/n", dict.fromkeys(["train-0-of-2.parquet", "train-1-of-2.parquet"], data), kind="dataset")
    assert len(open_source(f"{DATA}/train")) == 8
    offline()
    hub.repos.clear()
    assert len(open_source(f"{DATA}/train")) == len(open_source(DATA)) == 8
    assert "no 'test' in the repository" in refusal(f"{DATA}/test")


def test_parquet_of_other_things(tmp_path: Path) -> None:
    picture = next(iter(tree(tmp_path / "pictures", 2).values()))
    path = tmp_path / "a.parquet"

    def opened(data: bytes) -> str:
        path.write_bytes(data)
        return str(path)

    assert "no columns of pictures among label, id" in refusal(opened(_numbers()))
    assert "2 columns of pictures among left, right" in refusal(opened(_two(picture)))
    assert "No images in" in refusal(opened(parquet([], None)))
    assert "as Parquet" in refusal(opened(b"PAR1 no more than that"))
    broken = open_source(opened(parquet([picture, b"no picture", picture], [0, None, 1])))
    assert broken.labels is None
    assert broken.read(0, RGB).shape == (3, 16, 16)
    with pytest.raises(DataError, match="row 1 of"):
        broken.read(1, RGB)
    undeclared = open_source(opened(parquet([picture] * 3, [1, 0, 1], declared=False, column="img")))
    assert undeclared.labels is not None
    assert (undeclared.labels.tolist(), undeclared.class_names) == ([1, 0, 1], None)
    assert open_source(opened(parquet([picture] * 2, [-1, -1]))).labels is None


def _numbers() -> bytes:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(arrow.table({"label": [1], "id": [2]}), sink := io.BytesIO())
    return sink.getvalue()


def _two(picture: bytes) -> bytes:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(arrow.table({"left": [picture], "right": [picture]}), sink := io.BytesIO())
    return sink.getvalue()


@pytest.mark.parametrize("text", [DATA, f"{DATA}/train.parquet"])
def test_parquet_without_pyarrow(hub: FakeHub, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    hub.add("o/n", {"train.parquet": b"PAR1"}, kind="dataset")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert refusal(text).endswith("pip install 'diffscope[parquet]'.")
    assert hub.downloads() == []


def test_one_lock_for_all_threads(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(parquet(list(tree(tmp_path / "pictures", 30).values()), None))
    source = open_source(str(tmp_path / "a.parquet"))
    wanted = [source.checksum(index) for index in range(30)]
    found: dict[int, list[int]] = {}

    def read(number: int) -> None:
        found[number] = [source.checksum(index) for index in range(30)]

    threads = [threading.Thread(target=read, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(found.values()) == [wanted] * 4


def test_measured_on_the_command_line(hub: FakeHub, pictures: Path) -> None:
    files = {f.relative_to(pictures).as_posix(): f.read_bytes() for f in sorted(pictures.rglob("*.png"))}
    hub.add("o/n", files, kind="dataset")
    asked = ("icr", EDM, "--sigma", 1, *FEW, "--json", "--data")
    ran, local = diffscope(*asked, f"{DATA}@main"), diffscope(*asked, pictures)
    assert (ran.code, ran.err) == (0, local.err)
    assert ran.json["rows"] == local.json["rows"]
    assert ran.json["data"]["path"] == f"{DATA}@main"
    assert ran.json["data"]["fingerprint"] == local.json["data"]["fingerprint"]
    assert ran.json["data"]["revision"] == hub.repos["dataset", "o/n"].commit("main")
    assert local.json["data"]["revision"] is None
    assert TOKEN not in ran.out


def test_grey_pictures_in_a_bare_column(tmp_path: Path) -> None:
    Image.fromarray(np.full((9, 9), 7, dtype=np.uint8)).save(sink := io.BytesIO(), "PNG")
    (tmp_path / "a.parquet").write_bytes(parquet([sink.getvalue()], None, declared=False, column="png"))
    assert (open_source(str(tmp_path / "a.parquet")).read(0, Target(4, 1)) == 7).all()
