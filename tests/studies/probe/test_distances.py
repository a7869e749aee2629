"""`probe --distance-to-best`: distances by hand from the output of `features`, and runs that go on."""

# mypy: disable-error-code="arg-type"

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import EDM, FEW, LAYER, diffscope, left_behind
from safetensors.numpy import load_file

import diffscope as package
from diffscope.distributions.sliced import sliced_wasserstein, spread
from diffscope.results import Result
from diffscope.studies.probe import distances
from diffscope.studies.probe.plan import DISTANCES, Probing, row_keys

OPTIONS: dict[str, Any] = {
    "layer": (LAYER,), "augment": "none", "views": 1, "num_images": 144, "sigma": (0.3, 1.0, 3.0),
    "distance_to_best": True,
}  # fmt: skip


@pytest.fixture(scope="module")
def probed(pictures: Path) -> Result:
    return package.probe(EDM, pictures, input="both", posterior=True, seed=1, **OPTIONS)


@pytest.mark.parametrize(("prefix", "input"), [("", "noisy"), ("clean_", "clean")])
def test_distances_are_of_the_training_images(
    pictures: Path, tmp_path: Path, probed: Result, prefix: str, input: str
) -> None:
    file = tmp_path / "features.safetensors"
    levels = [word for sigma in OPTIONS["sigma"] for word in ("--sigma", sigma)]
    more = ("--data", pictures, *FEW, *levels, "--input", input, "--seed", 1, "--views", 1, "-o", file)
    assert diffscope("features", EDM, *more).code == 0
    train = np.random.default_rng(1).permutation(144)[36:]
    z = load_file(file)[LAYER][:, 0, train]
    best = int(np.argmax([row[f"{prefix}accuracy"] for row in probed.rows]))
    for level, row in enumerate(probed.rows):
        expected = sliced_wasserstein(z[level], z[best], seed=1)
        found = [row[f"{prefix}{key}"] for key in DISTANCES]
        assert found == [expected.value, expected.error, pytest.approx(expected.value / spread(z[best]))]
        assert (found[0] == 0) == (level == best)


def test_it_is_asked_of_all_that_is_probed(probed: Result) -> None:
    options = Probing(posterior=True, distance_to_best=True)
    keys = {f"{prefix}{key}" for prefix in ("", "clean_", "posterior_") for key in DISTANCES}
    assert keys == set(row_keys(options, both=True)) - set(row_keys(Probing(posterior=True), both=True))
    assert all(keys <= row.metrics.keys() for row in probed.rows)
    assert probed.protocol["probe"]["distance_to_best"] is True


def test_a_run_without_it_is_as_it_was(pictures: Path) -> None:
    plain = package.probe(EDM, pictures, **{**OPTIONS, "distance_to_best": False})
    assert not any(key.startswith("swd") for row in plain.rows for key in row)
    assert "distance_to_best" not in plain.protocol["probe"]


def test_a_run_that_is_stopped_goes_on(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measure, measured = distances.sliced_wasserstein, list[int]()

    def fails(*arguments: Any) -> Any:
        measured.append(1)
        if len(measured) == 3:
            raise KeyboardInterrupt
        return measure(*arguments)

    monkeypatch.setattr(distances, "sliced_wasserstein", fails)
    with pytest.raises(KeyboardInterrupt):
        package.probe(EDM, pictures, out=tmp_path, **OPTIONS)
    monkeypatch.setattr("diffscope.studies.probe.probe.fitted", lambda *_: pytest.fail("the levels were probed"))
    again = package.probe(EDM, pictures, out=tmp_path, **OPTIONS)
    assert len(measured) == 4  # two distances were there
    assert left_behind(tmp_path) == []
    monkeypatch.undo()
    assert again.rows == package.probe(EDM, pictures, **OPTIONS).rows


def test_the_command_line_shows_and_draws_it(pictures: Path, tmp_path: Path) -> None:
    levels = ("--sigma", 0.3, "--sigma", 1, "--distance-to-best", "--input", "both")
    ran = diffscope("probe", EDM, "--data", pictures, *FEW, *levels, "--views", 1, "--out", tmp_path)
    assert ran.code == 0, ran.err
    assert "SWD to best" in ran.out.splitlines()[0]
    assert "distances.png" in {path.name for path in tmp_path.iterdir()}
    gated = ("--fail-if", "swd_best<=0", "--quiet")
    assert diffscope("probe", EDM, "--data", pictures, *FEW, *levels, "--views", 1, *gated).code == 3
