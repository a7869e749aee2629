"""Which images are near a query by the invariant part of their features, and which views by the residual.

With V views of each image, z_iv = μ + s_i + ξ_iv: s_i is the mean over the views less the mean over all images, ξ_iv
what is left of a view. Images are neighbours by the cosine of s, views by that of ξ; nothing of the query's own image
is among them. If features separate what an image shows from how it is shown, neighbours by s are of the query's class
and neighbours by ξ are cropped, lit and noised alike: figures 2 and 7 of Li et al., 2026,
https://arxiv.org/abs/2606.09718.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from diffscope import __version__
from diffscope.cache.sizes import in_bytes
from diffscope.cache.store import Parts
from diffscope.encoders import Encoder
from diffscope.errors import EstimationError, MemoryLimit, NeedTwoViews, StoreError, UsageError
from diffscope.extraction import Plan, target_of
from diffscope.families.base import Denoiser
from diffscope.measure.description import described_data
from diffscope.measure.encoding import open_encoders, protocol_of_encoders, seconds_of
from diffscope.measure.estimate import Estimate, of_job, passes_a_second
from diffscope.measure.job import Job, prepare
from diffscope.measure.memory import half_of_memory
from diffscope.measure.progress import Listener
from diffscope.measure.run import measure
from diffscope.measure.series import Answer, Series, find
from diffscope.measure.snapshots import Snapshot
from diffscope.measure.study import Finished
from diffscope.options.beside import Beside
from diffscope.options.settings import Loading, Settings
from diffscope.protocol import digest
from diffscope.results import Result, Row
from diffscope.sources.base import Source, Target
from diffscope.studies.neighbors.beside import check_room, encoder_row, named
from diffscope.studies.neighbors.choices import split
from diffscope.studies.neighbors.options import Queries
from diffscope.studies.neighbors.search import Footprint, QuerySplit, Search, footprint
from diffscope.views import Augmentation, augmented_view

VIEWS = 15
"""The image as it is and 14 augmentations of it, as in the paper."""
THUMBNAIL = 128
"""Pixels to which larger pictures are reduced."""


def check_settings(settings: Settings) -> None:
    """What the command line alone shows to be wrong; NeedTwoViews beside."""
    if not settings.sigma and not settings.t:
        raise UsageError("neighbors needs a noise level: `sigma=S` or `t=T`; to find the best one: diffscope sweep")
    levels = len(settings.sigma) + len(settings.t)
    if levels > 1:
        raise UsageError(f"neighbors takes one noise level, not {levels}; run it once for each")
    if len(settings.layer) > 1 or "all" in settings.layer:
        raise UsageError(f"neighbors takes one `layer=`, not {', '.join(settings.layer)}; run it once for each")
    if settings.views < 2:
        raise NeedTwoViews(f"`views={settings.views}`: a residual is what views differ in; at least 2 are needed")


@dataclass(kw_only=True)
class Neighbors(Series):
    """Finds the neighbours of one checkpoint after another.

    Attributes:
        choices: Whose neighbours, and how many.
        images: Which images play which part.
    """

    choices: Queries
    images: QuerySplit
    beside: Beside = field(default_factory=Beside)
    """Encoders whose neighbours are looked at as well."""
    _encoders: tuple[Encoder, ...] | None = field(default=None, init=False)
    _job: Job | None = field(default=None, init=False)
    """Of the first checkpoint, beside which the encoders stand."""
    _drawing: tuple[Target, Plan] | None = field(default=None, init=False)
    """What draws the images as the first network takes them."""
    _finished: Path | None = field(default=None, init=False)
    """The folder of records."""

    @property
    def unit(self) -> str:
        """What progress counts."""
        return "passes"

    @property
    def each(self) -> float:
        """Those of the search; those that measure ICR are few beside them and not counted."""
        return float((len(self.images.queries) + len(self.images.others)) * self.settings.views)

    @property
    def total(self) -> float:
        """With an image of an encoder counted as a pass."""
        images = len(self.images.queries) + len(self.images.others)
        return super().total + images * len(self.beside.beside)

    def run(self, folder: Path | None, listener: Listener) -> Finished:
        """All checkpoints, then the encoders beside them."""
        finished = super().run(folder, listener)
        if not self._encoders:
            return finished
        assert self._job is not None
        assert isinstance(finished.result, Result)
        parts = Parts(self._place(), digest({"beside": self._shared(self._job)["hash"]}))
        parts.claim(listener.say)
        unreadable = [entry["file"] for entry in self.in_order()[0][1].data["skipped"]]
        rows = [
            encoder_row(encoder, self._job, self.images, unreadable, self.choices.k, parts, listener)
            for encoder in self._encoders
        ]
        target, plan = target_of(self._job.denoiser), self._job.plan
        seen = finished.result.pictures
        more = {(image, 0): thumbnail(self.source, target, plan, image, 0) for image in named(rows)}

        def forget() -> None:
            finished.forget()
            parts.clear()

        return Finished(replace(finished.result, pictures={**more, **seen}).having(beside=tuple(rows)), forget)

    def result(self) -> Result:
        """Of the checkpoints taken so far; CheckpointError where none could be."""
        head = self._head()
        answers = [taken.answer for _, taken in self.in_order()]
        clusters = [{**_place(answer), **answer["clusters"]} for answer in answers if answer["clusters"]]
        return Result(
            **head,
            version=__version__,
            command="neighbors",
            rows=tuple(Row(row) for answer in answers for row in answer["rows"]),
            sections={
                **({"checkpoints": self._checkpoints()} if self.is_series else {}),
                "grid": [{**_place(answer), "queries": answer["grid"]} for answer in answers],
                **({"clusters": clusters} if clusters else {}),
            },
            pictures=self._pictures(),
        )

    def _pictures(self) -> dict[tuple[int, int], np.ndarray]:
        """(image, view) → uint8 [H, W] or [H, W, 3]: the views that the result names.

        View 0 is the image as it is.
        """
        assert self._drawing is not None
        target, plan = self._drawing
        wanted = {named for _, taken in self.in_order() for named in _named(taken.answer)}
        return {at: thumbnail(self.source, target, plan, *at) for at in sorted(wanted)}

    def _arranged(self, job: Job) -> Job:
        return replace(job, indices=np.array([*self.images.queries, *self.images.others]))

    def _shared(self, job: Job) -> dict[str, Any]:
        if self._encoders is None:
            self._encoders = open_encoders(job, self.beside)
            check_room(self._encoders, job, len(job.indices))
        return protocol_of(job, self.images, self.choices, self.is_series, self._encoders)

    def _records_folder(self, job: Job) -> Path:
        own = protocol_of(job, self.images, self.choices, self.is_series)["hash"]
        self._finished = self._place() / f"neighbors-{own[:16]}"
        return self._finished

    def _estimate(self, job: Job) -> Estimate:
        need = self._footprint(job)
        seconds = super().total / passes_a_second(job)
        count = len(self.snapshots)
        shared, encoders = self._shared(job), self._encoders or ()
        images = len(job.indices)
        seconds += seconds_of(encoders, job, images)
        disk = need.disk + 4 * images * sum(encoder.dims for encoder in encoders)
        return of_job(job, int(self.total), need.memory, disk, seconds, shared, count)

    def _footprint(self, job: Job) -> Footprint:
        d = job.plan.width(job.plan.layers[0])
        return footprint(len(self.images.queries), len(self.images.others), job.plan.views, d, self.choices.k)

    def _begin(self, job: Job) -> None:
        self._drawing, self._job = (target_of(job.denoiser), job.plan), job
        _check_room(job, self.images, self.choices, self._place(), self.listener)

    def _measure(self, job: Job, snapshot: Snapshot, listener: Listener) -> Answer:
        """Computed block by block, or from where an earlier command left it."""
        blocks = Parts(self._place(), protocol_of(job, self.images, self.choices)["hash"])
        blocks.claim(listener.say)
        icr, note = _icr(job, self.settings, self.folder)
        search = Search(job, self.images, self.choices.k, self.choices.clusters, blocks, listener)
        search.run()
        answer = search.answer(snapshot, icr, note)
        data = described_data(job, answer.pop("used"), answer.pop("skipped"))
        return answer, {**data, "class_names": self.source.class_names}, blocks.clear

    def _forget(self) -> None:
        if self._finished is not None:
            shutil.rmtree(self._finished, ignore_errors=True)


def open_neighbors(
    checkpoints: Sequence[str | Denoiser],
    source: Source,
    settings: Settings,
    loading: Loading,
    choices: Queries,
    beside: Beside | None = None,
) -> Neighbors:
    """One checkpoint or several of one run, or their folder; no image is read yet.

    Args:
        checkpoints: Paths, or one network in memory.
        source: The images.
        settings: With one noise level and one layer.
        loading: How checkpoints are read.
        choices: Whose neighbours, and how many.
        beside: Encoders whose neighbours are looked at as well.

    Raises:
        UsageError: If settings or queries are none that this question takes.
        NeedTwoViews: If there is one view, which has no residual.
        TooFewImages: If there are fewer images than neighbours.
        DataError: If an image that was named is not there.
        CheckpointError: If there is no checkpoint, or one that cannot be taken where settings are strict.
    """
    check_settings(settings)
    images = split(source, settings, choices)
    snapshots, left_out, network = find(checkpoints, None, loading.weights)
    study = Neighbors(
        source=source,
        settings=settings,
        loading=loading,
        snapshots=snapshots,
        network=network,
        choices=choices,
        images=images,
        beside=beside or Beside(),
    )
    study.leave_out(left_out)
    return study


def protocol_of(
    job: Job, images: QuerySplit, choices: Queries, series: bool = False, encoders: Sequence[Encoder] = ()
) -> dict[str, Any]:
    """What the neighbours depend on, with its hash; of a series without the checkpoint."""
    own = job.protocol.shared() if series else job.protocol
    fields = {key: value for key, value in own.to_json().items() if key != "hash"}
    fields["neighbors"] = {
        "first_view": "the image as it is",
        "similarity": "cosine",
        "s": "mean over views less the mean over images",
        "xi": "view less the mean over views",
        "excluded": "the query's own image",
        "k": choices.k,
        "queries": len(images.counted),
        "shown": list(images.shown),
        "clusters": choices.clusters,
    }
    fields |= protocol_of_encoders(encoders)
    return {**fields, "hash": digest(fields)}


# --- memory and disk


def _check_room(job: Job, split: QuerySplit, choices: Queries, folder: Path, listener: Listener) -> None:
    """Say what the run takes; MemoryLimit or StoreError where there is less."""
    plan = job.plan
    d, images = plan.width(plan.layers[0]), len(job.indices)
    need = footprint(len(split.queries), len(split.others), plan.views, d, choices.k)
    limit = job.settings.max_memory or half_of_memory()
    if need.memory > limit:
        raise MemoryLimit(
            f"{len(split.queries)} queries of {d} features need {in_bytes(need.memory)}, more than `max_memory=` "
            f"{in_bytes(limit)}; take fewer `num_queries=`, `pool=mean`, or a larger `max_memory=`"
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
            f"{folder}: {in_bytes(free)} are free, the features take {in_bytes(need.disk)}; take another `out=`, "
            "fewer `num_images=` or `num_queries=`, or `pool=mean`"
        )


# --- one checkpoint


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
        f"{settings.views} views, `pool={settings.pool}`"
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
    if source.are_pictures:
        augmentation = plan.augmentation if view else Augmentation("none")
        pixels = (augmented_view(read[None], [image], view, augmentation, plan.seed, pictures=True)[0] + 1) / 2
    else:
        values = read[0] if source.kind == "latents" else read
        pixels = (values - values.min()) / (values.max() - values.min()).clamp_min(1e-12)
    pixels = pixels[:3] if len(pixels) >= 3 else pixels[:1]
    if (factor := pixels.shape[-1] // THUMBNAIL) > 1:
        pixels = torch.nn.functional.avg_pool2d(pixels[None], factor)[0]
    drawn: np.ndarray = (255 * pixels).round().clamp(0, 255).to(torch.uint8).numpy()
    return np.asarray(drawn[0] if len(drawn) == 1 else drawn.transpose(1, 2, 0))


def _place(answer: Mapping[str, Any]) -> dict[str, Any]:
    """What a picture says beside a checkpoint's part of it."""
    return {key: answer["rows"][0][key] for key in ("checkpoint", "step", "icr")}
