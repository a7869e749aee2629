"""The contract of `report/views/`: every command's results can be looked at, kept and put into a narrow terminal."""

from __future__ import annotations

import dataclasses
import html
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType

import made_results
import pytest
from test_benchmark_report import RECORD as BENCH
from test_memorization_words import by_ratio
from test_memorization_words import result as memorized
from test_memorization_words import row as copies
from test_neighbor_pictures import made as neighbors
from test_probe_report import made as probed
from test_terminal import comparison, inspection
from test_variation_report import at_one_level, augmented, counted

from diffscope import registry
from diffscope.checkpoints.published import PUBLISHED
from diffscope.errors import DataError, DiffscopeError
from diffscope.report import layout
from diffscope.report.card import card
from diffscope.report.parts import MOST, Part, Plots, Table
from diffscope.report.terminal import Console
from diffscope.report.views.base import View, view_of
from diffscope.results import Record, Result, Row, Shown

VIEWS = "diffscope.report.views"


def compared(count: int) -> Record:
    rows = [
        comparison(layer=f"enc.32x32_block{i // 12}", sigma=0.01 * 1.6 ** (i % 12), p=0.01 * i) for i in range(count)
    ]
    return Record("compare", {"old": {"path": "runs/a/old.pkl"}, "new": {"path": "runs/a/new.pkl"}, "rows": rows})


def halved(made: Result) -> Result:
    half = {"icr_half": 0.2, "half_change": -0.021, "half_change_low": -0.25, "half_change_high": 0.13}
    return dataclasses.replace(made, rows=tuple(row.having(**half) for row in made.rows))


def noted(made: Result) -> Result:
    """Notes on rows and windows, of the same words."""
    note = "few_features: a layer of fewer than 16 features holds mean colours rather than features"
    rows = tuple(row.having(notes=[note]) for row in made.rows)
    windows = tuple(dataclasses.replace(window, notes=(note,)) for window in made.window)
    return dataclasses.replace(made, rows=rows).having(window=windows)


def kept(action: str) -> Record:
    entry = {
        "name": "latents-0123456789abcdef", "kind": "latents", "bytes": 123_456_789,
        "used": "2026-01-02T03:04:05+00:00",
        "shape": [4, 32, 32], "augment": "crop+flip+jitter", "seed": 0, "vae": "0123456789", "path": "sd-vae-ft-ema",
        "images": 5000, "views": 2, "files": 3,
    }  # fmt: skip
    rows = {"rows" if action == "ls" else "removed": [entry, {**entry, "kind": "parts", "name": "parts-01"}]}
    return Record(
        "cache", {"action": action, "folder": "/home/somebody/.cache/diffscope", "bytes": 246_913_578, **rows}
    )


def long_names(made: Result) -> Result:
    """Checkpoints and layers as they are called in practice."""

    def renamed(row: Row) -> Row:
        path = f"/data/runs/00017-cifar10-cond-ddpmpp/network-snapshot-{row.step:09d}.safetensors"
        return row.having(checkpoint=path, layer="transformer_blocks.13.norm_out")

    return dataclasses.replace(made, rows=tuple(map(renamed, made.rows)))


def checked(chosen: str | None) -> Record:
    """Of a network that predicts eps."""
    left = {"eps": [0.29, 0.14, 0.048], "x0": [102.0, 3.7, 0.25], "v": [0.292, 0.19, 0.13]}
    rows = [
        {"predicts": name, "noise": "", "chosen": name == chosen, "left": part, "nearer": [16, 16, 9], "mean": part[1]}
        for name, part in left.items()
    ]
    layers = [
        {"name": f"down_blocks.{n}", "shape": [64, 16, 16], "features": 64, "block": n < 9 or n == 20}
        for n in range(30)
    ]
    made = {"call": "sample=x,timestep=t,class_labels=y:1000:1000", "sources": {"models.py": "0" * 64}}
    return Record(
        "network",
        {
            "path": "/data/runs/00017/ckpt-0400000.pt", "class": "UNet", "parameters": 123_456_789, "weights": "ema",
            "weights_reason": "the file holds 'ema' and 'model'; the EMA is the default", "constructor": made,
            "data": {"path": "images/", "used": 16}, "noise_variable": "whole step from 0, rising with noise",
            "input": [3, 32, 32], "output": [6, 32, 32], "noise": "ddpm:linear,steps=1000",
            "sigmas": [0.0987, 0.5, 2.0], "times": [26, 144, 396], "rows": rows, "layers": layers,
            "default_layer": "down_blocks.4",
            "verdict": {None: "unsaid", "eps": "right"}.get(chosen, "wrong"),
        },
    )  # fmt: skip


CASES: dict[str, Callable[[], Shown]] = {
    "card": lambda: Record("card", card([made_results.sweep(layers=3), made_results.track()])),
    "models": lambda: Record(
        "models", {"models": [{"name": name, **one.to_json()} for name, one in PUBLISHED.items()]}
    ),
    "estimate": lambda: Record(
        "estimate",
        {
            "protocol": {"hash": "0" * 64},
            "passes": 1200,
            "seconds": 12.5,
            "lines": ["200 images × 2 views × 3 levels: 1,200 passes", "about 12 s, at 96 passes a second"],
        },
    ),
    "shard": lambda: Record("shard", {"folder": "shards/a", "shard": "1/3", "blocks": [0, 3, 6, 9, 12, 15], "of": 16}),
    "sweep": made_results.sweep,
    "sweep of many layers": lambda: made_results.sweep(36),
    "sweep with self-check": lambda: halved(made_results.sweep(3)),
    "sweep with notes": lambda: noted(made_results.sweep(3)),
    "sweep under augmentations": augmented,
    "sweep of many layers under augmentations": lambda: augmented(20),
    "sweep of numbers of images": lambda: counted(command="sweep", layers=2),
    "icr": lambda: dataclasses.replace(made_results.result([made_results.row("mid", 0.3)]), command="icr"),
    "icr under augmentations": lambda: at_one_level(augmented(3)),
    "icr of numbers of images": counted,
    "track": made_results.track_with_all,
    "track of layers": lambda: made_results.track_of_layers(6),
    "track with gaps": made_results.track_with_nulls,
    "track of nothing": made_results.track_of_nothing,
    "probe": lambda: probed(more=True),
    "probe of many layers": lambda: probed(layers=8),
    "neighbors": neighbors,
    "neighbors of a run": lambda: long_names(neighbors(checkpoints=9)),
    "memorization": lambda: memorized(*[copies(by_ratio(0.1, 0.9), 1 / 3, step=1000 * n) for n in range(3)]),
    "kinship": lambda: made_results.kinship(3),
    "kinship of many": lambda: made_results.kinship(12),
    "compare": lambda: compared(5),
    "compare of many": lambda: compared(60),
    "inspect": lambda: Record("inspect", inspection()),
    "bench": lambda: Record("bench", BENCH),
    "network": lambda: checked("v"),
    "network that fits": lambda: checked("eps"),
    "network of which nothing was said": lambda: checked(None),
    "convert": lambda: Record("convert", {"path": "a.safetensors", "tensors": 12, "bytes": 123_456}),
    "features": lambda: Record("features", {"path": "a.safetensors", "tensors": {"mid": [12, 2, 500, 64]}}),
    "cache": lambda: kept("ls"),
    "cache after prune": lambda: kept("prune"),
}


@pytest.fixture(params=CASES)
def shown(request: pytest.FixtureRequest) -> Shown:
    return CASES[str(request.param)]()


def printed(parts: Iterable[Part], width: int) -> list[str]:
    console = Console(width=width, markup=False, highlight=False, emoji=False, color_system=None)
    with console.capture() as captured:
        layout.show(parts, console)
    return captured.get().splitlines()


def test_every_member_is_a_view_and_has_a_case_here() -> None:
    members = registry.load(VIEWS)
    assert members.keys() == {case().command for case in CASES.values()}
    assert all(isinstance(member.VIEW, View) for member in members.values())


@pytest.mark.parametrize("width", [60, 80, 120])
def test_no_line_is_wider_than_the_terminal_and_no_word_is_broken(shown: Shown, width: int) -> None:
    """Whatever stands in a narrow terminal are words of the widest one; `Left out at this width` is its own."""
    parts = [part for part in view_of(shown).parts(shown) if not isinstance(part, Plots)]
    tables = [part for part in parts if isinstance(part, Table)]
    cells = [cell for table in tables for row in (table.headings, *table.rows) for cell in row]
    own = ["Left", "out", "at", "this", "width:", ","] + [
        f"{cell}{mark}" for cell in cells for mark in (":", ",", ".", "")
    ]
    known = {word for text in (*printed(parts, 10_000), *own) for word in text.split()}
    for line in printed(parts, width):
        assert len(line) <= width, line
        assert set(line.split()) <= known | {"─" * len(line)}, line


def test_plots_are_left_out_where_they_have_no_room() -> None:
    for made, needed in ((made_results.sweep(), 73), (made_results.track(), 78)):
        plots = [part for part in view_of(made).parts(made) if isinstance(part, Plots)]
        assert max(map(len, printed(plots, needed))) <= needed
        assert printed(plots, needed - 1) == [f"No plot at this width: it takes {needed} columns."]


def test_long_tables_do_not_scroll_the_verdict_away(shown: Shown) -> None:
    """A table is never the last of a result with a verdict, and none is longer than a reader reads."""
    parts = list(view_of(shown).parts(shown))
    if shown.command not in ("inspect", "cache", "icr"):
        assert not isinstance(parts[-1], Table)
    most = 10_000 if shown.command in ("inspect", "cache") else MOST
    assert all(len(part.rows) <= most for part in parts if isinstance(part, Table))


def test_no_note_is_told_twice(shown: Shown) -> None:
    lines = "\n".join(printed(view_of(shown).parts(shown), 10_000))
    for row in shown.rows if isinstance(shown, Result) else ():
        assert all(lines.count(note) <= 1 for note in row.notes)


def test_quiet_lines_end_with_the_number(shown: Shown) -> None:
    view = view_of(shown)
    for line in view.quiet(shown):
        *_, key, value = line.split()
        assert key == view.number
        assert value == "null" or value.isdigit() or value == f"{float(value):.4g}"


def test_quiet_lines_tell_rows_apart() -> None:
    assert view_of(augmented()).quiet(augmented())[0].startswith("enc.8x8_block3 augment crop sigma 0.002 icr 0.")
    assert (
        view_of(made_results.track()).quiet(made_results.track())[0] == "enc.8x8_block3 sigma 0.3 step 12800 icr 0.45"
    )
    assert view_of(neighbors()).quiet(neighbors())[0] == (
        "snapshot-0.pt mid_block step 0 sigma 0.25 component s same_class 0.8"
    )
    for case in ("sweep", "sweep under augmentations", "track of layers", "probe of many layers", "compare of many"):
        lines = view_of(CASES[case]()).quiet(CASES[case]())
        assert len({line.rsplit(" ", 2)[0] for line in lines}) == len(lines)


def test_a_short_repr_says_what_where_and_the_verdict(shown: Shown) -> None:
    lines = repr(shown).splitlines()
    assert 2 <= len(lines) <= 3
    assert lines[0].startswith(f"diffscope {shown.command}, ")


def test_html_escapes_what_comes_from_outside() -> None:
    name = "<script>alert('x')</script>\x1b[31m"
    made = made_results.result([made_results.row(name, sigma) for sigma in (0.1, 1.0)], path=name)
    text = made._repr_html_()
    assert "<script>" not in text
    assert "\x1b" not in text
    assert "&lt;script&gt;" in text
    assert '<img src="data:image/png;base64,' in text


def test_html_has_the_verdict_and_the_table(shown: Shown) -> None:
    text = shown._repr_html_()
    tables = [part for part in view_of(shown).parts(shown) if isinstance(part, Table)]
    assert text.count("<table>") == min(len(tables), 1)
    assert html.escape(view_of(shown).verdict(shown).split(". ")[0]) in text
    assert "<script" not in text


def test_what_is_saved_is_json_csv_and_pictures(shown: Shown, tmp_path: Path) -> None:
    written = view_of(shown).save(shown, tmp_path / "new", figures=False)
    assert [path.name for path in written] == ["result.json", "result.csv", "report.html"]
    lines = (tmp_path / "new" / "result.csv").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 1 + len(view_of(shown).records(shown))


def test_a_plot_is_a_figure_and_no_window() -> None:
    figure = made_results.sweep().plot()
    assert figure._repr_png_().startswith(b"\x89PNG")
    assert "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()
    with pytest.raises(DataError, match="no picture"):
        Record("convert", {"path": "a", "tensors": 1, "bytes": 1}).plot()


def test_frames_are_those_of_pandas(monkeypatch: pytest.MonkeyPatch) -> None:
    pandas = ModuleType("pandas")
    pandas.DataFrame = lambda records: records  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pandas", pandas)
    made = made_results.sweep()
    assert made.to_frame() == [dict(row) for row in made.rows]
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(DiffscopeError, match=r"which is not installed: pip install pandas$"):
        made.to_frame()


def test_a_result_of_another_command_can_still_be_printed() -> None:
    other = dataclasses.replace(made_results.sweep(), command="no_such")
    assert repr(other) == "Result of 'no_such'"
    with pytest.raises(DataError, match="expected one of bench, cache, card, compare"):
        other.plot()


def test_long_pairs_are_filled_by_words() -> None:
    table = Table(["name", "said"], [["a", "one two three four five six seven"]], left=["name", "said"])
    assert list(layout._records(table, 20)) == ["name: a", "  said: one two", "    three four five", "    six seven"]
