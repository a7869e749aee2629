"""`diffscope network check`: what a trained network predicts shows by what denoises."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from commands import diffscope, refused
from owned import CASES, EPS, EPS_FILE, FLOW, FLOW_FILE, NETWORKS, SIGMA, SIGMA_FILE, SIGMA_FILES
from train import images, training

from diffscope.checkpoints import read
from diffscope.families import OwnNetwork


@pytest.mark.parametrize("case", CASES)
def test_the_right_prediction_fits_and_no_other(case: str, pictures: Path) -> None:
    path, said, right = CASES[case]
    command = ("network", "check", path, *said, "--data", pictures, "--predicts")
    ran = diffscope(*command, right, "--json")
    assert (ran.code, ran.err) == (0, "")
    found = ran.json
    assert (found["verdict"], found["best"]["predicts"]) == ("right", right)
    rows = {row["predicts"]: row for row in found["rows"] if not row["noise"]}
    assert all(left < 1 for left in rows[right]["left"])
    assert rows[right]["nearer"] == [16, 16, 16]
    wrong = [name for name in rows if name != right and {name, right} != {"x0", "denoised"}]
    assert len(wrong) >= 2
    for name in wrong:
        ran = diffscope(*command, name)
        assert ran.code == 3
        assert f"--predicts {name} is clearly wrong: at σ = " in ran.err
        assert f"where --predicts {right.replace('denoised', 'x0')}" in ran.err
        assert "as said" in ran.out


def test_a_network_of_a_second_s_training_is_enough(pictures: Path) -> None:
    command = ("network", "check", SIGMA_FILES[0], *SIGMA, "--data", pictures, "--predicts")
    assert diffscope(*command, "denoised").code == 0
    assert diffscope(*command, "eps").code == 3


def test_numbers_are_those_of_the_definition(pictures: Path) -> None:
    """x0 of the σ-denoiser at one level, recomputed from the loss of `track`: the same images, other noise."""
    command = ("network", "check", SIGMA_FILE, *SIGMA, "--predicts", "denoised", "--data", pictures)
    ran = diffscope(*command, "--sigma", 0.5, "--num-images", 200, "--json")
    (row,) = [row for row in ran.json["rows"] if row["chosen"]]
    _, denoiser = OwnNetwork(f"{NETWORKS / 'sigma_denoiser.py'}:make", 16, 3, "edm", "denoised").load(read(SIGMA_FILE))
    data = images(pictures)
    x = data + 0.5 * torch.randn(data.shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        left = float((denoiser.denoise(x, torch.tensor([0.5]), None) - data).square().mean()) / 0.25
    assert row["left"][0] == pytest.approx(left, rel=0.05)  # of 200 × 768 squares
    assert row["mean"] == pytest.approx(math.exp(math.log(row["left"][0])))


def test_the_other_direction_of_time_shows(pictures: Path) -> None:
    said = tuple("flow:data=0" if word == "flow:data=1" else word for word in FLOW)
    ran = diffscope("network", "check", FLOW_FILE, *said, "--data", pictures, "--predicts", "velocity")
    assert ran.code == 3
    assert "where --predicts velocity --noise flow:data=1,time_scale=1 leaves" in ran.err


def test_without_a_choice_the_best_is_named(pictures: Path) -> None:
    ran = diffscope("network", "check", EPS_FILE, *EPS, "--data", pictures)
    assert (ran.code, ran.err) == (0, "")
    told = " ".join(ran.out.split())
    assert "Say --predicts eps." in told
    assert "output 3 x 16 x 16" in told
    assert "middle (32 x 8 x 8)" in told  # worth asking for
    assert "middle.conv1" not in told


def test_an_untrained_network_denoises_in_no_reading(pictures: Path, tmp_path: Path) -> None:
    network = next(training("sigma_denoiser", torch.zeros(4, 3, 16, 16), 1))[0]
    torch.save({name: torch.randn_like(value) for name, value in network.state_dict().items()}, tmp_path / "w.pt")
    ran = diffscope("network", "check", tmp_path / "w.pt", *SIGMA, "--data", pictures, "--predicts", "denoised")
    assert ran.code == 3
    assert "In no reading does the output denoise" in ran.err


def test_what_is_refused(pictures: Path) -> None:
    refused(diffscope("network", "chekc", SIGMA_FILE, *SIGMA, "--data", pictures), 2, "network chekc: expected check")
    refused(diffscope("network", "check", SIGMA_FILE, "--data", pictures), 2, "--network FILE.py:NAME")


@pytest.mark.parametrize("name", ["eps_unet", "flow_transformer", "sigma_denoiser"])
def test_the_files_were_trained_so(name: str, pictures: Path) -> None:
    losses = [loss for _, loss in training(name, images(pictures)[:16], 2)]
    assert all(math.isfinite(loss) for loss in losses)
