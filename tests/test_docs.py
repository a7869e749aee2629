"""The site of the manual: its references hold every declaration, its links are turned to where the pages stand."""

from __future__ import annotations

import inspect
import posixpath
import re
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import typer
from pages import ROOT, blocks, prose

import diffscope
from diffscope.cli.app import build_app

sys.path.insert(0, str(ROOT / "scripts" / "docs_site"))
import make_site
import reference

ADDRESSES = re.compile(r"\]\((?!https?:)([^)\s]+)\)")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages as MkDocs is given them."""
    folder = tmp_path_factory.mktemp("site")
    navigation = make_site.write_pages(folder)
    named = re.findall(r"'([\w/]+\.md)'", str(navigation))
    assert sorted(named) == sorted(page.relative_to(folder).as_posix() for page in folder.rglob("*.md"))
    return folder


def test_links_of_the_site_lead_to_its_pages(site: Path) -> None:
    linked = 0
    for page in site.rglob("*.md"):
        for target in ADDRESSES.findall(prose(page.read_text("utf-8"))):
            path = posixpath.normpath(posixpath.join(page.parent.as_posix(), target.partition("#")[0]))
            assert Path(path).is_file(), f"{page.name}: {target}"
            assert Path(path).is_relative_to(site), f"{page.name}: {target}"
            linked += 1
    assert linked > 40
    assert (site / "files" / "scripts" / "results" / "demo" / "icr.png").is_file()


def test_a_link_to_nothing_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(make_site, "read", lambda path: "# A page\n\n[to nothing](nowhere.md)\n")
    with pytest.raises(SystemExit, match=r"README\.md: links to nowhere\.md, which is not there"):
        make_site.turned(ROOT / "README.md", make_site.site_pages(), tmp_path)


def test_every_command_and_option_has_its_place() -> None:
    pages = reference.command_pages()
    root: Any = typer.main.get_command(build_app())
    assert set(pages) == {"index", *root.commands}
    for name, command in root.commands.items():
        assert f"[`{name}`]({name}.md)" in pages["index"]
        assert next(blocks(pages[name], "text")).startswith(f"diffscope {name}")
        for param in command.params:
            spelled = param.opts[-1] if param.param_type_name == "option" else param.metavar
            assert re.search(rf"^`[^`]*{re.escape(spelled)}[^`]*`\n:   \w", pages[name], re.MULTILINE), spelled


def test_every_public_name_is_in_the_python_reference() -> None:
    page, names = reference.api_page(), reference.public_names()
    assert {"sweep", "icr", "track", "load", "wrap", "Monitor", "compare"} <= set(names)
    assert [found.replace("\\", "") for found in re.findall(r"^## diffscope\.(\S+)$", page, re.MULTILINE)] == names
    for name in names:
        for parameter in inspect.signature(getattr(diffscope, name)).parameters:
            assert re.search(rf"\b{parameter}\b", page), f"{name}({parameter})"
    assert "## Result" in page


def example(images: Any, *, count: int = 3, layer: str | None = None, level: float | None = None) -> float | None:
    """Counts images.

    More of it, with a * and code:

        example(x)

    Args:
        images: What to count,
            on two lines.
        count: How many.

    Returns:
        A number: the count.

    Raises:
        DataError: Where there are none.
    """


def test_a_docstring_in_googles_form_becomes_definitions() -> None:
    parsed = reference.parse(inspect.getdoc(example) or "")
    assert parsed.text.startswith("Counts images.\n\nMore of it")
    assert parsed.entries == {
        "Args": [("images", "What to count, on two lines."), ("count", "How many.")],
        "Returns": [("", "A number: the count.")],
        "Raises": [("DataError", "Where there are none.")],
    }
    page = "\n".join(reference.described("example", example))
    assert "`images`\n:   What to count, on two lines.\n" in page
    assert "with a \\* and code:\n\n    example(x)\n" in page
    assert page.index("**Args**") < page.index("**Returns**") < page.index("**Raises**")
    assert "\n    *,\n    count: int = 3,\n    layer: str | None = None,\n" in page
    assert "\n) -> float | None\n" in page


@dataclass(frozen=True)
class Example:
    """A record."""

    size: int
    """In bytes,
    all of it."""
    name: str = "x"

    def grown(self, by: int) -> int:
        """Larger by some."""
        return self.size + by

    def _hidden(self) -> None:
        """Nobody's."""


def test_a_class_is_shown_with_fields_and_methods() -> None:
    page = "\n".join(reference.described("Example", Example))
    assert "Example(size: int, name: str = 'x')" in page
    assert "`size: int`\n:   In bytes, all of it.\n" in page
    assert "### Example.grown\n\n```python\ngrown(self, by: int) -> int\n```\n\nLarger by some." in page
    assert "hidden" not in page


@pytest.mark.skipif(find_spec("material") is None, reason="the extra `docs` is not installed")
def test_the_site_is_built(tmp_path: Path) -> None:
    built = subprocess.run([ROOT / "scripts" / "docs", tmp_path / "site"], capture_output=True, text=True, check=False)
    assert (built.returncode, built.stderr) == (0, "")
    assert (tmp_path / "site" / "window.html").is_file()
