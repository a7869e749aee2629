"""The README is a door, not the house: short, with the commands that CI runs. Its other content is held by
`test_manual.py`."""

from __future__ import annotations

from pages import README, ROOT, links, words

TEXT = README.read_text("utf-8")
MOST_WORDS = 900


def test_it_is_short() -> None:
    assert words(TEXT) <= MOST_WORDS


def test_ci_installs_and_tests_as_the_readme_says() -> None:
    steps = (ROOT / ".ci" / "run").read_text("utf-8").splitlines()
    (command,) = [line for line in steps if "scripts/check" in line]
    assert command in TEXT.splitlines()


def test_it_leads_to_the_manual() -> None:
    pages = {link for link in links(TEXT) if link.startswith("diffscope/manual/")}
    assert len(pages) > 8
