"""What OpenAI's training codes say in a file's name alone: the step, and whether the weights are an average."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from diffscope.checkpoints import read
from diffscope.checkpoints.run_files import RunFile, is_optimiser, run_file
from diffscope.errors import CheckpointError

ONE = {"a": torch.ones(2)}


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("model000000.pt", RunFile(None, 0)),
        ("runs/1/model1250000.pt", RunFile(None, 1_250_000)),
        ("ema_0.9999_050000.pt", RunFile("0.9999", 50_000)),
        ("ema_0.999943_1000000.safetensors", RunFile("0.999943", 1_000_000)),
        ("ema_.99_050000.pt", None),
        ("model_050000.pt", None),
        ("model-5.pt", None),
        ("model50000.pt", None),
        ("ema_0.9999.pt", None),
        ("0050000.pt", None),
    ],
)
def test_names(name: str, found: RunFile | None) -> None:
    assert run_file(name) == found
    assert not is_optimiser(name)


@pytest.mark.parametrize(
    ("name", "weights", "reason"),
    [
        ("model050000.pt", "model", "the file's name says the raw weights"),
        ("ema_0.9999_050000.pt", "ema", "the file's name says an average (EMA) of rate 0.9999"),
    ],
)
def test_a_bare_state_dict_is_what_its_name_says(name: str, weights: str, reason: str, tmp_path: Path) -> None:
    torch.save(ONE, tmp_path / name)
    save_file(ONE, (tmp_path / name).with_suffix(".safetensors"))
    for path in (tmp_path / name, (tmp_path / name).with_suffix(".safetensors")):
        found = read(path)
        assert (found.weights, found.weights_reason) == (weights, reason)
        assert (found.step, found.step_unit) == (50_000, "steps")


def test_content_counts_more_than_a_name(tmp_path: Path) -> None:
    torch.save({"model": ONE, "ema": ONE, "steps": 7}, tmp_path / "model050000.pt")
    found = read(tmp_path / "model050000.pt")
    assert (found.weights, found.step) == ("ema", 7)
    save_file(ONE, tmp_path / "model000001.safetensors", metadata={"weights": "ema"})
    assert read(tmp_path / "model000001.safetensors").weights == "ema"


def test_the_raw_weights_are_not_in_an_average(tmp_path: Path) -> None:
    torch.save(ONE, tmp_path / "ema_0.9999_050000.pt")
    with pytest.raises(CheckpointError, match=r"EMA\) of rate 0\.9999, not the model's own .* give model050000\.pt"):
        read(tmp_path / "ema_0.9999_050000.pt", "model")


def test_an_optimiser_has_no_weights(tmp_path: Path) -> None:
    assert is_optimiser("runs/opt050000.pt")
    state = {"state": {0: {"step": torch.ones(()), "exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 1e-4}]}
    torch.save(state, tmp_path / "opt050000.pt")
    with pytest.raises(CheckpointError, match="an optimiser's state alone"):
        read(tmp_path / "opt050000.pt")
