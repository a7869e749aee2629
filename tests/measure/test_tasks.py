"""A task's file is named after its coordinates, and what lacks of a task is told from what is there."""

from __future__ import annotations

from pathlib import Path

import pytest

from diffscope.cache.store import Parts
from diffscope.measure.tasks import Task, TaskFile, missing_of


def task(levels: tuple[int, ...], layers: tuple[int, ...] = (0,), block: int = 3) -> Task:
    return Task(block, 0, 5000, levels, layers)


@pytest.mark.parametrize(
    ("levels", "name"),
    [((0,), "s0"), ((0, 1, 2), "s0-2"), ((0, 1, 2, 5), "s0-2+5"), ((4, 5, 7, 8), "s4-5+7-8")],
)
def test_names_say_what_is_in_a_file(levels: tuple[int, ...], name: str) -> None:
    assert task(levels).name == f"b03-i0-5000-{name}-l0"


def test_other_coordinates_have_other_names_that_a_disk_takes() -> None:
    scattered = tuple(range(0, 400, 2))
    tasks = [
        *(task(tuple(range(first, last)), block=block) for block in range(3) for first in range(4) for last in (5, 6)),
        *(task(scattered, layers) for layers in ((0,), scattered, scattered[1:], tuple(range(400)))),
        Task(3, 64, 5000, (0,), (0,)),
        Task(3, 0, 64, (0,), (0,)),
    ]  # fmt: skip
    names = {one.name for one in tasks}
    assert len(names) == len(set(tasks))
    assert max(map(len, names)) + len(".part-.safetensors.12345.unfinished") < 255
    assert [Task.from_json(one.to_json()) for one in tasks] == tasks


def test_only_what_lacks_is_measured(tmp_path: Path) -> None:
    parts = Parts(tmp_path, "0" * 64)
    there = [TaskFile(task((0, 1), (0, 1)), (), parts), TaskFile(task((2,), (0,)), (), parts)]
    assert missing_of(task((0, 1), (1,)), there) is None
    assert missing_of(task((0, 1, 2), (0, 1)), there) == task((2,), (1,))
    assert missing_of(task((0, 1), (0, 1), block=4), there) == task((0, 1), (0, 1), block=4)
    # Of a task of other images nothing is there.
    assert missing_of(Task(3, 0, 64, (0,), (0,)), there) == Task(3, 0, 64, (0,), (0,))
