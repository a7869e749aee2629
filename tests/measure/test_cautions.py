"""Warnings before a run: grey pictures for a network of colour pictures, noise levels that it was never trained at."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from diffscope.measure.cautions import cautions
from diffscope.measure.job import Job
from diffscope.measure.opening import open_job
from diffscope.options.settings import Loading, Settings
from diffscope.sources.base import open_source

CHECKPOINT = Path(__file__).parents[1] / "data" / "containers" / "edm_ddpmpp.pkl"


def job(folder: Path, pictures: np.ndarray, sigma: float = 0.5) -> Job:
    np.save(folder / "images.npy", pictures)
    return open_job(str(CHECKPOINT), open_source(str(folder / "images.npy")), Settings(sigma=(sigma,)), Loading())


def noise(channels: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (40, 8, 8, channels), dtype=np.uint8)


def test_grey_pictures(tmp_path: Path) -> None:
    assert cautions(job(tmp_path, noise(3))) == []
    for grey in (noise(1), noise(1).repeat(3, axis=3)):
        (line,) = cautions(job(tmp_path, grey))
        assert "the first 4 images are grey, and the network takes colour pictures" in line


@pytest.mark.parametrize(("sigma", "said"), [(0.002, False), (80.0, False), (0.0005, True), (1e4, True)])
def test_levels_far_from_training(sigma: float, said: bool, tmp_path: Path) -> None:
    lines = cautions(job(tmp_path, noise(3), sigma))
    assert bool(lines) is said
    assert not said or f"sigma {sigma:g}: such networks are trained from 0.002 to 80" in lines[0]
