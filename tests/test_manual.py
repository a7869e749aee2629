"""The README and the manual do not drift: what they show runs, and gives the numbers that they show."""

from __future__ import annotations

import ast
import doctest
import inspect
import os
import re
import shutil
import subprocess
import sys
from dataclasses import fields
from glob import glob
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from commands import DATA, EDM, SIT_PIXELS, Ran, diffscope
from pages import (
    MANUAL,
    NUMBER,
    PAGES,
    README,
    ROOT,
    Line,
    blocks,
    headings,
    inline_commands,
    lines_of,
    links,
    prose,
    table_of,
)
from safetensors.torch import save_file
from test_architecture import ROWS

import diffscope as package
from diffscope import registry
from diffscope.cli.app import build_app
from diffscope.results import Minimum, OnsetRow, WindowRow

FILES = {"ckpt.pkl": EDM, "sit.pt": SIT_PIXELS}
"""What stands behind the file names in commands. Beside them: `images/`, `runs/`, and two results of ckpt.pkl at one
protocol as `old/result.json` and `new/result.json`."""
TEXTS = {page.relative_to(ROOT).as_posix(): page.read_text("utf-8") for page in PAGES}
LINES = {line: line for text in TEXTS.values() for line in lines_of(text)}


def shown(line: Line) -> list[str]:
    """The numbers that any page shows of it."""
    return [number for text in TEXTS.values() for other in lines_of(text) if other == line for number in other.shown]


@pytest.fixture(scope="module")
def folder(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("manual")
    for name, path in FILES.items():
        shutil.copy(path, folder / name)
    shutil.copytree(pictures, folder / "images")
    for name in ("runs", "few"):
        shutil.copytree(DATA / "series", folder / name)
    for snapshot in sorted((folder / "few").glob("*.safetensors"))[:-4]:
        snapshot.unlink()
    (folder / "fid.csv").write_text("step,fid\n25600,80\n204800,30\n409600,40\n")
    sweep = ("sweep", folder / "ckpt.pkl", "--data", folder / "images", "--num-levels", 3)
    assert diffscope(*sweep, "--out", folder / "old").code == 0
    shutil.copytree(folder / "old", folder / "new")
    return folder


@pytest.fixture(scope="module")
def demo_run(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """`diffscope demo` as a newcomer types it, which takes half a minute. Its files are named on stderr."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("demo"))
        return diffscope("demo")


@pytest.mark.parametrize("line", LINES, ids=lambda line: line.text)
def test_command_lines_run(line: Line, folder: Path, demo_run: Ran, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    words = line.argv
    if "--num-levels" in words and not shown(line):  # the window of each of sixteen snapshots would take half a minute
        words = [re.sub("^runs/$", "few/", word) for word in words]
    argv = [path for word in words for path in (sorted(glob(word)) if "*" in word else [word])]  # as a shell does
    ran = demo_run if argv == ["demo"] else diffscope(*argv)
    assert ran.code == line.code, ran.err
    assert ran.out or "--shard" in argv or argv[0] == "cache"
    assert not set(shown(line)) - set(NUMBER.findall(ran.out + ran.err))
    if "--json" not in line.argv and "--out" in line.argv and "--shard" not in argv:
        assert (folder / line.argv[line.argv.index("--out") + 1] / "result.json").exists()


def test_the_whole_demo(demo_run: Ran) -> None:
    assert demo_run.code == 0
    assert "semantic window" in demo_run.out
    written = demo_run.err.splitlines()
    assert {line.removeprefix("wrote diffscope-demo/") for line in written} >= {
        *("result.json", "result.csv", "icr.png", "icr.svg", "report.html"),
        *("neighbors/result.json", "neighbors/neighbors.png", "neighbors/neighbors.svg"),
    }
    assert "What the views share says more of the class" in " ".join(demo_run.out.split())


def test_command_lines_are_found() -> None:
    text = (
        "```sh\npip install . && diffscope demo\ndiffscope inspect \\\n    a.pkl  # what is it?\n```\n"
        "```console\n$ diffscope icr a.pkl\nICR 0.52 of 7\ndiffscope prints this\n$ echo $?\n3\n"
        "$ diffscope compare a b\n```\n```python\ndiffscope.sweep\n```\n"
    )
    found = lines_of(text)
    assert [line.argv for line in found] == [["demo"], ["inspect", "a.pkl"], ["icr", "a.pkl"], ["compare", "a", "b"]]
    assert [line.code for line in found] == [0, 0, 3, 0]
    assert [line.shown for line in found] == [(), (), ("0.52",), ()]
    assert len(LINES) >= 15
    assert sum(bool(shown(line)) for line in LINES) >= 3


@pytest.mark.parametrize("page", TEXTS)
def test_commands_within_a_sentence_exist_with_their_options(page: str) -> None:
    root: Any = typer.main.get_command(build_app())
    for line in inline_commands(TEXTS[page]):
        name, *words = line.argv
        if not re.fullmatch("[a-z]+", name):  # COMMAND, TOPIC, or an option of the program
            continue
        assert name in root.commands, line.text
        known = {spelling for parameter in root.commands[name].params for spelling in parameter.opts}
        given = {word.partition("=")[0] for word in words if word.startswith("-")}
        assert given <= known | {"--help"}, line.text


@pytest.mark.parametrize("page", TEXTS)
def test_options_that_are_named_exist(page: str) -> None:
    root: Any = typer.main.get_command(build_app())
    params = [*root.params, *(p for command in root.commands.values() for p in command.params)]
    known = {spelling for parameter in params for spelling in parameter.opts} | {"--help", "--nproc-per-node"}
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", TEXTS[page]))
    scripts = "\n".join(path.read_text("utf-8") for path in (ROOT / "scripts").iterdir() if path.is_file())
    elsewhere = set(re.findall(r'"(--[a-z-]+)"', scripts))
    assert named - known - elsewhere == set()


@pytest.mark.parametrize("page", TEXTS)
def test_links_lead_somewhere(page: str) -> None:
    for link in links(TEXTS[page]):
        target, _, anchor = link.partition("#")
        path = (ROOT / page).parent / target if target else ROOT / page
        assert path.exists(), link
        if anchor:
            assert anchor in headings(path.read_text("utf-8")), link


def test_broken_links_would_be_found() -> None:
    assert links("[a](b.md), ![c](d.png), [e](https://f.g) `[h](i)`\n```\n[j](k)\n```\n")[:2] == ["b.md", "d.png"]
    assert headings("# A map: the house\n## s, ξ\n") == {"a-map-the-house", "s-ξ"}


def test_the_list_of_pages_is_whole() -> None:
    listed = re.findall(r"^- \[(\w+)\]\((\w+)\.md\): .+$", TEXTS["diffscope/manual/README.md"], re.MULTILINE)
    assert all(topic == name for topic, name in listed)
    assert {name for _, name in listed} == {page.stem for page in MANUAL.glob("*.md")} - {"README"}
    assert len(listed) == len(set(listed))


@pytest.mark.parametrize("page", TEXTS)
def test_python_calls_are_those_of_the_package(page: str) -> None:
    for block in blocks(TEXTS[page], "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "diffscope":
                assert node.attr in dir(package), node.attr
            if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("diffscope."):
                called = inspect.signature(getattr(package, ast.unparse(node.func).removeprefix("diffscope.")))
                called.bind(*node.args, **{str(keyword.arg): None for keyword in node.keywords})


@pytest.mark.parametrize("page", [page for page, text in TEXTS.items() if any(blocks(text, "pycon"))])
def test_sessions_in_python_run(page: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    for block in blocks(TEXTS[page], "pycon"):
        found: list[str] = []
        session = doctest.DocTestParser().get_doctest(block, {}, page, None, None)
        tried = doctest.DocTestRunner().run(session, out=found.append)
        assert tried.attempted > 3
        assert found == []


def test_every_metric_is_explained() -> None:
    explained = set(re.findall(r"`(\w+)`", TEXTS["diffscope/manual/output.md"]))
    keys = {key for module in registry.load("diffscope.metrics").values() for key in module.KEYS}
    assert {key for key in keys if key.removesuffix("_se") not in explained} == set()


def test_every_key_of_a_verdict_is_explained() -> None:
    explained = set(re.findall(r"`(\w+)`", TEXTS["diffscope/manual/output.md"]))
    for record in (WindowRow, OnsetRow, Minimum):
        assert {field.name for field in fields(record)} - explained == set()


def test_notes_that_are_explained_are_notes_of_the_package() -> None:
    sources = "\n".join(path.read_text("utf-8") for path in (ROOT / "diffscope").rglob("*.py"))
    rows = table_of(TEXTS["diffscope/manual/numbers.md"], "note")
    codes = [code for row in rows for code in re.findall(r"`(\w+)`", row[0])]
    assert len(codes) == len(set(codes)) > 30
    assert [code for code in codes if not re.search(rf"\b{code}\b", sources)] == []


def test_notes_of_the_metrics_are_explained() -> None:
    explained = table_of(TEXTS["diffscope/manual/numbers.md"], "note")
    rooms = (ROOT / "diffscope" / room for room in ("metrics", "moments"))
    sources = "\n".join(path.read_text("utf-8") for room in rooms for path in room.rglob("*.py"))
    given = set(re.findall(r'"([a-z]+_[a-z_]+): ', sources)) | {"undefined", "reduced"}
    assert len(given) > 10
    assert given - {code for row in explained for code in re.findall(r"`(\w+)`", row[0])} == set()


def test_the_map_shows_every_room_and_no_other() -> None:
    rows = table_of(TEXTS["diffscope/manual/contributing.md"], "room")
    shown = [name for row in rows for name in re.findall(r"`(\w+)(?:\.py|/)`", row[0])]
    rooms = {room for rooms in ROWS.values() for room in rooms}
    assert set(shown) - {"manual"} == rooms
    row_of = {room: row for row, rooms in ROWS.items() for room in rooms}
    order = [row_of[room] for room in shown if room in row_of]
    assert order == sorted(order), "a room stands below what it imports"


# --- the four doors


@pytest.fixture(scope="module")
def house_with_examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package with the files of the page's examples in their places."""
    home = tmp_path_factory.mktemp("house")
    shutil.copytree(ROOT / "diffscope", home / "diffscope", ignore=shutil.ignore_patterns("__pycache__", "demo"))
    for block in blocks(TEXTS["diffscope/manual/contributing.md"], "python"):
        first, _, source = block.partition("\n")
        path = home / first.removeprefix("# ")
        assert not path.exists(), path
        path.write_text(source)
    return home


def test_the_examples_of_the_four_doors_work(house_with_examples: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    layers = {"enter": torch.nn.Conv2d(2, 24, 3), "leave": torch.nn.Conv2d(24, 1, 3)}
    tensors = {f"{name}.{key}": value for name, layer in layers.items() for key, value in layer.state_dict().items()}
    save_file({name: tensor.detach() for name, tensor in tensors.items()}, tmp_path / "model.safetensors")
    measured = ["icr", "model.safetensors", "--data", "stripes:count=200", "--sigma", "0.3", "--json"]
    script = (
        "from diffscope.cli import run\n"
        "assert run(['inspect', 'model.safetensors']) == 0\n"
        f"assert run([*{measured}, '--fail-if', 'largest_direction>1']) == 0\n"
        "assert run(['widths', 'model.safetensors', '--least', '9']) == 0\n"
        "assert run(['widths', 'model.safetensors', '--least', '9', '-q']) == 0\n"
        "assert run(['widths', 'model.safetensors', '--least', '0']) == 2\n"
        "assert run(['--help']) == 0\n"
        "import diffscope\n"
        "widths = diffscope.widths('model.safetensors', least=9)\n"
        "assert [layer['name'] for layer in widths['layers']] == ['enter']\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(house_with_examples)},
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "error: --least 0: expected at least 1\n")
    assert "twoconv (its tensors are two convolutions)" in done.stdout
    assert '"path": "stripes:count=200"' in done.stdout
    assert '"largest_direction": 0.' in done.stdout
    assert "1 of 1 layers has 9 features or more.\n" in done.stdout
    assert "\nenter features 24\n" in done.stdout
    assert "\n  widths " in done.stdout


def test_the_page_has_an_example_for_each_door() -> None:
    paths = [block.partition("\n")[0] for block in blocks(TEXTS["diffscope/manual/contributing.md"], "python")]
    doors = [f"# diffscope/{door}/" for door in ("metrics", "sources", "families", "commands", "report/views")]
    assert [path.rpartition("/")[0] + "/" for path in paths] == doors


def test_pages_are_prose_for_their_readers() -> None:
    """No line of code runs out of a terminal of 80 columns."""
    for page, text in TEXTS.items():
        for block in blocks(text, "console", "sh", "text", "python", "pycon"):
            long = [line for line in block.splitlines() if len(line) > 78]
            assert long == [], page
    assert README.is_file()
    assert "```" not in prose("a\n```sh\nb\n```\nc")
