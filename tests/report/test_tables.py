"""CSV says what JSON says; Markdown survives whatever a name holds."""

from __future__ import annotations

import csv
from pathlib import Path

import made_results

from diffscope.report.spreadsheet import write_csv
from diffscope.report.views.base import view_of
from diffscope.results import Result


def markdown(result: Result) -> str:
    return view_of(result).markdown(result)


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def mixed() -> Result:
    one, two, *_ = made_results.sweep().rows
    noted = two.having(notes=('few_images: "5 %", at most', "odd: two\nlines"), sigma_requested=0.005)
    return made_results.result([one, made_results.without_icr(one, "rank_deficient: no"), noted])


def test_csv_equals_json(tmp_path: Path) -> None:
    result = mixed()
    write_csv(result.rows, tmp_path / "result.csv")
    for line, record in zip(read(tmp_path / "result.csv"), result.to_json()["rows"], strict=True):
        assert "replicates" not in line
        assert line.pop("notes") == "; ".join(record["notes"]).replace("\n", "\\x0a")
        for key, text in line.items():
            value = record.get(key)
            assert text == ("" if value is None else value if isinstance(value, str) else repr(value))
            assert value is None or isinstance(value, str) or float(text) == value


def test_csv_columns_are_in_a_fixed_order(tmp_path: Path) -> None:
    write_csv(mixed().rows, tmp_path / "a.csv")
    header = (tmp_path / "a.csv").read_bytes().split(b"\r\n")[0].decode().split(",")
    assert header[:8] == ["layer", "sigma", "sigma_requested", "t", "n", "d", "icr", "icr_se"]
    assert header[-1] == "notes"
    write_csv(made_results.sweep().rows, tmp_path / "b.csv")
    assert "sigma_requested" not in (tmp_path / "b.csv").read_text(encoding="utf-8")


def test_a_key_that_only_later_rows_have_gets_a_column(tmp_path: Path) -> None:
    rows = [
        made_results.row("a", 0.1),
        made_results.row("b", 0.1).having(icr=None, lidar=2.0, **{"lambda": [1.0]}),
    ]
    write_csv(rows, tmp_path / "a.csv")
    assert [line["lidar"] for line in read(tmp_path / "a.csv")] == ["", "2.0"]
    assert "lambda" not in read(tmp_path / "a.csv")[0]


def test_markdown_has_a_line_a_row_the_verdict_and_the_notes() -> None:
    lines = markdown(mixed()).splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert len(table) == 2 + 3
    assert len({line.count("|") for line in table}) == 1
    assert "| – | – |" in table[3]
    assert [line for line in table if line.endswith("| b c |")]
    assert '- (b) few_images: "5 %", at most' in lines
    assert "- (c) odd: two lines" in lines
    said = markdown(made_results.sweep())
    assert "- **enc.8x8_block3: semantic window found.** Recommended σ" in said


def test_markdown_escapes_names() -> None:
    text = markdown(made_results.result([made_results.row("a|b<c>", 0.3)], path="x`y*\n.pt"))
    assert "| a\\|b\\<c\\> |" in text
    assert "x\\`y\\* .pt" in text


def test_csv_of_a_run_begins_with_the_snapshot(tmp_path: Path) -> None:
    made = made_results.track_with_all()
    write_csv(made.rows, tmp_path / "a.csv")
    header = (tmp_path / "a.csv").read_bytes().split(b"\r\n")[0].decode().split(",")
    assert header[:7] == ["checkpoint", "step", "layer", "sigma", "t", "n", "d"]
    assert {"loss_holdout", "icr_holdout_low"} <= set(header)
    first = read(tmp_path / "a.csv")[0]
    assert (first["checkpoint"], first["step"]) == (made.rows[0].checkpoint, "12800")
    write_csv(made_results.sweep().rows, tmp_path / "b.csv")
    assert not {"checkpoint", "step"} & set(read(tmp_path / "b.csv")[0])


def test_markdown_of_a_run_has_its_verdict_its_columns_and_what_was_left_out() -> None:
    text = markdown(made_results.track_with_all())
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert text.startswith("### diffscope track: limited on images\n")
    assert len(table) == 2 + 24
    assert len({line.count("|") for line in table}) == 1
    assert "| 128,000 | snapshot-0128000.safetensors | 0.2608 |" in text
    assert "- **enc.8x8_block3, σ = 0.3: turned, onset of memorization.** Lowest ICR 0.2608" in text
    assert "- fid: rank correlation with ICR +0.83" in text
    assert "- Left out: broken.pt: not a checkpoint" in markdown(made_results.track_with_nulls())
