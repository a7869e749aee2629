"""What a run would take: counts are those of the run, and nothing is written to find them."""

from __future__ import annotations

from pathlib import Path

import pytest
from commands import DATA, EDM, LAYER, SIT_LATENTS, prepared

from diffscope.errors import MemoryLimit, TooFewImages
from diffscope.measure.estimate import Estimate, estimate
from diffscope.measure.memory import total_passes
from diffscope.measure.opening import open_images
from diffscope.measure.progress import Listener
from diffscope.options.settings import Loading, Settings
from diffscope.studies.features import export
from diffscope.studies.memorization.options import Choices
from diffscope.studies.memorization.study import open_memorization
from diffscope.studies.neighbors.neighbors import open_neighbors
from diffscope.studies.neighbors.options import Queries
from diffscope.studies.probe.options import Probing
from diffscope.studies.probe.plan import plan
from diffscope.studies.probe.probe import estimate_probe
from diffscope.studies.sweep.sweep import sweep
from diffscope.studies.track.track import open_track

VAE = str(DATA / "sit" / "diffusers-vae")
SERIES = DATA / "series"
IMAGES = str(SERIES / "images.npz")


@pytest.fixture(autouse=True)
def nothing_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DIFFSCOPE_CACHE_DIR", str(tmp_path / "cache"))


def settings(**more: object) -> Settings:
    return Settings(**{"augment": "none", "workers": 0, "views": 3, **more})  # type: ignore[arg-type]


def checked(found: Estimate, passes: int) -> None:
    assert found.passes == passes
    assert found.seconds > 0
    assert len(found.lines()) == 3
    assert f"{passes:,} passes" in found.lines()[0]


@pytest.mark.parametrize("max_memory", [None, 3_000_000])
def test_a_sweep_takes_what_was_said(max_memory: int | None, pictures: Path, tmp_path: Path) -> None:
    chosen = settings(layer=(LAYER, "dec.8x8_in0"), sigma=(0.2, 0.5, 2.0), max_memory=max_memory)
    job = prepared(EDM, str(pictures), chosen)
    found = estimate(job)
    checked(found, total_passes(job))
    assert (found.images, found.views, found.levels) == (200, 3, 3)
    assert found.protocol == job.protocol.to_json()
    assert not list(tmp_path.glob("cache/*"))
    most = [0]

    def look(passes: float) -> None:
        most[0] = max(most[0], sum(path.stat().st_size for path in (tmp_path / "out").glob("parts-*/part-*")))

    sweep(job, "sweep", Listener(look), tmp_path / "out")
    # Without the last block, which is written when all passes are done; with headers.
    assert 0.85 * found.disk < most[0] < 1.1 * found.disk


def test_latents_are_not_kept(pictures: Path, tmp_path: Path) -> None:
    job = prepared(SIT_LATENTS, str(pictures), settings(sigma=(0.5,)), config={"num_heads": "3"}, vae=VAE)
    checked(estimate(job), 600)
    assert not list(tmp_path.glob("cache/*"))


def test_what_would_fail_fails() -> None:
    with pytest.raises(TooFewImages):
        estimate(prepared("toy:d=8,side=8", "synthetic:count=4", settings()))
    with pytest.raises(MemoryLimit):
        estimate(prepared("toy:d=8,side=8", "synthetic:count=64", settings(max_memory=1000)))


def test_a_run_of_snapshots(tmp_path: Path) -> None:
    chosen = settings(sigma=(0.3,))
    source = open_images(chosen, IMAGES)
    tracker = open_track([str(SERIES)], source, chosen, Loading())
    found = tracker.estimate()
    checked(found, 16 * 64 * 3)
    assert found.checkpoints == 16
    assert found.protocol["checkpoint"] is None
    # Beside held-out images both are seen twice, once for the loss; a level that is to be chosen takes a sweep more.
    held = open_track([str(SERIES)], source, chosen, Loading(), holdout=source)
    checked(held.estimate(), 4 * 16 * 64 * 3)
    free = open_track([str(SERIES)], source, settings(), Loading(), rule="short").estimate()
    checked(free, 16 * 64 * 3 + 64 * 3 * 12)
    assert "sigmas" not in free.protocol
    # The alarm's views, three levels, and as many images in two views for the loss, plain and augmented.
    pooled = open_track([str(SERIES)], source, settings(augment="crop"), Loading()).estimate()
    checked(pooled, 16 * 64 * 3 * (8 + 2 * 2))
    assert not list(tmp_path.glob("cache/*"))


def test_neighbors_and_memorization(tmp_path: Path) -> None:
    chosen = settings(sigma=(0.3,))
    source = open_images(chosen, IMAGES)
    neighbors = open_neighbors([str(SERIES / "snapshot-0025600.safetensors")], source, chosen, Loading(), Queries())
    checked(neighbors.estimate(), 64 * 3)
    choices = Choices(samples=6, steps=3)
    memorization = open_memorization([str(SERIES)], source, choices, Loading()).estimate()
    checked(memorization, 16 * 6 * 5)
    assert memorization.images == 6
    assert not list(tmp_path.glob("cache/*"))


def test_features_and_probe(pictures: Path, tmp_path: Path) -> None:
    job = prepared(EDM, str(pictures), settings(layer=(LAYER,), sigma=(0.2, 0.5)))
    found = export.estimate(job)
    checked(found, 200 * 3 * 2)
    path = tmp_path / "features.safetensors"
    export.export(job, path)
    assert path.stat().st_size == pytest.approx(found.disk, rel=0.05)
    probed = estimate_probe(plan(job, Probing()))
    assert probed.passes == 200 * 3 * 2 + 200 * 2
