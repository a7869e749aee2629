"""A folder of results holds whole files or none."""

from __future__ import annotations

import json
from pathlib import Path

import made_results
import pytest

from diffscope.errors import StoreError
from diffscope.report import files
from diffscope.report.views.base import view_of
from diffscope.results import read_result


def test_writes_json_csv_and_pictures_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    written = made_results.sweep().save(folder)
    names = ["result.json", "result.csv", "icr.png", "icr.svg", "traces.png", "traces.svg", "report.html"]
    assert written == [folder / name for name in names]
    assert sorted(path.name for path in folder.iterdir()) == sorted(names)
    assert read_result(str(written[0])).to_json() == made_results.sweep().to_json()


def test_a_run_has_pictures_of_its_own(tmp_path: Path) -> None:
    made = made_results.track_with_all()
    written = made.save(tmp_path)
    pictures = [f"{name}.{kind}" for name in ("icr", "traces", "companions") for kind in ("png", "svg")]
    assert [path.name for path in written] == ["result.json", "result.csv", *pictures, "report.html"]
    assert read_result(str(written[0])).to_json() == made.to_json()


def test_without_figures_matplotlib_is_not_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "diffscope.report.figures", None)
    made = made_results.sweep()
    written = view_of(made).save(made, tmp_path, figures=False)
    assert [path.name for path in written] == ["result.json", "result.csv", "report.html"]


def test_an_earlier_result_stays_whole_where_writing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    view_of(made_results.sweep()).save(made_results.sweep(), tmp_path, figures=False)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def broken(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "write_csv", broken)
    with pytest.raises(StoreError, match=r"No space left on device; give another folder with --out$") as error:
        made_results.sweep(3).save(tmp_path)
    assert "\n" not in str(error.value)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_file_in_the_way_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(StoreError, match="cannot write results: "):
        made_results.sweep().save(tmp_path / "taken")


def test_a_file_name_that_is_not_utf8_survives(tmp_path: Path) -> None:
    odd = made_results.result([made_results.row("caf\udcff", 0.3)], path="net-\udcff.pkl")
    path, *_ = odd.save(tmp_path)
    assert json.loads(path.read_text(encoding="utf-8"))["checkpoint"]["path"] == "net-\udcff.pkl"
