"""Records as files, one a command, that `diff -r` and people can read; and their trimmed form, which stands in git."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from recording.recorder import Record

SECTION = "==== "
UNENDED = "\\ the last line has no end\n"
OTHERS = "other files"
DIGITS = 7
"""Of a float in the trimmed form."""
LONG = 8
"""A list of so many numbers (replicates, levels, neighbours) is trimmed to what is said of it."""


def write(folder: Path, name: str, record: Record) -> None:
    parts = [f"$ diffscope {record.argv}\nexit code {record.code}\n"]
    for title, text in record.texts.items():
        parts += [f"{SECTION}{title}\n", text, "" if text.endswith("\n") else f"\n{UNENDED}"]
    if record.files:
        parts += [f"{SECTION}{OTHERS}\n", *(f"{file} {digest}".strip() + "\n" for file, digest in record.files.items())]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.txt").write_bytes("".join(parts).encode())


def read(folder: Path) -> dict[str, Record]:
    return {path.stem: _parsed(path.read_bytes().decode()) for path in sorted(folder.glob("*.txt"))}


def _parsed(text: str) -> Record:
    head, *sections = f"\n{text}".split(f"\n{SECTION}")
    _, command, code = head.split("\n")[:3]
    texts = {}
    for section in sections:
        title, _, body = section.partition("\n")
        texts[title] = body if section is sections[-1] else body + "\n"
    texts = {title: body.removesuffix(f"\n{UNENDED}") for title, body in texts.items()}
    files = {}
    for line in texts.pop(OTHERS, "").splitlines():
        name, _, checksum = line.partition(" ")
        files[name] = checksum
    return Record(command.removeprefix("$ diffscope "), int(code.split()[-1]), texts, files)


def trimmed(record: Record) -> Record:
    """Without digests and with short numbers: small, and the same on another processor but for their last digits."""
    texts = {title: _trimmed_text(title, text) for title, text in record.texts.items()}
    return replace(record, texts=texts, files=dict.fromkeys(record.files, ""))


def _trimmed_text(title: str, text: str) -> str:
    if title.endswith(".csv"):
        out = io.StringIO()
        csv.writer(out, lineterminator="\n").writerows([_short(cell) for cell in row] for row in table_of(text))
        return out.getvalue()
    if (value := json_of(text)) is not None:
        return json.dumps(_trimmed_value(value), indent=1, ensure_ascii=False) + "\n"
    return text


def table_of(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text)))


def json_of(text: str) -> Any:
    """What a text says as JSON; None of any other text."""
    try:
        return json.loads(text) if text.startswith("{") else None
    except ValueError:
        return None


def _trimmed_value(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _trimmed_value(inner) for key, inner in value.items()}
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, list):
        if len(value) >= LONG and all(isinstance(inner, (int, float)) for inner in value):
            said = {"first": value[0], "last": value[-1], "mean": sum(value) / len(value)}
            return {"numbers": len(value), **_trimmed_value(said)}
        return [_trimmed_value(inner) for inner in value]
    return value


def _short(cell: str) -> str:
    try:
        return f"{float(cell):.{DIGITS}g}" if "." in cell else cell
    except ValueError:
        return cell
