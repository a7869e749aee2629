"""Pictures: the right files, of a sensible size, with something on them, and the same bytes twice."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import made_results
import matplotlib
import numpy as np
import pytest
from PIL import Image

from diffscope.report.figure import draw_sweep
from diffscope.results import Result, Row

ONE = made_results.sweep()
NOTHING = [made_results.without_icr(row, "rank_deficient: no") for row in ONE.rows]
GAPS = [NOTHING[i] if i in (0, 5) else row for i, row in enumerate(ONE.rows)]

CASES: dict[str, tuple[Result, list[str]]] = {
    "one layer": (ONE, ["icr", "traces"]),
    "three layers": (made_results.sweep(3), ["icr", "traces"]),
    "eight layers": (made_results.sweep(8), ["icr", "traces"]),
    "many layers": (made_results.sweep(36), ["icr", "traces", "layers"]),
    "one level": (made_results.result([made_results.row("mid", 0.3)]), ["icr"]),
    "many layers at one level": (made_results.result([made_results.row(f"b.{i}", 0.3) for i in range(40)]), ["icr"]),
    "gaps": (made_results.result(GAPS, ONE.window), ["icr", "traces"]),
    "no icr at all": (made_results.result(NOTHING), ["icr"]),
    "icr alone": (made_results.result([Row("m", s, s, 9, 4, {"icr": s}) for s in (0.1, 0.2)]), ["icr"]),
}


@pytest.mark.parametrize("case", CASES)
def test_pictures_are_complete_and_not_blank(case: str, tmp_path: Path) -> None:
    result, names = CASES[case]
    written = draw_sweep(result, tmp_path)
    assert [path.name for path in written] == [f"{name}.{kind}" for name in names for kind in ("png", "svg")]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(path.name for path in written)
    for path in written[::2]:
        picture = np.asarray(Image.open(path).convert("L"))
        assert 1200 <= picture.shape[1] <= 1600
        assert 380 <= picture.shape[0] <= 2000
        assert 0.005 < (picture < 200).mean() < 0.5  # ink
        assert picture[:3].min() == 255  # nothing is cut off at an edge
        assert picture[-3:].min() == 255
        assert picture[:, :3].min() == 255
        assert picture[:, -3:].min() == 255
    for path in written[1::2]:
        assert ElementTree.parse(path).getroot().tag.endswith("svg")


def test_the_same_result_gives_the_same_bytes_whatever_the_users_defaults(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    first = draw_sweep(made_results.sweep(3), tmp_path / "a")
    with matplotlib.rc_context({"font.size": 20, "axes.facecolor": "black", "savefig.dpi": 30}):
        second = draw_sweep(made_results.sweep(3), tmp_path / "b")
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes()


def test_another_result_gives_another_picture(tmp_path: Path) -> None:
    for folder, result in (("a", ONE), ("b", made_results.result(GAPS, ONE.window))):
        (tmp_path / folder).mkdir()
        draw_sweep(result, tmp_path / folder)
    assert (tmp_path / "a" / "icr.png").read_bytes() != (tmp_path / "b" / "icr.png").read_bytes()


def test_names_are_not_mathematics_and_may_lack_glyphs(tmp_path: Path) -> None:
    names = ["$x_{", "_orig.mid", "层", "caf\udcff\x1b"]
    rows = [made_results.row(name, sigma) for name in names for sigma in (0.1, 0.3, 1.0)]
    windows = [made_results.window(names[0], 0.1)]
    assert draw_sweep(made_results.result(rows, windows, path="a$b$\\frac{" + "long" * 40 + ".pt"), tmp_path)


def test_traces_may_be_negative_or_all_alike(tmp_path: Path) -> None:
    rows = [Row("m", s, 1.0, 9, 4, {"icr": 0.5, "trace_s": s - 0.5, "trace_xi": 1.0}) for s in (0.1, 0.3, 30.0)]
    assert len(draw_sweep(made_results.result(rows), tmp_path)) == 4


def test_pyplot_is_never_imported() -> None:
    """It would choose a backend and keep global state."""
    code = "import sys, diffscope.report.figure; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
