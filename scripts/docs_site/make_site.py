"""The manual as a site: the pages, what was measured, and the references, by MkDocs with the theme Material.

Pages link to each other as they lie in the repository. Here they lie elsewhere: links are turned, files that are not
pages (scripts, figures) are copied, and a link to nothing is an error.
"""

from __future__ import annotations

import argparse
import json
import os
import posixpath
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT))  # the references are of the code beside the pages

MANUAL = ROOT / "diffscope" / "manual"
RESULTS = ROOT / "scripts" / "results"
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<=\]\()(?!https?:|#)([^)\s]+)(?=\))")
FETCHED = re.compile(r"""<(?:script|img|iframe)[^>]+src=["']?https?:|<link[^>]+stylesheet[^>]+href=["']?https?:""")


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/docs", description="Builds the manual as a site.")
    parser.add_argument("folder", help="where the site goes; what lies there is replaced")
    folder = Path(parser.parse_args().folder).resolve()
    if folder.exists() and any(folder.iterdir()) and not (folder / "sitemap.xml").exists():
        parser.error(f"{folder}: holds something other than a site; name an empty folder")
    with tempfile.TemporaryDirectory() as work:
        docs = Path(work) / "docs"
        navigation = write_pages(docs)
        config = Path(work) / "mkdocs.yml"
        places = {"docs_dir": str(docs), "site_dir": str(folder), "nav": navigation}
        lines = [f"{key}: {json.dumps(value)}" for key, value in places.items()]
        config.write_text("\n".join([(HERE / "mkdocs.yml").read_text("utf-8"), *lines]), "utf-8")
        found_first = os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH")]))
        environment = os.environ | {"PYTHONPATH": found_first, "NO_MKDOCS_2_WARNING": "true"}
        command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--config-file", str(config)]
        if subprocess.run(command, env=environment, check=False).returncode:
            sys.exit("the site has faults, named above")
    fetching = [page.name for page in folder.rglob("*.html") if FETCHED.search(page.read_text("utf-8"))]
    if fetching:
        sys.exit(f"pages that fetch something from elsewhere: {', '.join(fetching)}")
    print(f"{folder}/index.html")


def site_pages() -> dict[Path, str]:
    """Pages of the repository → where they stand in the site."""
    return {
        ROOT / "README.md": "index.md",
        **{page: page.name for page in listed_pages()},
        RESULTS / "README.md": "results/index.md",
        **{page: f"results/{page.name}" for page in sorted(RESULTS.glob("*.md")) if page.name != "README.md"},
        ROOT / "CHANGELOG.md": "changelog.md",
    }


def listed_pages() -> list[Path]:
    """The manual's pages in the order of its list."""
    return [MANUAL / name for name in re.findall(r"^- \[\w+\]\((\w+\.md)\)", read(MANUAL / "README.md"), re.MULTILINE)]


def write_pages(docs: Path) -> list[object]:
    """All pages of the site; returns the navigation."""
    from reference import api_page, command_pages

    pages = site_pages()
    for source, place in pages.items():
        write(docs / place, turned(source, pages, docs))
    commands = command_pages()
    for name, text in commands.items():
        write(docs / "commands" / f"{name}.md", text)
    write(docs / "api.md", api_page())
    shutil.copy(HERE / "style.css", docs)
    return [
        {"Overview": "index.md"},
        {"Manual": [{title(source): pages[source]} for source in listed_pages()]},
        {"Reference": [{"Command line": [f"commands/{name}.md" for name in commands]}, {"Python": "api.md"}]},
        {"Measured": [place for place in pages.values() if place.startswith("results/")]},
        {"Changes": "changelog.md"},
    ]


def turned(source: Path, pages: dict[Path, str], docs: Path) -> str:
    """The text of a page with its links as the site needs them; what they lead to that is no page is copied."""

    def target(found: re.Match[str]) -> str:
        path, _, anchor = found[1].partition("#")
        wanted = (source.parent / path).resolve()
        if not wanted.is_file():
            sys.exit(f"{source.relative_to(ROOT)}: links to {found[1]}, which is not there")
        place = pages.get(wanted)
        if place is None:
            place = f"files/{wanted.relative_to(ROOT).as_posix()}"
            (docs / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(wanted, docs / place)
        relative = posixpath.relpath(place, posixpath.dirname(pages[source]) or ".")
        return relative + (f"#{anchor}" if anchor else "")

    text = read(source)
    prose = [LINK.sub(target, part) for part in FENCE.split(text)]
    return "".join(part + block for part, block in zip(prose, [*FENCE.findall(text), ""], strict=True))


def title(source: Path) -> str:
    return read(source).partition("\n")[0].removeprefix("# ")


def anchor(heading: str, separator: str) -> str:
    """As GitHub makes them, so that one link serves both."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", separator)


def read(path: Path) -> str:
    return path.read_text("utf-8")


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
