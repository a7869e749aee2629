"""Files written by the original training codes, read and compared with what torch's own safe loaders give."""

from __future__ import annotations

import argparse
import io
import json
import pickletools
from pathlib import Path

import pytest
import torch

from diffscope.checkpoints import read

DATA = Path(__file__).parents[1] / "data"
GOLDEN = DATA / "containers"
NETWORKS = {"edm_ncsnpp_cond": "SongUNet", "edm_ddpmpp": "SongUNet"}


@pytest.mark.parametrize("name", NETWORKS)
def test_edm_snapshot_says_what_it_is(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    checkpoint = read(str(GOLDEN / f"{name}.pkl"))
    assert checkpoint.container == "edm-pickle"
    assert (checkpoint.class_name, checkpoint.network_class) == ("EDMPrecond", NETWORKS[name])
    assert (checkpoint.weights, checkpoint.weights_reason) == ("ema", "the file holds 'ema' alone")
    assert checkpoint.attributes["sigma_data"] == 0.5
    assert checkpoint.attributes["sigma_max"] == float("inf")
    assert checkpoint.arguments["img_resolution"] == 16
    assert checkpoint.arguments["model_type"] == NETWORKS[name]
    assert next(iter(checkpoint.tensors)).startswith("model.map_")
    assert list(tmp_path.iterdir()) == [], "the module source in the file was executed"


@pytest.mark.parametrize("name", NETWORKS)
def test_edm_tensors_equal_torchs_own_reading_of_each_storage(name: str) -> None:
    """The storages stand in the pickle in the order of the state dict: depth first, parameters before buffers."""
    path = GOLDEN / f"{name}.pkl"
    blobs = [arg for op, arg, _ in pickletools.genops(path.read_bytes()) if op.name == "BINBYTES"]
    storages = [torch.load(io.BytesIO(blob or b""), weights_only=True) for blob in blobs]
    tensors = read(str(path)).tensors
    assert len(tensors) == len(storages)
    for (key, tensor), storage in zip(tensors.items(), storages, strict=True):
        flat = torch.frombuffer(bytearray(storage._untyped_storage.tolist()), dtype=tensor.dtype)
        assert torch.equal(tensor.flatten(), flat), key


def test_edm_names_and_order() -> None:
    names = list(read(str(GOLDEN / "edm_ncsnpp_cond.pkl")).tensors)
    assert names[:4] == ["model.map_noise.freqs", "model.map_label.weight", "model.map_label.bias",
                         "model.map_layer0.weight"]  # fmt: skip
    first = names.index("model.enc.8x8_down.norm0.weight")
    assert names[first + 2 : first + 5] == [
        "model.enc.8x8_down.conv0.weight",
        "model.enc.8x8_down.conv0.bias",
        "model.enc.8x8_down.conv0.resample_filter",
    ]
    assert names[-1] == "model.dec.16x16_aux_conv.bias"


DUMPS = [GOLDEN / "sit_dump.pt", DATA / "sit" / "train_dump.pt", DATA / "sit" / "repa_dump.pt"]


@pytest.mark.parametrize("path", DUMPS, ids=lambda path: path.stem)
@pytest.mark.parametrize("weights", ["ema", "model"])
def test_training_dump_equals_torch(path: Path, weights: str) -> None:
    with torch.serialization.safe_globals([argparse.Namespace]):
        expected = torch.load(path, weights_only=True)
    checkpoint = read(str(path), weights)
    assert (checkpoint.container, checkpoint.weights) == ("train-dump", weights)
    assert list(checkpoint.tensors) == list(expected[weights])
    for name, tensor in expected[weights].items():
        assert torch.equal(checkpoint.tensors[name], tensor), name
        assert checkpoint.tensors[name].dtype == tensor.dtype
    assert checkpoint.training_args == vars(expected["args"])
    assert (checkpoint.step, checkpoint.step_unit) == (
        (expected["steps"], "steps") if "steps" in expected else (None, None)
    )


@pytest.mark.parametrize("name", ["train_dump", "repa_dump"])
def test_training_dump_arguments_equal_the_record(name: str) -> None:
    record = json.loads((DATA / "sit" / f"{name}.json").read_text())
    assert read(str(DATA / "sit" / f"{name}.pt")).training_args == record["args"]


@pytest.mark.parametrize("weights", ["ema", "model"])
def test_bare_state_dict_equals_torch_and_claims_nothing(weights: str) -> None:
    path = GOLDEN / "sit_bare.pt"
    checkpoint, expected = read(str(path), weights), torch.load(path, weights_only=True)
    assert checkpoint.container == "state-dict"
    assert (checkpoint.weights, checkpoint.training_args, checkpoint.step) == ("model", {}, None)
    assert "one set" in checkpoint.weights_reason
    assert list(checkpoint.tensors) == list(expected)
    assert all(torch.equal(checkpoint.tensors[name], tensor) for name, tensor in expected.items())
