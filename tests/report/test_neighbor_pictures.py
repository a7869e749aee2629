"""Neighbours as words and as a picture: numbers where they belong, frames that grey tells apart."""

# mypy: disable-error-code="arg-type"

from __future__ import annotations

from pathlib import Path
from typing import Any

import made_results
import numpy as np
import pytest

from diffscope.report.figures.canvas import look
from diffscope.report.figures.neighbors import clusters_figure, frame, grid_figure
from diffscope.report.spreadsheet import write_csv
from diffscope.report.words import neighbors
from diffscope.results import Result, Row


def image(index: int, label: int | None, **more: Any) -> dict[str, Any]:
    return {"image": index, "name": f"{index:04d}.png", "label": label, **more}


def query(k: int, label: int | None, number: int) -> dict[str, Any]:
    """By s all neighbours are of class 1, by ξ of class 2."""

    def near(other: int, view: int | None) -> list[dict[str, Any]]:
        of = None if label is None else other
        return [image(10 + i, of, view=view, similarity=0.9 - 0.1 * i) for i in range(k)]

    return image(number, label, s={"view": None, "neighbors": near(1, None)}, xi={"view": 2, "neighbors": near(2, 3)})


def made(
    checkpoints: int = 1,
    queries: int = 2,
    k: int = 3,
    label: int | None = 1,
    share_s: float = 0.8,
    clusters: bool = False,
) -> Result:
    known = label is not None
    names = [f"run/snapshot-{i}.pt" for i in range(checkpoints)]
    rows = [
        {"checkpoint": name, "step": 1000 * i, "layer": "mid_block", "sigma": 0.25, "t": -0.35, "n": 100, "d": 64,
         "component": component, "k": k, "same_class": share if known else None,
         "same_class_se": 0.02 if known else None, "chance": 0.1 if known else None, "queries": 100 if known else 0,
         "icr": 0.4 + 0.01 * i, "notes": [] if known else ["no_labels: same_class needs classes"]}
        for i, name in enumerate(names) for component, share in (("s", share_s), ("xi", 0.2))
    ]  # fmt: skip
    place = [{"checkpoint": name, "step": 1000 * i, "icr": 0.4 + 0.01 * i} for i, name in enumerate(names)]
    grid = [{**at, "queries": [query(k, label, number) for number in range(queries)]} for at in place]
    points = [image(n, label, points=[[n + 0.1 * v, 0.1 * v * v] for v in range(5)]) for n in range(queries)]
    drawn = [{**at, "explained": [0.6, 0.2], "images": points} for at in place]
    return Result(
        version="0", command="neighbors", checkpoint={"path": "run"}, data={"class_names": None}, protocol={},
        rows=tuple(map(Row, rows)), pictures=PICTURES,
        sections={"grid": grid, **({"clusters": drawn} if clusters else {})},
    )  # fmt: skip


PICTURES = {(number, view): np.full((4, 4), 10 * number % 256, np.uint8) for number in range(40) for view in range(5)}


def shown(result: Result) -> list[dict[str, str]]:
    return [{heading: show(row) for heading, show in neighbors.columns(result).items()} for row in result.rows]


def test_a_table_of_rows() -> None:
    lines = shown(made())
    assert lines[0]["same class @3"] == "0.8000"
    assert (lines[0]["by"], lines[1]["by"]) == ("s", "ξ")
    assert [line["ICR"] for line in lines] == ["0.4000", "0.4000"]
    assert "step" not in lines[0]
    series = shown(made(2))
    assert [line["step"] for line in series] == ["0", "0", "1,000", "1,000"]
    assert series[2]["checkpoint"] == "snapshot-1.pt"


@pytest.mark.parametrize(
    ("share", "words"), [(0.8, "says more of the class"), (0.27, "no more of the class"), (0.1, "no more of the class")]
)
def test_the_finding_follows_from_the_errors(share: float, words: str) -> None:
    """Three standard errors of a difference are 0.085 here."""
    found = neighbors.finding(made(share_s=share))
    assert found is not None
    assert words in found
    assert f"{100 * share:.1f} %" in found


def test_without_labels_there_is_no_finding() -> None:
    assert neighbors.finding(made(label=None)) is None
    assert neighbors.notes(made(label=None)) == ["no_labels: same_class needs classes"]
    assert shown(made(label=None))[0]["same class @3"] == "–"


def test_neighbours_are_named() -> None:
    ((title, lines),) = neighbors.listing(made())
    assert "cosine" in title
    assert lines[0] == ["0000.png (class 1)", "s", "0010.png 0.90", "0011.png 0.80", "0012.png 0.70"]
    assert lines[1][:2] == ["", "ξ, view 2"]
    assert [told[0] for told in neighbors.listing(made(9))] == [
        "step 0, ICR 0.4000:", "step 4,000, ICR 0.4400:", "step 8,000, ICR 0.4800:",
    ]  # fmt: skip


def test_a_grid_has_every_thumbnail_and_its_frame() -> None:
    with look():
        figure = grid_figure(made(checkpoints=2, queries=3, k=4), PICTURES)
    (axes,) = figure.axes
    pictures = axes.get_images()
    assert len(pictures) == 2 * 3 * 2 * (1 + 4)
    frames = [line for line in axes.lines if len(line.get_xdata()) == 5]
    colours = [line.get_color() for line in frames]
    with look():
        same, other = (frame(is_same)["color"] for is_same in (True, False))
    assert (colours.count(same), colours.count(other)) == (2 * 3 * 4, 2 * 3 * 4)
    said = [text.get_text() for text in axes.texts]
    assert {"step 0\nICR 0.4000", "step 1,000\nICR 0.4100", "s", "ξ", "0.90", "view 2", "class 1"} <= set(said)
    left, right, bottom, top = axes.get_xlim() + axes.get_ylim()
    for picture in pictures:
        x0, x1, y1, y0 = picture.get_extent()
        assert left <= x0 < x1 <= right
        assert top <= y0 < y1 <= bottom


def test_thumbnails_do_not_overlap() -> None:
    with look():
        (axes,) = grid_figure(made(queries=5, k=5), PICTURES).axes
    corners = [(picture.get_extent()[0], picture.get_extent()[3]) for picture in axes.get_images()]
    for i, (x, y) in enumerate(corners):
        assert not [1 for a, b in corners[:i] if abs(a - x) < 1 and abs(b - y) < 1]


def test_without_labels_there_are_no_frames() -> None:
    with look():
        figure = grid_figure(made(label=None), PICTURES)
    assert not figure.axes[0].lines
    assert not [text for text in legend_of(figure) if "class" in text]


def legend_of(figure: Any) -> list[str]:
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def test_the_legend_says_what_the_numbers_and_the_two_lines_are() -> None:
    with look():
        said = legend_of(grid_figure(made(), PICTURES))
    assert said[:3] == ["same class as the query", "another class", "numbers: cosine similarity to the query"]
    assert said[3].startswith("s: by what")


def test_classes_of_neighbours_are_named_where_their_names_are_known() -> None:
    known = made()
    named = known.having()
    object.__setattr__(named, "data", {"class_names": ["Coat", "Bag", "Shoe"]})
    with look():
        said, without = (
            [text.get_text() for text in grid_figure(result, PICTURES).axes[0].texts] for result in (named, known)
        )
    assert "Bag" in said  # the query's
    assert "0.90\nShoe" in said  # by ξ all are of class 2
    assert "0.90" in said  # of the query's own class: the frame says so
    assert not [text for text in without if "\n" in text]


def test_grey_tells_the_frames_apart() -> None:
    def luma(colour: str) -> float:
        red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
        return 0.299 * red + 0.587 * green + 0.114 * blue

    with look():
        same, other = frame(True), frame(False)
    assert luma(other["color"]) - luma(same["color"]) > 0.25
    assert same["linestyle"] != other["linestyle"]


def test_views_of_an_image_are_one_cluster() -> None:
    with look():
        figure = clusters_figure(made(checkpoints=4, queries=3, clusters=True), PICTURES)
    panels = [axes for axes in figure.axes if axes.get_xlabel()]
    assert len(panels) == 4
    assert panels[0].get_xlabel() == "first component (60 %)"
    points = [len(line.get_xdata()) for line in panels[0].lines]
    assert points == [4, 1] * 3
    assert len({line.get_marker() for line in panels[0].lines}) == 3
    below = [text.get_text() for legend in figure.subfigs[1].legends for text in legend.get_texts()]
    assert below == ["large: the image as it is", "small: its augmented views"]


def test_files_are_the_same_bytes_twice(tmp_path: Path) -> None:
    written = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        written.append(made_results.draw(made(clusters=True), tmp_path / name))
    assert [path.name for path in written[0]] == ["neighbors.png", "neighbors.svg", "clusters.png", "clusters.svg"]
    assert [path.read_bytes() for path in written[0]] == [path.read_bytes() for path in written[1]]


def test_rows_are_a_spreadsheet(tmp_path: Path) -> None:
    write_csv(made().rows, tmp_path / "rows.csv")
    head, by_s, _ = (tmp_path / "rows.csv").read_text("utf-8").splitlines()
    assert dict(zip(head.split(","), by_s.split(","), strict=True))["same_class"] == "0.8"
