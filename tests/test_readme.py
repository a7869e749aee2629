"""The README does not drift: every command line in it runs, and CI installs and tests as it says."""

from __future__ import annotations

import re
import shlex
import shutil
from dataclasses import dataclass
from glob import glob
from pathlib import Path

import pytest
from commands import DATA, EDM, SIT_PIXELS, Ran, diffscope

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
FILES = {"ckpt.pkl": EDM, "sit.pt": SIT_PIXELS}
"""What stands behind the file names of the README. Beside them: `images/`, `runs/`, and two results of ckpt.pkl at one
protocol as `old/result.json` and `new/result.json`."""


@dataclass(frozen=True)
class Line:
    """A command line of the README, and the exit code that it shows."""

    text: str
    code: int = 0

    @property
    def argv(self) -> list[str]:
        return shlex.split(self.text, comments=True)[1:]


def lines_of(text: str) -> list[Line]:
    """Command lines in its fenced sh and console blocks, once each; in a console block, those after a dollar sign."""
    found = []
    for language, block in re.findall(r"^```(\w+)\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        if language not in ("sh", "bash", "console"):
            continue
        prompt = r"\$ " if language == "console" else r"(?:\$ )?"
        block = re.sub(r"\\\n\s*", " ", block)
        for match in re.finditer(rf"^{prompt}(.*\bdiffscope\b.*)$", block, re.MULTILINE):
            shown = re.search(r"^\$ echo \$\?\n(\d+)", block[match.end() :], re.MULTILINE)
            following = re.search(rf"^{prompt}diffscope", block[match.end() :], re.MULTILINE)
            code = int(shown[1]) if shown and (not following or shown.start() < following.start()) else 0
            parts = [part.strip() for part in match[1].split("&&")]
            found += [Line(part, code) for part in parts if part.startswith("diffscope ")]
    return list(dict.fromkeys(found))


LINES = lines_of(README)


@pytest.fixture(scope="module")
def folder(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("readme")
    for name, path in FILES.items():
        shutil.copy(path, folder / name)
    shutil.copytree(pictures, folder / "images")
    shutil.copytree(DATA / "series", folder / "runs")
    (folder / "fid.csv").write_text("step,fid\n25600,80\n204800,30\n409600,40\n")
    sweep = ("sweep", folder / "ckpt.pkl", "--data", folder / "images", "--num-levels", 3)
    assert diffscope(*sweep, "--out", folder / "old").code == 0
    shutil.copytree(folder / "old", folder / "new")
    return folder


def test_command_lines_are_found() -> None:
    text = (
        "```sh\npip install . && diffscope demo\ndiffscope inspect \\\n    a.pkl  # what is it?\n```\n"
        "```console\n$ diffscope icr a.pkl\ndiffscope prints this\n$ echo $?\n3\n$ diffscope compare a b\n```\n"
        "```python\ndiffscope.sweep\n```\n"
    )
    found = lines_of(text)
    assert [line.argv for line in found] == [["demo"], ["inspect", "a.pkl"], ["icr", "a.pkl"], ["compare", "a", "b"]]
    assert [line.code for line in found] == [0, 0, 3, 0]
    if "```" in README:
        assert len(LINES) >= 5


@pytest.mark.skipif(not LINES, reason="the README has no command line yet")
@pytest.mark.parametrize("line", LINES, ids=lambda line: line.text)
def test_command_lines_run(line: Line, folder: Path, demo_run: Ran, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    argv = [path for word in line.argv for path in (sorted(glob(word)) if "*" in word else [word])]  # as a shell does
    ran = demo_run if argv == ["demo"] else diffscope(*argv)
    assert ran.code == line.code, ran.err
    assert ran.out
    if "--json" not in line.argv and "--out" in line.argv:
        assert (folder / line.argv[line.argv.index("--out") + 1] / "result.json").exists()


@pytest.mark.skipif("```" not in README, reason="the README is a stub")
def test_ci_installs_and_tests_as_the_readme_says() -> None:
    steps = (ROOT / ".ci" / "run").read_text("utf-8").splitlines()
    (command,) = [line for line in steps if "scripts/check" in line]
    assert command in README.splitlines()


@pytest.mark.skipif("```" not in README, reason="the README is a stub")
def test_files_that_the_readme_shows_exist() -> None:
    linked = re.findall(r"!?\[[^\]]*\]\((?!https?:|#)([^)#\s]+)", README)
    assert not [name for name in linked if not (ROOT / name).exists()]
