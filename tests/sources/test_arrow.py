"""Arrow's own files, and folders that `save_to_disk` of `datasets` wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from picture_files import RGB, pixels, saved, tree
from PIL import Image

from diffscope.errors import DataError
from diffscope.sources.base import Source, open_source

arrow = pytest.importorskip("pyarrow")

FEATURES = {"image": {"_type": "Image"}, "label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}
WRITERS = {"file": arrow.ipc.new_file, "stream": arrow.ipc.new_stream}


def pictures(count: int) -> list[bytes]:
    return [saved(Image.fromarray(pixels(seed)), "PNG") for seed in range(count)]


def written(path: Path, columns: dict[str, Any], form: str = "stream", declared: bool = False, **options: Any) -> Path:
    table = arrow.table(columns)
    if declared:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": FEATURES}})})
    path.parent.mkdir(exist_ok=True)
    with WRITERS[form](str(path), table.schema, options=arrow.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table, max_chunksize=2)
    return path


def save_to_disk(folder: Path, cells: list[dict[str, Any]], labels: list[int | None]) -> Path:
    """As `datasets` 5.2 does, in two files."""
    names = [f"data-{number:05d}-of-00002.arrow" for number in range(2)]
    for number, name in enumerate(names):
        half = slice(number * 3, number * 3 + 3)
        written(folder / name, {"image": cells[half], "label": labels[half]}, declared=True)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in names]}))
    (folder / "dataset_info.json").write_text(json.dumps({"features": FEATURES}))
    return folder


def refused(path: object) -> str:
    with pytest.raises(DataError) as caught:
        open_source(str(path))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def labels_of(source: Source) -> list[int] | None:
    return None if source.labels is None else source.labels.tolist()


@pytest.mark.parametrize("form", WRITERS)
def test_both_forms_hold_the_pictures_of_a_folder(form: str, tmp_path: Path) -> None:
    names = tuple(f"{number}.png" for number in range(5))
    folder = open_source(str(tree(tmp_path / "plain", names)))
    stored = [(tmp_path / "plain" / name).read_bytes() for name in names]
    other = arrow.array(list("aabba")).dictionary_encode()
    source = open_source(
        str(written(tmp_path / "a.arrow", {"image": stored, "label": [3, 1, 0, 1, 3], "x": other}, form))
    )
    assert (source.kind, labels_of(source), source.class_names) == ("images", [3, 1, 0, 1, 3], None)
    for index in (4, 0, 3):
        assert np.array_equal(source.read(index, RGB), folder.read(index, RGB))
        assert source.checksum(index) == folder.checksum(index)
    assert source.fingerprint([0, 1]) != source.fingerprint([0, 2])


def test_a_saved_data_set(tmp_path: Path) -> None:
    cells = [{"bytes": data, "path": None} for data in pictures(6)]
    folder = save_to_disk(tmp_path / "saved", cells, [0, 1, 1, 0, 1, 0])
    source = open_source(str(folder))
    assert (len(source), labels_of(source), source.class_names) == (6, [0, 1, 1, 0, 1, 0], ["cat", "dog"])
    assert np.array_equal(source.read(5, RGB), pixels(5).transpose(2, 0, 1))
    (folder / "data-00001-of-00002.arrow").unlink()
    assert "data-00001-of-00002.arrow" in refused(folder)
    for state in ("{}", "[", '{"_data_files": []}', '{"_data_files": [{"filename": "../a.arrow"}]}'):
        (folder / "state.json").write_text(state)
        assert "save it anew" in refused(folder)


def test_splits_of_a_saved_data_set_are_listed(tmp_path: Path) -> None:
    cells = [{"bytes": data, "path": None} for data in pictures(6)]
    (tmp_path / "both").mkdir()
    (tmp_path / "both" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    for split in ("train", "test"):
        save_to_disk(tmp_path / "both" / split, cells, [0, 1, 1, 0, 1, 0])
    assert f"splits in place of classes: test, train. Give one of them, such as {tmp_path}/both/train." in refused(
        tmp_path / "both"
    )
    assert len(open_source(str(tmp_path / "both" / "train"))) == 6


@pytest.mark.parametrize("labels", [[0, None, 1, 0, 1, -1], [0, 1, 1, -1, 0, -1]])
def test_rows_without_a_class_are_counted(labels: list[int | None], tmp_path: Path) -> None:
    """In Parquet as in Arrow."""
    parquet = pytest.importorskip("pyarrow.parquet")
    columns = {"image": pictures(6), "label": labels}
    parquet.write_table(arrow.table(columns), tmp_path / "a.parquet", row_group_size=2)
    row = labels.index(None) if None in labels else labels.index(-1)
    for path in (written(tmp_path / "a.arrow", columns), tmp_path / "a.parquet"):
        source = open_source(str(path))
        assert (source.labels, source.lacking) == (None, f"2 of 6 images have no class, such as row {row}")
    whole = open_source(str(written(tmp_path / "b.arrow", columns | {"label": [-1] * 6})))
    assert (whole.labels, whole.lacking) == (None, None)


def test_fewer_names_than_labels_are_refused(tmp_path: Path) -> None:
    columns = {"image": pictures(2), "label": [0, 2]}
    assert "has the label 2 and 2 class names" in refused(written(tmp_path / "a.arrow", columns, declared=True))


@pytest.mark.parametrize("form", WRITERS)
def test_compressed_or_cut_files_are_refused_before_they_are_read(form: str, tmp_path: Path) -> None:
    columns = {"image": pictures(4), "x": arrow.array(list("aabb")).dictionary_encode()}
    for compression in ("lz4", "zstd"):
        path = written(tmp_path / "a.arrow", columns, form, compression=compression)
        assert f"{path} is compressed. Expected Arrow without compression" in refused(path)
    whole = written(tmp_path / "a.arrow", columns, form).read_bytes()
    for cut in (0, 10, len(whole) // 2, len(whole) - 8, len(whole) - 1):
        path.write_bytes(whole[:cut])
        assert f"Cannot read {path} as Arrow: " in refused(path)
    path.write_bytes(b"no Arrow at all")
    assert f"Cannot read {path} as Arrow: " in refused(path)
    assert "no columns of pictures among label" in refused(written(tmp_path / "b.arrow", {"label": [1]}, form))
    assert "No images in" in refused(written(tmp_path / "c.arrow", {"image": arrow.array([], arrow.binary())}, form))


def test_damage_anywhere_is_one_line_or_one_picture(tmp_path: Path) -> None:
    rng, told = np.random.default_rng(0), []
    path = tmp_path / "a.arrow"
    for form in WRITERS:
        whole = written(path, {"image": pictures(4), "label": [0, 1, 0, 1]}, form).read_bytes()
        for _ in range(150):
            data = bytearray(whole)
            for place in rng.integers(0, len(data), 2):
                data[place] = rng.integers(0, 256)
            path.write_bytes(data)
            try:
                source = open_source(str(path))
                source.fingerprint(range(len(source)))
                for index in range(len(source)):
                    source.read(index, RGB)
            except DataError as error:
                told.append(str(error))
    assert len(told) > 100
    assert not [text for text in told if "\n" in text]


def test_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "a.arrow", {"image": pictures(2)})
    monkeypatch.setattr("diffscope.sources._tables.importlib.util.find_spec", lambda name: None)
    assert f"{path} holds Arrow, which needs pyarrow" in refused(path)
