"""Neighbours with known answers: planted classes, brute force, and the same whatever the chunks and batches."""

# mypy: disable-error-code="arg-type,call-overload,union-attr"

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import DATA, EDM, LAYER
from numpy.testing import assert_allclose
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from diffscope.errors import CheckpointError, DataError, MemoryLimit, NeedTwoViews, TooFewImages, UsageError, ZeroNoise
from diffscope.extraction import Extractor, Inputs, target_of
from diffscope.measure.job import Job
from diffscope.measure.opening import open_job
from diffscope.measure.progress import Listener
from diffscope.options.settings import Loading, Settings
from diffscope.results import Result
from diffscope.sources.arrays import ArraySource
from diffscope.sources.base import Source, Target, open_source
from diffscope.studies.neighbors import search as neighborhood
from diffscope.studies.neighbors.nearest import Nearest
from diffscope.studies.neighbors.neighbors import Neighbors, open_neighbors, thumbnail
from diffscope.studies.neighbors.options import Queries as Choices
from diffscope.studies.neighbors.search import BLOCK, OriginalFirst, QuerySplit, footprint, principal_plane, query_view
from diffscope.views import Augmentation, augmented_view, view_noise

CLASSES = 3
SNAPSHOT = "snapshot-0025600.safetensors"


class Planted(Source):
    """Floats in three classes: a centre of the class, and a tenth of that of the image's own."""

    kind = "floats"
    path = "planted"

    def __init__(self, count: int, unreadable: tuple[int, ...] = (), labelled: bool = True) -> None:
        rng = np.random.default_rng(0)
        labels = np.arange(count, dtype=np.int64) % CLASSES
        centres = rng.standard_normal((CLASSES, 1, 8, 8))
        self.images = (centres[labels] + 0.1 * rng.standard_normal((count, 1, 8, 8))).astype(np.float32)
        self.labels = labels if labelled else None
        self.unreadable = unreadable

    def __len__(self) -> int:
        return len(self.images)

    def name(self, index: int) -> str:
        return f"{'abc'[index % CLASSES]}/{index:04d}"

    def read(self, index: int, target: Target) -> np.ndarray:
        if index in self.unreadable:
            raise DataError(f"{self.name(index)}: torn")
        return self.images[index]

    def size(self, index: int) -> int:
        return 256

    def checksum(self, index: int) -> int:
        return index


SETTINGS = Settings(sigma=(0.5,), views=5, pool="flatten", augment="none", workers=0)


def study(source: Source, choices: Choices | None = None, model: str = "toy:d=32,side=8", **changes: Any) -> Neighbors:
    return open_neighbors([model], source, replace(SETTINGS, **changes), Loading(), choices or Choices())


@dataclass(frozen=True)
class Found:
    result: Result
    pictures: Mapping[tuple[int, int], np.ndarray]
    forget: Callable[[], None]


def done(planned: Neighbors, folder: Path, listener: Listener | None = None) -> Found:
    finished = planned.run(folder, listener or Listener())
    return Found(finished.result, finished.result.pictures, finished.forget)


def found(source: Source, folder: Path, choices: Choices | None = None, **changes: Any) -> Found:
    return done(study(source, choices, **changes), folder)


def job_of(planned: Neighbors) -> Job:
    """Of its first checkpoint."""
    path = planned.snapshots[0].path
    return planned._arranged(open_job(path, planned.source, planned.settings, planned.loading))


def names(result: Any) -> list[Any]:
    """Who stands in the grid, without numbers that may differ in their last digit."""
    return [
        (query["image"], component, [(near["image"], near["view"]) for near in query[component]["neighbors"]])
        for part in result.sections["grid"]
        for query in part["queries"]
        for component in ("s", "xi")
    ]


# --- the search


@pytest.mark.parametrize("chunk", [1, 7, 1000])
@pytest.mark.parametrize("shown", [1, 13, 200])
def test_chunks_find_what_brute_force_finds(chunk: int, shown: int) -> None:
    rng = torch.Generator().manual_seed(0)
    items, queries = torch.randn(200, 12, generator=rng), torch.randn(9, 12, generator=rng)
    owners, own = torch.arange(200) // 4, torch.arange(9) * 5
    nearest = Nearest(queries, own, 6, chunk)
    for start in range(0, 200, shown):
        part = slice(start, start + shown)
        nearest.update(items[part], owners[part], torch.arange(200)[part])
    a, b = items.double().numpy(), queries.double().numpy()
    cosine = (b @ a.T) / np.linalg.norm(b, axis=1)[:, None] / np.linalg.norm(a, axis=1)
    cosine[own.numpy()[:, None] == owners.numpy()] = -np.inf
    expected = np.argsort(-cosine, axis=1)[:, :6]
    assert nearest.items.tolist() == expected.tolist()
    assert_allclose(nearest.similarity, np.take_along_axis(cosine, expected, 1), atol=1e-6)  # float32


def test_length_does_not_matter() -> None:
    items, owners = torch.eye(3), torch.arange(3)
    far = Nearest(torch.tensor([[2.0, 1.0, 0.0]]), torch.tensor([9]), 2)
    far.update(torch.diag(torch.tensor([1e-3, 1e3, 1.0])) @ items, owners, owners)
    assert far.items.tolist() == [[0, 1]]
    assert_allclose(far.similarity, [[2 / 5**0.5, 1 / 5**0.5]], rtol=1e-6)


# --- whole runs


def test_planted_classes_are_found_by_s_and_not_by_xi(tmp_path: Path) -> None:
    """ξ is noise alone here, σA·noise, which knows nothing of the class: its share is chance."""
    result = found(Planted(120), tmp_path).result
    by_s, by_xi = result.rows
    assert (by_s["component"], by_xi["component"]) == ("s", "xi")
    assert by_s["same_class"] == 1.0
    assert by_s["chance"] == pytest.approx(39 / 119)
    assert abs(by_xi["same_class"] - by_xi["chance"]) < 4 * by_xi["same_class_se"]
    assert by_xi["same_class_se"] == pytest.approx((1 / 3 * 2 / 3 / 5 / 120) ** 0.5, rel=0.3)  # binomial
    assert all(row["queries"] == row["n"] == 120 for row in result.rows)


def brute_force(planned: Neighbors) -> list[Any]:
    """Everything in memory, in float64."""
    job, k = job_of(planned), planned.choices.k
    extractor = Extractor(job.denoiser, OriginalFirst(job.source, job.plan), job.plan)
    z = torch.cat([features.z for features in extractor.run(sorted(planned.images.candidates))]).double().numpy()
    images, views = np.array(sorted(planned.images.candidates)), z.shape[1]
    mean = z.mean(1)
    s, xi = mean - mean.mean(0), (z - mean[:, None]).reshape(len(images) * views, -1)
    by_name = []
    for image in planned.images.shown:
        row = int(np.flatnonzero(images == image)[0])
        view = query_view(job.plan.seed, image, views)
        for component, items, query in (("s", s, s[row]), ("xi", xi, xi[row * views + view])):
            owner = images if component == "s" else images.repeat(views)
            cosine = items @ query / np.linalg.norm(items, axis=1) / np.linalg.norm(query)
            cosine[owner == image] = -np.inf
            order = np.argsort(-cosine)[:k]
            of = [(int(owner[i]), None if component == "s" else int(i % views)) for i in order]
            by_name.append((image, component, of))
    return by_name


@pytest.mark.parametrize("num_queries", [1, 10, 70])
@pytest.mark.parametrize("block", [BLOCK, 4096])
def test_blocks_find_what_brute_force_finds(
    num_queries: int, block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With few queries, most images pass by once and leave only their means."""
    monkeypatch.setattr(neighborhood, "BLOCK", block)
    planned = study(Planted(70), Choices(num_queries=num_queries, rows=6, k=7))
    assert names(done(planned, tmp_path).result) == brute_force(planned)


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_batches_change_nothing(batch_size: int, tmp_path: Path) -> None:
    choices = Choices(num_queries=11, clusters=True)
    whole = found(Planted(50), tmp_path / "a", choices, batch_size=5).result
    other = found(Planted(50), tmp_path / "b", choices, batch_size=batch_size).result
    assert names(other) == names(whole)
    assert [row["same_class"] for row in other.rows] == [row["same_class"] for row in whole.rows]
    a, b = (
        [near["similarity"] for query in result.sections["grid"][0]["queries"] for near in query["xi"]["neighbors"]]
        for result in (whole, other)
    )
    assert_allclose(a, b, atol=2e-6)  # they are written with six decimals
    assert other.protocol["hash"] == whole.protocol["hash"]


def test_what_was_computed_is_not_computed_again(tmp_path: Path) -> None:
    choices = Choices(num_queries=10)
    whole = found(Planted(64), tmp_path / "whole", choices)
    passes = 0

    def stop(count: int) -> None:
        nonlocal passes
        passes += count
        if passes > 150:
            raise KeyboardInterrupt

    planned = study(Planted(64), choices)
    with pytest.raises(KeyboardInterrupt):
        planned.run(tmp_path / "cut", Listener(stop))
    left = {path: path.stat().st_ino for path in (tmp_path / "cut").glob("parts-*/part-*")}
    assert len(left) > 10
    said: list[str] = []
    again = done(study(Planted(64), choices), tmp_path / "cut", Listener(say=said.append))
    assert any(f"{len(left)} of " in line for line in said)
    assert {**again.result.to_json(), "timing": 0} == {**whole.result.to_json(), "timing": 0}
    again.forget()
    assert list((tmp_path / "cut").iterdir()) == []


def test_a_finished_checkpoint_is_found_until_the_result_is_out(tmp_path: Path) -> None:
    first = found(Planted(40), tmp_path)
    (record,) = tmp_path.glob("neighbors-*/*.json")
    again = found(Planted(40), tmp_path)
    assert record.exists()
    assert again.result.rows == first.result.rows
    again.forget()
    assert list(tmp_path.iterdir()) == []


def test_an_image_of_ones_own_is_no_neighbour(tmp_path: Path) -> None:
    """A query outside the subset asks, and is nobody's neighbour."""
    source = Planted(60)
    outside = next(i for i in range(60) if i not in study(source, num_images=20).images.candidates)
    result = found(source, tmp_path, Choices((str(outside), "0003"), num_queries=20), num_images=20).result
    assert [query["image"] for query in result.sections["grid"][0]["queries"]] == [outside, 3]
    for image, _, near in names(result):
        assert {image, outside}.isdisjoint(other for other, _ in near)
    assert [row["n"] for row in result.rows] == [20, 20]


def test_icr_stands_beside_or_its_reason(tmp_path: Path) -> None:
    """Closed form of the toy, at σ² of pixels of variance 1/j; planted images have none."""
    from diffscope.sources.base import open_source

    result = found(open_source("synthetic:count=400"), tmp_path / "a", num_images=400).result
    assert 0 < result.rows[0]["icr"] < 1
    assert [row["same_class"] for row in result.rows] == [None, None]
    assert all("no_labels" in row["notes"][0] for row in result.rows)
    # The figures in one row are not of the same views, and say so; with those of ICR there is nothing to say.
    assert all("icr_of_two_views: ICR is that of diffscope icr" in str(row["notes"]) for row in result.rows)
    alike = found(open_source("synthetic:count=400"), tmp_path / "c", num_images=400, views=2, pool="mean").result
    assert alike.rows[0]["icr"] == result.rows[0]["icr"]
    assert not [note for row in alike.rows for note in row["notes"] if note.startswith("icr_of")]
    few = found(Planted(20), tmp_path / "b").result
    assert few.rows[0]["icr"] is None
    assert any(note.startswith("no_icr: ") for note in few.rows[0]["notes"])


def test_unreadable_images_are_left_out_and_asked_ones_are_errors(tmp_path: Path) -> None:
    source = Planted(100, unreadable=(7,))
    result = found(source, tmp_path, Choices(("1",))).result
    assert [row["n"] for row in result.rows] == [99, 99]
    assert result.data["skipped"] == [{"file": "b/0007", "why": "b/0007: torn"}]
    with pytest.raises(DataError, match=r"`query=b/0007.*torn"):
        found(source, tmp_path, Choices(("7",)))


def test_a_broken_snapshot_is_left_out_with_its_reason(tmp_path: Path) -> None:
    series, broken = DATA / "series", tmp_path / "snapshot-0999999.safetensors"
    tensors = {name: np.full_like(value, np.nan) for name, value in load_file(series / SNAPSHOT).items()}
    with safe_open(series / SNAPSHOT, framework="np") as file:
        save_file(tensors, broken, metadata={**file.metadata(), "step": "999999"})
    settings = replace(SETTINGS, sigma=(0.3,), pool="mean", num_images=24)
    paths, images = [str(series / SNAPSHOT), str(broken)], open_source(str(series / "images.npz"))
    warned: list[str] = []
    planned = open_neighbors(paths, images, settings, Loading(), Choices())
    result = planned.run(tmp_path / "out", Listener(warn=warned.append)).result
    assert {row["checkpoint"] for row in result.rows} == {paths[0]}
    (line,) = [line for line in warned if line.startswith("left out: ")]
    assert str(broken) in line
    assert result.sections["checkpoints"][-1]["path"] == str(broken)
    strict = open_neighbors(paths, images, replace(settings, strict=True), Loading(), Choices())
    with pytest.raises(CheckpointError, match="not finite"):
        strict.run(tmp_path / "strict", Listener())


# --- refusals


@pytest.mark.parametrize(
    ("choices", "changes", "error", "words"),
    [
        (Choices(("30",)), {}, DataError, "images 0 to 29"),
        (Choices(("z/9",)), {}, DataError, "no such image"),
        (Choices(k=30), {}, TooFewImages, "31"),
        (Choices(), {"views": 1}, NeedTwoViews, "at least 2"),
        (Choices(), {"sigma": ()}, UsageError, "sweep"),
        (Choices(), {"sigma": (0.1, 0.2)}, UsageError, "one noise level"),
        (Choices(), {"layer": ("all",)}, UsageError, "one `layer=`"),
    ],
)
def test_questions_without_an_answer(choices: Choices, changes: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        study(Planted(30), choices, **changes)


def test_views_that_do_not_differ_have_no_residual(tmp_path: Path) -> None:
    with pytest.raises(ZeroNoise, match="`augment=`"):
        found(Planted(30), tmp_path, input="clean")


# --- memory


def test_fifty_thousand_images_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted, not allocated: all views would be 49 GB."""
    need = footprint(queries=2000, others=48_000, views=15, d=16_384, k=5)
    assert need.memory < 1e9
    assert need.disk < 8e9
    images = tuple(range(50_000))
    split = QuerySplit(images[:4], frozenset(), images[:2000], frozenset(images), images[:2000], images[2000:])
    blocks, asking = split.blocks(15, 16_384)
    assert [image for block in blocks for image in block] == list(images)
    assert max(len(block) for block in blocks[:asking]) * 15 * 16_384 * 4 <= BLOCK
    assert max(len(block) for block in blocks[asking:]) * 16_384 * 4 <= BLOCK
    assert footprint(4000, 46_000, 15, 16_384, 5).memory > need.memory


def test_too_little_memory_is_said_before_the_run(tmp_path: Path) -> None:
    with pytest.raises(MemoryLimit, match="`num_queries=`"):
        found(Planted(30), tmp_path, max_memory=1000)
    said: list[str] = []
    study(Planted(30)).run(tmp_path, Listener(say=said.append))
    assert "30 images × 5 views, 32 features each: at most" in said[0]


# --- views and pictures


def pictures(count: int) -> ArraySource:
    images = np.random.default_rng(0).integers(0, 256, (count, 16, 16, 3), dtype=np.uint8)
    return ArraySource(images, "pictures", np.arange(count) % 2)


def test_the_first_view_is_the_image_as_it_is() -> None:
    job = job_of(study(pictures(12), model=EDM, layer=(LAYER,), augment="crop+flip+jitter", batch_size=4))
    mine, usual = OriginalFirst(job.source, job.plan), Inputs(job.source, job.plan)
    target = target_of(job.denoiser)
    for a, b in zip(mine.batches(job.denoiser, [5, 1, 2]), usual.batches(job.denoiser, [5, 1, 2]), strict=True):
        read = torch.from_numpy(np.stack([job.source.read(i, target) for i in a.indices]))
        views_a, views_b = (batch.signal.unflatten(0, (-1, 5)) for batch in (a, b))
        assert torch.equal(views_a[:, 0], read.float() / 127.5 - 1)
        assert torch.equal(views_a[:, 1:], views_b[:, 1:])
        assert not torch.equal(views_a[:, 0], views_b[:, 0])
        assert a.noise is not None
        noise = a.noise.unflatten(0, (-1, 5))
        assert torch.equal(noise[:, 0], view_noise(a.indices, 0, tuple(noise.shape[2:]), 0))


def test_thumbnails_are_the_views_compared() -> None:
    job = job_of(study(pictures(12), model=EDM, layer=(LAYER,), augment="crop+flip+jitter"))
    target = target_of(job.denoiser)
    read = torch.from_numpy(job.source.read(3, target))
    view = augmented_view(read[None], [3], 2, Augmentation(), 0)[0]
    assert np.array_equal(thumbnail(job.source, target, job.plan, 3, 0), read.permute(1, 2, 0))
    drawn = thumbnail(job.source, target, job.plan, 3, 2)
    assert_allclose(drawn, ((view + 1) * 127.5).permute(1, 2, 0), atol=0.51)  # rounded
    floats = job_of(study(Planted(30)))
    shown = thumbnail(floats.source, target_of(floats.denoiser), floats.plan, 0, 0)
    assert (shown.shape, int(shown.min()), int(shown.max())) == ((8, 8), 0, 255)


def test_every_picture_of_the_grid_is_there(tmp_path: Path) -> None:
    whole = found(Planted(30), tmp_path, Choices(clusters=True))
    named = {
        (near["image"], near["view"] or 0)
        for query in whole.result.sections["grid"][0]["queries"]
        for component in ("s", "xi")
        for near in query[component]["neighbors"]
    }
    assert named <= set(whole.pictures)


def test_queries_are_of_many_classes() -> None:
    source = Planted(30)
    assert source.labels is not None
    assert {int(source.labels[i]) for i in study(source, Choices(rows=3)).images.shown} == {0, 1, 2}
    assert study(source).images.shown != study(source, seed=1).images.shown
    drawn = [query_view(0, image, 5) for image in range(500)]
    assert np.bincount(drawn, minlength=5).min() > 70  # 100 expected, σ = 9


def test_the_plane_is_that_of_largest_variance(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    plane = rng.standard_normal((20, 2)) * [5, 2]
    basis, _ = np.linalg.qr(rng.standard_normal((30, 2)))
    points, explained = principal_plane(plane @ basis.T + 7)
    values = np.linalg.eigvalsh(np.cov(plane.T, bias=True) * 20)[::-1]
    assert_allclose((points**2).sum(0), values, rtol=1e-9)
    assert_allclose(explained, values / values.sum(), rtol=1e-9)
    distance = [np.linalg.norm(of[:, None] - of[None], axis=2) for of in (points, plane)]
    assert_allclose(*distance, atol=1e-9)  # nothing is lost of what lies in a plane
    (clusters,) = found(Planted(30), tmp_path, Choices(clusters=True)).result.sections["clusters"]
    assert [len(image["points"]) for image in clusters["images"]] == [5] * 4
