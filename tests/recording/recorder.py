"""Runs the table in one process and one folder, and keeps of each command what a user gets from it.

What no refactoring can hold (seconds, rates, the folder's place, versions, a machine's name) is replaced by a sign, so
that two records made on one machine are equal byte for byte or tell of a change.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from commands import Ran, diffscope

from recording.inputs import write_inputs

TABLE = Path(__file__).with_name("commands.txt")
CHECKOUT = Path(__file__).parents[2]
EXACT = "exact-"
PAGE = "report.html"
"""It holds what `result.json` does, times among it; of this file the name alone is kept."""
TIMED = "bench"
"""Of this command only the structure is kept: all its numbers are times."""
KEPT = ("result.json", "result.csv")
"""Files whose text is kept; of others the name and a digest."""
TIMING = '"timing": '
NUMBER = re.compile(r"(?<=[ \[])-?\d[-+.e\d]*")
VERSION = re.compile(r'(?<=")\d+\.\d+\.\d+(?:\+\w+)?(?=")|(?<=^diffscope )\d[\d.]*(?= )|(?<=\(torch )[^)]+')
LEFT = re.compile(r"^\d+ of \d+ \w+, about [\d.]+ \w+ left\n", re.MULTILINE)
"""How long a run will take, said where the machine is slow."""
CLOCK = re.compile(r"\b\d{4}-\d\d-\d\d[ T]\d\d:\d\d(:\d\d)?")


@dataclass(frozen=True)
class Record:
    """One command: its line, its exit code, and texts by the name of a stream or file, in order."""

    argv: str
    code: int
    texts: dict[str, str]
    files: dict[str, str]
    """Other files that it wrote: name → digest."""


def table(whole: bool = False) -> dict[str, str]:
    """Name → command line; the whole of it, or what is held on any machine."""
    lines = (line.strip() for line in TABLE.read_text("utf-8").splitlines())
    named = [line.split(": ", 1) for line in lines if line and not line.startswith("#")]
    found = dict(named)
    assert len(found) == len(named), "a name of the table stands twice"
    return {name: line for name, line in found.items() if whole or not name.startswith(EXACT)}


def run_table(folder: Path, whole: bool) -> Iterator[tuple[str, Record]]:
    """Leaves the process in `folder`, with its environment changed: for a process of its own."""
    for name in [*os.environ]:
        if name.startswith("DIFFSCOPE_") or name in ("FORCE_COLOR", "GITHUB_STEP_SUMMARY", "RANK"):
            del os.environ[name]
    os.environ |= {
        "COLUMNS": "80",
        "NO_COLOR": "1",
        "HF_HUB_OFFLINE": "1",
        "DIFFSCOPE_CACHE_DIR": str(folder / "cache"),
    }
    write_inputs(folder)
    os.chdir(folder)
    before = _stamps(folder)
    for name, line in table(whole).items():
        ran = diffscope(*shlex.split(line))
        after = _stamps(folder)
        yield name, _record(folder, line, ran, sorted(path for path in after if after[path] != before.get(path)))
        before = after


def _stamps(folder: Path) -> dict[Path, tuple[int, int]]:
    """What is new or written again shows by them; the cache's files are the program's own."""
    files = (path for path in folder.rglob("*") if path.is_file() and "cache" not in path.relative_to(folder).parts)
    return {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in files}


def _record(folder: Path, line: str, ran: Ran, written: list[Path]) -> Record:
    texts = {"stdout": ran.out, "stderr": ran.err}
    files = {}
    for path in written:
        name = path.relative_to(folder).as_posix()
        if path.name in KEPT:
            texts[name] = path.read_bytes().decode("utf-8")
        else:
            files[name] = "" if path.name == PAGE else hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    timed = line.split()[0] == TIMED
    kept = {name: _lasting(text, folder, timed) for name, text in texts.items()}
    return Record(line, ran.code, {name: text for name, text in kept.items() if text}, files)


def _lasting(text: str, folder: Path, timed: bool) -> str:
    for place, sign in ((folder.resolve(), "FOLDER"), (folder, "FOLDER"), (CHECKOUT, "CHECKOUT")):
        text = text.replace(str(place), sign)
    text = CLOCK.sub("DATE", VERSION.sub("VERSION", LEFT.sub("", text)))
    if timed:
        return _structure(text)
    if (found := text.find(TIMING)) >= 0:
        start = found + len(TIMING)
        _, end = json.JSONDecoder().raw_decode(text, start)
        return text[:start] + NUMBER.sub("0", text[start:end]) + text[end:]
    return text


def _structure(text: str) -> str:
    def emptied(value: object) -> object:
        if isinstance(value, dict):
            return {key: emptied(inner) for key, inner in value.items()}
        if isinstance(value, list) and all(isinstance(inner, str) for inner in value):
            return []  # warnings, as that the machine is busy
        if isinstance(value, list):
            return [emptied(inner) for inner in value[:1]]
        return None if value is None else type(value).__name__

    try:
        return json.dumps(emptied(json.loads(text)), indent=2, ensure_ascii=False) + "\n"
    except ValueError:  # a warning that the machine is busy
        return ""
