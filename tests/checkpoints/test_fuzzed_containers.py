"""Containers damaged by chance, each opened by the command line in a child with 5 s and little room (`fuzzing`).

What is drawn is the same each time. `scripts/fuzz.py` goes on from here for as long as it is told.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import NamedTuple

import pytest
from fuzzing import cases, children, mutations
from fuzzing.cases import Case
from fuzzing.children import Server
from fuzzing.seeds import seeds
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

KINDS = (
    "edm-pickle",
    "edm2-pickle",
    "training-state",
    "torch-zip",
    "torch-stream",
    "safetensors",
    "sharded",
    "diffusers",
)
SAME = settings(
    derandomize=True,
    database=None,
    deadline=None,
    phases=(Phase.generate,),  # an example that is made smaller takes as long as all of them
    suppress_health_check=list(HealthCheck),
)
ROOM = 200 << 20


class Bench(NamedTuple):
    """Where cases are tried."""

    server: Server
    folder: Path
    made: dict[str, list[Case]]
    """Undamaged ones by kind."""
    numbers: itertools.count[int]

    def run(self, case: Case) -> str:
        """What is wrong with how it ended; empty where all is well."""
        place = self.folder / f"{next(self.numbers)}"
        cases.write(case.files, place)
        ended = self.server.run(place, case.argv, case.budget)
        cases.remove(place)
        fault = children.judge(ended, case.budget).fault
        return f"{fault}: {case.what}: {ended}" if fault else ""


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    made: dict[str, list[Case]] = {}
    for case in seeds():
        made.setdefault(case.kind, []).append(case)
    folder = tmp_path_factory.mktemp("cases")
    warm = []
    for kind in ("edm-pickle", "diffusers"):
        cases.write(made[kind][0].files, folder / kind)
        warm.append((str(folder / kind), made[kind][0].argv))
    server = Server(warm=warm)
    yield Bench(server, folder, made, itertools.count())
    server.close()


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_containers_end_well(bench: Bench, kind: str) -> None:
    same = bench.made[kind]
    others = [content for case in same for content in case.files.values() if isinstance(content, bytes)]

    @settings(SAME, max_examples=8)
    @given(st.integers(0, 2**32), st.sampled_from(same))
    def damaged(number: int, case: Case) -> None:
        assert bench.run(mutations.damaged(Random(number), case, others)) == ""

    damaged()


# The limits themselves: what each of these does must be seen


@pytest.fixture(scope="module")
def limits() -> Iterator[Server]:
    server = Server("fuzzing.faults:main")
    yield server
    server.close()


@pytest.mark.parametrize(
    ("word", "fault"),
    [
        ("hangs", "takes more than 5 s"),
        ("grows", "takes more memory than its budget"),
        ("grows at once", "takes more memory than its budget"),
        ("warns", "prints"),
        ("raises", "ends with exit code 99"),
        ("talks", "prints more than 12 lines"),
        ("prints colours", "prints characters such as '\\x1b'"),
        ("is unexpected", "foreign ValueError"),
        ("says nothing", "does not say in one line why it failed"),
        ("refuses", None),
        ("ends", None),
    ],
)
def test_a_fault_is_seen(limits: Server, tmp_path: Path, word: str, fault: str | None) -> None:
    found = children.judge(limits.run(tmp_path, [word], ROOM), ROOM)
    assert (found.fault or "").startswith(fault or "")
    assert bool(found.fault) == bool(fault)


def test_what_ends_well_is_accepted_and_what_says_why_is_refused(limits: Server, tmp_path: Path) -> None:
    accepted = [children.judge(limits.run(tmp_path, [word], ROOM), ROOM).accepted for word in ("ends", "refuses")]
    assert accepted == [True, False]


def test_other_numbers_are_seen(limits: Server, tmp_path: Path) -> None:
    ended = limits.run(tmp_path, ["prints rows"], ROOM)
    assert children.judge(ended, ROOM, expected="[1, 2]").fault is None
    assert children.judge(ended, ROOM, expected="[1, 3]").fault == "other numbers"


def test_a_child_that_waits_is_killed(tmp_path: Path) -> None:
    server = Server("fuzzing.faults:main", patience=1)
    assert children.judge(server.run(tmp_path, ["waits"], ROOM), ROOM).fault == "waits for ever"
    assert children.judge(server.run(tmp_path, ["ends"], ROOM), ROOM).fault is None
    server.close()


def test_a_case_is_the_same_each_time(bench: Bench) -> None:
    for same in bench.made.values():
        made = [[mutations.damaged(Random(number), case, ()) for number in range(5) for case in same] for _ in range(2)]
        assert made[0] == made[1]
