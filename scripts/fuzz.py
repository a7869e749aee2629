"""Damaged files of every kind that diffscope reads, for as long as told: does each end well, soon, and in little room?

    python scripts/fuzz.py --minutes 60                    # the corpus first, then damaged files of all kinds
    python scripts/fuzz.py --minutes 5 --kind torch-zip    # one kind, or several
    python scripts/fuzz.py --seed 7 --case 1234            # one case once more

A case is a folder of files, one or more of them damaged, and a command that reads them, run in a child process
(`tests/fuzzing`). It fails where the command takes more than 5 s of CPU time, or more memory beyond the program than
1 GB and twice the files' size (pictures: 1 GB and four times the largest picture admitted); where it ends in anything
but an exit code of ours with one line that says why; where libraries' warnings or a name's control characters are
printed; and where finished work that is damaged on disk changes a number. Case N of a seed is always the same. Each
failure is told once, by its kind and place; its files are kept under --keep with the command to repeat it.
"""

from __future__ import annotations

import argparse
import itertools
import shlex
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from fuzzing import cases, children, mutations
from fuzzing.cases import Case
from fuzzing.corpus import corpus
from fuzzing.seeds import seeds

KEPT = 2
"""Examples of each failure whose files are kept."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--cases", type=int, help="stop after so many, whatever the time")
    parser.add_argument("--kind", action="append", help="one of the kinds of the table, or corpus; repeatable")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--case", type=int, help="this one alone, and what it says")
    parser.add_argument("--jobs", type=int, default=1, help="cases at a time")
    parser.add_argument("--keep", type=Path, default=Path("fuzz-failures"), metavar="DIR")
    options = parser.parse_args()
    made = [case for case in seeds() if not options.kind or case.kind in options.kind]
    known = corpus() if options.case is None and (not options.kind or "corpus" in options.kind) else iter(())
    if not made and options.kind != ["corpus"]:
        parser.error(f"--kind: expected some of corpus, {', '.join(sorted({case.kind for case in seeds()}))}")
    numbers = itertools.count() if options.case is None else iter([options.case])
    if options.cases is not None:
        numbers = iter(range(options.cases))
    run = Run(made, known, options.seed, options.keep, options.minutes, numbers)
    with ThreadPoolExecutor(options.jobs) as pool:
        working = [pool.submit(run.work) for _ in range(options.jobs)]
    print(run.table())
    for done in working:
        done.result()
    sys.exit(1 if run.failures else 0)


@dataclass
class Run:
    """The cases of one run, handed out to several threads, each with a server of its own."""

    seeds: list[Case]
    corpus: Iterator[Case]
    seed: int
    keep: Path
    minutes: float
    numbers: Iterator[int]
    counted: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(kind, "cases" | "refused" | "accepted" | "failed") → how many."""
    failures: Counter[str] = field(default_factory=Counter)
    until: float = 0.0
    """When the last case may begin."""
    slowest: float = 0.0
    largest: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def work(self) -> None:
        with tempfile.TemporaryDirectory(prefix="diffscope-fuzz-") as folder:
            server = self.serve(Path(folder))
            expected = self.expected(server, Path(folder))
            self.until = time.monotonic() + 60 * self.minutes
            for number in itertools.count():
                with self.lock:
                    found = self.next_case()
                if found is None:
                    break
                self.try_one(server, Path(folder) / f"{number}", *found, expected)
            server.close()

    def serve(self, folder: Path) -> children.Server:
        """A server that has done one of everything."""
        first = {case.kind: case for case in reversed(self.seeds)}
        warm = []
        for kind, case in first.items():
            cases.write(case.files, folder / f"warm-{kind}")
            warm.append((str(folder / f"warm-{kind}"), case.argv))
        return children.Server(warm=warm)

    def expected(self, server: children.Server, folder: Path) -> dict[tuple[str, ...], str]:
        """What commands print of undamaged files, where that must not change. A seed that fails is our mistake."""
        found = {}
        for number, case in enumerate(self.seeds):
            place = folder / f"seed-{number}"
            cases.write(case.files, place)
            ended = server.run(place, case.argv, case.budget)
            fault = children.judge(ended, case.budget).fault
            if fault:
                self.fail(server, place, case, f"undamaged {case.kind}: {fault}", ended, "seed")
            if case.same_rows:
                found[case.argv] = children.rows_of(ended.out)
            cases.remove(place)
        return found

    def next_case(self) -> tuple[str, Case] | None:
        if known := next(self.corpus, None):
            return "corpus", known
        if not self.seeds or time.monotonic() > self.until:
            return None
        number = next(self.numbers, None)
        return None if number is None else (str(number), damaged(self.seeds, self.seed, number))

    def try_one(
        self, server: children.Server, place: Path, number: str, case: Case, expected: dict[tuple[str, ...], str]
    ) -> None:
        cases.write(case.files, place)
        ended = server.run(place, case.argv, case.budget)
        judged = children.judge(ended, case.budget, expected.get(case.argv))
        with self.lock:
            outcome = "failed" if judged.fault else "accepted" if judged.accepted else "refused"
            self.counted.update([(case.kind, "cases"), (case.kind, outcome)])
            self.slowest, self.largest = max(self.slowest, ended.seconds), max(self.largest, ended.grown)
            if judged.fault:
                self.fail(server, place, case, judged.fault, ended, number)
        cases.remove(place)

    def fail(
        self, server: children.Server, place: Path, case: Case, fault: str, ended: children.Ended, number: str
    ) -> None:
        """Tell a failure once; keep the files of the first few of its kind."""
        cases.remove(place)
        cases.write(case.files, place)
        if children.STOPPED not in ended.err:  # of one that was stopped it is known where it stood
            ended = server.run(place, case.argv, case.budget, debug=True)
        what = f"{fault}: {children.place_of(ended.err)}"
        self.failures[what] += 1
        if self.failures[what] > KEPT:
            return
        kept = self.keep / f"{len(self.failures):03d}-{self.failures[what]}-{case.kind}"
        cases.remove(kept)
        cases.write(case.files, kept)
        command = (
            f"cd {kept} && DIFFSCOPE_CACHE_DIR=cache DIFFSCOPE_DEBUG=1 python -m diffscope {shlex.join(case.argv)}"
        )
        (kept / "command").write_text(f"{command}\n")
        (kept / "said").write_text(f"{case.what}\n{ended}\n{ended.err}\n")
        if self.failures[what] == 1:
            print(f"FAILED {what}\n  case {number} of seed {self.seed}, {case.kind}, {case.what[:200]!a}\n  {command}",
                  file=sys.stderr, flush=True)  # fmt: skip

    def table(self) -> str:
        versions = ", ".join(
            f"{name} {version(name)}" for name in ("torch", "numpy", "pillow", "pyarrow", "safetensors")
        )
        kinds = sorted({kind for kind, _ in self.counted})
        columns = ("cases", "refused", "accepted", "failed")
        total = [sum(self.counted[kind, column] for kind in kinds) for column in columns]
        counts: list[list[object]] = [[kind, *(self.counted[kind, column] for column in columns)] for kind in kinds]
        rows: list[list[object]] = [["kind", *columns], ["---"] * 5, *counts, ["all", *total]]
        lines = [f"| {' | '.join(str(cell) for cell in row)} |" for row in rows]
        lines += [f"\n{count} x {what}" for what, count in self.failures.most_common()]
        most = f"longest {self.slowest:.2f} s of CPU time, largest growth {self.largest / 2**20:.0f} MiB"
        return "\n".join([*lines, "", f"seed {self.seed}; {most}", f"Python {sys.version.split()[0]}, {versions}"])


def damaged(made: list[Case], seed: int, number: int) -> Case:
    """Case `number`: kinds are as likely as each other, however many files stand for one."""
    chance = Random(f"{seed} {number}")
    kind = chance.choice(sorted({case.kind for case in made}))
    same = [case for case in made if case.kind == kind]
    others = [content for case in same for content in case.files.values() if isinstance(content, bytes)]
    return mutations.damaged(chance, chance.choice(same), others)


if __name__ == "__main__":
    main()
