"""What several processes tell one another, bit for bit, and what becomes of errors and of processes that never come."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
import torch.distributed as dist
from processes import call, free_port

import diffscope
from diffscope import ranks
from diffscope.errors import DataError, DiffscopeError, RankLost, StoreError, UsageError

OF_TWO = {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "127.0.0.1"}


def arrays(rank: int) -> dict[str, np.ndarray]:
    """Of different sizes, one empty, one in Fortran's order, one with numbers that text would not keep."""
    rng = np.random.default_rng(rank)
    odd = np.array([np.nan, np.inf, -0.0, 5e-324, 0.1])
    return {"a": rng.standard_normal((rank + 1, 3)), "b": np.asfortranarray(rng.random((2, 3))), "odd": odd,
            "none": np.zeros((0, 4)), "one": np.array(rank)}  # fmt: skip


def exchange() -> dict[str, Any]:
    """In each of three processes."""
    world = ranks.world()
    taken: list[list[Any]] = []

    def take(rank: int, found: dict[str, np.ndarray], record: Any) -> None:
        mine = arrays(rank)
        same = found.keys() == mine.keys() and all(
            found[name].tobytes() == mine[name].tobytes() and found[name].shape == mine[name].shape for name in mine
        )
        taken.append([rank, same, record])

    def refuse(rank: int, found: dict[str, np.ndarray], record: Any) -> None:
        raise StoreError("the disk is full")

    def decided() -> Any:
        assert world.leads, "only the first decides"
        return {"x": [0.1, None]}

    def failing() -> None:
        raise UsageError("that cannot be")

    parcel = (arrays(world.rank), {"rank": world.rank})
    told = world.lead(decided)
    shaped = world.lead(lambda: (1, 2), list, tuple)
    world.gather(parcel, take)
    world.gather(None if world.rank == 1 else parcel, take)
    world.gather(None, take)
    errors = [
        raised(lambda: world.lead(failing)),
        raised(lambda: world.gather(DataError("no image") if world.rank == 2 else parcel, take)),
        raised(lambda: world.gather(DataError(f"of {world.rank}"), take)),
        raised(lambda: world.gather(parcel, refuse)),
    ]
    # After all of these they still understand each other.
    again = world.lead(lambda: "still here")
    return {"told": told, "shaped": shaped == (1, 2), "taken": taken, "errors": errors, "again": again,
            "world": [world.rank, world.size, world.device]}  # fmt: skip


def raised(do: Callable[[], object]) -> list[str]:
    try:
        do()
    except DiffscopeError as error:
        return [type(error).__name__, str(error)]
    return []


def test_three_processes_tell_each_other() -> None:
    said = call(3, "test_ranks:exchange")
    assert [one["world"] for one in said] == [[0, 3, "cpu"], [1, 3, "cpu"], [2, 3, "cpu"]]
    first, *others = said
    assert first["taken"][:3] == [[rank, True, {"rank": rank}] for rank in range(3)]
    assert first["taken"][3:5] == [[rank, True, {"rank": rank}] for rank in (0, 2)]
    for one in said:
        assert one["told"] == {"x": [0.1, None]}
        assert one["shaped"]
        assert one["errors"] == [
            ["UsageError", "that cannot be"],
            ["DataError", "no image"],
            ["DataError", "of 0"],
            ["StoreError", "the disk is full"],
        ]
        assert one["again"] == "still here"
    assert all(one["taken"] == [] for one in others)


def test_one_process_is_all_of_them() -> None:
    world = ranks.world()
    assert (world.rank, world.size, world.leads, world.device) == (0, 1, True, None)
    taken: list[object] = []
    world.gather((arrays(0), "record"), lambda *parcel: taken.append(parcel[2]))
    world.gather(None, lambda *parcel: taken.append(parcel))
    assert taken == ["record"]
    assert world.lead(lambda: "said") == "said"
    with pytest.raises(DataError, match="no image"):
        world.gather(DataError("no image"), lambda *parcel: None)


@pytest.mark.parametrize("rank", ["0", "1"])
def test_processes_that_never_come(rank: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "MEETING", timedelta(seconds=1))
    for name, value in (OF_TWO | {"RANK": rank, "MASTER_PORT": str(free_port())}).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(RankLost, match=r"^2 processes were to meet, and did not: .+; unset WORLD_SIZE and RANK"):
        ranks.join("cpu")
    assert ranks.world().size == 1
    assert not dist.is_initialized()


def test_an_environment_without_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (OF_TWO | {"MASTER_PORT": str(free_port())}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MASTER_ADDR")
    with pytest.raises(RankLost, match=r"MASTER_ADDR.*unset WORLD_SIZE"):
        ranks.join("cpu")


def test_a_group_of_the_users_own_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A training script that torchrun started measures in one of its processes."""
    for name, value in OF_TWO.items():
        monkeypatch.setenv(name, value)
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        group = dist.group.WORLD
        result = diffscope.icr("toy:d=8,side=8", "synthetic:count=64", sigma=0.5, augment="none", workers=0)
        assert result.rows[0]["icr"] is not None
        assert "processes" not in result.timing
        assert ranks.world().size == 1
        assert dist.is_initialized()
        assert dist.group.WORLD is group
    finally:
        dist.destroy_process_group()
