"""The page of results: every kind has one, it needs nothing from elsewhere, and nothing in it runs but its own."""

from __future__ import annotations

import base64
import csv
import dataclasses
import gzip
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import made_results
import pytest
import test_segmentation_report
from test_command_views import CASES

from diffscope.names import visible
from diffscope.report import spreadsheet
from diffscope.report.page import beside, charts, document
from diffscope.report.page.markup import Markup, element
from diffscope.report.views.base import view_of
from diffscope.report.words import quality
from diffscope.results import Record, Result, Row, Shown, dumps, read_result

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&"


def page_of(shown: Shown, folder: Path = Path("nowhere")) -> str:
    view = view_of(shown)
    return document.page([view.seen(shown, view.records(shown), dumps(shown), folder)])


class Elements(HTMLParser):
    """What a browser would take for elements, with their attributes; scripts apart."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def data_of(page: str) -> Any:
    packed = re.search(r'<script type="text/plain" id="data">([^<]*)</script>', page)
    assert packed is not None
    return json.loads(gzip.decompress(base64.b64decode(packed[1])))


def without_pictures(page: str) -> int:
    return len(re.sub(r"data:image/png;base64,[^\"]*", "", page).encode())


@pytest.mark.parametrize("name", CASES)
def test_every_kind_of_result_has_a_page(name: str) -> None:
    shown = CASES[name]()
    page = page_of(shown)
    elements = Elements(page).found
    assert view_of(shown).verdict(shown)[:20] in re.sub(r"&#x27;", "'", re.sub(r"&lt;", "<", page))
    figures = [attributes["data-chart"] for tag, attributes in elements if "data-chart" in attributes]
    assert figures == [str(i) for i in range(len(data_of(page)["charts"]))]
    assert without_pictures(page) < 1_500_000
    _check_that_nothing_is_fetched(page, elements)


def _check_that_nothing_is_fetched(page: str, elements: list[tuple[str, dict[str, str | None]]]) -> None:
    """And that no scripts run but its own."""
    sources = [
        attributes[name] for _, attributes in elements for name in ("src", "href", "srcset") if name in attributes
    ]
    assert all(str(source).startswith("data:") for source in sources)
    assert "@import" not in page
    assert "url(" not in page
    assert [tag for tag, _ in elements].count("script") == 3
    policy = next(attributes["content"] for tag, attributes in elements if "http-equiv" in attributes)
    assert str(policy).startswith("default-src 'none'; ")
    assert "unsafe-inline" not in str(policy).replace("style-src 'unsafe-inline'", "")
    assert not [name for _, attributes in elements for name in attributes if name.startswith("on")]


def test_the_policy_holds_what_the_page_holds() -> None:
    """A script that differs by a letter from what its digest was made of would not run."""
    import hashlib

    page = page_of(made_results.sweep())
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    assert len(scripts) == 2
    for script in scripts:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"sha256-{digest}" in page.partition("</head>")[0]


def renamed(made: Result) -> Result:
    """Every name in it is hostile."""
    rows = tuple(row.having(layer=HOSTILE) for row in made.rows)
    windows = tuple(dataclasses.replace(window, layer=HOSTILE, notes=(HOSTILE,)) for window in made.window)
    facts = {"path": HOSTILE, HOSTILE: HOSTILE, "skipped": []}
    return dataclasses.replace(made, rows=rows, checkpoint=facts, data=facts, warnings=(HOSTILE,)).having(
        window=windows
    )


def test_a_hostile_name_does_not_run() -> None:
    clean, page = page_of(made_results.sweep()), page_of(renamed(made_results.sweep()))
    found = [tag for tag, _ in Elements(page).found]
    assert found.count("script") == 3
    assert "img" in found  # the one that enlarged pictures stand in
    assert found.count("img") == [tag for tag, _ in Elements(clean).found].count("img")
    assert data_of(page)["results"][0]["rows"][0][0] == HOSTILE
    assert page.count("alert(1)") == page.count("&lt;script&gt;alert(1)&lt;/script&gt;")


@pytest.mark.parametrize("text", ["<b>", "a & b", '"', "'", "\x1b[31m", "\u202e"])
def test_text_is_escaped_and_elements_are_not(text: str) -> None:
    made = element("p", text, element("b", text), title=text)
    (_, outer), (inner, _) = Elements(made).found
    assert inner == "b"
    assert outer["title"] == visible(text)
    assert "\x1b" not in made
    assert element("p", Markup("<i></i>")) == "<p><i></i></p>"


def test_csv_of_the_page_is_result_csv(tmp_path: Path) -> None:
    made = made_results.sweep(3)
    written = view_of(made).save(made, tmp_path, figures=False)
    data = data_of((tmp_path / "report.html").read_text("utf-8"))["results"][0]
    with written[1].open(encoding="utf-8", newline="") as file:
        assert list(csv.reader(file)) == [data["columns"], *data["rows"]]
    assert data["json"] == written[0].read_text("utf-8")
    text = io.StringIO()
    csv.writer(text).writerows([data["columns"], *data["rows"]])
    assert text.getvalue().encode() == written[1].read_bytes()


def test_the_same_result_gives_the_same_page() -> None:
    assert page_of(made_results.track()) == page_of(made_results.track())


def test_a_finished_page_does_not_renew_itself(tmp_path: Path) -> None:
    made = made_results.track()
    view_of(made).save(made, tmp_path, figures=False, renewed=30.0)
    page = (tmp_path / "report.html").read_text("utf-8")
    assert data_of(page)["renewed"] == 30.0
    assert "renews itself every 30 s" in page
    view_of(made).finish(made, tmp_path)
    page = (tmp_path / "report.html").read_text("utf-8")
    assert data_of(page)["renewed"] is None
    assert "renews itself" not in page.partition("<script")[0]


def test_a_large_result_has_a_small_page() -> None:
    """28 layers at 12 levels over 10 snapshots: curves are whole, files of all rows stay in the folder."""
    page = page_of(made_results.track_of_layers(28, 10, made_results.levels(12)))
    data = data_of(page)
    assert without_pictures(page) < 1_500_000
    assert len(data["charts"][0]["curves"]) == 28 * 12
    assert sum(map(len, data["charts"][0]["on"])) == 1 + 12
    assert data["results"][0]["rows"] == []
    assert "only in the folder of the result: result.csv, result.json" in page


def test_pictures_of_images_are_in_the_page(tmp_path: Path) -> None:
    made = CASES["neighbors"]()
    png = b"\x89PNG not really"
    (tmp_path / "neighbors.png").write_bytes(png)
    (tmp_path / "icr.png").write_bytes(b"\x89PNG of a curve, which the page draws itself")
    sources = [attributes.get("src") for tag, attributes in Elements(page_of(made, tmp_path)).found if tag == "img"]
    assert f"data:image/png;base64,{base64.b64encode(png).decode()}" in sources
    assert len(sources) == 2


def test_pictures_are_in_the_page_whatever_form_their_files_have(tmp_path: Path) -> None:
    made = test_segmentation_report.made()
    view_of(made).save(made, tmp_path, format=("pdf",))
    assert not list(tmp_path.glob("*.png"))
    found = Elements((tmp_path / "report.html").read_text("utf-8")).found
    sources = [str(attributes.get("src")) for tag, attributes in found if tag == "img"]
    shown = [base64.b64decode(source.partition("base64,")[2]) for source in sources if "base64," in source]
    assert len(shown) == 1
    assert shown[0].startswith(b"\x89PNG\r\n\x1a\n")


# --- charts


def test_a_chart_shows_the_best_curves_first() -> None:
    curves = [charts.Curve((f"layer {i}",), [1, 2], [0.9 - 0.01 * i, None]) for i in range(40)]
    axis = charts.Axis("x")
    made = charts.Chart("key", "title", axis, axis, ("layer",), curves, best="lowest").to_json()
    assert made["on"] == [list(range(28, 40))]
    assert charts.Chart("key", "title", axis, axis, ("layer",), curves, best="highest").to_json()["on"] == [
        list(range(12))
    ]


def test_what_all_curves_share_is_no_choice() -> None:
    curves = [charts.Curve(("mid", f"{i}"), [1], [i]) for i in range(3)]
    made = charts.Chart("key", "title", charts.Axis("x"), charts.Axis("y"), ("layer", "σ"), curves).to_json()
    assert [facet["name"] for facet in made["facets"]] == ["σ"]
    assert made["same"] == ["mid"]
    assert [curve["at"] for curve in made["curves"]] == [[0], [1], [2]]


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.123456789, 0.12346), (1234567.0, 1234567), (float("nan"), None), (float("inf"), None), (None, None)],
)
def test_numbers_are_as_exact_as_can_be_seen(value: float | None, expected: float | None) -> None:
    assert charts.rounded(value) == expected


def test_a_band_comes_from_its_ends_else_from_the_standard_error() -> None:
    rows = [{"x": 1, "a": 2.0, "a_low": 1.0, "a_high": 4.0, "b": 2.0, "b_se": 0.5, "c": 2.0}]
    a, b, c = (charts.curve((), rows, lambda row: float(row["x"]), key) for key in "abc")
    assert (a.low, a.high) == ([1.0], [4.0])
    assert (b.low, b.high) == (pytest.approx([1.02]), pytest.approx([2.98]))
    assert (c.low, c.high) == ([None], [None])


def test_the_map_of_a_window_knows_its_layer() -> None:
    made = made_results.track_of_layers(2, 6, made_results.levels(4))
    windows = [
        dataclasses.replace(made_results.window("blocks.1"), step=row.step)
        for row in made.rows
        if row.layer == "blocks.1"
    ]
    data = data_of(page_of(made.having(window=tuple(windows))))["charts"][0]
    assert data["facets"][data["map"]["facet"]]["name"] == "σ"
    assert data["facets"][0]["values"][data["map"]["windows"][0]["at"][0]] == "blocks.1"
    assert data["map"]["windows"][0]["points"][0]["level"] == 0.41


def test_encoders_beside_a_probe_are_level_lines() -> None:
    made = CASES["probe"]()
    encoder = {
        "encoder": "runs/dino.safetensors",
        "d": 384,
        "accuracy": 0.75,
        "accuracy_low": 0.7,
        "accuracy_high": 0.8,
    }
    assert isinstance(made, Result)
    keys = ("difference", "difference_se", "knn", "csnr", *(key for key in made.rows[0] if "noise" in key))
    told = dict.fromkeys(keys, 0.5)
    chart = charts_of(made.having(beside=({**encoder, **told},)))["Accuracy of the linear probe"]
    layers = next(facet["values"] for facet in chart["facets"] if facet["name"] == "layer")
    assert layers[-1] == "dino.safetensors (clean)"
    assert set(chart["curves"][-1]["y"]) == {0.75}
    assert chart["curves"][-1]["x"] == chart["curves"][0]["x"]
    assert "Level lines: encoders beside the network" in chart["said"]


def test_quality_over_training_is_a_chart() -> None:
    made = CASES["memorization"]()
    assert isinstance(made, Result)
    names = [f"{name}{end}{more}" for name in quality.NAMES for end in quality.AGAINST for more in ("", "_se")]
    rows = [row.having(**dict.fromkeys(names)) for row in made.rows]
    rows = [row.having(fd=3.0 - i, fd_se=0.1, fd_holdout=4.0 - i, recall=0.5) for i, row in enumerate(rows)]
    told = {"references": 40, "holdout": "others.npz", "references_holdout": 20, "features": 16, "encoder": "dino.pt"}
    made = dataclasses.replace(made, rows=tuple(rows)).having(quality=told)
    chart = charts_of(made)["Quality of samples"]
    values = {facet["name"]: facet["values"] for facet in chart["facets"]}
    assert values == {"measure": ["Fréchet distance", "recall"], "against": ["training", "held-out"]}
    assert [curve["y"] for curve in chart["curves"]] == [[3, 2, 1], [4, 3, 2], [0.5, 0.5, 0.5]]
    assert chart["curves"][0]["low"] == pytest.approx([2.804, 1.804, 0.804])
    assert "against 40 training images and 20 held-out ones, in 16 features of dino.pt" in chart["said"]


def charts_of(made: Result) -> dict[str, Any]:
    return {chart["title"]: chart for chart in data_of(page_of(made))["charts"]}


# --- several results


def test_curves_of_several_results_stand_in_one_chart(tmp_path: Path) -> None:
    paths = [saved(made_results.sweep(), tmp_path / name) for name in ("a", "b", "c")]
    page = beside.page(paths, list(map(beside.read, paths)))
    first = data_of(page)["charts"][0]
    assert first["facets"] == [{"name": "result", "values": ["a", "b", "c"], "single": False}]
    assert len(first["curves"]) == 3
    assert len(data_of(page)["results"]) == 3


def test_different_kinds_share_what_they_have_in_common(tmp_path: Path) -> None:
    paths = [saved(made_results.sweep(), tmp_path / "sweep"), saved(CASES["probe"](), tmp_path / "probe")]
    titles = {chart["title"]: chart for chart in data_of(beside.page(paths, list(map(beside.read, paths))))["charts"]}
    assert {curve["at"][0] for curve in titles["ICR over noise levels"]["curves"]} == {0, 1}
    assert titles["Accuracy of the linear probe"]["same"][0] == "probe"
    assert list(titles)[-1] == "Other measures"


def test_every_two_kinds_have_a_page_together(tmp_path: Path) -> None:
    kinds: dict[str, Shown] = {}
    for made in (case() for case in CASES.values()):
        if _stands(made):
            kinds.setdefault(made.command, made)
    assert len(kinds) >= 6
    page = beside.page([str(tmp_path / name) for name in kinds], list(kinds.values()))
    assert data_of(page)["charts"]


def _stands(made: Shown) -> bool:
    """Whether its `result.json` is read back."""
    return {"diffscope", "rows"} <= made.to_json().keys() and made.to_json().get("schema") == 1


def saved(made: Shown, folder: Path) -> str:
    view_of(made).save(made, folder, figures=False)
    return str(folder)


def test_results_are_named_by_what_tells_them_apart() -> None:
    assert beside.distinct(["runs/a/result.json", "runs/b"]) == ["a", "b"]
    assert beside.distinct(["a/out/result.json", "b/out/result.json"]) == ["a/out", "b/out"]
    assert beside.distinct(["a/x.json", "a/y.json"]) == ["x.json", "y.json"]
    assert len(set(beside.distinct(["a", "a"]))) == 2


def test_in_what_results_differ_is_said(tmp_path: Path) -> None:
    made = made_results.sweep()
    other = dataclasses.replace(made, protocol={**made.protocol, "augment": "crop"})
    paths = [saved(made, tmp_path / "a"), saved(other, tmp_path / "b")]
    page = beside.page(paths, list(map(beside.read, paths)))
    assert "In what their protocols differ" in page
    assert re.search(r"<span>augment</span>.*?<span>–</span>.*?<span>crop</span>", page)


def test_what_is_compared_and_what_is_not_is_said(tmp_path: Path) -> None:
    paths = [saved(made_results.sweep(), tmp_path / name) for name in ("a", "b", "c")]
    found = CASES["compare"]()
    assert isinstance(found, Record)
    told = [beside.Compared("a", "b", found), beside.Compared("a", "c", "the two results differ in augment: 1 and 2")]
    page = beside.page(paths, list(map(beside.read, paths)), told)
    assert "a and c are not compared: the two results differ in augment: 1 and 2." in page
    assert "a → b: Of" in page
    assert "Change of ICR" in [chart["title"] for chart in data_of(page)["charts"]]


def test_rows_of_a_spreadsheet_are_the_table_s() -> None:
    columns, rows = spreadsheet.cells([Row(layer="=1+1", sigma=0.5, icr=None, notes=["a: b", "c"])])
    assert (columns, rows) == (["layer", "sigma", "icr", "notes"], [["'=1+1", "0.5", "", "a: b; c"]])


def test_a_page_of_a_saved_result_is_that_of_the_result(tmp_path: Path) -> None:
    made = made_results.sweep(2)
    view_of(made).save(made, tmp_path, figures=False)
    again = read_result(tmp_path)
    assert page_of(again) == (tmp_path / "report.html").read_text("utf-8")
