"""Does the interval hold what it promises? On an analytic denoiser whose ICR has a closed form, from end to end."""

# mypy: disable-error-code="var-annotated"

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from commands import diffscope

from diffscope import api
from diffscope.families.base import Denoiser
from diffscope.measure.job import prepare
from diffscope.options.settings import Settings
from diffscope.results import Row
from diffscope.sources.base import open_source
from diffscope.studies.sweep.sweep import sweep

TOY = "toy:d=32,side=8"
COUNT = 4 * 32
"""The least at which `icr` is extrapolated, with neither a note nor a widened interval."""
SIGMA = 0.5
SEEDS = range(100)


@pytest.fixture(scope="module")
def toy() -> Denoiser:
    return api.load(TOY)[1]


@pytest.fixture(scope="module")
def rows(toy: Denoiser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Row]]:
    """ICR from other images and other noise for every seed; the network is built once."""
    checkpoint, _ = api.load(TOY)
    folder = tmp_path_factory.mktemp("parts")
    settings = Settings(sigma=(SIGMA,), augment="none", workers=0)
    with pytest.MonkeyPatch.context() as patch:
        # What is measured in milliseconds need not survive a power cut.
        patch.setattr("diffscope.cache.store.os.fsync", lambda file: None)
        found = []
        for seed in SEEDS:
            source = open_source(f"synthetic:count={COUNT},seed={seed}")
            job = prepare(checkpoint, toy, source, dataclasses.replace(settings, seed=seed))
            result, measured = sweep(job, "icr", folder=folder)
            measured.parts.clear()
            found += result.rows
        yield found


def test_the_interval_covers_the_truth(rows: list[Row], toy: Denoiser) -> None:
    truth = toy.closed_form_icr(SIGMA)  # type: ignore[attr-defined]
    assert 0.2 < truth < 0.9
    covered = sum(row["icr_low"] <= truth <= row["icr_high"] for row in rows)
    # Nominal 95 of 100; 90 is two binomial standard deviations (2.2 each) below.
    assert covered >= 90
    # And it is no wider than it need be: estimates scatter as much as they say.
    scatter, said = np.std([row["icr"] for row in rows]), np.median([row["icr_se"] for row in rows])
    assert 0.6 * said < scatter < 1.4 * said


def test_the_estimate_has_a_tenth_of_the_plug_in_bias(rows: list[Row], toy: Denoiser) -> None:
    truth = toy.closed_form_icr(SIGMA)  # type: ignore[attr-defined]
    error = {key: np.mean([row[key] for row in rows]) - truth for key in ("icr", "icr_raw", "icr_gauss")}
    # At N = 4d the inverse is inflated by c = 128/95: 2/(1 + c(2/ICR − 1)) instead of ICR.
    assert error["icr_raw"] == pytest.approx(2 / (1 + 128 / 95 * (2 / truth - 1)) - truth, rel=0.05)
    assert abs(error["icr"]) < abs(error["icr_raw"]) / 10
    assert abs(error["icr_gauss"]) < abs(error["icr_raw"]) / 10


def test_the_command_line_gives_the_same_numbers(rows: list[Row], tmp_path: Path) -> None:
    for seed in range(5):
        data = ("--data", f"synthetic:count={COUNT},seed={seed}", "--augment", "none", "--workers", 0)
        ran = diffscope("icr", TOY, *data, "--sigma", SIGMA, "--seed", seed, "--json")
        assert ran.code == 0
        assert ran.json["rows"] == [rows[seed].to_json()]
