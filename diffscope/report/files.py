"""A result as a folder: `result.json`, `result.csv` and the pictures.

Every file is written under a temporary name in the same folder and then renamed, so that a reader, or a run that is
killed, never finds half a file.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from diffscope.cache.store import unfinished_folder
from diffscope.errors import StoreError
from diffscope.report.tables import write_csv
from diffscope.results import Result, TableResult, dumps

Draw = Callable[[Path], list[Path]]
"""Writes pictures into a folder; the paths written."""


def write_result(result: Result, folder: Path, figures: bool = True) -> list[Path]:
    """The paths written, `result.json` first. Files of an earlier result with the same names are replaced."""

    def draw_result(to: Path) -> list[Path]:
        from diffscope.report.figures import draw  # matplotlib takes a second to load

        return draw(result, to)

    return write_with_pictures(result, folder, draw_result if figures else None)


def write_with_pictures(result: Result | TableResult, folder: Path, draw: Draw | None) -> list[Path]:
    """The same with pictures of the caller's own."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with unfinished_folder(folder) as unfinished:
            written = _write_all(result, unfinished, draw)
            return [_rename(path, folder / path.name) for path in written]
    except OSError as error:
        reason = error.strerror or str(error)
        raise StoreError(f"{folder}: cannot write results: {reason}; give another folder with --out") from None


def _write_all(result: Result | TableResult, folder: Path, draw: Draw | None) -> list[Path]:
    json_path, csv_path = folder / "result.json", folder / "result.csv"
    json_path.write_bytes(dumps(result).encode("utf-8", "backslashreplace"))  # odd file names: JSON reads \udcff back
    write_csv(result, csv_path)
    return [json_path, csv_path, *(draw(folder) if draw else [])]


def _rename(source: Path, target: Path) -> Path:
    os.replace(source, target)
    return target
