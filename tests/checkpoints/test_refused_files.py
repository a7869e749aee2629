"""What is no checkpoint: one line that says what was found, what was expected and what to do."""

from __future__ import annotations

import datetime
import gzip
import io
import pickle
import tarfile
import zipfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from diffscope.checkpoints import read
from diffscope.errors import CheckpointError, UnsafePickle

EXPECTED = "a checkpoint was expected"


def refusal(path: Path | str, kind: type[CheckpointError] = CheckpointError) -> str:
    with pytest.raises(kind) as caught:
        read(str(path))
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    assert "\n" not in text
    return text


def tar_bytes() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("weights.pt"))
    return buffer.getvalue()


FILES = {
    "empty": (b"", "an empty file"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "run `git lfs pull`"),
    "html": (b"\n<!DOCTYPE html><html><title>Quota exceeded</title>", "a download page was saved"),
    "text": (b"learning_rate: 1e-4\n", "a text file"),
    "json": (b'{"hidden_size": 384, "depth": 12}', "a JSON file"),
    "gzip": (gzip.compress(b"x"), "a gzip file; unpack it first"),
    "tar": (tar_bytes(), "a tar file; unpack it first"),
    "numpy": (b"\x93NUMPY\x01\x00", "a NumPy array"),
    "onnx": (b"\x08\x07\x12\x07pytorch\x1a\x052.1.0:\xe8\x07\n", "an ONNX file, which holds a program"),
    "noise": (bytes(range(200, 232)), "begins with bytes c8 c9 ca cb"),
}


@pytest.mark.parametrize("name", FILES)
def test_other_files(tmp_path: Path, name: str) -> None:
    content, expected = FILES[name]
    (tmp_path / "model.pt").write_bytes(content)
    text = refusal(tmp_path / "model.pt")
    assert expected in text
    assert EXPECTED in text


def test_places(tmp_path: Path) -> None:
    assert "no such file" in refusal(tmp_path / "missing.pt")
    assert "a folder" in refusal(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    assert "a model of an unnamed class; supported: UNet2DModel" in refusal(tmp_path)
    assert "HF_HUB_OFFLINE is set" in refusal("hf://owner/repo/file.pt")
    with pytest.raises(CheckpointError, match="use ema or model"):
        read("toy:d=2", "raw")


def test_control_characters_do_not_reach_the_terminal(tmp_path: Path) -> None:
    (tmp_path / "a.pkl").write_bytes(b"\x80\x04\x8c\x07a\n\x1b[2Jb\x8c\x01c\x93.")
    with pytest.raises(UnsafePickle) as caught:
        read(str(tmp_path / "a.pkl"))
    assert str(caught.value).isprintable()


class Foreign(torch.nn.Module):
    pass


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_whole_pickled_network(tmp_path: Path, zipped: bool) -> None:
    torch.save(Foreign(), tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
    text = refusal(tmp_path / "a.pt", UnsafePickle)
    assert f"'{__name__}.Foreign'" in text
    assert "safetensors.torch.save_file" in text


@pytest.mark.parametrize(
    ("value", "name"),
    [(datetime.timedelta(1), "timedelta"), (defaultdict(list), "defaultdict"), (print, "print")],
)
def test_foreign_values_among_the_arguments(tmp_path: Path, value: Any, name: str) -> None:
    torch.save({"ema": {"a": torch.ones(1)}, "args": {"x": value}}, tmp_path / "a.pt")
    assert f".{name}'" in refusal(tmp_path / "a.pt", UnsafePickle)


def test_torchscript(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as file:  # torch.jit.save warns that it is deprecated: same members
        for name in ("data.pkl", "constants.pkl", "code/__torch__.py", "version"):
            file.writestr(f"a/{name}", b"\x80\x02N.")
    assert "a TorchScript archive" in refusal(tmp_path / "a.pt")


def test_other_zips(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros(3))
    assert "0 data.pkl" in refusal(tmp_path / "a.npz")
    torch.save({"a": torch.ones(100)}, tmp_path / "a.pt")
    whole = (tmp_path / "a.pt").read_bytes()
    for length in range(4, len(whole), 97):
        (tmp_path / "cut.pt").write_bytes(whole[:length])
        assert "cut short" in refusal(tmp_path / "cut.pt")


def test_cut_safetensors(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes((1000).to_bytes(8, "little") + b'{"a": {"dtype"')
    assert "damaged file" in refusal(tmp_path / "a.safetensors")


def test_pickle_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "a.pkl").write_bytes(pickle.dumps([1, 2, 3]))
    assert "a list was found" in refusal(tmp_path / "a.pkl")
