"""How fast a sweep runs here: the rate of each stage, what holds it up, and what this machine could do at best.

Each stage is timed by the code that a sweep runs (`features`, `moments`), with the user's images, network and settings:

    decode ─▶ views (and noise) ─▶ VAE, of latent models ─▶ network, to the deepest layer ─▶ moments

    time of a sweep = images · (decode + views + VAE + levels · (views · pass + moments))
    share of the limit = FLOP/s of the passes / FLOP/s of the machine's best convolution, or matrix product

What is left out: reading and hashing checkpoint and images before, the numbers from the moments after; and what a
sweep is spared by latents that an earlier one has kept.
"""

from __future__ import annotations

import copy
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from statistics import median

import numpy as np
import torch
from torch import Tensor

from diffscope.errors import DataError, MemoryLimit
from diffscope.extraction import Batch, Features, Inputs, Skipped, target_of
from diffscope.families.base import Denoiser
from diffscope.measure.job import Job
from diffscope.moments import BlockAccumulator
from diffscope.studies.bench.machine_limit import convolution, linear
from diffscope.studies.bench.result import NETWORK, Benchmark, Stage, Tried, foretell
from diffscope.studies.bench.stopwatch import SAMPLES, Action, Clock, Stopwatch, undisturbed
from diffscope.studies.bench.walk_rate import Passes, WalkRate

SECONDS = 2.0
"""For each stage but two."""
VAE_SECONDS = 8.0
NETWORK_SECONDS = 35.0
"""For passes at every batch size and the machine's limits, in turns."""
DECODED = 64
"""Images decoded at a time, at least: enough to keep the threads busy that decode ahead."""
MOST_VIEWS = {"cpu": 64, "cuda": 1024}
"""Of the largest batch tried."""

Progress = Callable[[int, str, str], AbstractContextManager[Callable[[float], None]]]
"""(how many samples, of what, the word for them) → `advance(n)`; as `report.terminal.progress`."""


@contextmanager
def silent(total: int, what: str, unit: str) -> Iterator[Callable[[float], None]]:
    """Stands for a progress bar where nobody looks."""
    yield lambda n: None


def benchmark(
    job: Job, images: int | None = None, progress: Progress = silent, clock: Clock = time.perf_counter
) -> Benchmark:
    """Time every stage of a sweep of `job`, in 10 to 60 seconds; of the slowest networks, in those of a few passes.

    images: of the sweep that is foretold; the job's own by default.
    Raises DataError where no image can be read, MemoryLimit where one image is too much for the device.
    """
    plan, denoiser = job.plan, job.denoiser
    denoiser.to(torch.device(plan.device))
    bench = _Bench(job, Stopwatch(torch.device(plan.device), clock), progress)
    indices, pixels = bench.first()
    stages = [bench.decode()]
    views, batch = bench.views(indices, pixels)
    stages.append(views)
    if denoiser.encoder is not None and job.source.kind != "latents":
        encoded, batch = bench.encode(batch)
        stages.append(encoded)
    passes = Passes(denoiser, job.source, plan, batch)
    network, walk, limits, tried = bench.network(passes)
    stages += [network, bench.moments(passes.run(1))]
    ahead = plan.device != "cpu" and plan.workers > 0
    forecast = foretell(stages, images or len(job.indices), plan.views, len(plan.sigmas), ahead)
    return Benchmark(job, tuple(stages), walk, limits, tried, forecast)


class _Bench(Inputs):
    """The steps of `Inputs.batches` and what follows, each timed by itself."""

    def __init__(self, job: Job, stopwatch: Stopwatch, progress: Progress) -> None:
        super().__init__(job.source, job.plan, job.settings.strict)
        self.job, self.stopwatch, self.progress = job, stopwatch, progress

    def first(self) -> tuple[tuple[int, ...], np.ndarray]:
        """The first batch with an image that can be read."""
        skipped = Skipped()
        for batch in self._decoded(self.job.indices.tolist(), target_of(self.job.denoiser), skipped):
            return batch
        raise DataError(f"{self.source.path}: none of its images can be decoded; the first: {skipped[0]['why']}")

    def decode(self) -> Stage:
        """By the plan's workers; other images each time, as long as there are others."""
        indices, size = self.job.indices, self.plan.batch_size
        count = min(len(indices), -(-DECODED // size) * size)
        starts = itertools.cycle(range(0, len(indices), count))

        def decode() -> None:
            chosen = np.take(indices, range(start := next(starts), start + count), mode="wrap")
            for _ in self._decoded(chosen.tolist(), target_of(self.job.denoiser), Skipped()):
                pass

        return self._stage("decode", "image", [Action(decode, count)], SECONDS)

    def views(self, indices: tuple[int, ...], pixels: np.ndarray) -> tuple[Stage, Batch]:
        """Augmentation and noise, without the VAE; and what they make of these images."""
        plain: Denoiser = copy.copy(self.job.denoiser)
        if self.source.kind != "latents":
            plain.encoder = None

        def make() -> Batch:
            with torch.inference_mode():
                return Batch(indices, *self._signal_and_noise(plain, indices, pixels))

        return self._stage("views", "image", [Action(make, len(indices))], SECONDS), make()

    def encode(self, batch: Batch) -> tuple[Stage, Batch]:
        """Views of one image, then of as many as a batch has if there is time; and the one image encoded."""
        denoiser, views = self.job.denoiser, self.plan.views
        made: list[Tensor] = []

        def encode(images: int) -> None:
            noise = None if batch.noise is None else batch.noise[: images * views]
            with torch.inference_mode():
                made[:] = [denoiser.encode(batch.signal[: images * views], noise)]

        one = Action(lambda: encode(1))
        whole = Action(lambda: encode(len(batch.indices)), len(batch.indices), one)
        stage = self._stage("VAE", "image", [one, whole] if len(batch.indices) > 1 else [one], VAE_SECONDS)
        noise = None if batch.noise is None else batch.noise[:views]
        return stage, Batch(batch.indices[:1], made[0][:views], noise)

    def network(self, passes: Passes) -> tuple[Stage, WalkRate, dict[str, float], tuple[Tried, ...]]:
        """Passes at all batch sizes and the machine's limits, in turns; the stage is that of the plan's batch size.

        Where that would take too long, it is the largest one measured.
        """
        plan = self.plan
        limits = [operation(plan.precision, plan.device) for operation in (convolution, linear)]
        bounds = [limit.action() for limit in limits]
        one = passes.action(1)
        # The sweep's own size next: it must be known, the others may be.
        sizes = dict.fromkeys((1, plan.batch_size, *_sizes(plan.views, plan.device)))
        actions = {n: one if n == 1 else passes.action(n, one) for n in sizes}
        alone = replace(self.stopwatch, gauge=undisturbed(self.device))
        self._time([*bounds, *actions.values()], NETWORK, NETWORK_SECONDS, alone)
        if not (one.samples and all(bound.samples for bound in bounds)):
            raise MemoryLimit(
                f"{plan.device}: its memory does not hold one image of {plan.views} views; take `device=cpu`, "
                "fewer `views=` or a 16-bit `precision=`"
            )
        measured = {n: action for n, action in actions.items() if action.samples}
        used = measured.get(plan.batch_size) or measured[max(measured)]
        walk = WalkRate(passes.flops(), used.size / used.fastest)
        tried = tuple(_tried(n, actions[n]) for n in sorted(actions))
        rates = {limit.name: limit.rate(bound) for limit, bound in zip(limits, bounds, strict=True)}
        return _timed(NETWORK, "pass", used), walk, rates, tried

    def moments(self, features: Sequence[Features]) -> Stage:
        """Of all layers, in batches of the plan's size, made of one image's features."""
        plan = self.plan
        parts = [part.z.repeat(plan.batch_size, 1, 1) for part in features]
        sums = [BlockAccumulator(plan.views, part.shape[2]) for part in parts]

        def add() -> None:
            for accumulator, part in zip(sums, parts, strict=True):
                accumulator.update(part)

        return self._stage("moments", "level", [Action(add, plan.batch_size)], SECONDS)

    def _stage(self, name: str, unit: str, actions: list[Action], seconds: float) -> Stage:
        """Timed by the last action that there was time for."""
        self._time(actions, name, seconds)
        return _timed(name, unit, [action for action in actions if action.samples][-1])

    def _time(self, actions: list[Action], what: str, seconds: float, by: Stopwatch | None = None) -> None:
        with self.progress(len(actions) * (SAMPLES + 1), what, "samples") as advance:
            (by or self.stopwatch).alternate(actions, seconds, advance)


def _timed(name: str, unit: str, action: Action) -> Stage:
    seconds = (action.typical, action.fastest, median(action.elapsed))
    typical, fastest, elapsed = (each / action.size for each in seconds)
    return Stage(name, unit, typical, fastest, elapsed, len(action.kept))


def _sizes(views: int, device: str) -> list[int]:
    """1, 2, 4, … images, up to the most views that are tried on such a device."""
    most = MOST_VIEWS["cpu" if device == "cpu" else "cuda"]
    return [2**n for n in range(most.bit_length()) if 2**n * views <= most]


def _tried(images: int, action: Action) -> Tried:
    if action.samples:
        return Tried(images, action.size / action.fastest)
    why = "out of memory" if action.too_large else f"about {action.expected:.0f} s a batch"
    return Tried(images, None, why)
