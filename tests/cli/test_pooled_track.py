"""`track` as it is without options: an alarm that pools layers and levels, and stops a training."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import DATA, Ran, diffscope, without_timing

import diffscope as package

SERIES = DATA / "series"
SNAPSHOTS = sorted(SERIES.glob("*.safetensors"))[1:5]
IMAGES = ("--data", SERIES / "images.npz", "--workers", 0)
FIRED, KEEP = 102_400, 51_200


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("alarm")


@pytest.fixture(scope="module")
def ran(out: Path) -> Ran:
    return diffscope("track", *SNAPSHOTS, *IMAGES, "--out", out)


@pytest.fixture(scope="module")
def record(ran: Ran, out: Path) -> Any:
    assert ran.code == 0, ran.err
    return json.loads((out / "result.json").read_text("utf-8"))


def test_the_series_of_the_tests_gives_its_alarm_at_this_snapshot(record: Any) -> None:
    (verdict,), (alarm,) = record["onset"], record["alarm"]
    assert (verdict["state"], verdict["fired_at"], verdict["keep_step"]) == ("turned", FIRED, KEEP)
    assert (verdict["layer"], verdict["sigma"], verdict["rule"]) == (None, None, "alarm")
    assert (alarm["fired_at"], alarm["persist"]) == (FIRED, 2)
    assert [limit["quantity"] for limit in alarm["limits"]] == ["icr", "loss_views"]
    assert [point["step"] for point in alarm["points"]] == [25_600 * k for k in range(2, 6)]
    assert alarm["false_alarms"] == verdict["false_alarms"] == 0.02
    assert alarm["passes"] == 5 * 25_600 / 64
    cells = {(cell["layer"], cell["sigma"]) for cell in alarm["cells"]}
    assert cells == {(row["layer"], row["sigma"]) for row in record["rows"]}
    assert len(cells) == 9
    assert {"loss", "loss_se", "loss_views", "loss_views_se", "freedom", "spikiness"} <= set(record["rows"][0])


def test_it_says_so_in_words_and_in_a_table(ran: Ran, out: Path) -> None:
    assert "The alarm fired at step 102,400" in " ".join(ran.out.split())
    assert "snapshot-0051200.safetensors" in ran.out
    assert "onset fired" in ran.out
    table = list(csv.DictReader(io.StringIO((out / "result.csv").read_text("utf-8"))))
    assert len(table) == 4 * 9
    assert (out / "icr.png").stat().st_size > 20_000


def test_it_goes_on_where_it_was_and_is_the_same_in_python(record: Any, out: Path) -> None:
    again = diffscope("track", *SNAPSHOTS, *IMAGES, "--out", out, "--json")
    assert without_timing(again.json) == without_timing(record)
    assert again.json["timing"]["snapshots_measured"] == 0
    result = package.track(
        [str(path) for path in SNAPSHOTS[:2]], str(SERIES / "images.npz"), out=out / "two", workers=0
    )
    assert result.alarm is not None
    assert [row.step for row in result.shown_rows] == [51_200, 76_800]
    assert package.read_result(out / "two").alarm == result.alarm
    assert package.read_result(out / "two").onset == result.onset


def test_watching_ends_at_the_same_snapshot(tmp_path: Path) -> None:
    for path in SNAPSHOTS:
        shutil.copy(path, tmp_path)
    told = tmp_path / "told"
    ran = diffscope(
        "track", "--watch", tmp_path, *IMAGES, "--every", 0.1, "--fail-if", "onset",
        "--on-onset", f"echo $DIFFSCOPE_STEP $DIFFSCOPE_KEEP_STEP >> {told}", "--quiet",
    )  # fmt: skip
    assert ran.code == 3, ran.err
    assert told.read_text().split() == [str(FIRED), str(KEEP)]
    assert "the alarm fired at step 102400" in ran.err


def test_held_out_images_take_the_place_of_views_and_icr(tmp_path: Path) -> None:
    pixels = np.load(SERIES / "images.npz")["images"]
    np.savez(tmp_path / "held.npz", images=pixels[:50, ::-1])
    ran = diffscope("track", *SNAPSHOTS[:2], *IMAGES, "--holdout", tmp_path / "held.npz", "--json")
    assert ran.code == 0, ran.err
    (alarm,) = ran.json["alarm"]
    assert [limit["quantity"] for limit in alarm["limits"]] == ["loss_gap"]
    assert {"loss_holdout", "loss_holdout_se", "loss_views"} <= set(ran.json["rows"][0])


def test_without_augmentation_icr_alone_is_watched_and_it_says_so() -> None:
    ran = diffscope("track", *SNAPSHOTS[:2], *IMAGES, "--augment", "none", "--json")
    (alarm,) = ran.json["alarm"]
    assert [limit["quantity"] for limit in alarm["limits"]] == ["icr"]
    assert alarm["notes"][0].startswith("icr_alone")


def test_cells_can_be_chosen() -> None:
    ran = diffscope("track", *SNAPSHOTS[:2], *IMAGES, "--rule", "alarm", "--sigma", "0.3,1", "--json")
    assert {row["sigma"] for row in ran.json["rows"]} == {0.3, 1.0}
    assert len(ran.json["alarm"][0]["cells"]) == 6
    assert ran.json["alarm"][0]["false_alarms"] is ran.json["onset"][0]["false_alarms"] is None  # were not simulated
    one = diffscope("track", *SNAPSHOTS[:2], *IMAGES, "--sigma", 0.3, "--json")
    assert "alarm" not in one.json
    assert one.json["onset"][0]["sigma"] == 0.3


def test_levels_at_each_snapshot_show_the_window_over_training(tmp_path: Path) -> None:
    ran = diffscope("track", *SNAPSHOTS[:2], *IMAGES, "--views", 4, "--num-levels", 4, "--out", tmp_path)
    assert ran.code == 0, ran.err
    record = json.loads((tmp_path / "result.json").read_text("utf-8"))
    assert [window["step"] for window in record["window"]] == [51_200, 76_800]
    assert {row["sigma"] for row in record["rows"]} == {0.002, 0.0430887, 0.928318, 20.0}
    for window in record["window"]:
        lowest = min((row for row in record["rows"] if row["step"] == window["step"]), key=lambda row: row["icr"])
        assert window["lowest_sigma"] == lowest["sigma"]
    assert "window" in ran.out
    assert (tmp_path / "window.png").stat().st_size > 10_000
    assert "alarm" not in record


def test_a_sweep_of_each_snapshot_is_no_alarm() -> None:
    ran = diffscope("track", SERIES, *IMAGES, "--rule", "alarm", "--num-levels", 4)
    assert (ran.code, ran.out) == (2, "")
    assert "--num-levels 4" in ran.err
    assert "leave out one of the two" in ran.err
