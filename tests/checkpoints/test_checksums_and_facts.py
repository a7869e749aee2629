"""What a file says of itself is checked where it is read: checksums, steps, names of options, kinds of numbers."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import EDM
from safetensors.torch import save_file

from diffscope.checkpoints import archive, diffusers_weights, read, reader, safetensors_file, sniff, weight_sets
from diffscope.checkpoints.budget import Budget
from diffscope.errors import CheckpointError

ONE = {"a": torch.ones(500), "b": torch.zeros(3)}


def refused(path: Path | str, words: str, **options: Any) -> None:
    with pytest.raises(CheckpointError) as caught:
        read(str(path), **options)
    assert words in str(caught.value)
    assert str(caught.value).isprintable()


def damaged(path: Path, member: str, **options: Any) -> Path:
    """A file of torch.save with one bit of one member flipped."""
    torch.save(ONE, path, **options)
    with zipfile.ZipFile(path) as file:
        info = next(info for info in file.infolist() if info.filename.endswith(member))
        content = file.read(info)
    whole = bytearray(path.read_bytes())
    whole[whole.index(content, info.header_offset)] ^= 1
    path.write_bytes(whole)
    return path


def test_the_checksum_of_the_pickle_is_always_compared(tmp_path: Path) -> None:
    refused(damaged(tmp_path / "a.pt", "/data.pkl"), "member a/data.pkl is damaged: its checksum is ")


def test_checksums_of_weights_are_compared_where_asked_for(tmp_path: Path) -> None:
    path = damaged(tmp_path / "a.pt", "/data/0")
    assert read(path).checksums is None
    refused(path, "member a/data/0 is damaged: Bad CRC-32", verify=True)
    refused(path, "member a/data/0 is damaged: Bad CRC-32", verify=True, outline=True)
    with pytest.raises(CheckpointError, match="member a/data/0 is damaged: its checksum is"):
        reader.read_local(str(path), reader.ReadOptions(downloaded=True))


def test_checksums_that_fit_are_counted(tmp_path: Path) -> None:
    torch.save(ONE, tmp_path / "a.pt")
    with zipfile.ZipFile(tmp_path / "a.pt") as file:
        members = sum(info.CRC != 0 for info in file.infolist())
    assert read(str(tmp_path / "a.pt"), verify=True).checksums == members >= 4
    save_file(ONE, tmp_path / "a.safetensors")
    assert read(str(tmp_path / "a.safetensors"), verify=True).checksums == 0


def test_checksums_that_torch_did_not_compute_are_none(tmp_path: Path) -> None:
    compute = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(ONE, tmp_path / "a.pt")
    finally:
        torch.serialization.set_crc32_options(compute)
    assert read(str(tmp_path / "a.pt"), verify=True).checksums == 0


def zipped(path: Path, change: Callable[[bytearray, int], None]) -> Path:
    """A file of torch.save whose list of members is changed at each of its entries."""
    torch.save(ONE, path)
    whole = bytearray(path.read_bytes())
    at = whole.find(b"PK\x01\x02")
    while at >= 0:
        change(whole, at)
        at = whole.find(b"PK\x01\x02", at + 1)
    path.write_bytes(whole)
    return path


def test_zips_that_need_another_program(tmp_path: Path) -> None:
    def put(at: int, value: int) -> Callable[[bytearray, int], None]:
        return lambda whole, entry: whole.__setitem__(entry + at, value)

    refused(zipped(tmp_path / "a.pt", put(6, 255)), "a zip file that is damaged or cut short (zip file version 25.5)")
    refused(zipped(tmp_path / "a.pt", put(8, 1)), "an encrypted zip file")
    refused(zipped(tmp_path / "a.pt", put(8, 32)), "an encrypted zip file")
    refused(zipped(tmp_path / "a.pt", put(10, 14)), "is compressed by method 14; deflated or stored members are read")


def test_zips_of_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(ONE, tmp_path / "a.pt")
    with zipfile.ZipFile(tmp_path / "a.pt", "a", zipfile.ZIP_DEFLATED) as file:
        file.writestr("b", bytes(1000))
    monkeypatch.setattr(archive, "MAX_PICKLE", 50)
    refused(tmp_path / "a.pt", "data.pkl has")
    monkeypatch.setattr(archive, "MAX_DIRECTORY", 200)
    refused(tmp_path / "a.pt", "a zip file whose list of members is longer than 200 bytes")


def test_a_pickle_that_inflates_beyond_its_file(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.pt", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a/data.pkl", b"\x80\x02" + bytes(60_000_000))
        file.writestr("a/more", os.urandom(9_000_000))  # so that the whole may inflate by as much
        file.writestr("a/zeros", bytes(100_000_000))
    refused(tmp_path / "a.pt", "opcode 0x00")
    with zipfile.ZipFile(tmp_path / "a.pt", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a/data.pkl", b"\x80\x02" + bytes(archive.MAX_PICKLE))
        file.writestr("a/more", os.urandom(9_000_000))
    refused(tmp_path / "a.pt", f"data.pkl has {archive.MAX_PICKLE + 2} bytes; {archive.MAX_PICKLE} are read")


KINDS = {"pipe": "a named pipe", "link": "a named pipe", "socket": "a socket", "device": "a device"}
PLACES = {
    "alone": "a.pt", "weights": "diffusion_pytorch_model.safetensors", "config": "config.json",
    "index": "model_index.json",
}  # fmt: skip
READ_ALL = """
import sys
from diffscope.checkpoints import read
for path in sys.argv[1:]:
    try:
        print("read", read(path), flush=True)
    except Exception as error:
        print(type(error).__name__, error, flush=True)
"""


def put_no_file(path: Path, kind: str) -> None:
    path.parent.mkdir()
    if path.name == PLACES["weights"]:
        path.with_name("config.json").write_text('{"_class_name": "UNet2DModel"}')
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        here = os.getcwd()
        os.chdir(path.parent)  # a socket's path is short
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(path.name)
        os.chdir(here)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        os.mkfifo(path.with_name("pipe"))
        path.symlink_to(path.with_name("pipe"))


def test_what_is_no_file_is_not_opened(tmp_path: Path) -> None:
    """In a process of its own, for a pipe keeps whoever opens it; one for all, as each takes seconds to start."""
    cases = [(where, kind) for where in PLACES for kind in KINDS]
    targets = []
    for where, kind in cases:
        path = tmp_path / f"{where}-{kind}" / PLACES[where]
        put_no_file(path, kind)
        targets.append(str(path if where == "alone" else path.parent))
    argv = [sys.executable, "-c", READ_ALL, *targets]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True)
    said = done.stdout.splitlines()
    assert len(said) == len(cases)
    for (where, kind), line in zip(cases, said, strict=True):
        assert line.startswith("CheckpointError"), line
        assert f"{PLACES[where]} is {KINDS[kind]} and not a file" in line


def test_steps_are_counts(tmp_path: Path) -> None:
    torch.save({**ONE, "steps": -3}, tmp_path / "a.pt")
    refused(tmp_path / "a.pt", "its 'steps' is -3; a count from 0 to 2^53 was expected")
    torch.save({**ONE, "steps": 10**600}, tmp_path / "a.pt")
    refused(tmp_path / "a.pt", "its 'steps' is an integer of 1994 bits; a count")
    torch.save({"net": ONE, "state": {"cur_nimg": 10**30}}, tmp_path / "a.pt")
    refused(tmp_path / "a.pt", f"its 'cur_nimg' is {10**30}; a count")
    header = {"diffscope": "1", "step": "nan"}
    save_file(ONE, tmp_path / "a.safetensors", header)
    refused(tmp_path / "a.safetensors", "its header says step 'nan', counted in 'steps'")
    save_file(ONE, tmp_path / "a.safetensors", {**header, "step": "9" * 5000})
    refused(tmp_path / "a.safetensors", "its header says step '999")
    save_file(ONE, tmp_path / "a.safetensors", {"step": "12k"})
    assert read(str(tmp_path / "a.safetensors")).step is None


def test_options_have_names(tmp_path: Path) -> None:
    torch.save({"model": ONE, "args": {3: "x"}}, tmp_path / "a.pt")
    refused(tmp_path / "a.pt", "its 'args' has the name 3; names of options are text")


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
@pytest.mark.parametrize("zip_format", [True, False])
def test_complex_weights(tmp_path: Path, dtype: torch.dtype, zip_format: bool) -> None:
    torch.save({"w": torch.ones(3, dtype=dtype)}, tmp_path / "a.pt", _use_new_zipfile_serialization=zip_format)
    refused(tmp_path / "a.pt", f"tensor 'w' is of type {dtype}; real numbers are read")


@pytest.mark.parametrize("outline", [True, False])
def test_complex_weights_of_safetensors(tmp_path: Path, outline: bool) -> None:
    save_file({"w": torch.ones(3, dtype=torch.complex64)}, tmp_path / "a.safetensors")
    refused(tmp_path / "a.safetensors", "tensor 'w' is of type C64; real numbers are read", outline=outline)


def header_of(path: Path, header: object, length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + bytes(8))
    return path


def test_headers_of_safetensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.safetensors"
    one: dict[str, Any] = {"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}
    assert read(str(header_of(path, one))).tensors["w"].tolist() == [0, 0]
    refused(header_of(path, one, 90_000_000), f"whose header has 90000000 bytes; {sniff.MAX_HEADER} are read")
    refused(header_of(path, b"[" * 100_000), "begins with bytes")
    refused(header_of(path, b'{"a":' + b"[" * 100_000), "a damaged file (a.safetensors: ")
    huge = {"w": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 8]}}
    refused(header_of(path, huge), "a damaged file (a.safetensors: ")
    deep = {"__metadata__": {"arguments": "[" * 100_000}}
    refused(header_of(path, {**deep, **one}), "its header has 'arguments' of 100000 characters, nested too deeply or")
    monkeypatch.setattr(safetensors_file, "MAX_FACT", 10)
    refused(header_of(path, {"__metadata__": {"arguments": "{}" + " " * 9}, **one}), "or more than 10")
    monkeypatch.setattr(weight_sets, "MAX_TENSORS", 0)
    refused(header_of(path, one), "more than 0 tensors in one set of weights")


def test_files_of_a_diffusers_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, file = tmp_path / "config.json", tmp_path / "diffusion_pytorch_model.safetensors"
    config.write_text("[" * 200_000)
    refused(tmp_path, "config.json is not a readable JSON object")
    config.write_text('{"_class_name": 3}')
    refused(tmp_path, "config.json has the _class_name 3; the name of a class was expected")
    config.write_text('{"_class_name": "UNet2DModel"}')
    header_of(file, b'{"a":')
    refused(tmp_path, f"a damaged file ({file.name}: ")
    save_file({"w": torch.ones(3, dtype=torch.complex64)}, file)
    with pytest.raises(CheckpointError, match="'w' is of type C64"):
        read(str(tmp_path)).tensors["w"]
    save_file(ONE, file)
    tensors = read(str(tmp_path)).tensors
    file.unlink()
    with pytest.raises(CheckpointError, match="cannot be read again"):
        tensors["a"]
    monkeypatch.setattr(diffusers_weights, "MAX_JSON", 5)
    refused(tmp_path, "config.json has 30 bytes; 5 are read")


def test_long_messages_end(tmp_path: Path) -> None:
    torch.save({"w" * 500 + str(i): i for i in range(100)}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError) as caught:
        read(str(tmp_path / "a.pt"))
    assert len(str(caught.value)) < 1500


def test_crc_of_torch_is_that_of_zlib(tmp_path: Path) -> None:
    torch.save(ONE, tmp_path / "a.pt")
    with zipfile.ZipFile(tmp_path / "a.pt") as file:
        assert {zlib.crc32(file.read(info)) == info.CRC for info in file.infolist()} == {True}


def test_a_lack_of_memory_is_not_the_file_s_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that follows a series leaves a damaged file out, and is not to lose one for want of memory."""

    def without_memory(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Budget, "charge_steps", without_memory)
    with pytest.raises(MemoryError):
        read(EDM)
