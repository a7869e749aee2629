"""A result as a folder: `result.json`, `result.csv`, the pictures, and `report.html`, the page that shows all of it.

Every file is written under a temporary name in the same folder and then renamed, so that a reader, or a run that is
killed, never finds half a file.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffscope.errors import StoreError
from diffscope.report.page import PAGE
from diffscope.report.spreadsheet import write_csv
from diffscope.results import RESULT, Shown, dumps

if TYPE_CHECKING:
    from diffscope.report.figures.canvas import Figure


def write(
    shown: Shown,
    records: Sequence[Mapping[str, Any]],
    figures: Mapping[str, Figure],
    folder: Path,
    page: Callable[[str, Path], str],
) -> list[Path]:
    """Writes all files of a result; those of an earlier one with the same names are replaced.

    Args:
        shown: The result or record.
        records: Lines of `result.csv`, which is not written where there are none.
        figures: By the names of their files.
        folder: Made if it is not there.
        page: Makes the page, of the text of `result.json` and the folder that holds the pictures.

    Returns:
        The paths written, `result.json` first.

    Raises:
        StoreError: The folder cannot be written to; what stands there is as it was.
    """
    from diffscope.cache.store import unfinished_folder  # which needs numpy

    try:
        folder.mkdir(parents=True, exist_ok=True)
        with unfinished_folder(folder) as unfinished:
            written = _write_all(shown, records, figures, unfinished, page)
            return [_rename(path, folder / path.name) for path in written]
    except OSError as error:
        reason = error.strerror or str(error)
        raise StoreError(f"{folder}: cannot write results: {reason}; give another folder with --out") from None


def write_page(text: str, path: Path) -> Path:
    """Writes a page alone; one that stands there is replaced.

    Raises:
        StoreError: The file cannot be written.
    """
    from diffscope.cache.store import unfinished_folder  # which needs numpy

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with unfinished_folder(path.parent) as unfinished:
            made = unfinished / path.name
            made.write_text(text, encoding="utf-8", errors="backslashreplace")
            return _rename(made, path)
    except OSError as error:
        raise StoreError(f"{path}: cannot be written: {error.strerror or error}; give another file") from None


def _write_all(
    shown: Shown,
    records: Sequence[Mapping[str, Any]],
    figures: Mapping[str, Figure],
    folder: Path,
    page: Callable[[str, Path], str],
) -> list[Path]:
    text = dumps(shown)
    written = [folder / RESULT]
    written[0].write_bytes(text.encode("utf-8", "backslashreplace"))  # odd file names: JSON reads \udcff back
    if records:
        written.append(folder / "result.csv")
        write_csv(records, written[1])
    if figures:
        from diffscope.report.figures import canvas  # matplotlib takes a second to load

        written += [path for name, figure in figures.items() for path in canvas.save(figure, folder / name)]
    written.append(folder / PAGE)
    written[-1].write_text(page(text, folder), encoding="utf-8", errors="backslashreplace")
    return written


def _rename(source: Path, target: Path) -> Path:
    os.replace(source, target)
    return target
