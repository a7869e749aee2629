"""A sweep that spends images where they decide something: all levels see a few, those that matter see more.

After each stage the rule of `stopping.py` says which levels go on, and which layers are done. Stages are kept on disk
as tasks, so that an interrupted sweep repeats its looks on what is there and goes on from where it was.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from numpy.typing import ArrayLike

from diffscope import __version__
from diffscope.cache.store import Parts, cache_folder
from diffscope.errors import EstimationError, IllConditioned, MemoryLimit, RankDeficient, ZeroNoise
from diffscope.extraction import Inputs
from diffscope.measure.description import described_checkpoint, described_data
from diffscope.measure.job import Job
from diffscope.measure.memory import rounds, total_passes
from diffscope.measure.progress import Listener
from diffscope.measure.rows import Outline, all_rows, read_rows, require_one
from diffscope.measure.run import Measured, TaskRun, measurable
from diffscope.measure.tasks import Task
from diffscope.metrics.icr import estimate
from diffscope.moments import Moments, guarded
from diffscope.numerics import threads_for
from diffscope.ranks import world
from diffscope.results import Result, Row, WindowRow
from diffscope.studies.sweep.stopping import (
    Decision,
    LayerVerdict,
    Reading,
    Rule,
    Track,
    curve,
    decide,
    interval,
    looks,
    rule,
)
from diffscope.studies.sweep.window import semantic_window
from diffscope.studies.sweep.window_rows import no_window, window_row

HOPELESS = (IllConditioned, RankDeficient, ZeroNoise)
"""What is wrong with a layer's features, however many images there are."""


def staged_sweep(
    job: Job, accuracy: float, listener: Listener | None = None, folder: Path | None = None
) -> tuple[Result, Measured]:
    """The result and what stands behind it; clear `Measured.parts` once the result is safe.

    Raises what `measure` raises; MemoryLimit where not all levels and layers fit into memory together.
    """
    listener = listener or Listener()
    started = time.perf_counter(), time.process_time()
    protocol = job.protocol
    job, outline = measurable(job)
    world().lead(partial(_require_one_round, job))  # memory may differ from process to process
    widths = [one.width for one in outline.measured]
    asked = rule(accuracy, job.plan.sigmas, looks(len(job.indices), widths, job.plan.views, job.blocks), job.plan.views)
    parts = Parts(folder or cache_folder(), protocol.hash())
    world().lead(partial(parts.claim, listener.say))
    blocks = TaskRun(job, parts, listener, Inputs(job.source, job.plan, job.settings.strict, say=listener.say))
    stages = _Stages(job, outline, asked, blocks)
    passes = stages.run(listener)
    full = total_passes(job)
    listener.advance(full - passes)

    def read() -> Result:
        cells = [(level, layer) for layer in range(len(widths)) for level in range(len(job.levels))]
        rows, failures = read_rows(outline, cells, blocks.moments, stages.with_interval)
        require_one(rows, failures)
        skipped = blocks.skipped()
        used = stages.seen - len(skipped)
        whole = all_rows(outline, rows, used)
        return Result(
            version=__version__,
            command="sweep",
            checkpoint=described_checkpoint(job),
            data=described_data(job, used, skipped),
            protocol=protocol.to_json(),
            rows=whole,
            timing=blocks.timing(started),
            warnings=job.denoiser.warnings,
            sections={"window": stages.windows(whole), "accuracy": stages.described(passes, full)},
        )

    result = world().lead(read, Result.to_json, Result.from_json)
    used, skipped = result.data["used"], tuple(result.data["skipped"])
    return result, Measured(protocol, result.rows, skipped, used, result.timing, parts)


def _require_one_round(job: Job) -> None:
    if len(rounds(job)) > 1:
        raise MemoryLimit("`accuracy=` looks at all levels together: take fewer layers, or a larger `max_memory=`")


@dataclass
class _Stages:
    """Looks and what they came to; evidence and decisions are the first process's alone."""

    job: Job
    outline: Outline
    rule: Rule
    blocks: TaskRun
    evidence: dict[str, list[list[Reading | None]]] = field(default_factory=dict)
    """Of each layer the track of each level; without layers that have no ICR at any, nor would have of more images."""
    last_look: dict[tuple[int, str], int] = field(default_factory=dict)
    """Of each level and layer: at which it was measured last."""
    decision: Decision | None = None
    seen: int = 0
    """Images of which some level was given views."""

    def run(self, listener: Listener) -> int:
        """All stages; the forward passes that they took. Each ends at the deepest layer that is not done."""
        levels, layers = list(range(len(self.rule.sigmas))), list(range(len(self.outline.measured)))
        passes = 0
        for look, images in enumerate(self.rule.looks):
            of = tuple(levels), tuple(layers)
            tasks = [Task(block, self.seen, images, *of) for block in range(self.job.blocks)]
            self.blocks.run(tasks)
            passes += sum(task.passes(self.job) for task in tasks)
            self.seen = images
            levels, layers = world().lead(lambda look=look, of=of: self._look(look, *of))  # type: ignore[misc]
            if not levels:
                break
            if told := self._less(of, levels, layers):
                listener.say(f"after {images} images {told} go on")
        return passes

    def _less(self, before: tuple[Sequence[int], Sequence[int]], levels: list[int], layers: list[int]) -> str:
        """How many noise levels and layers go on, of those that are fewer than before; "" where none are."""
        counts = ("noise levels", levels, self.rule.sigmas), ("layers", layers, self.outline.measured)
        return " and ".join(
            f"{len(now)} of {len(whole)} {what}"
            for (what, now, whole), then in zip(counts, before, strict=True)
            if len(now) < len(then)
        )

    def _look(self, look: int, measured: Sequence[int], layers: Sequence[int]) -> tuple[list[int], list[int]]:
        """The levels and layers that go on after a look at those that were measured."""
        images = self.rule.looks[look]
        for number in layers:
            features = self.outline.measured[number]
            self.last_look.update(dict.fromkeys(((level, features.layer) for level in measured), look))
            if look == 0:
                self.evidence[features.layer] = [[] for _ in self.rule.sigmas]
            found = {level: self._reading(level, number, images) for level in measured}
            if look == 0 and all(isinstance(one, HOPELESS) for one in found.values()):
                del self.evidence[features.layer]
                continue
            for level, one in found.items():
                self.evidence[features.layer][level].append(one if isinstance(one, Reading) else None)
        self.decision = decide(self.rule, look, self.evidence, self.decision)
        return sorted(self.decision.going), [n for n in layers if self._goes_on(self.outline.measured[n].layer)]

    def _goes_on(self, layer: str) -> bool:
        """Whether more images may say more of a layer. One that is done keeps what it has been given."""
        return layer in self.verdicts and not self.verdicts[layer].reached

    def _reading(self, level: int, layer: int, images: int) -> Reading | EstimationError | None:
        moments = self.blocks.moments(level, layer, images)
        positions = self.outline.measured[layer].positions
        try:
            with threads_for(moments.d):
                found = estimate(guarded(moments, self.outline.spacing, positions, self.outline.reduce)[0])
        except EstimationError as error:
            return error
        return None if found.replicates is None else Reading(found.icr, found.replicates, moments.total.n)

    def with_interval(self, row: Row, _moments: Moments | None) -> Row:
        """With an interval that is wide enough for all looks, as the rule has it."""
        if row["replicates"] is None or row["icr_low"] is None:
            return row
        look = self.last_look[self.rule.sigmas.index(row.sigma), row.layer]
        low, high = self._interval(row["icr"], row["replicates"], look)
        return row.having(icr_low=low, icr_high=high)

    def _interval(self, icr: float, replicates: ArrayLike, look: int) -> tuple[float, float]:
        return interval(icr, replicates, self.rule.views, self.rule.interval_levels[look])

    @property
    def verdicts(self) -> Mapping[str, LayerVerdict]:
        assert self.decision is not None
        return self.decision.layers

    def windows(self, rows: tuple[Row, ...]) -> tuple[WindowRow, ...]:
        """From the evidence: of the rows alone differences of levels would not be paired."""
        windows, named = [], {row.layer: row for row in reversed(rows) if row["icr"] is not None}
        for name in dict.fromkeys(row.layer for row in rows):
            verdict = self.verdicts.get(name)
            if verdict is None or verdict.best is None or name not in named:
                windows.append(no_window(name))
                continue
            tracks: list[Track] = list(self.evidence[name])
            found = semantic_window(self.rule.sigmas, *curve(tracks, verdict.best), minimum=verdict.best)
            windows.append(window_row(self.job.denoiser.noise.to_native, named[name], found))
        return tuple(windows)

    def described(self, passes: int, full: int) -> dict[str, Any]:
        """As `Result.accuracy` has it."""
        assert self.decision is not None
        layers = {name: self._known(name, verdict) for name, verdict in self.verdicts.items()}
        return {
            "asked": self.rule.accuracy,
            "reached": self.decision.reached,
            "reason": self.decision.reason,
            "looks": list(self.rule.looks),
            "passes": passes,
            "passes_full": full,
            "layers": layers,
        }

    def _known(self, name: str, verdict: LayerVerdict) -> dict[str, Any]:
        """Of one layer, from all that its best level has been given: as in its row."""
        known = {
            "sigma": None,
            "icr": None,
            "icr_low": None,
            "icr_high": None,
            "images": verdict.images,
            "reached": verdict.reached,
        }
        if verdict.best is None:
            return known
        readings = enumerate(self.evidence[name][verdict.best])
        look, last = next((look, one) for look, one in reversed(list(readings)) if one is not None)
        low, high = self._interval(last.icr, last.replicates, look)
        values = {"sigma": self.rule.sigmas[verdict.best], "icr": last.icr, "icr_low": low, "icr_high": high}
        return {**known, **values, "images": last.images}
