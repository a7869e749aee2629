"""What the CUDA path does, held on a CPU: out of memory, uploads, compiled blocks, finite features asked for late."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from commands import prepared
from test_extraction import COUNT, plan, toy, unet

from diffscope.errors import MemoryLimit, UsageError
from diffscope.extraction import Extractor, Inputs, uploads
from diffscope.families.base import Denoiser
from diffscope.families.networks.hooked import HookedNetwork
from diffscope.moments import BlockAccumulator, BlockMoments, NonFiniteFeature
from diffscope.options.settings import Settings
from diffscope.sources.base import Source, open_source


def stream(
    denoiser: Denoiser, source: Source, said: list[str], **changed: Any
) -> list[tuple[int, int, tuple[int, ...], torch.Tensor]]:
    used = plan(denoiser, **changed)
    found = Extractor(denoiser, Inputs(source, used, say=said.append), used).run(range(COUNT))
    return [(part.level, part.layer, part.indices, part.z) for part in found]


def joined(found: list[tuple[int, int, tuple[int, ...], torch.Tensor]]) -> dict[tuple[int, int], torch.Tensor]:
    keys = {(level, layer) for level, layer, _, _ in found}
    return {key: torch.cat([z for level, layer, _, z in found if (level, layer) == key]) for key in keys}


class Small:
    """A device that holds so many views at a time, from its n-th walk on."""

    def __init__(self, denoiser: Denoiser, most: int, after: int = 0) -> None:
        self.walk, self.most, self.after, self.refused = denoiser.walk, most, after, 0

    def __call__(self, x: torch.Tensor, *arguments: Any) -> Any:
        self.after -= 1
        if self.after < 0 and len(x) > self.most:
            self.refused += 1
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return self.walk(x, *arguments)


@pytest.mark.parametrize("after", [0, 1, 4])
def test_batches_are_halved_until_they_fit_and_stay_so(after: int, monkeypatch: pytest.MonkeyPatch) -> None:
    denoiser, source, said = toy(), open_source(f"synthetic:count={COUNT}"), list[str]()
    whole = joined(stream(denoiser, source, [], batch_size=7))
    small = Small(denoiser, most=4, after=after)  # two images of two views
    monkeypatch.setattr(denoiser, "walk", small)
    found = stream(denoiser, source, said, batch_size=7)
    halved = joined(found)
    assert halved.keys() == whole.keys()
    for key, z in whole.items():
        torch.testing.assert_close(halved[key], z, rtol=1e-6, atol=1e-6)
    # In the order of the images, each once, at every level.
    for level in range(3):
        assert [i for at, layer, indices, _ in found if (at, layer) == (level, 0) for i in indices] == list(
            range(COUNT)
        )
    assert small.refused == 2, "7 images, then 4; two fit, and no more are tried"
    assert said == [
        "cpu is out of memory at 7 images a batch; going on with 4",
        "cpu is out of memory at 4 images a batch; going on with 2",
    ]


def test_one_image_that_does_not_fit_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    denoiser = toy()
    monkeypatch.setattr(denoiser, "walk", Small(denoiser, most=1))
    with pytest.raises(MemoryLimit, match="does not hold one image of 2 views; take `device=cpu`, fewer `views=`"):
        stream(denoiser, open_source(f"synthetic:count={COUNT}"), [], batch_size=4)


class FakeCuda:
    """Notes what is asked of streams and events."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.log: list[str] = []
        fake, events = self, iter(range(100))

        class Stream:
            def __init__(self, name: object) -> None:
                self.name = name

            def wait_stream(self, other: Stream) -> None:
                fake.log.append(f"{self.name} waits for {other.name}")

        class Event:
            def __init__(self) -> None:
                self.number = next(events)

            def record(self, stream: Stream) -> None:
                fake.log.append(f"event {self.number} on {stream.name}")

            def synchronize(self) -> None:
                fake.log.append(f"host waits for event {self.number}")

        @contextlib.contextmanager
        def within(stream: Stream) -> Iterator[None]:
            fake.log.append("side stream")
            yield
            fake.log.append("main stream")

        def pinned(tensor: torch.Tensor) -> torch.Tensor:
            fake.log.append("pinned")
            return tensor

        def to(tensor: torch.Tensor, device: torch.device, non_blocking: bool = False) -> torch.Tensor:
            assert non_blocking
            fake.log.append("copied")
            return tensor.clone()

        monkeypatch.setattr(torch.cuda, "Stream", lambda device: Stream("side"))
        monkeypatch.setattr(torch.cuda, "Event", Event)
        monkeypatch.setattr(torch.cuda, "stream", within)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream("main"))
        monkeypatch.setattr(torch.Tensor, "pin_memory", pinned)
        monkeypatch.setattr(torch.Tensor, "to", to)
        monkeypatch.setattr(
            torch.Tensor, "record_stream", lambda tensor, stream: fake.log.append(f"kept for {stream.name}")
        )


def test_a_batch_travels_pinned_on_a_stream_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    fake, tensor = FakeCuda(monkeypatch), torch.arange(3.0)
    moved = uploads.Uploads(torch.device("cuda"))(tensor)
    assert torch.equal(moved, tensor)
    assert moved is not tensor
    assert fake.log == [
        "side stream", "pinned", "copied", "main stream", "main waits for side", "kept for main",
    ]  # fmt: skip


def test_the_host_is_two_batches_ahead_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    fake, upload = FakeCuda(monkeypatch), None
    upload = uploads.Uploads(torch.device("cuda"))
    for _ in range(4):
        upload.pace()
    assert fake.log == [
        "event 0 on main", "event 1 on main",
        "event 2 on main", "host waits for event 0",
        "event 3 on main", "host waits for event 1",
    ]  # fmt: skip


def test_on_a_cpu_nothing_travels() -> None:
    upload, tensor = uploads.Uploads(torch.device("cpu")), torch.arange(3.0)
    upload.pace()
    assert upload(tensor) is tensor


@pytest.mark.parametrize("name", ["toy", "unet"])
def test_compiled_blocks_give_the_same_walk(name: str) -> None:
    plain, compiled = (unet() if name == "unet" else toy() for _ in range(2))
    graphs: list[int] = []

    def backend(module: torch.fx.GraphModule, inputs: object) -> Any:
        graphs.append(len(list(module.graph.nodes)))
        return module.forward

    if name == "toy":  # has no blocks of its own
        compiled.network.trunk = ()
    compiled.network.compile_blocks(backend=backend)  # type: ignore[arg-type]
    x = torch.randn(
        2, plain.space.channels, plain.space.side, plain.space.side, generator=torch.Generator().manual_seed(0)
    )
    label = plain.label(None, torch.device("cpu"))
    with torch.inference_mode():
        walks = [list(each.walk(x, 0.5, label)) for each in (plain, compiled)]
    assert [layer for layer, _ in walks[0]] == [layer for layer, _ in walks[1]]
    for (_, a), (_, b) in zip(*walks, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    assert bool(graphs) == (name == "unet")


def test_compiling_is_for_cuda_and_for_our_own_networks() -> None:

    with pytest.raises(UsageError, match="`compile=` pays on CUDA only, not on cpu"):
        prepared("toy:d=6,side=4", "synthetic:count=40", Settings(augment="none", compile=True))
    library = HookedNetwork(torch.nn.Linear(2, 2), (), lambda module, x, time, label: x)
    with pytest.raises(UsageError, match="one of a library runs as the library has it"):
        library.compile_blocks()


def added(accumulator: BlockAccumulator, z: torch.Tensor) -> BlockMoments:
    for part in z.split(5):
        accumulator.update(part)
    return accumulator.finish()


def test_deferred_a_feature_that_is_not_finite_is_found_at_the_end() -> None:
    z = torch.randn(12, 2, 3, generator=torch.Generator().manual_seed(0))
    at_once, late = BlockAccumulator(2, 3), BlockAccumulator(2, 3, deferred=True)
    a, b = (added(accumulator, z).to_arrays() for accumulator in (at_once, late))
    assert all((a[name] == b[name]).all() for name in a)
    z[7, 1, 2] = float("nan")
    at_once, late = BlockAccumulator(2, 3), BlockAccumulator(2, 3, deferred=True)
    positions = []
    for accumulator in (at_once, late):
        with pytest.raises(NonFiniteFeature) as caught:
            added(accumulator, z)
        positions.append(caught.value.position)
    assert positions == [7, 7]
