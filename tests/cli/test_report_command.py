"""`report` makes a page of any results and names what keeps two from being compared; `serve` is asked for a token."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import urllib.request
from pathlib import Path

import pytest
from commands import Ran, command_line, diffscope, refused

TOY = ("sweep", "toy:d=8,side=4", "--data", "synthetic:count=200", "--augment", "none", "--num-levels", 5)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    for name, more in (("a", ()), ("b", ()), ("c", ("--views", 3))):
        assert diffscope(*TOY, *more, "--out", folder / name, "--quiet").code == 0
    return folder


def test_every_folder_of_results_has_a_page(results: Path) -> None:
    text = (results / "a" / "report.html").read_text("utf-8")
    assert text.startswith("<!doctype html>")
    assert "diffscope sweep" in text


def page(*argv: object) -> tuple[Ran, str]:
    ran = diffscope("report", *argv)
    return ran, Path(ran.out.strip()).read_text("utf-8") if ran.code == 0 else ""


def test_a_page_of_several_results(results: Path, tmp_path: Path) -> None:
    ran, text = page(results / "a", results / "b" / "result.json", results / "c", "-o", tmp_path / "new" / "page.html")
    assert (ran.code, ran.err) == (0, "")
    assert Path(ran.out.strip()) == tmp_path / "new" / "page.html"
    assert "diffscope: 3 results" in text
    assert re.search(r"a → b: Of \d+ rows ICR is significantly lower in 0, higher in 0", text)
    for old in "ab":
        assert re.search(rf"{old} and c are not compared: the two results differ in views: 2 and 3", text)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["page.html"]


def test_a_page_of_one_result_is_that_of_its_folder(results: Path, tmp_path: Path) -> None:
    _, text = page(results / "a", "-o", tmp_path / "page.html")
    assert (
        text.partition('id="data"')[0] == (results / "a" / "report.html").read_text("utf-8").partition('id="data"')[0]
    )


def test_a_record_without_rows_has_a_page_too(tmp_path: Path) -> None:
    assert diffscope("inspect", TOY[1], "--out", tmp_path / "what").code == 0
    _, text = page(tmp_path / "what", "-o", tmp_path / "page.html")
    own = (tmp_path / "what" / "report.html").read_text("utf-8")
    assert text.partition('id="data"')[0] == own.partition('id="data"')[0]
    assert "diffscope inspect" in text
    assert "default layer" in text


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ('{"diffscope": "1", "schema": 1, "command": "compare", "rows": []}', "missing or unknown part ('old')"),
        ('{"diffscope": "1", "schema": 1, "command": "base"}', "of a command 'base', which this version does not have"),
        ('{"path": "f.safetensors", "tensors": {}}', "no 'diffscope' and 'command' in it"),
    ],
)
def test_a_record_that_is_none_is_refused(record: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "record.json").write_text(record)
    refused(diffscope("report", tmp_path / "record.json", "-o", tmp_path / "page.html"), 1, said)


def test_what_is_no_result_is_refused(results: Path, tmp_path: Path) -> None:
    (tmp_path / "text.json").write_text("hello")
    target = ("-o", tmp_path / "page.html")
    refused(diffscope("report", tmp_path / "text.json", *target), 1, "not JSON", "text.json")
    refused(diffscope("report", tmp_path / "nothing", *target), 1, "expected a result.json")
    refused(diffscope("report", results / "a", "-o", tmp_path / "page.json"), 2, "expected a name that ends in .html")
    refused(diffscope("report"), 2, "RESULT")
    assert not (tmp_path / "page.html").exists()


def test_serve_is_refused_what_is_unsafe(results: Path) -> None:
    refused(diffscope("serve", results, "--token", "short"), 2, "expected at least 16 printable ASCII characters")
    refused(diffscope("serve", results / "nothing"), 1, "no such folder")
    refused(diffscope("serve", results, "--port", 70000), 2, "expected less than 65536")


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="ends by SIGINT")
def test_serve_prints_its_address_and_ends_by_ctrl_c(results: Path) -> None:
    command = command_line("serve", results, "--port", 0)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    address = process.stdout.readline().strip()
    with urllib.request.urlopen(address, timeout=60) as answer:
        assert b"a/report.html" in answer.read()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "read-only" in err
