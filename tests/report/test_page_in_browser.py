"""The page in a browser: what a reader points at, switches, sorts, prints and hears.

With Debian's Chromium and Playwright (`apt-get install chromium`, `pip install playwright`); without them these tests
are skipped. axe-core is fetched by npm, for its licence (MPL-2.0) is not ours.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import shutil
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import made_results
import pytest
from PIL import Image
from test_command_views import CASES
from test_page import HOSTILE, renamed

from diffscope.report.page import beside, charts, document
from diffscope.report.views.base import view_of
from diffscope.results import Result, Shown

playwright = pytest.importorskip("playwright.sync_api", reason="needs Playwright: pip install playwright")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium"),
]

LIMIT = 30_000
"""Milliseconds that anything may take on a machine that is busy."""


def windowed() -> Result:
    """A run of two layers with a window at each snapshot."""
    made = made_results.track_of_layers(2, 8, made_results.levels(5))
    windows = [
        dataclasses.replace(made_results.window(row.layer), step=row.step, sigma=0.2 + 0.01 * i)
        for i, row in enumerate(made.rows)
        if row.sigma == made.rows[0].sigma
    ]
    return made.having(window=tuple(windows))


def large() -> str:
    """28 layers at 12 noise levels over 200 snapshots."""
    steps = [float(12_800 * (i + 1)) for i in range(200)]
    curves = []
    for layer in range(28):
        for level in made_results.levels(12):
            y = [0.4 + 0.1 * math.sin(i / 30 + layer) + 0.05 * math.log10(level) for i in range(200)]
            low, high = ([value + end for value in y] for end in (-0.01, 0.01))
            curves.append(charts.Curve((f"blocks.{layer}", charts.level(level)), steps, y, low, high))
    x, y_axis = charts.Axis("training images seen", whole=True), charts.Axis("ICR")
    of_levels = charts.Map("σ", "noise level σ")
    chart = charts.Chart("icr", "ICR", x, y_axis, ("layer", "σ"), curves, best="lowest", map=of_levels)
    return document.page([document.Seen("", "track", "where", "verdict", [], [chart], [], {}, "{}")])


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    results: dict[str, Shown] = {
        "sweep": made_results.sweep(3),
        "window": windowed(),
        "hostile": renamed(made_results.sweep()),
        "neighbors": CASES["neighbors"](),
        "kinship": made_results.kinship(6),
        "compare": CASES["compare"](),
        "memorization": CASES["memorization"](),
    }
    for name, made in results.items():
        place = folder / name
        place.mkdir()
        Image.new("RGB", (900, 400), "gray").save(place / "neighbors.png")
        view = view_of(made)
        view.save(made, place, figures=False)
        seen = view.seen(made, view.records(made), (place / "result.json").read_text("utf-8"), place)
        (place / "report.html").write_text(document.page([seen]), encoding="utf-8")
    both = [str(folder / "sweep"), str(folder / "window")]
    (folder / "both.html").write_text(beside.page(both, list(map(beside.read, both))), encoding="utf-8")
    (folder / "large.html").write_text(large(), encoding="utf-8")
    found = {name: folder / name / "report.html" for name in results}
    return {**found, "both": folder / "both.html", "large": folder / "large.html"}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        launched = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield launched
        launched.close()


Open = Callable[..., Any]


@pytest.fixture
def opened(browser: Any, pages: dict[str, Path]) -> Iterator[Open]:
    """Opens a page by its name; at the end there is no error and no request but for the page itself."""
    contexts, told = [], []

    def open_page(name: str, width: int = 1000, **options: Any) -> Any:
        context = browser.new_context(viewport={"width": width, "height": 900}, **options)
        context.set_default_timeout(LIMIT)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: told.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: told.append(str(error)))
        page.on("dialog", lambda dialog: told.append(f"dialog: {dialog.message}"))
        page.on(
            "request",
            lambda asked: None if asked.url.startswith(("file:", "data:", "blob:")) else told.append(asked.url),
        )
        page.goto(pages[name].as_uri())
        page.locator("html[data-drawn]").wait_for(state="attached")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert told == []


ALL = ("sweep", "window", "hostile", "neighbors", "kinship", "compare", "memorization", "both")


def test_pages_fit_a_small_screen(opened: Open) -> None:
    for name in ALL:
        page = opened(name, width=400)
        assert page.evaluate("document.documentElement.scrollWidth") <= 400, name


def test_a_hostile_name_is_shown_and_does_not_run(opened: Open) -> None:
    page = opened("hostile")
    page.locator(".legend li", has_text=HOSTILE).first.wait_for()
    assert page.locator("img").count() == 1
    assert page.locator("script").count() == 3
    page.locator("summary", has_text="All rows").click()
    page.locator("td", has_text=HOSTILE).first.wait_for()


def test_a_point_tells_its_numbers(opened: Open) -> None:
    page = opened("sweep")
    plot = page.locator("[data-chart='0'] .plot")
    dot = plot.locator(".dot")
    assert not dot.is_visible()
    plot.scroll_into_view_if_needed()
    over = plot.locator(".u-over").bounding_box()
    for x in range(0, int(over["width"]), 12):  # along the middle, until a curve is near
        page.mouse.move(over["x"] + x, over["y"] + over["height"] / 2)
        if dot.is_visible():
            break
    text = plot.locator(".tip").inner_text()
    assert "enc." in text
    assert "σ " in text
    assert "ICR 0." in text
    assert "[0." in text
    page.mouse.move(5, 5)
    playwright.expect(dot).to_be_hidden()


def test_arrow_keys_read_the_points(opened: Open) -> None:
    page = opened("sweep")
    plot, spoken = page.locator("[data-chart='0'] .plot"), page.locator("[data-chart='0'] .spoken")
    plot.focus()
    page.keyboard.press("Home")
    first = spoken.inner_text()
    assert "σ 0.002, ICR 0." in first
    page.keyboard.press("ArrowRight")
    second = spoken.inner_text()
    assert second != first
    assert second.split(",")[0] == first.split(",")[0]
    page.keyboard.press("ArrowDown")
    assert spoken.inner_text().split(",")[0] != first.split(",")[0]
    page.keyboard.press("Escape")
    playwright.expect(plot.locator(".tip")).to_be_hidden()


def test_layers_are_switched_on_and_off(opened: Open) -> None:
    page = opened("sweep")
    figure = page.locator("[data-chart='0']")
    legend = figure.locator(".legend li")
    assert legend.count() == 3
    figure.locator("fieldset input").first.uncheck()
    assert legend.count() == 2
    figure.locator("fieldset input").first.check()
    assert legend.count() == 3
    page.locator("[data-chart='1'] select").select_option(label="trace_xi")
    playwright.expect(page.locator("[data-chart='1'] .label").first).to_have_text("trace_xi")


def test_the_slider_moves_through_training(opened: Open) -> None:
    page = opened("window")
    slider, output = page.locator("input[type=range]"), page.locator("output")
    last = output.inner_text()
    slider.focus()
    page.keyboard.press("Home")
    assert output.inner_text() == "12,800"
    page.keyboard.press("ArrowRight")
    assert output.inner_text() == "25,600"
    assert last == "102,400"
    assert slider.get_attribute("aria-valuetext") == "25,600"
    page.locator(".map select").select_option(label="blocks.1")


def test_tables_are_sorted(opened: Open) -> None:
    page = opened("compare")
    table = page.locator("table.sortable").first
    headings = table.locator("thead th").all_inner_texts()
    column = headings.index("p")

    def values() -> list[str]:
        return [row.locator("td").nth(column).inner_text() for row in table.locator("tbody tr").all()]

    numbers = [float(value.lstrip("<")) for value in values()]
    heading = table.locator("thead th").nth(column)
    heading.locator("button").click()
    heading.locator("button").click()
    assert [float(value.lstrip("<")) for value in values()] == sorted(numbers, reverse=True)
    assert heading.get_attribute("aria-sort") == "descending"


def test_all_rows_are_shown_when_asked_for(opened: Open) -> None:
    page = opened("window")
    details = page.locator("details[data-rows]")
    assert details.locator("table").count() == 0
    details.locator("summary").click()
    details.locator("table").wait_for()
    assert details.locator("tbody tr").count() == 80
    details.locator("th button", has_text="step").first.click()
    assert details.locator("th[aria-sort=ascending]").count() == 1


def test_files_are_those_of_the_folder(opened: Open, pages: dict[str, Path]) -> None:
    page = opened("sweep")
    for kind in ("csv", "json"):
        with page.expect_download() as download:
            page.locator(f"button[data-save={kind}]").click()
        saved = Path(download.value.path()).read_bytes()
        assert saved == (pages["sweep"].parent / f"result.{kind}").read_bytes()
    with page.expect_download() as download:
        page.locator("[data-chart='0'] button", has_text="CSV").click()
    lines = Path(download.value.path()).read_text("utf-8").splitlines()
    assert len(lines) == 1 + 3 * 12


def test_dark_and_light(opened: Open) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    ink = """() => {
        const canvas = document.querySelector("[data-chart] canvas"), pen = canvas.getContext("2d");
        const { data } = pen.getImageData(0, 0, canvas.width, canvas.height);
        return data.filter((value, i) => i % 4 < 3 && data[i - (i % 4) + 3] > 200).reduce((a, b) => a + b, 0);
    }"""
    page = opened("sweep", color_scheme="dark")
    dark = page.evaluate(ground)
    drawn = page.evaluate(ink)
    page.locator("#theme").click()
    assert page.evaluate(ground) == "rgb(255, 255, 255)" != dark
    assert page.evaluate(ink) != drawn
    assert page.locator("#theme").inner_text() == "Dark"
    page.emulate_media(color_scheme="light")
    assert page.evaluate(ground) == "rgb(255, 255, 255)"


def test_pictures_are_enlarged(opened: Open) -> None:
    page = opened("neighbors")
    dialog = page.locator("dialog")
    page.locator("button.zoom").first.click()
    playwright.expect(dialog).to_be_visible()
    dialog.locator(".size").click()
    assert dialog.locator("img").bounding_box()["width"] == 900
    page.keyboard.press("Escape")
    playwright.expect(dialog).to_be_hidden()


def test_it_prints_on_a4(opened: Open, tmp_path: Path) -> None:
    page = opened("sweep", color_scheme="dark")
    assert page.pdf(format="A4").startswith(b"%PDF")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator(".plot .uplot").first.bounding_box()["width"] <= 670
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator(".plot .uplot").first.bounding_box()["width"] > 670


def test_a_renewed_page_shows_what_was_chosen(opened: Open, pages: dict[str, Path], tmp_path: Path) -> None:
    made = made_results.track_of_layers(2, 6)
    view = view_of(made)
    pages["renewed"] = tmp_path / "report.html"
    seen = view.seen(made, view.records(made), "{}", tmp_path)
    pages["renewed"].write_text(document.page([seen], renewed=1.0), encoding="utf-8")
    page = opened("renewed")
    page.evaluate("window.before = true")
    page.locator("[data-chart='0'] fieldset input").first.uncheck()
    deadline, is_old = time.monotonic() + LIMIT / 1000, True
    while is_old and time.monotonic() < deadline:
        with contextlib.suppress(playwright.Error):  # between two pages nothing can be asked
            is_old = bool(page.evaluate("window.before"))
            page.wait_for_timeout(200)
    assert not is_old
    page.locator("html[data-drawn]").wait_for(state="attached")
    page.locator("#pause").click()
    assert page.locator("#pause").inner_text() == "Go on renewing"
    assert not page.locator("[data-chart='0'] fieldset input").first.is_checked()
    del pages["renewed"]


def test_a_long_run_of_many_layers_stays_fluid(opened: Open, record_property: Callable[[str, object], None]) -> None:
    page = opened("large")
    first = int(page.locator("html").get_attribute("data-first"))
    record_property("milliseconds to the first picture", first)
    figure = page.locator("[data-chart='0']")
    assert figure.locator(".legend li").count() == 12
    start = time.monotonic()
    for group in range(2):
        figure.locator("fieldset button", has_text="all").nth(group).click()
    assert "324 more" in figure.locator(".legend .more").inner_text()
    record_property("seconds to switch 336 curves on", round(time.monotonic() - start, 2))
    moved = page.evaluate("""() => {
        const slider = document.querySelector("input[type=range]"), start = performance.now();
        for (let i = 0; i < 50; i++) { slider.value = i; slider.dispatchEvent(new Event("input")); }
        return (performance.now() - start) / 50;
    }""")
    record_property("milliseconds a step of the slider", round(moved, 1))
    print(f"first picture {first} ms, a step of the slider {moved:.1f} ms")
    assert first < 10_000
    assert moved < 500


@pytest.fixture(scope="module")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The text of axe-core."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("needs npm, which fetches axe-core")
    folder = tmp_path_factory.mktemp("axe")
    done = subprocess.run(
        [npm, "pack", "--silent", "axe-core@4"], cwd=folder, capture_output=True, timeout=120, check=False
    )
    if done.returncode:
        pytest.skip("npm could not fetch axe-core")
    with tarfile.open(next(folder.glob("*.tgz"))) as archive:
        found = archive.extractfile("package/axe.min.js")
        assert found is not None
        return found.read().decode()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_accessible(opened: Open, axe: str, scheme: str) -> None:
    for name in ("both", "neighbors", "kinship") if scheme == "light" else ("window",):
        page = opened(name, color_scheme=scheme)
        for details in page.locator("details > summary").all():
            details.click()
        page.evaluate(axe)
        found = page.evaluate("axe.run().then((found) => found.violations)")
        told = [(one["id"], [node["html"][:150] for node in one["nodes"][:3]]) for one in found]
        assert told == [], name
