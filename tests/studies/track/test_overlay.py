"""Columns of the user's own beside ICR: what is read, what is refused, ranks and turns on paper."""

# mypy: disable-error-code="call-overload, return-value"

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from diffscope.errors import DataError
from diffscope.studies.track.overlay import IcrCurve, chosen, compare, compare_all, read_columns


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def csv(folder: Path, text: str, encoding: str = "utf-8") -> str:
    path = folder / "own.csv"
    path.write_text(text, encoding=encoding)
    return str(path)


def record(folder: Path, content: object) -> str:
    path = folder / "own.json"
    path.write_text(json.dumps(content))
    return str(path)


# --- reading


def test_columns_by_name(folder: Path) -> None:
    path = csv(folder, "name,Step,fid,ratio\nb,200,10.5,\na,100,12,0.1\n\nc,300,nan,0.2,beyond\nd,4e2\n")
    assert read_columns(path) == {"fid": ((100, 12.0), (200, 10.5)), "ratio": ((100, 0.1), (300, 0.2))}


def test_a_spreadsheets_mark_and_spaces_are_no_part_of_a_name(folder: Path) -> None:
    assert read_columns(csv(folder, "step, fid\n1, 2\n", encoding="utf-8-sig")) == {"fid": ((1, 2.0),)}


@pytest.mark.parametrize("mark", ["\x0b", "\x0c", "\x85", "\u2028"])
def test_only_an_end_of_line_ends_a_line(mark: str, folder: Path) -> None:
    """Python's own splitting of text knows more of them than CSV does."""
    path = csv(folder, f"step,what,fid\n1,a{mark}b,2\n2,c,3\n")
    assert read_columns(path) == {"fid": ((1, 2.0), (2, 3.0))}


def test_what_is_not_finite_is_no_point(folder: Path) -> None:
    assert read_columns(csv(folder, "step,fid\n1,inf\n2,NaN\n3,4\n")) == {"fid": ((3, 4.0),)}


def test_a_step_may_come_twice_with_different_columns(folder: Path) -> None:
    """As loggers write it."""
    assert read_columns(csv(folder, "step,a,b\n1,5,\n1,,6\n")) == {"a": ((1, 5.0),), "b": ((1, 6.0),)}


def test_records(folder: Path) -> None:
    rows = [
        {"checkpoint": "a.pt", "step": 20, "share": 0.1, "share_low": None, "exact": True},
        {"checkpoint": "b.pt", "step": 10, "share": 0, "share_low": 0.0, "exact": True},
    ]
    assert read_columns(record(folder, {"rows": rows})) == {"share": ((10, 0.0), (20, 0.1)), "share_low": ((10, 0.0),)}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no column 'step' (columns: none)"),
        ("kimg,fid\n1,2\n", "no column 'step' (columns: kimg, fid)"),
        ("step,STEP,fid\n1,1,2\n", "2 columns 'step'"),
        ("step,fid,fid\n1,2,3\n", "two columns 'fid'"),
        ("step,name\n1,a\n", "no column of numbers beside 'step' (columns: step, name)"),
        ("step,fid\n1,\n", "no column of numbers"),
        ("step\n1\n", "no column of numbers"),
        ("step,fid\n1,2\nlast,3\n", "step 'last' in row 2"),
        ("step,fid\n1.5,2\n", "step '1.5' in row 1"),
        ("step,fid\n,2\n", "step '' in row 1"),
        ("step,fid,b\n7,1,1\n8,2,\n7,3,\n", "two values of 'fid' at step 7"),
    ],
)
def test_a_csv_that_does_not_fit(folder: Path, text: str, said: str) -> None:
    with pytest.raises(DataError) as raised:
        read_columns(csv(folder, text))
    message = str(raised.value)
    assert said in message
    assert "expected" in message
    assert "\n" not in message
    assert str(folder) in message


@pytest.mark.parametrize("content", [[], {}, {"rows": 3}, {"rows": [1]}, {"rows": []}, {"rows": [{"share": 1}]}])
def test_a_json_file_that_does_not_fit(folder: Path, content: object) -> None:
    with pytest.raises(DataError, match=r"own\.json: no .*expected"):
        read_columns(record(folder, content))


def test_files_that_cannot_be_read(folder: Path) -> None:
    (folder / "broken.json").write_text("{")
    (folder / "picture.csv").write_bytes(b"\x89PNG\xff\xfe")
    for name in ("missing.csv", "missing.json", "broken.json", "picture.csv"):
        with pytest.raises(DataError, match="expected"):
            read_columns(str(folder / name))


# --- comparing


def against(values: list[float | None], column: list[float], turn: int | None = None) -> tuple[int | None, ...]:
    """Both at steps 0, 10, …"""
    points = tuple((10 * i, value) for i, value in enumerate(column))
    found = compare("fid", points, [IcrCurve("enc", 0.3, [10 * i for i in range(len(values))], values, turn)])
    assert found.points == points
    (only,) = found.against
    return found.turn_step, only.n, only.rank_correlation, only.lead


@pytest.mark.parametrize(
    ("icr", "column", "expected"),
    [
        ([1.0, 2.0, 3.0], [0.1, 5.0, 900.0], 1.0),
        ([1.0, 2.0, 3.0], [3.0, 2.0, 1.0], -1.0),
        # Without ties 1 − 6 Σ d²/(n(n² − 1)): d² = 0, 1, 1 gives 1 − 12/24.
        ([1.0, 2.0, 3.0], [1.0, 3.0, 2.0], 0.5),
        # Ranks 1, 2, 3, 4 against 1.5, 1.5, 3, 4: 4.5/sqrt(5 · 4.5).
        ([1.0, 2.0, 3.0, 4.0], [0.0, 0.0, 1.0, 2.0], 4.5 / np.sqrt(22.5)),
        ([1.0, 1.0, 2.0, 2.0], [1.0, 2.0, 1.0, 2.0], 0.0),
        ([1.0, 2.0, 3.0], [7.0, 7.0, 7.0], None),
        ([2.0, 2.0, 2.0], [1.0, 2.0, 3.0], None),
        ([1.0, 2.0], [1.0, 2.0], None),
        ([], [1.0], None),
    ],
)
def test_rank_correlation_on_paper(icr: list[float | None], column: list[float], expected: float | None) -> None:
    found = against(icr, column)[2]
    assert found == (None if expected is None else pytest.approx(expected))


def test_rank_correlation_is_that_of_ranks_by_counting() -> None:
    """The rank of a value: those below it, and half of its equals."""
    a, b = np.random.default_rng(0).integers(0, 8, (2, 40)).astype(float)
    ranks = [[np.sum(side < value) + (np.sum(side == value) + 1) / 2 for value in side] for side in (a, b)]
    assert against(a.tolist(), b.tolist())[2] == pytest.approx(np.corrcoef(*ranks)[0, 1])


def test_only_steps_that_both_have_count() -> None:
    points = ((5, 9.0), (10, 1.0), (20, 2.0), (40, 3.0), (50, 0.0))
    found = compare("fid", points, [IcrCurve("enc", 0.3, [10, 20, 30, 40, 60, 50], [1, 2, 0, 3, 9, None], None)])
    assert (found.against[0].n, found.against[0].rank_correlation) == (3, pytest.approx(1.0))


@pytest.mark.parametrize(
    ("column", "turn_step"),
    [
        ([3.0, 2.0, 1.0, 2.0], 20),
        ([0.0, 0.0, 0.0, 0.03], 20),  # a ratio of copies: the last 0
        ([1.0, 0.0, 0.0, 0.5, 0.0, 0.5], 20),  # left for the first time
        ([3.0, 2.0, 1.0], None),
        ([1.0, 2.0, 3.0], None),
        ([1.0, 1.0, 1.0], None),
        ([1.0], None),
        ([], None),
    ],
)
def test_turn_of_a_column(column: list[float], turn_step: int | None) -> None:
    assert against([], column)[0] == turn_step


def test_lead_is_positive_where_icr_turned_earlier() -> None:
    column = [5.0, 4.0, 3.0, 2.0, 3.0]
    icr: list[float | None] = [0.5, 0.4, 0.45, 0.5, 0.55]
    assert against(icr, column, turn=1)[3] == 2
    assert against(icr, column, turn=3)[3] == 0
    assert against(icr, column, turn=4)[3] == -1
    assert against(icr, column, turn=None)[3] is None
    assert against(icr, sorted(column), turn=1)[3] is None


def test_lead_counts_snapshots_of_the_icr_series() -> None:
    """The column turns at 95, of which 100 is the nearest snapshot: two after 10, one of them without ICR."""
    points = ((0, 3.0), (95, 1.0), (200, 2.0))
    found = compare("fid", points, [IcrCurve("enc", 0.3, [0, 10, 50, 100, 200], [0.5, 0.4, None, 0.5, 0.6], 1)])
    assert found.against[0].lead == 2


def test_every_series_has_its_entry() -> None:
    series = [IcrCurve(layer, sigma, [0, 10], [0.5, 0.4], None) for layer in ("enc", "dec") for sigma in (0.1, 0.3)]
    found = compare("fid", ((0, 1.0),), series)
    assert [(entry.layer, entry.sigma, entry.n) for entry in found.against] == [
        ("enc", 0.1, 1),
        ("enc", 0.3, 1),
        ("dec", 0.1, 1),
        ("dec", 0.3, 1),
    ]


def test_ends_of_an_interval_are_no_columns_of_their_own() -> None:
    series = [IcrCurve("mid", 0.3, [1, 2, 3], [0.3, 0.2, 0.4], 1)]
    columns = {
        "share": ((1, 0.0), (2, 0.0), (3, 0.5)),
        "share_low": ((1, 0.0), (3, 0.4)),
        "share_high": ((1, 0.1), (3, 0.6)),
        "fid_low": ((1, 5.0),),
    }
    share, fid = compare_all(columns, series)
    assert (share.column, share.low, share.high) == ("share", columns["share_low"], columns["share_high"])
    assert (share.points, share.against) == (columns["share"], compare("share", columns["share"], series).against)
    assert (fid.column, fid.low) == ("fid_low", ())


def test_standard_errors_are_no_columns_of_their_own() -> None:
    """1.96 of them are to be seen to either side, where the column has no ends of its own."""
    series = [IcrCurve("mid", 0.3, [1, 2, 3], [0.3, 0.2, 0.4], 1)]
    points, errors = ((1, 4.0), (2, 2.0), (3, 1.0)), ((1, 0.5), (3, 0.1))
    (fd,) = compare_all({"fd": points, "fd_se": errors}, series)
    assert (fd.column, fd.points, fd.against[0].n) == ("fd", points, 3)
    assert [step for step, _ in fd.low] == [step for step, _ in fd.high] == [1, 3]
    assert [value for _, value in (*fd.low, *fd.high)] == pytest.approx([3.02, 0.804, 4.98, 1.196])
    ends = ((1, 3.0),)
    (both,) = compare_all({"fd": points, "fd_se": errors, "fd_low": ends}, series)
    assert (both.low, both.high) == (ends, ())
    (alone,) = compare_all({"fd_se": errors}, series)
    assert alone.column == "fd_se"
    assert list(chosen({"fd": points, "fd_se": errors, "kd": points}, ["fd"], "x.csv")) == ["fd", "fd_se"]


def test_some_columns_are_chosen_with_their_intervals() -> None:
    columns = {"a": ((1, 1.0),), "a_low": ((1, 0.5),), "a_high": ((1, 1.5),), "b": ((1, 2.0),)}
    assert list(chosen(columns, ["a"], "x.csv")) == ["a", "a_low", "a_high"]
    assert chosen(columns, [], "x.csv") == columns
    with pytest.raises(DataError, match="no column of numbers 'c'"):
        chosen(columns, ["c"], "x.csv")
