"""What `icr` and `sweep` open: a measurement, several that differ in one setting, or a share of one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from diffscope.errors import UsageError
from diffscope.families.base import Denoiser
from diffscope.measure.cautions import warnings_of
from diffscope.measure.estimate import Estimate, estimate
from diffscope.measure.job import Job
from diffscope.measure.memory import total_passes
from diffscope.measure.opening import open_images, open_job
from diffscope.measure.progress import Listener
from diffscope.measure.study import Finished, Study
from diffscope.options.settings import Loading, Settings
from diffscope.results import Record
from diffscope.studies.sweep.options import Accuracy, Variation
from diffscope.studies.sweep.shards import Shard, measure_shard
from diffscope.studies.sweep.sweep import sweep
from diffscope.studies.sweep.variation import Members, estimate_all, measure_all, vary


def open_sweep(
    checkpoint: str | Denoiser,
    data: str,
    settings: Settings,
    loading: Loading,
    *,
    command: str = "sweep",
    variation: Variation | None = None,
    accuracy: Accuracy | None = None,
    split_half: bool = False,
    shard: str | None = None,
) -> Study:
    """Opens images and checkpoint for one measurement or several.

    Args:
        checkpoint: A path, or a network in memory.
        data: Where the images are.
        settings: What to measure.
        loading: How to read the checkpoint.
        command: icr or sweep.
        variation: Several augmentations, or numbers of images.
        accuracy: How well the lowest ICR should be known.
        split_half: Whether ICR is also estimated from half of the images.
        shard: `I/N`, a share of the images.

    Raises:
        UsageError: Where two of these exclude each other.
        DiffscopeError: Whatever keeps images and checkpoint from being opened.
    """
    several = None if variation is None else variation.varied
    _check_together(several, accuracy, split_half, shard)
    part = None if shard is None else Shard.parse(shard)
    settings = settings if variation is None else variation.applied(settings)
    job = open_job(checkpoint, open_images(settings, data), settings, loading, options=(accuracy or Accuracy(),))
    if part is not None:
        return ShardStudy(job, command, part)
    if several is not None:
        return VariationStudy(job, command, vary(job, *several), split_half)
    return SweepStudy(job, command, split_half)


def _check_together(several: Any, accuracy: Accuracy | None, split_half: bool, shard: str | None) -> None:
    """UsageError, naming the two that exclude each other."""
    if shard is not None and several is not None:
        raise UsageError(f"`shard={shard}`: one measurement; give `{several[0]}=` one value at a time")
    if shard is not None and split_half:
        raise UsageError(f"`shard={shard}`: `self_check=` needs the whole; give it to diffscope merge")
    if accuracy is None or accuracy.accuracy is None:
        return
    other = "shard" if shard else "self_check" if split_half else None if several is None else several[0]
    if other is not None:
        raise UsageError(
            f"`accuracy={100 * accuracy.accuracy:g}%`: not together with `{other}=`, which needs all images at all "
            "noise levels"
        )


@dataclass(frozen=True)
class _JobStudy:
    """What the three have in common: a job, counted in forward passes."""

    job: Job
    command: str

    unit: ClassVar[str] = "passes"

    @property
    def total(self) -> float:
        """Forward passes."""
        return total_passes(self.job)

    def warnings(self) -> list[str]:
        """What a user should know before the run."""
        return warnings_of(self.job)

    def estimate(self) -> Estimate:
        """What the run would take; of a share, what all of them would."""
        return estimate(self.job)


@dataclass(frozen=True)
class SweepStudy(_JobStudy):
    """One measurement."""

    split_half: bool = False

    def run(self, folder: Path | None, listener: Listener) -> Finished:
        """All metrics of all layers at all noise levels."""
        listener.agree(self.job.protocol.to_json())
        result, measured = sweep(self.job, self.command, listener, folder, self.split_half)
        return Finished(result, measured.parts.clear)


@dataclass(frozen=True)
class VariationStudy(_JobStudy):
    """Several measurements that differ in one setting."""

    members: Members
    split_half: bool = False

    @property
    def total(self) -> float:
        """Forward passes of all of them."""
        return sum(map(total_passes, self.members.jobs))

    def estimate(self) -> Estimate:
        """What the run would take."""
        return estimate_all(self.members)

    def run(self, folder: Path | None, listener: Listener) -> Finished:
        """One result of all members."""
        listener.agree(self.members.protocol)
        result, parts = measure_all(self.members, self.command, listener, folder, self.split_half)

        def forget() -> None:
            for finished in parts:
                finished.clear()

        return Finished(result, forget)


@dataclass(frozen=True)
class ShardStudy(_JobStudy):
    """A share of the blocks, left in a folder for `merge`."""

    shard: Shard

    @property
    def total(self) -> float:
        """Forward passes."""
        return self.shard.passes(self.job)

    def run(self, folder: Path | None, listener: Listener) -> Finished:
        """Measures the shard's blocks into the folder, which must be given."""
        if folder is None:
            raise UsageError(f"`shard={self.shard}` needs `out=DIR`, a folder of its own for each shard")
        listener.agree(self.job.protocol.to_json())
        blocks = measure_shard(self.job, self.shard, self.command, folder, listener)
        listener.say(f"when all {self.shard.count} are there: diffscope merge FOLDERS... --out DIR")
        about = {"folder": str(folder), "shard": str(self.shard), "blocks": blocks, "of": self.job.blocks}
        return Finished(Record("shard", about), is_whole=False)
