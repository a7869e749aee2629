"""`result.json`: both ways without loss, and whatever else lies under that name is refused in one line."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from diffscope.errors import DataError
from diffscope.results import SCHEMA, Result, Row, WindowRow, dumps, finite, read_result

ROW = Row(
    layer="enc.8x8_block3", sigma=0.3, t=-0.301, n=1000, d=256,
    icr=0.25, icr_se=0.01, lidar=None, replicates=[0.2, 0.3], notes=("undefined: lidar: too few",),
)  # fmt: skip
DISCRETE = Row(
    layer="out_conv", sigma=1.01239, t=499.0, n=1000, d=6, icr=0.5, replicates=None, notes=(), sigma_requested=1.0
)
WINDOW = WindowRow(
    "enc.8x8_block3", "u", 0.3, 0.1, 0.9, 0.25, t=-0.301, sigma_error=0.02, practical_low=0.2, practical_high=0.5,
    notes=("x: y",),
)  # fmt: skip
RESULT = Result(
    version="0.1.0",
    command="sweep",
    checkpoint={"path": "é.pkl", "sha256": "aa"},
    data={"path": "photos", "skipped": [{"file": "a.png", "why": "broken"}]},
    protocol={"hash": "bb", "sigmas": [0.3], "constructor": {"channel_mult": [1, 2]}},
    rows=(ROW, DISCRETE),
    sections={"window": (WINDOW, WindowRow("out_conv", None, None, None, None, None))},
    timing={"seconds": 1.5},
    warnings=("one",),
)


def test_json_and_back() -> None:
    record = json.loads(dumps(RESULT))
    again = Result.from_json(record)
    assert again == RESULT
    assert dumps(again) == dumps(RESULT)
    assert (record["schema"], record["diffscope"]) == (SCHEMA, "0.1.0")


def test_a_file_and_back(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    path.write_text(dumps(RESULT), encoding="utf-8")
    assert read_result(str(path)) == RESULT


def test_a_row_is_flat_with_its_notes_last() -> None:
    record = ROW.to_json()
    assert list(record) == ["layer", "sigma", "t", "n", "d", "icr", "icr_se", "lidar", "replicates", "notes"]
    assert "sigma_requested" not in record
    assert list(DISCRETE.to_json())[:3] == ["layer", "sigma", "sigma_requested"]


def test_a_row_answers_for_fields_and_metrics() -> None:
    assert (ROW["sigma"], ROW["icr"], ROW["lidar"]) == (0.3, 0.25, None)
    assert (ROW.sigma_requested, DISCRETE.sigma_requested) == (None, 1.0)
    assert "sigma_requested" not in ROW
    with pytest.raises(KeyError):
        ROW["no_such_key"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_our_mistake(value: float) -> None:
    row = ROW.having(icr=value)
    with pytest.raises(ValueError, match="JSON compliant"):
        dumps(dataclasses.replace(RESULT, rows=(row,)))


def test_finite() -> None:
    assert (finite(1.5), finite(0.0), finite(None)) == (1.5, 0.0, None)
    assert finite(float("inf")) is None
    assert finite(float("nan")) is None


def test_a_result_without_warnings_is_read(tmp_path: Path) -> None:
    record = RESULT.to_json()
    del record["warnings"]
    assert Result.from_json(record).warnings == ()


def changed(**fields: Any) -> str:
    return json.dumps({**json.loads(dumps(RESULT)), **fields})


def without(key: str) -> str:
    return json.dumps({k: v for k, v in json.loads(dumps(RESULT)).items() if k != key})


ROW_RECORD = ROW.to_json()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\x80\x04\xff\xfe", "not JSON"),
        (b"[]", "not a result of diffscope"),
        (b"3", "not a result of diffscope"),
        (b'{"rows": []}', "not a result of diffscope"),
        (changed(schema=99), "schema 99, this version reads 1; measure again"),
        (without("schema"), "schema None"),
        (without("protocol"), "missing or unknown part"),
        (changed(rows=[{"layer": "x"}]), "missing or unknown part"),
        (changed(rows=[{k: v for k, v in ROW_RECORD.items() if k != "notes"}]), "missing or unknown part"),
        (changed(rows=3), "missing or unknown part"),
        (changed(rows=[3]), "missing or unknown part"),
        (changed(rows=["x"]), "missing or unknown part"),
        (changed(rows=[[]]), "missing or unknown part"),
        (changed(window=[{"layer": "x", "notes": []}]), "missing or unknown part"),
        (changed(window=[{**dataclasses.asdict(WINDOW), "surplus": 1}]), "missing or unknown part"),
    ],
)
def test_what_is_no_result_is_refused_in_one_line(tmp_path: Path, content: bytes | str, message: str) -> None:
    path = tmp_path / "result.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=message) as caught:
        read_result(str(path))
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("protocol",), "none"),
        (("data",), None),
        (("data", "skipped"), 3),
        (("rows", 0, "layer"), 1.5),
        (("rows", 0, "notes"), [None]),
        (("rows", 0, "sigma"), "0.3"),
        (("rows", 0, "icr"), -1),
        (("rows", 0, "icr"), float("nan")),
        (("rows", 0, "replicates"), ["0.1"]),
        (("rows", 0, "replicates"), [10**400]),
    ],
)
def test_a_part_of_another_kind_is_refused(place: tuple[str | int, ...], value: object, tmp_path: Path) -> None:
    """As in a file that was damaged or edited by hand: nothing that reads it has to ask again."""
    record = RESULT.to_json()
    part: Any = record
    for key in place[:-1]:
        part = part[key]
    part[place[-1]] = value
    path = tmp_path / "result.json"
    path.write_text(json.dumps(record))
    with pytest.raises(DataError, match=r"missing or unknown part .*; measure again"):
        read_result(str(path))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"No such file or directory; expected a result\.json"):
        read_result(str(tmp_path / "none.json"))
    with pytest.raises(DataError, match=r"result\.json: No such file or directory"):
        read_result(str(tmp_path))
