"""Some eighty commands do what they did: what they print, write and exit with, up to what a processor rounds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from recording import differences, texts
from recording.recorder import Record, table

ROOT = Path(__file__).parents[2]
RECORDED = texts.read(ROOT / "tests" / "data" / "recorded")
TO_UPDATE = "If it is meant: python scripts/record.py --update, and look at the difference that git shows."


@pytest.fixture(scope="module")
def now(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Record]:
    """Of a process of its own, where no other test has been."""
    folder = tmp_path_factory.mktemp("recorded")
    command = [sys.executable, str(ROOT / "scripts" / "record.py"), "--trimmed", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return texts.read(folder)


@pytest.mark.slow
@pytest.mark.parametrize("name", table())
def test_a_command_does_what_it_did(name: str, now: dict[str, Record]) -> None:
    assert name in RECORDED, f"{name} is not recorded. {TO_UPDATE}"
    lines = differences.tolerant(RECORDED[name], now[name])
    assert not lines, "\n".join([f"{name}: diffscope {table()[name]}", *lines, TO_UPDATE])


def test_no_record_is_without_its_command() -> None:
    assert set(RECORDED) <= set(table()), TO_UPDATE
