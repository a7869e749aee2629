"""State dicts and dumps as people save them: outer keys, wrappers, formats; and what the record then says."""

from __future__ import annotations

import argparse
import hashlib
import json
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from diffscope.checkpoints import Checkpoint, read
from diffscope.checkpoints.storages import Storage
from diffscope.errors import CheckpointError

ONE = OrderedDict(a=torch.ones(2), b=torch.arange(3))
TWO = OrderedDict(a=torch.full((2,), 2.0), b=torch.arange(3) * 2)


def saved(path: Path, top: Any, **options: Any) -> str:
    torch.save(top, path, **options)
    return str(path)


def level(checkpoint: Checkpoint) -> float:
    """1 or 2: which of the two dicts above was read."""
    assert list(checkpoint.tensors) == ["a", "b"]
    return float(checkpoint.tensors["a"][0])


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_both_formats_of_torch_save(tmp_path: Path, zipped: bool) -> None:
    options = argparse.Namespace(model="SiT-S/2", nested=argparse.Namespace(depth=3), betas=(0.9, 0.999), none=None,
                                 dtype=torch.float16, device=torch.device("cpu"), z=1j, ids={3, 4})  # fmt: skip
    path = saved(tmp_path / "0050000.pt", {"model": ONE, "ema": TWO, "opt": {0: TWO}, "args": options},
                 _use_new_zipfile_serialization=zipped)  # fmt: skip
    assert level(read(path)) == 2
    checkpoint = read(path, "model")
    assert level(checkpoint) == 1
    assert (checkpoint.container, checkpoint.step, checkpoint.step_unit) == ("train-dump", 50_000, "steps")
    assert checkpoint.training_args == {
        "model": "SiT-S/2", "nested": {"depth": 3}, "betas": (0.9, 0.999), "none": None,
        "dtype": "torch.float16", "device": "cpu", "z": 1j, "ids": {3, 4},
    }  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16, torch.int8, torch.uint8, torch.bool])
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_dtypes_stay_as_stored(tmp_path: Path, dtype: torch.dtype, zipped: bool) -> None:
    tensor = torch.tensor([[1, 0, 1], [0, 1, 1]]).to(dtype)
    path = saved(tmp_path / "a.pt", {"x": tensor, "y": tensor.t()}, _use_new_zipfile_serialization=zipped)
    found = read(path).tensors
    assert found["x"].dtype == dtype
    assert torch.equal(found["x"], tensor)
    assert torch.equal(found["y"], tensor.t())
    assert found["x"].untyped_storage().data_ptr() == found["y"].untyped_storage().data_ptr()


@pytest.mark.parametrize(("ema", "model"), [("ema", "model"), ("model_ema", "state_dict"), ("ema_model", "net")])
def test_outer_keys(tmp_path: Path, ema: str, model: str) -> None:
    path = saved(tmp_path / "a.ckpt", {model: ONE, ema: TWO, "config": {"depth": 2}})
    assert level(read(path)) == 2
    assert level(read(path, "model")) == 1
    assert read(path).weights_reason == f"the file holds '{ema}' and '{model}'; the EMA is the default"
    assert read(path).training_args == {"depth": 2}


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_only_the_chosen_set_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zipped: bool) -> None:
    sizes, load = [], Storage.load
    monkeypatch.setattr(Storage, "load", lambda storage: sizes.append(storage.numel) or load(storage))
    top = {"model": {"w": torch.ones(3000)}, "ema": {"w": torch.ones(3001)}, "opt": {0: torch.ones(3002)}}
    read(saved(tmp_path / "a.pt", top, _use_new_zipfile_serialization=zipped))
    assert sizes == [3001]


def test_tensor_names_are_printable(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="control characters"):
        read(saved(tmp_path / "a.pt", {"a\x1b[2J": ONE["a"]}))


def test_one_named_set(tmp_path: Path) -> None:
    checkpoint = read(saved(tmp_path / "a.pt", {"state_dict": ONE, "ema": {}}))
    assert (level(checkpoint), checkpoint.weights) == (1, "model")
    assert checkpoint.weights_reason == "the file has no EMA; 'state_dict' was taken"
    with pytest.raises(CheckpointError, match="use `weights=ema`"):
        read(saved(tmp_path / "b.pt", {"model_ema": ONE}), "model")


def test_wrappers_are_stripped_in_any_order(tmp_path: Path) -> None:
    wrapped = {"module._orig_mod.module.a": ONE["a"], "_orig_mod.b": ONE["b"]}
    assert level(read(saved(tmp_path / "a.pt", {"ema": wrapped}))) == 1
    with pytest.raises(CheckpointError, match="two tensors are named 'a'"):
        read(saved(tmp_path / "b.pt", {"a": ONE["a"], "module.a": ONE["a"]}))


def test_flat_dict_with_both_sets(tmp_path: Path) -> None:
    flat = {"initted": torch.tensor(True)}
    flat |= {f"online_model.{name}": tensor for name, tensor in ONE.items()}
    flat |= {f"ema_model.module.{name}": tensor for name, tensor in TWO.items()}
    path = saved(tmp_path / "a.pt", flat)
    assert level(read(path)) == 2
    assert level(read(path, "model")) == 1
    assert "outside of its sets it holds initted" in read(path).weights_reason


def test_what_is_no_tensor_is_mentioned(tmp_path: Path) -> None:
    checkpoint = read(saved(tmp_path / "a.pt", {**ONE, "epoch": 3, "step": 40}))
    assert level(checkpoint) == 1
    assert checkpoint.weights_reason.endswith("beside tensors it holds epoch, step")
    assert checkpoint.step == 40


def test_dict_without_weights_names_its_keys(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="found the keys epoch, history"):
        read(saved(tmp_path / "a.pt", {"epoch": 3, "history": [1, 2]}))
    with pytest.raises(CheckpointError, match="a list was found"):
        read(saved(tmp_path / "b.pt", [1, 2]))


def test_recompressed_zip(tmp_path: Path) -> None:
    saved(tmp_path / "a.pt", {"model": ONE, "ema": TWO})
    with (
        zipfile.ZipFile(tmp_path / "a.pt") as old,
        zipfile.ZipFile(tmp_path / "b.pt", "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for info in old.infolist():
            new.writestr(info.filename, old.read(info))
    assert level(read(str(tmp_path / "b.pt"))) == 2


def test_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file(dict(ONE), path, {"author": "me", "arguments": "free text"})
    checkpoint = read(str(path))
    assert {name: tensor.tolist() for name, tensor in checkpoint.tensors.items()} == {"a": [1, 1], "b": [0, 1, 2]}
    assert (checkpoint.container, checkpoint.weights, checkpoint.arguments) == ("safetensors", "model", {})
    assert checkpoint.metadata == {"author": "me", "arguments": "free text"}
    header = {"weights": "ema", "class_name": "EDMPrecond", "network_class": "SongUNet", "step": "7000",
              "step_unit": "images", "arguments": json.dumps({"label_dim": 3})}  # fmt: skip
    save_file(dict(ONE), path, header)
    checkpoint = read(str(path))
    assert (checkpoint.weights, checkpoint.class_name, checkpoint.step) == ("ema", "EDMPrecond", 7000)
    assert (checkpoint.arguments, checkpoint.step_unit) == ({"label_dim": 3}, "images")


def test_toy() -> None:
    checkpoint = read("toy:d=32,side=8")
    assert (checkpoint.container, checkpoint.tensors) == ("toy", {})
    assert checkpoint.arguments == {"d": 32, "side": 8}
    assert checkpoint.sha256() == hashlib.sha256(b"toy:d=32,side=8").hexdigest()
    with pytest.raises(CheckpointError, match="'d=x' is no KEY=INTEGER"):
        read("toy:d=x")


def test_sha256_is_of_the_file_and_computed_once(tmp_path: Path) -> None:
    path = Path(saved(tmp_path / "a.pt", ONE))
    checkpoint, expected = read(path), hashlib.sha256(path.read_bytes()).hexdigest()
    assert checkpoint.sha256() == expected
    path.unlink()
    assert checkpoint.sha256() == expected
