"""What a table of commands (tests/recording/commands.txt) does, recorded, so that a refactoring is held to it.

    python scripts/record.py BEFORE                   # this checkout's: a file a command, streams and results
    python scripts/record.py --compare BEFORE AFTER   # what differs, to the byte; exit code 1 if anything does
    python scripts/record.py --update                 # tests/data/recorded, which a test holds the program to

Seconds, rates, dates, versions and the place of the working folder are no part of a record, so that on one machine two
records of the same program are the same bytes. --update leaves files whose numbers differ in their last digits alone,
as they do between processors. Takes about two minutes of one core.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
# Read when numpy and torch are first imported: sums in one order.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["OPENBLAS_NUM_THREADS"] = "1"

from recording import differences, recorder, texts
from recording.recorder import Record

RECORDED = Path(__file__).parents[1] / "tests" / "data" / "recorded"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("folder", nargs="?", type=Path, help="where to write the record")
    what.add_argument("--compare", nargs=2, type=Path, metavar=("OLD", "NEW"))
    what.add_argument("--update", action="store_true")
    parser.add_argument("--trimmed", action="store_true", help="FOLDER: as it stands in git, short and without exact-*")
    options = parser.parse_args()
    if options.compare:
        return compare(*map(texts.read, options.compare))
    if options.update:
        return update(RECORDED, recorded(whole=False))
    folder = options.folder.resolve()
    if folder.exists() and any(folder.iterdir()):
        parser.error(f"{options.folder}: not empty; expected a new folder")
    for name, record in recorded(whole=not options.trimmed):
        texts.write(folder, name, texts.trimmed(record) if options.trimmed else record)
    return 0


def recorded(whole: bool) -> Iterator[tuple[str, Record]]:
    with tempfile.TemporaryDirectory(prefix="diffscope-record-") as folder:
        start = Path.cwd()
        try:
            yield from recorder.run_table(Path(folder), whole)
        finally:
            os.chdir(start)


def compare(old: dict[str, Record], new: dict[str, Record]) -> int:
    differing = 0
    for name in [*old, *(name for name in new if name not in old)]:
        if name not in old or name not in new:
            lines = [f"only in the {'old' if name in old else 'new'} record"]
        else:
            lines = differences.exact(old[name], new[name])
        if lines:
            differing += 1
            print(f"\n{name}: diffscope {(old.get(name) or new[name]).argv}", *lines, sep="\n")
    print(
        f"\n{differing} of {len({*old, *new})} commands differ" if differing else f"{len(old)} commands, all the same"
    )
    return 1 if differing or not old else 0


def update(folder: Path, records: Iterator[tuple[str, Record]]) -> int:
    """Trimmed; only those that differ in what matters, and none without its command."""
    old, names = texts.read(folder), set()
    for name, record in records:
        names.add(name)
        new = texts.trimmed(record)
        if name not in old or differences.tolerant(old[name], new):
            texts.write(folder, name, new)
            print(f"{name}: written")
    for name in sorted(old.keys() - names):
        (folder / f"{name}.txt").unlink()
        print(f"{name}: removed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
