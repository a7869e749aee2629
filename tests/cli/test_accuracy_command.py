"""`diffscope sweep --accuracy` at the command line: what is typed, what is read, and what a script hangs on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from commands import Ran, diffscope, without_timing
from processes import alone, together

from diffscope.results import Result, read_result

LEVELS = tuple(word for sigma in (0.3, 0.32, 0.36, 1, 3) for word in ("--sigma", sigma))
TOY = ("toy:d=8,side=8", "--data", "synthetic:count=480", "--augment", "none", "--workers", 0)
SWEEP = ("sweep", *TOY, *LEVELS)
PASSES = 480 * 2 * 5


def record(folder: Path) -> str:
    """result.json but for the timing, which stands last."""
    text, timing = (folder / "result.json").read_text("utf-8").split('"timing"')
    assert '"seconds"' in timing
    return text


def words(text: str) -> str:
    """As one line."""
    return " ".join(text.split())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("staged")


@pytest.fixture(scope="module")
def ran(folder: Path) -> Ran:
    return diffscope(*SWEEP, "--accuracy", "10%", "--out", folder)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plain")
    assert diffscope(*SWEEP, "--out", folder).code == 0
    return folder


# --- what is read


def test_the_verdict_says_what_was_saved_and_how_sure_it_is(ran: Ran, folder: Path) -> None:
    assert ran.code == 0, ran.err
    told = read_result(str(folder / "result.json")).accuracy
    assert told is not None
    assert told["reached"]
    saved = 100 * (1 - told["passes"] / PASSES)
    assert saved > 50
    text = words(ran.out)
    assert f"Images: Known to 10 % after {told['layers']['linear']['images']} of 480 images." in text
    assert f"{told['passes']:,} of 4,800 forward passes, {saved:.0f} % saved" in text
    assert "levels that no longer decide anything were given fewer images" in text
    known = told["layers"]["linear"]
    assert f"{known['icr']:.4f} (95 % interval [{known['icr_low']:.4f}, {known['icr_high']:.4f}])" in text
    assert words(ran.err).startswith("after 128 images 1 of 5 noise levels go on")


def test_what_was_not_reached_says_how_many_images_would_do() -> None:
    ran = diffscope(*SWEEP, "--accuracy", 0.01)
    assert ran.code == 0
    assert "Images: Accuracy not reached: layer linear: the lowest ICR, at sigma = 0.3, is known to" in words(ran.out)
    assert "480 of 480 images (asked for 1 %); about" in words(ran.out)


def test_where_all_levels_had_the_same_images_nothing_is_said_of_fewer() -> None:
    few = diffscope(*SWEEP, "--num-images", 160, "--accuracy", "1%")
    assert "1,600 of 1,600 forward passes, 0 % saved. What to do:" in words(few.out)
    early = diffscope(*SWEEP, "--accuracy", "40%")
    assert "Known to 40 % after 128 of 480 images. 1,280 of 4,800 forward passes, 73 % saved. What" in words(early.out)


def test_a_plain_sweep_says_nothing_of_it(plain: Path) -> None:
    assert "accuracy" not in json.loads(record(plain).rstrip().rstrip(",") + "}")
    assert "forward passes" not in diffscope(*SWEEP).out


def test_files_and_figures(ran: Ran, folder: Path) -> None:
    names = {path.name for path in folder.iterdir()}
    assert {"result.json", "result.csv", "icr.png", "icr.svg", "traces.png"} <= names
    assert not [name for name in names if name.startswith("parts-")]
    head, *rows = (folder / "result.csv").read_text("utf-8").splitlines()
    column = head.split(",").index("n")
    images = [int(row.split(",")[column]) for row in rows]
    assert images == [row.n for row in read_result(str(folder / "result.json")).rows]
    assert len(set(images)) == 2
    assert (folder / "icr.png").stat().st_size > 10_000


def test_json_alone_goes_to_stdout_and_comes_back(ran: Ran, folder: Path) -> None:
    again = diffscope(*SWEEP, "--accuracy", "10 %", "--json")
    assert again.code == 0
    assert without_timing(again.json) == without_timing(json.loads((folder / "result.json").read_text("utf-8")))
    result = Result.from_json(again.json)
    assert result.to_json() == again.json
    assert result.accuracy is not None
    assert list(result.accuracy) == ["asked", "reached", "reason", "looks", "passes", "passes_full", "layers"]
    assert list(result.accuracy["layers"]["linear"]) == ["sigma", "icr", "icr_low", "icr_high", "images", "reached"]
    assert result.protocol["accuracy"] == result.accuracy["asked"] == 0.1
    # A share is the same as so many per cent.
    assert diffscope(*SWEEP, "--accuracy", "0.1", "--json").json["protocol"] == again.json["protocol"]


def test_quiet_prints_numbers_alone() -> None:
    ran = diffscope(*SWEEP, "--accuracy", "40%", "--quiet")
    assert [float(line.split()[-1]) for line in ran.out.splitlines()]
    assert len(ran.out.splitlines()) == 5


# --- what a script hangs on


@pytest.mark.parametrize(
    ("gate", "code"), [("icr>0.99", 0), ("icr>0.1", 3), ("window==none", 3), ("sigma>0.31", 0), ("high<1", 3)]
)
def test_gates(gate: str, code: int) -> None:
    assert diffscope(*SWEEP, "--accuracy", "40%", "--fail-if", gate, "--quiet").code == code


def test_compared_with_what_was_measured_otherwise(ran: Ran, folder: Path, plain: Path, tmp_path: Path) -> None:
    mixed = diffscope("compare", plain / "result.json", folder / "result.json")
    assert (mixed.code, mixed.out) == (1, "")
    assert "accuracy: null and 0.1" in mixed.err
    levels = ("--sigma", 0.45, "--sigma", 0.46, "--sigma", 3)
    for d in (8, 12):
        command = ("sweep", f"toy:d={d},side=8", *TOY[1:], *levels, "--accuracy", "10%", "--out", tmp_path / str(d))
        assert diffscope(*command, "--quiet").code == 0
    both = (tmp_path / "8" / "result.json", tmp_path / "12" / "result.json")
    rows = diffscope("compare", *both, "--json").json["rows"]
    assert [row["change"] is None for row in rows] == [True, False, False]
    assert rows[0]["notes"][0].startswith("unequal_images: ")
    # What is not known passes no gate.
    gated = diffscope("compare", *both, "--fail-if", "change>2%")
    assert gated.code == 1
    assert "change of linear at sigma 0.45 is null" in gated.err


def test_a_folder_holds_one_accuracy(ran: Ran, folder: Path, plain: Path) -> None:
    for options, place, said in (
        (("--accuracy", "5%"), folder, "accuracy: 0.1 and 0.05"),
        (("--accuracy", "10%"), plain, "accuracy: null and 0.1"),
        ((), folder, "accuracy: 0.1 and null"),
    ):
        refused = diffscope(*SWEEP, *options, "--out", place)
        assert (refused.code, refused.out) == (1, "")
        assert said in refused.err


# --- what cannot be typed


@pytest.mark.parametrize("accuracy", ["2x", "", "%", "200%", "2", "0", "0%", "-1%", "nan", "inf", "1%%"])
def test_no_share(accuracy: str) -> None:
    ran = diffscope(*SWEEP, f"--accuracy={accuracy}")
    assert (ran.code, ran.out, len(ran.err.splitlines())) == (2, "", 1)
    assert "expected a share of ICR such as 2%" in ran.err


@pytest.mark.parametrize(
    "other",
    [
        ("--self-check",),
        ("--num-images", "200,400"),
        ("--augment", "all"),
        ("--shard", "1/2", "--out", "nowhere"),
    ],
)
def test_what_needs_all_images_at_all_levels(other: tuple[str, ...], tmp_path: Path) -> None:
    other = tuple(str(tmp_path / word) if word == "nowhere" else word for word in other)
    ran = diffscope("sweep", *TOY[:3], *LEVELS, *other, "--accuracy", "2%")
    assert (ran.code, ran.out, len(ran.err.splitlines())) == (2, "", 1)
    assert f"--accuracy 2%: not together with {other[0]}," in ran.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["icr", "probe", "features", "neighbors", "memorization"])
def test_other_commands_do_not_know_it(command: str) -> None:
    ran = diffscope(command, *TOY[:3], "--accuracy", "2%")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith(f"error: No such option of {command}: --accuracy; for example: diffscope {command} ")


def test_help_explains_it() -> None:
    text = words(diffscope("sweep", "--help").out)
    assert "--accuracy" in text
    assert "give more images only to noise levels that still decide" in text


# --- several processes


def test_two_processes_come_to_the_bytes_of_one(tmp_path: Path) -> None:
    command = (*SWEEP, "--layer", "all", "--accuracy", "10%")
    one = alone(*command, "--out", tmp_path / "one")
    first, *others = together(2, *command, "--out", tmp_path / "two", "--quiet")
    assert (one.code, first.code) == (0, 0), one.err + first.err
    assert all(other == Ran(0, "", "") for other in others)
    assert record(tmp_path / "two") == record(tmp_path / "one")
    result = read_result(str(tmp_path / "two" / "result.json"))
    assert len({row.n for row in result.rows}) > 1
    assert (result.timing["processes"], result.timing["blocks_resumed"]) == (2, 0)
    assert first.err.count("noise levels go on") == one.err.count("noise levels go on") > 0


def test_what_does_not_fit_ends_all_processes_alike() -> None:
    first, *others = together(2, *SWEEP, "--accuracy", "10%", "--max-memory", "60kB")
    assert (first.code, len(first.err.splitlines())) == (1, 1)
    assert "--accuracy looks at all levels together" in first.err
    assert others == [Ran(1, "", "")]
