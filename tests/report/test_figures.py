"""Pictures: the right files, of a sensible size, with something on them, and the same bytes twice."""

# mypy: disable-error-code="arg-type"

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import made_results
import matplotlib
import numpy as np
import pytest
from matplotlib.text import Text
from PIL import Image

from diffscope.report.figures import canvas, training
from diffscope.results import Result, Row

ONE = made_results.sweep()
NOTHING = [made_results.without_icr(row, "rank_deficient: no") for row in ONE.rows]
GAPS = [NOTHING[i] if i in (0, 5) else row for i, row in enumerate(ONE.rows)]

TRACK = ["icr", "traces", "companions"]


def bare(step: int, **values: float) -> Row:
    return Row(layer="m", sigma=0.3, t=0.3, n=9, d=4, checkpoint=f"{step}.pt", step=step, **{"icr": 0.5, **values})


CASES: dict[str, tuple[Result, list[str]]] = {
    "one layer": (ONE, ["icr", "traces"]),
    "three layers": (made_results.sweep(3), ["icr", "traces"]),
    "eight layers": (made_results.sweep(8), ["icr", "traces"]),
    "many layers": (made_results.sweep(36), ["icr", "traces", "layers"]),
    "one level": (made_results.result([made_results.row("mid", 0.3)]), ["icr"]),
    "many layers at one level": (made_results.result([made_results.row(f"b.{i}", 0.3) for i in range(40)]), ["icr"]),
    "gaps": (made_results.result(GAPS, ONE.window), ["icr", "traces"]),
    "no icr at all": (made_results.result(NOTHING), ["icr"]),
    "icr alone": (made_results.result([Row(layer="m", sigma=s, t=s, n=9, d=4, icr=s) for s in (0.1, 0.2)]), ["icr"]),
    "a run that turned": (made_results.track(), TRACK),
    "a run with all there is": (made_results.track_with_all(), TRACK),
    "turned in retrospect": (made_results.track(fired=False, count=8), TRACK),
    "a falling run": (made_results.track("falling"), TRACK),
    "a flat run": (made_results.track("flat"), TRACK),
    "an unclear run": (made_results.track("unclear"), TRACK),
    "a run with gaps": (made_results.track_with_nulls(), TRACK),
    "a run without any icr": (made_results.track_of_nothing(), ["icr"]),
    "one snapshot": (made_results.track("unclear", 1), TRACK),
    "two snapshots": (made_results.track("unclear", 2), TRACK),
    "a hundred snapshots": (made_results.track(count=100, held_out=True), TRACK),
    "a run without a verdict": (made_results.track().having(onset=()), TRACK),
    "series of two layers at two levels": (made_results.track_of_layers(2, levels=(0.1, 0.5)), TRACK),
    "series of many layers": (made_results.track_of_layers(30), TRACK),
    "icr of a run alone": (made_results.training([bare(step) for step in (100, 200)]), ["icr"]),
}


@pytest.mark.parametrize("case", CASES)
def test_pictures_are_complete_and_not_blank(case: str, tmp_path: Path) -> None:
    result, names = CASES[case]
    written = made_results.draw(result, tmp_path)
    assert [path.name for path in written] == [f"{name}.{kind}" for name in names for kind in ("png", "svg")]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(path.name for path in written)
    for path in written[::2]:
        picture = np.asarray(Image.open(path).convert("L"))
        assert 1200 <= picture.shape[1] <= 1600
        assert 380 <= picture.shape[0] <= 2600
        assert 0.005 < (picture < 200).mean() < 0.5  # ink
        assert picture[:3].min() == 255  # nothing is cut off at an edge
        assert picture[-3:].min() == 255
        assert picture[:, :3].min() == 255
        assert picture[:, -3:].min() == 255
    for path in written[1::2]:
        assert ElementTree.parse(path).getroot().tag.endswith("svg")


@pytest.mark.parametrize("result", [made_results.sweep(3), made_results.track_with_all()], ids=["sweep", "track"])
def test_the_same_result_gives_the_same_bytes_whatever_the_users_defaults(result: Result, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    first = made_results.draw(result, tmp_path / "a")
    with matplotlib.rc_context({"font.size": 20, "axes.facecolor": "black", "savefig.dpi": 30}):
        second = made_results.draw(result, tmp_path / "b")
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes()


def test_another_result_gives_another_picture(tmp_path: Path) -> None:
    for folder, result in (("a", ONE), ("b", made_results.result(GAPS, ONE.window))):
        (tmp_path / folder).mkdir()
        made_results.draw(result, tmp_path / folder)
    assert (tmp_path / "a" / "icr.png").read_bytes() != (tmp_path / "b" / "icr.png").read_bytes()


def test_names_are_not_mathematics_and_may_lack_glyphs(tmp_path: Path) -> None:
    names = ["$x_{", "_orig.mid", "层", "caf\udcff\x1b"]
    rows = [made_results.row(name, sigma) for name in names for sigma in (0.1, 0.3, 1.0)]
    windows = [made_results.window(names[0], 0.1)]
    assert made_results.draw(made_results.result(rows, windows, path="a$b$\\frac{" + "long" * 40 + ".pt"), tmp_path)


def texts(result: Result, name: str = "icr") -> str:
    """Whatever stands in a picture, a line a text."""
    with canvas.look():
        figure = training.figures(result)[name]
        return "\n".join(text.get_text() for text in figure.findobj(Text))


def test_a_picture_of_a_run_says_all_of_it_in_words() -> None:
    said = texts(made_results.track_with_all())
    for words in (
        "limited, enc.8x8_block3, σ = 0.3\nturned: keep step 115.2 k",
        "training images seen",
        "lowest ICR 0.2608 at 128 k",
        "not distinguishable from the lowest ICR: 128 k to 153.6 k",
        "memorization onset fired at 230.4 k",
        "keep snapshot-0115200.safetensors, step 115.2 k",
        "ICR of enc.8x8_block3, σ = 0.3, training images",
        "ICR, held-out images",
        "bands: 95 % intervals",
        "denoising loss at σ = 0.3 (MSE a pixel)",
        "fid: turns at 153.6 k, 2 snapshots after ICR, rank correlation +0.83",
        "memorization_third: no turn within the run, rank correlation −0.71",
    ):
        assert words in said
    assert "onset" not in texts(made_results.track(fired=False))


@pytest.mark.parametrize(
    ("state", "title"),
    [
        ("falling", "still falling: no sign of memorization"),
        ("flat", "flat: not memorizing"),
        ("unclear", "undecided: about 12,400 images would decide"),
    ],
)
def test_the_title_is_the_verdict(state: str, title: str) -> None:
    assert title in texts(made_results.track(state))
    assert "turned, seen looking back: keep step" in texts(made_results.track(fired=False))


@pytest.mark.parametrize(
    ("unit", "label"), [("images", "training images seen"), ("steps", "training steps"), (None, "training step")]
)
def test_the_axis_says_what_steps_count(unit: str | None, label: str) -> None:
    made = made_results.track()
    listed = tuple({**checkpoint, "step_unit": unit} for checkpoint in made.checkpoints)
    for name in TRACK:
        assert label in texts(made.having(checkpoints=listed), name).splitlines()


def test_of_several_series_marks_name_theirs_and_the_legend_every_state() -> None:
    said = texts(made_results.track_of_layers(3))
    assert "turned: keep step 115.2 k (blocks.0)" in said
    assert "blocks.0: turned, fired at 230.4 k" in said
    assert "blocks.1: falling" in said
    assert "24 other series" in texts(made_results.track_of_layers(30))
    assert "blocks.1, σ = 0.5: falling" in texts(made_results.track_of_layers(2, levels=(0.1, 0.5)))


def test_only_four_columns_of_the_users_have_room_and_the_rest_is_counted() -> None:
    columns = tuple(made_results.overlay(f"$odd_{{{i}\n{'name' * 20}", 9, 0, None) for i in range(6))
    result = made_results.track().having(overlay=columns)
    said = texts(result)
    assert "2 more overlay columns in result.json" in said
    assert said.count(": turns at 128 k, with ICR") == 4


def test_many_snapshots_have_no_markers() -> None:
    with canvas.look():
        for count, marked in ((40, True), (41, False)):
            lines = training.figures(made_results.track(count=count))["icr"].axes[0].get_lines()
            longest = [line for line in lines if len(line.get_xdata()) == count]
            assert all((line.get_marker() != "None") == marked for line in longest)


def test_a_snapshot_between_two_gaps_has_its_interval() -> None:
    rows = [bare(100, icr_low=0.4, icr_high=0.6), bare(200).having(icr=None), bare(300)]
    with canvas.look():
        lines = training.figures(made_results.training(rows))["icr"].axes[0].get_lines()
    assert [0.4, 0.6] in [list(line.get_ydata()) for line in lines]


def test_losses_of_very_different_size_stand_on_a_logarithmic_axis() -> None:
    with canvas.look():
        for first, scale in ((0.03, "linear"), (1.0, "log")):
            rows = [bare(100, loss=first), bare(200, loss=0.02, loss_holdout=0.021)]
            assert training.figures(made_results.training(rows))["icr"].axes[1].get_yscale() == scale


def test_wide_traces_of_a_run_stand_on_a_logarithmic_axis_and_narrow_ones_on_one_from_zero() -> None:
    for least, scale in ((0.01, "log"), (4.0, "linear")):
        rows = [bare(100, trace_s=least, trace_xi=1 + least), bare(200, trace_s=5.0, trace_xi=4.0)]
        with canvas.look():
            axes = training.figures(made_results.training(rows))["traces"].axes[0]
        bottom, top = axes.get_ylim()
        assert axes.get_yscale() == scale
        assert (0 < bottom < least) if scale == "log" else bottom == 0
        assert top > 1.03 * 5.0  # room for the highest marker


def test_a_trace_below_zero_has_room_for_its_marker() -> None:
    rows = [bare(100, trace_s=-0.04, trace_xi=1.0), bare(200, trace_s=0.6, trace_xi=1.5)]
    with canvas.look():
        bottom, _ = training.figures(made_results.training(rows))["traces"].axes[0].get_ylim()
    assert bottom < -0.04 - 0.03 * 1.5


def test_names_in_a_run_may_hold_anything(tmp_path: Path) -> None:
    rows = [
        row.having(layer=layer, checkpoint=f"a$b/{row.step}$\\frac{{caf\udcff{'long' * 30}.pt")
        for layer in ("$x_{", "_orig.mid")
        for row in made_results.track().rows
    ]
    assert made_results.draw(made_results.training(rows, [made_results.onset(rows[:24], "turned")]), tmp_path)


def test_traces_may_be_negative_or_all_alike(tmp_path: Path) -> None:
    rows = [Row(layer="m", sigma=s, t=1.0, n=9, d=4, icr=0.5, trace_s=s - 0.5, trace_xi=1.0) for s in (0.1, 0.3, 30.0)]
    assert len(made_results.draw(made_results.result(rows), tmp_path)) == 4


def test_pyplot_is_never_imported() -> None:
    """It would choose a backend and keep global state."""
    code = "import sys, diffscope.report.figures; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
