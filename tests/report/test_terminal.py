"""What stands on stdout and stderr, held to plain text: no colours, no Greek where the stream has none, one line."""

from __future__ import annotations

import io
import re
import sys
import time
from collections.abc import Callable
from typing import Any

import made_results
import pytest

from diffscope.report import terminal
from diffscope.report.parts import Plots, Table, Text
from diffscope.report.text import TOLD
from diffscope.results import Record, Result, Row, WindowRow


class Stream(io.TextIOWrapper):
    """A stream with an encoding of its own that may claim to be a terminal."""

    def __init__(self, encoding: str, terminal: bool) -> None:
        super().__init__(io.BytesIO(), encoding=encoding, errors="strict", write_through=True, newline="\n")
        self.claims = terminal

    def isatty(self) -> bool:
        return self.claims

    def text(self) -> str:
        buffer = self.buffer
        assert isinstance(buffer, io.BytesIO)
        return buffer.getvalue().decode(self.encoding)


Streams = Callable[..., tuple[Stream, Stream]]


@pytest.fixture
def streams(monkeypatch: pytest.MonkeyPatch) -> Streams:
    """Replaces stdout and stderr, and clears what the environment says of them."""

    def replace(encoding: str = "utf-8", terminal: bool = False, **environment: str) -> tuple[Stream, Stream]:
        for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "TTY_COMPATIBLE", "COLORTERM"):
            monkeypatch.delenv(name, raising=False)
        for name, value in {"TERM": "xterm-256color", **environment}.items():
            monkeypatch.setenv(name, value)
        out, err = Stream(encoding, terminal), Stream(encoding, terminal)
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setattr(sys, "stderr", err)
        return out, err

    return replace


def with_nulls_and_notes() -> Result:
    one = made_results.sweep()

    def altered(i: int, row: Row) -> Row:
        if i % 2:
            return made_results.without_icr(row, f"rank_deficient: {i} images for d = 256; measure more")
        return row.having(notes=("few_images: 1/icr − 1 may be off by 5 %",))

    rows = [altered(i, row) for i, row in enumerate(one.rows)]
    unclear = made_results.window("enc.8x8_block3", 0.18, None, ("window_unclear: the last level may be the best",))
    return made_results.result(rows, [unclear])


def print_all(result: Result) -> None:
    made_results.show(result)


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"NO_COLOR": "1", "FORCE_COLOR": "1"}, {"TERM": "dumb"}])
def test_no_escapes_where_they_are_not_wanted(streams: Streams, environment: dict[str, str]) -> None:
    out, err = streams(terminal=True, COLUMNS="120", **environment)
    print_all(made_results.sweep(3))
    terminal.fail("no such file")
    assert "\x1b" not in out.text() + err.text()


def test_no_escapes_in_a_pipe_but_colour_when_forced_or_on_a_terminal(streams: Streams) -> None:
    out, _ = streams()
    print_all(made_results.sweep())
    assert "\x1b" not in out.text()
    for on_terminal, environment in ((True, {}), (False, {"FORCE_COLOR": "1"})):
        out, _ = streams(terminal=on_terminal, **environment)
        print_all(made_results.sweep())
        assert "\x1b[1m" in out.text()


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
@pytest.mark.parametrize("columns", ["30", "80", "200"])
def test_without_greek_the_same_is_said_in_ascii(streams: Streams, encoding: str, columns: str) -> None:
    out, _ = streams(encoding, COLUMNS=columns)
    print_all(with_nulls_and_notes())  # a character that the stream lacks would raise
    assert out.text().isascii()
    assert "sigma" in out.text()
    assert ("* lowest ICR   # not" in out.text()) == (columns != "30")
    assert ("No plot at this" in out.text()) == (columns == "30")


def test_numbers_are_never_cut_and_a_pipe_has_all_columns(streams: Streams) -> None:
    for columns in ("60", "80", "100"):
        out, _ = streams(COLUMNS=columns)
        made_results.show(made_results.sweep(), Table)
        assert "0.4914   [0.4693, 0.5160]" in out.text()
        assert "…" not in out.text()
        assert "Left out at this width" in out.text()
    out, _ = streams(COLUMNS="30")
    made_results.show(made_results.sweep(), Table)
    assert "  ICR: 0.4914\n  95 % interval: [0.4693,\n    0.5160]   ICR raw: 0.4570" in out.text()
    out, _ = streams()
    made_results.show(made_results.sweep(), Table)
    assert "eff. rank" in out.text()


def test_rows_name_a_layer_once_and_a_note_once(streams: Streams) -> None:
    out, _ = streams()
    made_results.show(with_nulls_and_notes(), Table)
    lines = out.text().splitlines()
    assert len([line for line in lines if line.startswith("enc.8x8_block3")]) == 1
    assert len([line for line in lines if "may be off by 5 %" in line]) == 1
    # Its other rows differ in their numbers alone: a letter in each row, one line beneath.
    assert len([line for line in lines if "images for d = 256" in line]) == 1
    assert len([line for line in lines if line.split()[-1:] == ["b"]]) == 6
    assert len([line for line in lines if line.startswith("(b) rank_deficient: ")]) == 1
    assert "(5 more like it, in result.json)" in "".join(lines)
    assert next(line for line in lines if "0.00462" in line).split()[2:4] == ["–", "–"]


def test_a_level_that_was_not_asked_for_says_which_was(streams: Streams) -> None:
    out, _ = streams()
    row = made_results.row("mid", 0.31).having(sigma_requested=0.3)
    made_results.show(made_results.result([row]), Table)
    assert "0.31 (for 0.3)" in out.text()


def test_curve_marks_minimum_and_window_and_leaves_one_level_out(streams: Streams) -> None:
    out, _ = streams()
    made_results.show(made_results.sweep(), Plots)
    plot = [line for line in out.text().splitlines() if line.startswith("  ") or " │" in line][:9]
    assert sum(line.count("◆") for line in plot) == 1
    assert sum(line.count("●") for line in plot) == 1
    assert sum(line.count("○") for line in plot) == 10
    assert "◆" in plot[-1]
    assert "○" in plot[1]
    out, _ = streams()
    made_results.show(made_results.result([made_results.row("mid", 0.3)]), Plots)
    assert out.text() == ""


def test_curve_of_equal_values_and_without_intervals(streams: Streams) -> None:
    out, _ = streams()
    rows = [Row(layer="mid", sigma=sigma, t=sigma, n=9, d=4, icr=0.25) for sigma in (0.1, 1.0, 10.0)]
    made_results.show(made_results.result(rows, [made_results.window("mid")]), Plots)
    assert "0.2500" in out.text()


def test_of_many_layers_the_best_are_plotted_and_all_are_ranked(streams: Streams) -> None:
    out, _ = streams()
    many = made_results.sweep(36)
    made_results.show(many, Plots)
    assert out.text().count("ICR over σ") == TOLD
    assert "of 36" in out.text()
    out, _ = streams()
    made_results.show(many, Table, Text)
    lines = [line.split() for line in out.text().splitlines()]
    ranking = [words[:2] for words in lines if words[1:] and words[1].startswith("blocks.")]
    assert ranking[:2] == [["1", "blocks.18"], ["2", "blocks.17"]]
    assert len(ranking) == 36


@pytest.mark.parametrize(
    ("shape", "says", "next_step"),
    [
        ("u", "semantic window found. Recommended σ = 0.41 (the model's t = -0.223)", "recommended level"),
        ("rising", "ICR rises with noise. Lowest ICR 0.1800", "earlier checkpoint"),
        ("falling", "ICR still falls. Lowest ICR 0.1800", "larger levels"),
        ("flat", "ICR is flat. Lowest ICR 0.1800", "--num-images"),
        (None, "undecided. Lowest ICR 0.1800", "wider range"),
    ],
)
def test_every_shape_says_what_it_is_and_what_to_do(
    streams: Streams, shape: str | None, says: str, next_step: str
) -> None:
    out, _ = streams()
    result = made_results.result(made_results.sweep().rows, [made_results.window("enc.8x8_block3", 0.18, shape)])
    made_results.show(result, Table, Text)
    words = " ".join(out.text().split())
    assert f"enc.8x8_block3: {'no semantic window, ' if shape in ('rising', 'flat') else ''}" in words
    assert says in words
    assert next_step in words
    assert "95 % interval [0.1689, 0.1857]" in words


def test_a_layer_without_any_icr_gets_its_reason(streams: Streams) -> None:
    out, _ = streams()
    nothing = WindowRow("mid", None, None, None, None, None, notes=("too_few_levels: none has an ICR",))
    rows = [made_results.without_icr(made_results.row("mid", s), "rank_deficient: too few images") for s in (0.1, 1.0)]
    print_all(made_results.result(rows, [nothing, made_results.window("other")]))
    assert "No level has an ICR. too_few_levels: none has an ICR" in out.text()
    assert out.text().index("other") < out.text().index("No level")


def comparison(**changed: Any) -> dict[str, Any]:
    record = {"layer": "mid", "sigma": 0.3, "icr_old": 0.2, "icr_new": 0.19, "change": -0.05, "change_low": -0.07}
    return {**record, "change_high": -0.03, "t": -5.1, "p": 1e-5, "p_corrected": 3e-5, "significant": True, **changed}


def test_comparison_counts_what_is_significant(streams: Streams) -> None:
    out, _ = streams()
    nothing = dict.fromkeys(("icr_old", "change", "change_low", "change_high", "t", "p", "p_corrected"))
    records = [
        comparison(),
        comparison(significant=False, p=0.04, p_corrected=0.08),
        comparison(layer="b", change=0.04),
    ]
    made_results.show(Record("compare", {"rows": [*records, comparison(**nothing, significant=False)]}))
    assert "-5.0 %   [-7.0 %, -3.0 %]   -5.1   <0.0001       <0.0001   lower" in out.text()
    assert "0.04          0.08   no difference" in out.text()
    assert "no difference" in out.text()
    assert "Of 4 rows ICR is significantly lower in 1, higher in 1: at 5 % for all rows together" in out.text()


def inspection(**changed: Any) -> dict[str, Any]:
    record: dict[str, Any] = {
        "path": "net.pkl",
        "container": "pickle",
        "family": "edm",
        "evidence": "the file names EDMPrecond",
        "class": "SongUNet",
        "weights": "ema",
        "weights_reason": "the file has them",
        "parameters": 55733891,
        "step": 200000,
        "step_unit": "kimg",
        "input": {"kind": "pixels", "channels": 3, "side": 32, "image_side": 32},
        "noise": {"native": "ln(σ)/4", "sigma_min": 0.002, "sigma_max": None, "discrete": False},
        "classes": {"count": 0, "null_trained": None},
        "default_layer": "enc.8x8_block3",
        "constructor": {"img_resolution": 32, "channel_mult": [2, 2, 2]},
        "layers": [{"name": f"enc.8x8_block{i}", "shape": [256, 8, 8], "features": 256} for i in range(4)],
        "warnings": ["the file does not say how it was trained"],
    }
    return {**record, **changed}


def test_inspection_says_all_of_it(streams: Streams) -> None:
    out, _ = streams()
    made_results.show(Record("inspect", inspection()))
    for said in ("55,733,891 parameters", "200,000 kimg", "σ from 0.002 without upper limit", "none (unconditional)"):
        assert said in out.text()
    assert "channel_mult=2,2,2" in out.text()
    assert [line.split()[0] for line in out.text().splitlines() if line.endswith("default")] == ["enc.8x8_block3"]
    assert "warning: the file does not say" in out.text()


def test_inspection_of_a_latent_conditional_model_without_step(streams: Streams) -> None:
    out, _ = streams()
    latent = {"kind": "latents", "channels": 4, "side": 32, "image_side": 256}
    noise = {"native": "a step in 0…999", "sigma_min": 0.01, "sigma_max": 157.4, "discrete": True}
    changed = {"input": latent, "noise": noise, "classes": {"count": 1000, "null_trained": True}, "step": None}
    made_results.show(Record("inspect", inspection(**changed)))
    for said in ("from images of side 256", "to 157, discrete levels", "1000, trained without", "does not say"):
        assert said in out.text()


def test_messages_are_one_line_on_stderr(streams: Streams) -> None:
    out, err = streams(COLUMNS="40", terminal=True, NO_COLOR="1")
    terminal.fail("a long [bold]message[/] of :many: words, " * 5 + "\nwith a second\tline and \x1b[31mcolour")
    terminal.warn("odd name caf\udcff")
    terminal.note("saved")
    assert out.text() == ""
    lines = err.text().splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("error: a long [bold]message[/] of :many: words")
    assert lines[0].endswith("with a second line and \\x1b[31mcolour")
    assert lines[1] == "warning: odd name caf\\udcff"
    assert lines[2] == "saved"


def test_progress_is_silent_without_a_terminal_even_if_colour_is_forced(streams: Streams) -> None:
    for on_terminal, environment in ((False, {"FORCE_COLOR": "1"}), (True, {"TERM": "dumb"})):
        out, err = streams(terminal=on_terminal, **environment)
        with terminal.progress(10, "measuring") as advance:
            advance(10)
        assert out.text() + err.text() == ""


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_progress_shows_done_total_and_rate_and_lets_messages_pass(streams: Streams, encoding: str) -> None:
    out, err = streams(encoding, terminal=True, COLUMNS="120")
    with terminal.progress(10, "measuring σ", unit="images") as advance:
        advance(4)
        terminal.warn("skipped a.png")
        with terminal.progress(3, "inside") as inner:  # one bar at a time
            inner(3)
        advance(6)
    assert out.text() == ""
    assert "10/10" in err.text()
    assert "images/s" in err.text()
    assert "skipped a.png" in err.text()
    assert "inside" not in err.text()
    assert terminal.stderr_console() is not terminal.stderr_console()  # none is left behind


def printed(streams: Streams, result: Result, *stream: Any, **environment: str) -> str:
    out, _ = streams(*stream, **environment)
    made_results.show(result)
    return out.text()


def test_a_run_has_its_table_its_plot_and_its_verdict(streams: Streams) -> None:
    text = printed(streams, made_results.track_with_all())
    rows = [line.rstrip() for line in text.splitlines() if "   snapshot-" in line]
    marked = [row.split() for row in rows if row.endswith(("keep", "lowest", "onset fired"))]
    assert [line[0] for line in marked] == ["115,200", "128,000", "230,400"]
    assert "held-out loss" in text
    assert "held-out ICR" in text
    assert text.count("ICR over training images seen") == 1
    assert "◆" in text.split("ICR over training images seen")[1].split("└")[0]
    assert text.index("turned, onset of memorization") < text.index("What to do:")
    assert text.index("fid: rank") < text.index("turned, onset of memorization")
    assert "Left out" not in text
    assert "loss" not in printed(streams, made_results.track())


def test_the_onset_is_a_dotted_column_of_the_plot(streams: Streams) -> None:
    for fired in (True, False):
        text = printed(streams, made_results.track(fired=fired))
        plot = [line for line in text.splitlines() if line[9:10] in ("┤", "│")]
        columns = {i for line in plot for i, character in enumerate(line) if character == ":"}
        assert len(plot) == 9
        assert len(columns) == int(fired)


def test_several_series_have_headings_and_a_list_of_verdicts_turned_ones_first(streams: Streams) -> None:
    text = printed(streams, made_results.track_of_layers(6))
    assert [f"blocks.{i}, σ = 0.3" in text.splitlines() for i in range(6)] == [True] * 4 + [False] * 2
    assert "4 of 6 series; all are in result.json (--json)." in text
    listed = [line.split() for line in text.split("verdict ")[1].splitlines() if line.startswith("blocks.")]
    assert [line[0] for line in listed[:6]] == ["blocks.0", "blocks.3", "blocks.1", "blocks.2", "blocks.4", "blocks.5"]
    assert "The 4 series of lowest ICR, of 6." in text
    assert "What fired means:" in text
    assert "What falling means:" in text


def test_a_long_run_is_shown_in_part_and_never_without_its_marks(streams: Streams) -> None:
    text = printed(streams, made_results.track(count=100))
    shown = [line.split()[0] for line in text.splitlines() if "   snapshot-" in line]
    steps = [int(step.replace(",", "")) // 12_800 for step in shown]
    assert steps == sorted(set(steps))
    assert steps[:5] == [1, 2, 3, 4, 5]
    assert steps[-10:] == list(range(91, 101))
    assert 30 <= len(steps) <= 33
    assert f"{len(steps)} of 100 snapshots; all are in result.json (--json)." in text
    for mark in ("keep", "lowest", "onset fired"):
        assert any(line.rstrip().endswith(mark) for line in text.splitlines())
    assert "snapshots; all are" not in printed(streams, made_results.track(count=30))


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
@pytest.mark.parametrize("columns", ["30", "80", "200"])
def test_a_run_without_greek_is_said_in_ascii(streams: Streams, encoding: str, columns: str) -> None:
    for made in (made_results.track_with_all(), made_results.track_with_nulls(), made_results.track_of_layers(6)):
        text = printed(streams, made, encoding, COLUMNS=columns)
        assert text.isascii()
        assert "sigma" in text
        assert ("* lowest ICR   # not" in text) == (columns != "30")


@pytest.mark.parametrize("columns", ["30", "60", "80", "100", "140"])
def test_numbers_of_a_run_are_never_cut(streams: Streams, columns: str) -> None:
    text = printed(streams, made_results.track_with_all(), COLUMNS=columns)
    assert ("0.4500   [0.4320, 0.4703]" in text) == (columns != "30")
    assert "…" not in text
    assert ("Left out at this width: trace s" in " ".join(text.split())) == (columns != "30")
    assert max(map(len, (line for line in text.splitlines() if "┤" in line or "└" in line)), default=0) <= int(columns)


def test_a_run_without_icr_gives_its_reasons(streams: Streams) -> None:
    text = printed(streams, made_results.track_of_nothing())
    assert "rank_deficient: too few images for d = 256; measure more" in text
    assert "undecided. No snapshot has an ICR that can be compared. few_snapshots:" in text
    assert "┤" not in text
    for count in (1, 2):
        assert "0.4500" in printed(streams, made_results.track("unclear", count))


def test_what_was_left_out_is_named_with_its_reason(streams: Streams) -> None:
    assert "Left out: broken.pt: not a checkpoint: a zip of text" in printed(streams, made_results.track_with_nulls())


def until(seen: Callable[[], bool]) -> None:
    """Waits for what another thread writes; a minute, if need be."""
    for _ in range(6000):
        if seen():
            return
        time.sleep(0.01)
    pytest.fail("it was never written")


def test_a_log_is_told_now_and_then_of_what_takes_long(streams: Streams, monkeypatch: pytest.MonkeyPatch) -> None:
    _, err = streams()
    monkeypatch.setattr(terminal, "SILENCE", 0.01)
    with terminal.waiting("inspect: reading"):
        until(lambda: err.text().count("\n") > 1)
    assert all(re.fullmatch(r"inspect: reading, for \d+ s so far", line) for line in err.text().splitlines())


def test_on_a_terminal_it_stands_there_until_the_end(streams: Streams, monkeypatch: pytest.MonkeyPatch) -> None:
    _, err = streams(terminal=True)
    monkeypatch.setattr(terminal, "PATIENCE", 0.01)
    with terminal.waiting("sweep: reading"):
        until(lambda: "sweep: reading" in err.text())
        terminal.warn("of something")
        with terminal.progress(2, "bar") as advance:  # which takes its place
            assert not terminal._waited
            advance(1)
            until(lambda: "1/2" in err.text())
    assert "warning: of something" in err.text().replace("\x1b[33m", "").replace("\x1b[0m", "")
    assert (terminal._drawing, terminal._waited) == ([], [])


def test_what_is_over_at_once_is_not_spoken_of(streams: Streams) -> None:
    for told in (True, False):
        _, err = streams(terminal=told)
        with pytest.raises(KeyboardInterrupt), terminal.waiting("reading"):
            raise KeyboardInterrupt
        assert err.text() == ""
