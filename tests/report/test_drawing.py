"""How pictures are drawn: their form, width and style, the axis of steps, and what their legends say."""

# mypy: disable-error-code="arg-type"

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import made_results
import pytest
from matplotlib import rcParams
from matplotlib.axis import Tick
from matplotlib.colors import to_hex
from matplotlib.text import Text
from PIL import Image

from diffscope.errors import UsageError
from diffscope.options.drawing import Drawing
from diffscope.options.option import declarations
from diffscope.report.figures import canvas, style, sweep, training
from diffscope.report.figures.window_map import window_map
from diffscope.report.views.base import view_of
from diffscope.results import Result, Row

SWEEP, RUN = made_results.sweep(), made_results.track_with_all()


def drawn(result: Result, **drawing: Any) -> dict[str, canvas.Figure]:
    with canvas.look(Drawing(**drawing)):
        return view_of(result).figures(result)


def legend(figure: canvas.Figure) -> list[str]:
    return [text.get_text() for one in figure.legends for text in one.get_texts()]


def having(result: Result, **values: float) -> Result:
    """The same with other values in all rows."""
    return replace(result, rows=tuple(row.having(**values) for row in result.rows))


# --- form, width, style


def test_nothing_of_it_belongs_to_the_protocol() -> None:
    assert [one.name for one in declarations(Drawing) if one.option.protocol] == []


def test_every_form_that_is_asked_for_is_written_with_text_that_stays_text(tmp_path: Path) -> None:
    written = SWEEP.save(tmp_path, format=["svg", "pdf"], size="page")
    assert {path.name for path in written[2:-1]} == {"icr.svg", "icr.pdf", "traces.svg", "traces.pdf"}
    text = (tmp_path / "icr.svg").read_text("utf-8")
    assert ">ICR of enc.8x8_block3</text>" in text
    assert f'width="{6.75 * 72:g}pt"' in text
    before = (tmp_path / "icr.pdf").read_bytes()
    assert b"/CIDFontType2" in before or b"/FontFile2" in before  # letters, not outlines
    SWEEP.save(tmp_path, format="pdf", size="page")
    assert (tmp_path / "icr.pdf").read_bytes() == before


@pytest.mark.parametrize(("size", "inches"), [("column", 3.25), ("page", 6.75), (5.5, 5.5)])
@pytest.mark.parametrize(
    "result", [made_results.sweep(3), RUN, made_results.kinship(5)], ids=["sweep", "run", "kinship"]
)
def test_pictures_have_the_width_asked_for_and_hold_all_their_text(
    result: Result, size: str | float, inches: float, tmp_path: Path
) -> None:
    for name, figure in drawn(result, size=size, format="png").items():
        (path,) = canvas.save(figure, tmp_path / name)
        with Image.open(path) as picture:
            assert picture.width == round(200 * inches)
        with canvas.look(figure.drawing):
            figure.draw_without_rendering()
        ticks = [text for tick in figure.findobj(Tick) for text in tick.findobj(Text)]  # some of them are not drawn
        for text in figure.findobj(Text):
            if text not in ticks and text.get_text():
                box = text.get_window_extent()
                assert -2 < box.x0 < box.x1 < figure.bbox.width + 2, text.get_text()


def test_text_is_set_to_be_read_in_print() -> None:
    sizes = {}
    for size in ("column", "page"):
        figure = drawn(SWEEP, size=size)["icr"]
        sizes[size] = {float(text.get_fontsize()) for text in figure.findobj(Text) if text.get_text()}
    assert min(sizes["column"]) > 6
    assert min(sizes["page"]) > 7
    assert max(sizes["column"]) <= 8


def test_panels_stand_one_under_the_other_where_the_width_is_a_column() -> None:
    for size, columns in ((None, 2), ("column", 1)):
        axes = drawn(RUN, size=size)["companions"].axes
        assert len({round(one.get_subplotspec().colspan.start) for one in axes}) == columns


def test_a_users_style_file_is_laid_over_ours(tmp_path: Path) -> None:
    file = tmp_path / "ours.mplstyle"
    file.write_text(
        "# of our lab\naxes.prop_cycle: cycler('color', ['ff0000', '00ff00'])\nfont.size: 12\n"
        "figure.figsize: 5, 3\nbackend: agg\n"
    )
    figure = drawn(made_results.sweep(3), style=file)["icr"]
    axes = figure.axes[0]
    colours = [line.get_color() for line in axes.get_lines() if len(line.get_xdata()) == 12]
    assert colours == ["#FF0000", "#00FF00", "#FF0000"]  # begins again
    assert axes.yaxis.label.get_fontsize() == 12
    assert figure.get_figwidth() == 5
    assert not axes.spines["right"].get_visible()  # ours still
    assert drawn(SWEEP, style=file, size="page")["icr"].get_figwidth() == 6.75


def test_a_copy_of_our_style_file_changes_nothing(tmp_path: Path) -> None:
    copy = tmp_path / "copy.mplstyle"
    copy.write_text(style.OURS.read_text("utf-8"))
    for name, drawing in (("a", {}), ("b", {"style": copy})):
        SWEEP.save(tmp_path / name, **drawing)
    assert (tmp_path / "a" / "icr.png").read_bytes() == (tmp_path / "b" / "icr.png").read_bytes()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("lines.linewidth: thick\n", "thick"),
        ("font.size: 9\nlines.colour: red\n", "line 2: 'lines.colour: red' is no setting of matplotlib's"),
        ("PNG\n", "line 1: 'PNG' is no setting"),
    ],
)
def test_a_file_that_is_no_style_is_refused_in_one_line(text: str, found: str, tmp_path: Path) -> None:
    (tmp_path / "odd.mplstyle").write_text(text)
    with pytest.raises(UsageError, match=r"odd\.mplstyle") as error:
        SWEEP.plot(style=tmp_path / "odd.mplstyle")
    assert found in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"style": "ggplot"}, "no such file"),
        ({"style": "https://example.org/a.mplstyle"}, "no such file"),
        ({"size": "wide"}, "column, page or a width in inches"),
        ({"size": 0.5}, "2 to 20 inches"),
        ({"size": float("nan")}, "2 to 20 inches"),
        ({"format": "jpg"}, "png, svg or pdf"),
        ({"format": ()}, "expected one of"),
        ({"step_scale": "sqrt"}, "linear or log"),
    ],
)
def test_what_is_not_understood_is_refused(options: dict[str, Any], found: str) -> None:
    with pytest.raises(UsageError, match=r"^`") as error:
        Drawing(**options)
    assert found in str(error.value)


# --- the axis of steps


def test_steps_may_stand_on_a_logarithmic_axis() -> None:
    for name in ("icr", "traces", "companions"):
        for axes in drawn(RUN, step_scale="log")[name].axes:
            assert axes.get_xscale() == "log"
            low, high = axes.get_xlim()
            assert 0 < low < 12_800 < 307_200 < high
    assert drawn(RUN)["icr"].axes[0].get_xscale() == "linear"


def test_a_step_of_0_has_its_place_on_a_logarithmic_axis() -> None:
    rows = [Row(row.to_json() | {"step": 0 if i == 0 else row.step}) for i, row in enumerate(RUN.rows)]
    axes = drawn(replace(RUN, rows=tuple(rows)), step_scale="log")["icr"].axes[0]
    assert axes.get_xscale() == "symlog"
    low, _ = axes.get_xlim()
    assert low < 0
    assert 0.0 in axes.get_xticks()


def test_the_map_of_the_window_has_that_axis_too() -> None:
    levels = made_results.levels(6)
    rows = [made_results.snapshot(i, 0.3 + 0.01 * j, sigma=level) for i in range(4) for j, level in enumerate(levels)]
    windows = [
        replace(made_results.window(made_results.LAYER, shape="u" if i else None), step=12_800 * (i + 1))
        for i in range(4)
    ]
    result = made_results.training(rows).having(window=tuple(windows))
    with canvas.look(Drawing(step_scale="log")):
        figure = window_map(result)
    assert figure.axes[0].get_xscale() == "log"
    assert legend(figure) == ["recommended σ", "ends of the window", "lowest ICR, no window"]
    with canvas.look():
        assert legend(window_map(result.having(window=tuple(windows[1:])))) == ["recommended σ", "ends of the window"]


def test_the_maps_of_many_layers_are_those_of_lowest_icr() -> None:
    made = made_results.track_of_layers(9, 3, made_results.levels(4))
    windows = [replace(made_results.window(f"blocks.{layer}"), step=12_800) for layer in range(9)]
    with canvas.look():
        figure = window_map(made.having(window=tuple(windows)))
    lowest = {f"blocks.{i}": min(row["icr"] for row in made.rows if row.layer == f"blocks.{i}") for i in range(9)}
    best = sorted(sorted(lowest, key=lambda layer: lowest[layer])[:4])
    assert [axes.get_title() for axes in figure.axes if axes.get_title()] == best
    assert len(figure.axes) == 2 * 4  # each with its bar of colours
    assert figure.get_suptitle().endswith("the 4 layers of lowest ICR, of 9")


def test_marks_and_shades_follow_a_dark_style(tmp_path: Path) -> None:
    with canvas.look():
        assert (canvas.ink(), canvas.faint(), canvas.shade(), canvas.paper()) == (
            "#404040", "#C8C8C8", "#FBF6CC", "#FFFFFF",
        )  # fmt: skip
        assert to_hex(rcParams["grid.color"]) == "#e6e6e6"
    dark = tmp_path / "dark.mplstyle"
    dark.write_text("axes.facecolor: black\ntext.color: white\ngrid.color: white\n")
    with canvas.look(Drawing(style=str(dark))):
        assert (canvas.ink(), canvas.shade(), canvas.paper()) == ("#BFBFBF", "#413C12", "#000000")
        assert to_hex(rcParams["grid.color"]) == "#1a1a1a"
        axes = view_of(SWEEP).figures(SWEEP)["icr"].axes[0]
        assert {to_hex(line.get_markerfacecolor()) for line in axes.lines if len(line.get_xdata()) > 2} == {"#000000"}
    dark.write_text("axes.facecolor: black\ngrid.color: white\naxes.grid: True\n")
    with canvas.look(Drawing(style=str(dark))):
        assert to_hex(rcParams["grid.color"]) == "#ffffff"  # whoever asks for a grid has theirs


# --- legends


def test_the_legend_of_a_sweep_names_the_layer_and_every_mark() -> None:
    assert legend(drawn(SWEEP)["icr"]) == [
        "ICR of enc.8x8_block3", "bands: 95 % intervals", "filled: lowest measured", "recommended σ = 0.41",
        "window 0.19 to 0.93",
    ]  # fmt: skip
    several = legend(drawn(made_results.sweep(3))["icr"])
    assert several[:3] == [f"enc.64x64_block{i}" for i in range(3)]
    assert several[5].startswith("recommended σ = 0.41 (enc.64x64_block")
    assert legend(drawn(made_results.sweep(12))["layers"])[1].startswith("lowest: blocks.")
    for name in ("traces", "icr"):
        assert "enc.8x8_block3" in " ".join(legend(drawn(SWEEP)[name]))


def test_training_and_held_out_images_have_colours_of_their_own() -> None:
    figure = drawn(RUN)["icr"]
    icr, loss = figure.axes[:2]
    curves = [line.get_color() for line in icr.get_lines() if len(line.get_xdata()) == 24]
    assert len(set(curves)) == 2
    assert [line.get_color() for line in loss.get_lines()[:2]] == curves
    rows = [row.having(icr_holdout=1.1 * row["icr"]) for row in made_results.track_of_layers(2).rows]
    several = drawn(replace(made_results.track_of_layers(2), rows=tuple(rows)))["icr"]
    assert [axes.get_title(loc="left") for axes in several.axes] == ["training images", "held-out images"]


def test_companions_have_intervals() -> None:
    without = drawn(made_results.track())["companions"]
    assert not any(axes.collections for axes in without.axes)
    assert "bands: 95 % intervals" not in legend(without)
    wide = drawn(having(made_results.track(), alignment_se=0.1, uniformity_se=0.2))["companions"]
    banded = {axes.get_title().split()[0]: axes.collections for axes in wide.axes if axes.collections}
    assert [*banded] == ["alignment", "uniformity"]
    (band,) = banded["uniformity"]
    low = min(row["uniformity"] for row in made_results.track().rows)
    assert band.get_paths()[0].get_extents().y0 == pytest.approx(low - 1.96 * 0.2)
    assert "bands: 95 % intervals" in legend(wide)


@pytest.mark.parametrize(("snapshots", "said"), [(4, False), (5, True)])
def test_a_rank_correlation_is_told_from_five_snapshots_on(snapshots: int, said: bool) -> None:
    column = made_results.overlay("fid", 1, 0, -1.0)
    against = tuple(replace(one, n=snapshots) for one in column.against)
    with canvas.look():
        figure = training.figures(made_results.track().having(overlay=(replace(column, against=against),)))["icr"]
    assert any("rank correlation" in text.get_text() for text in figure.findobj(Text)) == said


def test_a_trace_that_is_not_above_0_has_no_band_on_a_logarithmic_axis() -> None:
    rows = [
        Row(layer="m", sigma=s, t=s, n=9, d=4, icr=0.5, trace_s=v, trace_s_se=0.01, trace_xi=1.0, trace_xi_se=0.1)
        for s, v in ((0.1, 2.0), (1.0, 0.05), (10.0, -0.001))
    ]
    with canvas.look():
        axes = sweep.figures(made_results.result(rows))["traces"].axes[0]
    assert axes.get_yscale() == "log"
    first = axes.collections[0].get_paths()[0].get_extents()
    assert (first.x0, first.x1) == (0.1, 1.0)
    assert first.y0 > 0
