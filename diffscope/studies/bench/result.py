"""What `bench` found: rates of the stages of a sweep → its time, the stage that holds it up, the share of the limit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from diffscope import __version__
from diffscope.measure.job import Job
from diffscope.results import SCHEMA
from diffscope.studies.bench.machine_limit import described_machine
from diffscope.studies.bench.walk_rate import WalkRate

NETWORK = "network"
WORTH = 0.03
"""Gain below which another batch size is not recommended: samples differ by as much."""
BUSY = 1.5
"""Median time over least of the network's samples, above which the machine is taken to be at work on something else."""


@dataclass(frozen=True)
class Stage:
    """One stage of a sweep, as it was timed."""

    name: str
    """decode, views, VAE, network or moments."""
    unit: str
    """What it takes its time for: an image (all of its views), a pass (one view at one noise level), or a level
    (all views of an image at one)."""
    seconds: float
    """A unit's, the median of the samples."""
    fastest: float
    """The least of them."""
    elapsed: float
    """The median by the clock on the wall, which goes on while other processes run."""
    samples: int


@dataclass(frozen=True)
class Forecast:
    """What a sweep would take."""

    images: int
    views: int
    levels: int
    seconds: float
    per_image: Mapping[str, float]
    """Seconds of each stage for one image, all of its views and levels."""

    @property
    def shares(self) -> dict[str, float]:
        """Of each stage in the time of all."""
        total = sum(self.per_image.values())
        return {name: seconds / total for name, seconds in self.per_image.items()}

    @property
    def share_outside(self) -> float:
        """Of all stages but the network."""
        return sum(share for name, share in self.shares.items() if name != NETWORK)

    @property
    def bottleneck(self) -> str:
        """The stage with the most time an image."""
        return max(self.per_image, key=lambda name: self.per_image[name])


def foretell(stages: Sequence[Stage], images: int, views: int, levels: int, ahead: bool = False) -> Forecast:
    """The stages one after the other; `ahead`: images are decoded while a device of its own is busy with the others."""
    units = {"image": 1, "pass": views * levels, "level": levels}
    per_image = {stage.name: stage.seconds * units[stage.unit] for stage in stages}
    each = sum(per_image.values())
    if ahead:
        each = max(per_image["decode"], each - per_image["decode"])
    return Forecast(images, views, levels, images * each, per_image)


@dataclass(frozen=True)
class Tried:
    """A batch size."""

    images: int
    passes_per_second: float | None
    """Of the fastest sample."""
    why: str | None = None
    """Where there is no rate: out of memory, or the seconds that it was expected to take."""


@dataclass(frozen=True)
class Benchmark:
    """What was measured; `to_json` documents the keys."""

    job: Job
    stages: tuple[Stage, ...]
    walk: WalkRate
    limits: dict[str, float]
    """FLOP/s of the best convolution and of the best linear map."""
    tried: tuple[Tried, ...]
    """By rising size."""
    forecast: Forecast

    @property
    def notes(self) -> tuple[str, ...]:
        """What makes the figures doubtful."""
        (spread,) = (stage.elapsed / stage.fastest for stage in self.stages if stage.name == NETWORK)
        if spread < BUSY:
            return ()
        text = f"the median of the network's samples took {spread:.1f} times as long as it can"
        return (f"busy: {text}; something else uses this machine, or torch has more threads than it has free cores",)

    @property
    def limit(self) -> str:
        """What this network is held against: maps are made by convolutions, tokens and vectors by matrix products."""
        return "convolution" if len(self.job.plan.layers[-1].shape) == 3 else "linear"

    @property
    def share(self) -> float | None:
        """Of the limit that the walk reaches; None where it has neither convolutions nor matrix products."""
        return self.walk.flops_per_second / self.limits[self.limit] if self.walk.flops else None

    @property
    def best(self) -> Tried:
        """The batch size with the most passes a second."""
        return max((t for t in self.tried if t.passes_per_second), key=lambda t: t.passes_per_second or 0)

    @property
    def gain(self) -> float | None:
        """Of the best batch size over the sweep's own; None where that was not measured."""
        (used,) = (t.passes_per_second for t in self.tried if t.images == self.job.plan.batch_size)
        return None if used is None else (self.best.passes_per_second or 0) / used - 1

    def to_json(self) -> dict[str, Any]:
        """The record that `diffscope bench --json` prints.

        machine: cpu, cores, threads, device, device_name, torch.  settings: of the sweep that is measured.
        stages: {stage, unit, seconds (of a unit, median), per_second, samples, share (of a sweep's time)}, in order;
            a unit is an image (all views), a pass (one view at one noise level) or a level (one image's views at one).
        network: layer, flops (of a pass), passes_per_second and flops_per_second (of the fastest sample).
        limit: operation (the one that this network is held against), convolution and linear in FLOP/s.
        share: network's FLOP/s over the limit's.  share_outside: of a sweep's time, outside the network.
        bottleneck: the stage with most of a sweep's time.
        batch_size: used, best, gain (of best over used), recommended (`used` where the gain is below 3 %),
            tried [{images, passes_per_second, why (there is no rate)}].
        forecast: images, views, levels, passes, seconds.
        notes: what makes the figures doubtful, such as a machine at work on something else.
        """
        job, forecast, plan = self.job, self.forecast, self.job.plan
        recommended = plan.batch_size if self.gain is not None and self.gain < WORTH else self.best.images
        return {
            "diffscope": __version__,
            "schema": SCHEMA,
            "command": "bench",
            "checkpoint": {
                "path": job.checkpoint.path,
                "family": job.denoiser.family,
                "class": job.denoiser.network_class,
                "parameters": sum(p.numel() for p in job.denoiser.network.parameters()),
            },
            "data": {"path": job.source.path, "count": len(job.source)},
            "machine": described_machine(plan.device),
            "settings": {
                "layers": [layer.name for layer in plan.layers],
                "precision": plan.precision,
                "augment": plan.augmentation.name,
                "input": plan.input,
                "pool": plan.pool,
                "batch_size": plan.batch_size,
                "workers": plan.workers,
            },
            "stages": [self._stage(stage) for stage in self.stages],
            "network": {
                "layer": plan.layers[-1].name,
                "flops": self.walk.flops,
                "passes_per_second": self.walk.passes_per_second,
                "flops_per_second": self.walk.flops_per_second,
            },
            "limit": {"operation": self.limit, **self.limits},
            "share": self.share,
            "share_outside": forecast.share_outside,
            "bottleneck": forecast.bottleneck,
            "batch_size": {
                "used": plan.batch_size,
                "best": self.best.images,
                "gain": self.gain,
                "recommended": recommended,
                "tried": [vars(tried) for tried in self.tried],
            },
            "forecast": {
                "images": forecast.images,
                "views": forecast.views,
                "levels": forecast.levels,
                "passes": forecast.images * forecast.views * forecast.levels,
                "seconds": forecast.seconds,
            },
            "warnings": list(job.denoiser.warnings),
            "notes": list(self.notes),
        }

    def _stage(self, stage: Stage) -> dict[str, Any]:
        return {
            "stage": stage.name,
            "unit": stage.unit,
            "seconds": stage.seconds,
            "per_second": 1 / stage.seconds,
            "samples": stage.samples,
            "share": self.forecast.shares[stage.name],
        }

    def gated(self) -> dict[str, Any]:
        """What `--fail-if` may ask for."""
        numbers = {"share": self.share, "share_outside": self.forecast.share_outside, "gain": self.gain}
        rates = {key: getattr(self.walk, key) for key in ("passes_per_second", "flops_per_second")}
        return {"layer": self.job.plan.layers[-1].name, **numbers, **rates, "seconds": self.forecast.seconds}


GATES = ("share", "share_outside", "gain", "passes_per_second", "flops_per_second", "seconds")
