"""Which images are near a query by the invariant part of their features, and which views by the residual.

With V views of each image, z_iv = μ + s_i + ξ_iv: s_i is the mean over the views less the mean over all images, ξ_iv
what is left of a view. Images are neighbours by the cosine of s, views by that of ξ; nothing of the query's own image
is among them. If features separate what an image shows from how it is shown, neighbours by s are of the query's class
and neighbours by ξ are cropped, lit and noised alike: figures 2 and 7 of Li et al., 2026,
https://arxiv.org/abs/2606.09718.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from diffscope import __version__
from diffscope.cache.sizes import in_bytes
from diffscope.cache.store import Parts, cache_folder
from diffscope.errors import (
    CheckpointError,
    EstimationError,
    MemoryLimit,
    NeedTwoViews,
    StoreError,
    UsageError,
)
from diffscope.families.base import Denoiser
from diffscope.features import Plan, target_of
from diffscope.measure.description import common_checkpoint, described_checkpoint, described_data
from diffscope.measure.job import Job, prepare
from diffscope.measure.measurement import measure
from diffscope.measure.opening import open_job
from diffscope.measure.portions import half_of_memory
from diffscope.measure.progress import Listener
from diffscope.measure.snapshots import expanded, find_snapshots
from diffscope.options.settings import Loading, Settings
from diffscope.protocol import digest, require_equal
from diffscope.results import Result, Row
from diffscope.sources.base import Source, Target
from diffscope.studies.neighbors.question import Question, cast_of
from diffscope.studies.neighbors.search import Cast, Search, footprint
from diffscope.views import Augmentation, augmented_view

VIEWS = 15
"""The image as it is and 14 augmentations of it, as in the paper."""
THUMBNAIL = 128
"""Pixels to which larger pictures are reduced."""


@dataclass(frozen=True)
class Found:
    """What the study came to."""

    result: Result
    """Its pictures: (image, view) → uint8 [H, W] or [H, W, 3] of what it names. View 0 is the image as it is."""
    _clearing: tuple[Callable[[], None], ...] = field(repr=False)

    def clear(self) -> None:
        """Forget what stands on disk, once the result is safe."""
        for clear in self._clearing:
            clear()


def check_settings(settings: Settings) -> None:
    """What the command line alone shows to be wrong; NeedTwoViews beside."""
    if not settings.sigma and not settings.t:
        raise UsageError("neighbors needs a noise level: --sigma S or --t T; to find the best one: diffscope sweep")
    levels = len(settings.sigma) + len(settings.t)
    if levels > 1:
        raise UsageError(f"neighbors takes one noise level, not {levels}; run it once for each")
    if len(settings.layer) > 1 or "all" in settings.layer:
        raise UsageError(f"neighbors takes one --layer, not {', '.join(settings.layer)}; run it once for each")
    if settings.views < 2:
        raise NeedTwoViews(f"--views {settings.views}: a residual is what views differ in; at least 2 are needed")


@dataclass(frozen=True)
class Study:
    """A question that these images and checkpoints can answer: everything opened, nothing computed."""

    source: Source
    settings: Settings
    loading: Loading
    question: Question
    cast: Cast
    snapshots: tuple[tuple[str | Denoiser, int | None], ...]
    """Checkpoints with their steps, by rising step. One alone need not know its step."""
    left_out: tuple[Mapping[str, str], ...]
    """{path, why} of what is no snapshot of the run."""
    first: Job
    """Of the first checkpoint, with the images of the cast, queries first."""

    @property
    def series(self) -> bool:
        return len(self.snapshots) > 1

    @property
    def passes(self) -> int:
        """Of the search; those that measure ICR are few beside them and not counted."""
        return len(self.first.indices) * self.first.plan.views * len(self.snapshots)

    @cached_property
    def protocol(self) -> dict[str, Any]:
        """What the result depends on; of a series what its checkpoints share. Hashes images and checkpoint."""
        return protocol_of(self.first, self.cast, self.question, self.series)

    def run(self, folder: Path | None = None, listener: Listener | None = None) -> Found:
        """Find the neighbours of one checkpoint after another.

        folder: where features stand meanwhile, else in the cache. Raises MemoryLimit and StoreError before the run
        where memory or disk would not do; what was finished when it is stopped is found again by the same call.
        """
        listener, start, cpu = listener or Listener(), time.perf_counter(), time.process_time()
        _check_room(self.first, self.cast, self.question, folder or cache_folder(), listener)
        listener = _with_foresight(listener, self.passes)
        answers: list[dict[str, Any]] = []
        clearing: list[Callable[[], None]] = []
        for number, (checkpoint, step) in enumerate(self.snapshots):
            job = self.first if number == 0 else self._open(checkpoint)
            answer, clear = _answer(job, step, self.settings, self.cast, self.question, folder, listener)
            answers.append(answer)
            clearing.append(clear)
        wanted = {named for answer in answers for named in _named(answer)}
        target = target_of(self.first.denoiser)
        pictures = {at: thumbnail(self.source, target, self.first.plan, *at) for at in sorted(wanted)}
        timing = {"seconds": round(time.perf_counter() - start, 3), "cpu_seconds": round(time.process_time() - cpu, 3)}
        return Found(replace(_result(self, answers, timing), pictures=pictures), tuple(clearing))

    def _open(self, checkpoint: str | Denoiser) -> Job:
        """One of the others; ProtocolMismatch where it is another network than the first."""
        encoder = self.first.denoiser.encoder
        job = _with_cast(open_job(checkpoint, self.source, self.settings, self.loading, encoder), self.cast)
        shared = protocol_of(job, self.cast, self.question, series=True)
        require_equal(self.protocol, shared, (), f"the first checkpoint and {checkpoint}")
        return job


def open_study(
    checkpoints: Sequence[str | Denoiser], source: Source, settings: Settings, loading: Loading, question: Question
) -> Study:
    """One checkpoint or several of one run, or their folder; no image is read yet.

    Raises UsageError, NeedTwoViews, TooFewImages and DataError for a question that these images cannot answer, and what
    opening a checkpoint raises.
    """
    check_settings(settings)
    cast = cast_of(source, settings, question)
    snapshots, left_out = _snapshots(checkpoints, loading, settings.strict)
    first = _with_cast(open_job(snapshots[0][0], source, settings, loading), cast)
    return Study(source, settings, loading, question, cast, tuple(snapshots), tuple(left_out), first)


# --- checkpoints


def _snapshots(
    checkpoints: Sequence[str | Denoiser], loading: Loading, strict: bool
) -> tuple[list[tuple[str | Denoiser, int | None]], list[dict[str, str]]]:
    """Checkpoints with their steps, by rising step. One alone need not know its step."""
    paths = [checkpoint for checkpoint in checkpoints if isinstance(checkpoint, str)]
    if len(paths) < len(checkpoints):
        if len(checkpoints) > 1:
            raise UsageError("networks in memory are taken one at a time")
        return [(checkpoints[0], None)], []
    paths = expanded(paths)
    if len(paths) == 1:
        return [(paths[0], None)], []
    found, left = find_snapshots(paths, None, loading.weights)
    if left and strict:
        raise CheckpointError(left[0].why)
    return [(snapshot.path, snapshot.step) for snapshot in found], [{"path": e.path, "why": e.why} for e in left]


def _with_cast(job: Job, cast: Cast) -> Job:
    return replace(job, indices=np.array([*cast.queries, *cast.others]))


def protocol_of(job: Job, cast: Cast, question: Question, series: bool = False) -> dict[str, Any]:
    """What the neighbours depend on, with its hash; of a series without the checkpoint."""
    own = job.protocol.shared() if series else job.protocol
    fields = {key: value for key, value in own.to_json().items() if key != "hash"}
    fields["neighbors"] = {
        "first_view": "the image as it is",
        "similarity": "cosine",
        "s": "mean over views less the mean over images",
        "xi": "view less the mean over views",
        "excluded": "the query's own image",
        "k": question.k,
        "queries": len(cast.counted),
        "shown": list(cast.shown),
        "clusters": question.clusters,
    }
    return {**fields, "hash": digest(fields)}


# --- memory, disk and time


def _check_room(job: Job, cast: Cast, question: Question, folder: Path, listener: Listener) -> None:
    """Say what the run takes; MemoryLimit or StoreError where there is less."""
    plan = job.plan
    d, images = plan.width(plan.layers[0]), len(job.indices)
    need = footprint(len(cast.queries), len(cast.others), plan.views, d, question.k)
    limit = job.settings.max_memory or half_of_memory()
    if need.memory > limit:
        raise MemoryLimit(
            f"{len(cast.queries)} queries of {d} features need {in_bytes(need.memory)}, more than --max-memory "
            f"{in_bytes(limit)}; take fewer --num-queries, --pool mean, or a larger --max-memory"
        )
    listener.say(
        f"{images} images × {plan.views} views, {d} features each: at most {in_bytes(need.memory)} of memory beside "
        f"the network's, {in_bytes(need.disk)} of disk in {folder} until it is done"
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise StoreError(f"{folder}: cannot be written: {error.strerror or error}") from None
    if need.disk > free:
        raise StoreError(
            f"{folder}: {in_bytes(free)} are free, the features take {in_bytes(need.disk)}; take another --out, "
            "fewer --num-images or --num-queries, or --pool mean"
        )


def _with_foresight(listener: Listener, total: int) -> Listener:
    """Says once, after some seconds, how long it will take, if that is more than a minute."""
    start: float | None = None
    done, said = 0, False

    def advance(passes: int) -> None:
        nonlocal start, done, said
        listener.advance(passes)
        if start is None:  # from the first batch on: what comes before it, ICR, would be taken for its own
            start = time.perf_counter()
            return
        done += passes
        elapsed = time.perf_counter() - start
        if elapsed > 3 and not said:
            said = True
            if elapsed / done * total > 60:
                listener.say(f"about {elapsed / done * total / 60:.0f} min")

    return Listener(advance, listener.say)


# --- one checkpoint


def _answer(
    job: Job,
    step: int | None,
    settings: Settings,
    cast: Cast,
    question: Question,
    folder: Path | None,
    listener: Listener,
) -> tuple[dict[str, Any], Callable[[], None]]:
    """One checkpoint's rows, grid and clusters: computed block by block, or found as an earlier command left them."""
    place, key = folder or cache_folder(), protocol_of(job, cast, question)["hash"]
    finished = Parts(place, hashlib.sha256(f"neighbors {key}".encode()).hexdigest())
    blocks = Parts(place, key)
    finished.claim(listener.say)
    blocks.claim(listener.say)
    if finished.finished():
        answer: Any = finished.record(0)["answer"]
        listener.advance(len(job.indices) * job.plan.views)
    else:
        icr, note = _icr(job, settings, folder)
        about = described_checkpoint(job)
        about["step"] = about["step"] if step is None else step
        search = Search(job, cast, question.k, question.clusters, blocks, listener)
        search.run()
        answer = {"about": about, **search.answer(about, icr, note)}
        finished.write(0, {}, {"answer": answer})
    blocks.clear()
    return answer, finished.clear


def _icr(job: Job, settings: Settings, folder: Path | None) -> tuple[float | None, str | None]:
    """ICR of the layer at this level, as `diffscope icr` has it without --views and --pool; else why there is none."""
    try:
        plain = prepare(job.checkpoint, job.denoiser, job.source, replace(settings, views=2, pool="mean"))
        measured = measure(plain, None, folder)
    except (EstimationError, MemoryLimit) as error:
        return None, f"no_icr: {error}"
    measured.parts.clear()
    (row,) = measured.rows
    if row["icr"] is None:
        return None, "; ".join(row.notes)
    if (settings.views, settings.pool) == (2, "mean"):
        return row["icr"], None
    return row["icr"], (
        "icr_of_two_views: ICR is that of diffscope icr, of 2 views pooled by mean; the shares are of "
        f"{settings.views} views, --pool {settings.pool}"
    )


# --- result and pictures


def _named(answer: Mapping[str, Any]) -> Iterator[tuple[int, int]]:
    """(image, view) of all that the grid and the clusters show; what stands for all views is shown as it is."""
    for query in answer["grid"]:
        for component in ("s", "xi"):
            yield query["image"], query[component]["view"] or 0
            yield from ((near["image"], near["view"] or 0) for near in query[component]["neighbors"])
        yield query["image"], 0


def thumbnail(source: Source, target: Target, plan: Plan, image: int, view: int) -> np.ndarray:
    """The very view that was compared, before noise: uint8 [H, W] or [H, W, 3].

    What is no picture (floats, latents) is shown by its first channels, from its least to its largest value.
    """
    read = torch.from_numpy(np.array(source.read(image, target)))
    if source.kind == "images":
        augmentation = plan.augmentation if view else Augmentation("none")
        pixels = (augmented_view(read[None], [image], view, augmentation, plan.seed)[0] + 1) / 2
    else:
        values = read[0] if source.kind == "latents" else read
        pixels = (values - values.min()) / (values.max() - values.min()).clamp_min(1e-12)
    pixels = pixels[:3] if len(pixels) >= 3 else pixels[:1]
    if (factor := pixels.shape[-1] // THUMBNAIL) > 1:
        pixels = torch.nn.functional.avg_pool2d(pixels[None], factor)[0]
    drawn: np.ndarray = (255 * pixels).round().clamp(0, 255).to(torch.uint8).numpy()
    return np.asarray(drawn[0] if len(drawn) == 1 else drawn.transpose(1, 2, 0))


def _result(study: Study, answers: Sequence[Mapping[str, Any]], timing: Mapping[str, Any]) -> Result:
    abouts = [answer["about"] for answer in answers]
    clusters = [{**_place(answer), **answer["clusters"]} for answer in answers if answer["clusters"]]
    kept = [{key: about[key] for key in ("path", "sha256", "step", "step_unit")} for about in abouts]
    return Result(
        version=__version__,
        command="neighbors",
        checkpoint=abouts[0] if len(abouts) == 1 else common_checkpoint(abouts[0], [about["path"] for about in abouts]),
        data={
            **described_data(study.first, answers[0]["used"], answers[0]["skipped"]),
            "class_names": study.source.class_names,
        },
        protocol=study.protocol,
        rows=tuple(Row(row) for answer in answers for row in answer["rows"]),
        timing=timing,
        warnings=study.first.denoiser.warnings,
        sections={
            **({"checkpoints": [*kept, *study.left_out]} if study.series else {}),
            "grid": [{**_place(answer), "queries": answer["grid"]} for answer in answers],
            **({"clusters": clusters} if clusters else {}),
        },
    )


def _place(answer: Mapping[str, Any]) -> dict[str, Any]:
    """What a picture says beside a checkpoint's part of it."""
    return {key: answer["rows"][0][key] for key in ("checkpoint", "step", "icr")}
