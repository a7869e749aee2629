"""Several processes in one run, as torchrun starts them: which one this is, and what they tell one another.

All processes run the same program. Work that can be divided is dealt out to them and gathered by the first, which alone
reads and writes the run's files: what it decides from them, it tells all others. Moments travel as the bytes of their
float64 numbers, so that a figure does not depend on how many processes there were.

Nothing is joined unless the program asks for it: a library user's own process group is left alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from diffscope import errors
from diffscope.errors import DiffscopeError, RankLost

if TYPE_CHECKING:
    import numpy as np
    import torch

Arrays: TypeAlias = "Mapping[str, np.ndarray]"
Json = Any
Take: TypeAlias = "Callable[[int, dict[str, np.ndarray], Json], None]"
Value = TypeVar("Value")

MEETING = timedelta(minutes=5)
"""For the processes to find each other."""
WORKING = timedelta(days=7)
"""Between two messages: longer than any block. A process that dies is noticed at once, by its closed connection."""


class World:
    """The processes of this run; this one alone unless `join` found others."""

    rank, size = 0, 1
    """Number of this process, from 0, and how many there are."""
    device: str | None = None
    """Where this process of several computes; None where it is alone and may choose."""

    @property
    def leads(self) -> bool:
        """Whether this process is the one that reads and writes files and prints."""
        return self.rank == 0

    def lead(
        self,
        decide: Callable[[], Value],
        to_json: Callable[[Value], Json] = lambda value: value,
        from_json: Callable[[Json], Value] = lambda value: value,
    ) -> Value:
        """Lets the first process decide and tells all others.

        Args:
            decide: Called in the first process alone.
            to_json: Makes plain JSON of what it returns.
            from_json: Undoes `to_json` in the other processes.

        Returns:
            What `decide` returned, in all processes.

        Raises:
            DiffscopeError: What `decide` raised, in all processes.
            RankLost: Another process has ended.
        """
        return decide()

    def gather(self, mine: tuple[Arrays, Json] | DiffscopeError | None, take: Take) -> None:
        """Brings arrays and a record of each process to the first, which takes them in the order of ranks.

        Args:
            mine: (arrays, plain JSON) of this process, None if it has none, or the error that it met.
            take: Called in the first process with (rank, arrays, record) of each process that has some.

        Raises:
            DiffscopeError: The error of one process, or of `take`, in all processes.
            RankLost: Another process has ended.
        """
        if isinstance(mine, DiffscopeError):
            raise mine
        if mine is not None:
            take(0, dict(mine[0]), mine[1])


class _Group(World):
    """Processes that torch.distributed connects."""

    def __init__(self, group: Any, rank: int, size: int, device: str) -> None:
        self.group, self.rank, self.size, self.device = group, rank, size, device

    def lead(
        self,
        decide: Callable[[], Value],
        to_json: Callable[[Value], Json] = lambda value: value,
        from_json: Callable[[Json], Value] = lambda value: value,
    ) -> Value:
        if not self.leads:
            said = self._told(None)
            if "error" in said:
                raise _error(said["error"])
            return from_json(said["value"])
        try:
            value = decide()
        except DiffscopeError as error:
            self._told({"error": _described(error)})
            raise
        self._told({"value": to_json(value)})
        return value

    def gather(self, mine: tuple[Arrays, Json] | DiffscopeError | None, take: Take) -> None:
        failure = mine if isinstance(mine, DiffscopeError) else None
        if not self.leads:
            self._send(_packed(mine))
            said = self._told(None)
        else:
            for rank in range(self.size):
                # Received even after a failure: the others wait until they are heard.
                parcel = mine if rank == 0 else _unpacked(self._receive(rank))
                if isinstance(parcel, DiffscopeError):
                    failure = failure or parcel
                elif parcel is not None and failure is None:
                    try:
                        take(rank, dict(parcel[0]), parcel[1])
                    except DiffscopeError as error:
                        failure = error
            said = self._told({} if failure is None else {"error": _described(failure)})
        if "error" in said:
            # The same in all, so that they end alike: of several errors the first that the first process heard of.
            raise failure if self.leads and failure else _error(said["error"])

    def _told(self, message: Json | None) -> Json:
        """Sends a message of the first process to all, and returns it in all."""
        import torch.distributed as dist

        text = b"" if message is None else json.dumps(message).encode()
        length = self._tensor(_length(text))
        with _connected():
            dist.broadcast(length, src=0, group=self.group)
            body = self._tensor(text if self.leads else bytes(_number(length)))
            dist.broadcast(body, src=0, group=self.group)
        return json.loads(bytes(body.cpu().numpy()))

    def _send(self, text: bytes) -> None:
        import torch.distributed as dist

        with _connected():
            for part in (_length(text), text):
                dist.send(self._tensor(part), dst=0, group=self.group)

    def _receive(self, rank: int) -> bytes:
        import torch.distributed as dist

        with _connected():
            length = self._tensor(bytes(8))
            dist.recv(length, src=rank, group=self.group)
            body = self._tensor(bytes(_number(length)))
            dist.recv(body, src=rank, group=self.group)
        return bytes(body.cpu().numpy())

    def _tensor(self, text: bytes) -> torch.Tensor:
        import torch

        return torch.frombuffer(bytearray(text), dtype=torch.uint8).to(self.device)


def _length(text: bytes) -> bytes:
    return len(text).to_bytes(8, "little")


def _number(length: torch.Tensor) -> int:
    return int.from_bytes(bytes(length.cpu().numpy()), "little")


def _packed(mine: tuple[Arrays, Json] | DiffscopeError | None) -> bytes:
    import numpy as np
    from safetensors.numpy import save

    if mine is None:
        return save({}, {"kind": "nothing"})
    if isinstance(mine, DiffscopeError):
        return save({}, {"kind": "error", "record": json.dumps(_described(mine))})
    arrays, record = mine
    whole = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    return save(whole, {"kind": "parcel", "record": json.dumps(record)})


def _unpacked(text: bytes) -> tuple[Arrays, Json] | DiffscopeError | None:
    from safetensors.numpy import load

    head = json.loads(text[8 : 8 + int.from_bytes(text[:8], "little")])["__metadata__"]
    if head["kind"] == "nothing":
        return None
    record = json.loads(head["record"])
    return _error(record) if head["kind"] == "error" else (load(text), record)


def _described(error: DiffscopeError) -> Json:
    return {"class": type(error).__name__, "message": str(error)}


def _error(described: Json) -> DiffscopeError:
    """An error of the same class, so that it has the same meaning and exit code everywhere."""
    kind = getattr(errors, described["class"], DiffscopeError)
    error: DiffscopeError = kind.__new__(kind, described["message"])
    return error


@contextlib.contextmanager
def _connected() -> Iterator[None]:
    """Turns a broken connection into RankLost."""
    try:
        yield
    except RuntimeError as error:
        raise RankLost(
            "another process of this run has ended; what was finished is on disk, and the same command goes on from "
            f"there ({_reason(error)})"
        ) from None


def _reason(error: Exception) -> str:
    """The connection's own first sentence, without the line of C++ that says it."""
    words = re.sub(r"^\[\S+:\d+\] ", "", " ".join(str(error).split()))
    return words.split(". ")[0][:120]


def is_one_of_several() -> bool:
    """Whether torchrun started this process beside others."""
    return "RANK" in os.environ and os.environ.get("WORLD_SIZE", "1") != "1"


_world = World()


def world() -> World:
    """Returns the processes of this run: this one alone unless `join` was called."""
    return _world


def join(device: str | None) -> World:
    """Meets the other processes that torchrun has started: gloo on CPUs, NCCL on CUDA.

    Args:
        device: The user's choice; None or `auto` takes CUDA where it is.

    Returns:
        All processes, which `world` returns from now on.

    Raises:
        RankLost: The others do not come within five minutes.
    """
    import torch
    import torch.distributed as dist
    from torch.distributed.rendezvous import rendezvous

    global _world
    local = int(os.environ.get("LOCAL_RANK", "0"))
    cuda = torch.cuda.is_available() if device in (None, "auto") else str(device).startswith("cuda")
    try:
        store, rank, size = next(iter(rendezvous("env://", timeout=MEETING)))
        # Under a name of its own: a training run may have left its environment to this program.
        store = dist.PrefixStore("diffscope", store)  # type: ignore[attr-defined]
        dist.init_process_group("nccl" if cuda else "gloo", store=store, rank=rank, world_size=size, timeout=MEETING)
        dist.barrier()
        group = dist.new_group(timeout=WORKING)
    except (RuntimeError, ValueError) as error:
        raise RankLost(
            f"{os.environ.get('WORLD_SIZE')} processes were to meet, and did not: {_reason(error)}; "
            "unset WORLD_SIZE and RANK to measure in this process alone"
        ) from None
    _world = _Group(group, rank, size, f"cuda:{local}" if cuda else "cpu")
    return _world


def leave() -> None:
    """Leaves the other processes at the end of a run; afterwards `world` is this one alone."""
    import torch.distributed as dist

    global _world
    _world = World()
    if dist.is_available() and dist.is_initialized():
        with contextlib.suppress(RuntimeError):
            dist.destroy_process_group()
