"""Files made to harm: none of them may run anything, take memory that it does not hold, or end in another error."""

from __future__ import annotations

import builtins
import io
import os
import pickle
import random
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from bounded import Ending, assert_refused, read_each
from edm_fixture import Persistent, original_modules, write_edm_pickle

from diffscope.checkpoints import read
from diffscope.errors import CheckpointError, UnsafePickle

GOLDEN = Path(__file__).parents[1] / "data" / "containers"


class Calls:
    """Pickles as a call of any function."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("where", ["pickle", "zip", "legacy", "blob"])
@pytest.mark.parametrize(
    ("attack", "name"),
    [
        (Calls(os.system, "touch executed"), "system"),
        (Calls(builtins.eval, "open('executed', 'w')"), "eval"),
        (Calls(getattr, "text", "format"), "getattr"),
        (Calls(torch.load, "executed"), "load"),
    ],
    ids=["os.system", "eval", "getattr", "torch.load"],
)
def test_calls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: int, where: str, attack: Calls, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "a.pt"
    top = {"ema": {"a": torch.ones(1), "b": attack}}
    if where == "pickle":
        path.write_bytes(pickle.dumps(top, protocol))
    elif where == "blob":
        inner = Calls(torch.storage._load_from_bytes, pickle.dumps(attack, protocol) + bytes(2000))
        path.write_bytes(pickle.dumps({"ema": inner}, protocol))
    else:
        torch.save(top, path, pickle_protocol=protocol, _use_new_zipfile_serialization=where == "zip")
    with pytest.raises(UnsafePickle, match=rf"\.{name}'"):
        read(str(path))
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("name", ["ema", "loss_fn"])
def test_code_beside_the_weights_is_refused_too(tmp_path: Path, name: str) -> None:
    with original_modules():
        state = {"_parameters": {"w": torch.ones(2)}, "_modules": {}, "extra": Calls(os.getcwd)}
        top = {"ema": {"w": torch.ones(1)}, name: Persistent("EDMPrecond", state)}
        (tmp_path / "a.pkl").write_bytes(pickle.dumps(top))
    with pytest.raises(UnsafePickle, match="getcwd"):
        read(str(tmp_path / "a.pkl"))


def head(text: bytes) -> bytes:
    return b"\x80\x04" + text


TEXT = b"\x8c\x01a"
ORDERED = b"ccollections\nOrderedDict\n"
BOMBS = {
    "LONG_BINPUT 1e8": head(b"Nr" + struct.pack("<I", 10**8) + b"."),
    "LONG_BINPUT max": head(b"Nr\xff\xff\xff\xff."),
    "LONG_BINGET": head(b"Nj\xff\xff\xff\x7f."),
    "BINBYTES": head(b"B\xff\xff\xff\xff."),
    "BINBYTES8": head(b"\x8e" + struct.pack("<Q", 2**62) + b"."),
    "BINBYTES8 max": head(b"\x8e" + b"\xff" * 8 + b"."),
    "BYTEARRAY8": head(b"\x96" + struct.pack("<Q", 2**40) + b"."),
    "BINUNICODE8": head(b"\x8d" + struct.pack("<Q", 2**40) + b"."),
    "FRAME": head(b"\x95" + struct.pack("<Q", 2**40) + b"N."),
    "LONG4": head(b"\x8b\xff\xff\xff\x7f."),
    "marks": head(b"(" * 1_100_000),
    "nested lists": head(b"]" * 100_000 + b"a" * 99_999 + b"."),
    "nested tuples as a key": head(b"})" + b"\x85" * 100_000 + b"Ns."),
    "nested dicts": head((b"}" + TEXT) * 100_000 + b"}" + b"s" * 100_000 + b"."),
    "opcodes": head(b"N0" * 550_000 + b"N."),
    "empty stack": head(b"0000."),
    "no value": head(b"."),
    "two values": head(b"NN."),
    "mark without end": head(b"(N."),
    "list as a key": head(b"}]Ns."),
    "set item of a list": head(b"]NNs."),
    "append to a tuple": head(b")Na."),
    "state of a dict": head(b"}}b."),
    "state of a function": head(ORDERED + b"}b."),
    "call of a dict": head(b"})R."),
    "call with a list": head(ORDERED + b"]R."),
    "call of a class": head(b"cargparse\nNamespace\n)R."),
    "object of a function": head(b"ctorch._utils\n_rebuild_parameter\n)\x81."),
    "wrong arguments": head(b"ctorch._utils\n_rebuild_parameter\n)R."),
    "parameter of a number": head(b"ctorch._utils\n_rebuild_parameter\nK\x01\x85R."),
    "ordered dict of numbers": head(ORDERED + b"]K\x01a\x85R."),
    "dotted name": head(b"\x8c\x05torch\x8c\x0dstorage.torch\x93."),
    "PERSID": head(b"Pabc\n."),
    "BINPERSID": head(b"NQ."),
    "INST": head(b"(ios\nsystem\n."),
    "OBJ": head(b"(cos\nsystem\no."),
    "EXT1": head(b"\x82\x01."),
    "NEXT_BUFFER": head(b"\x97."),
    "protocol 9": b"\x80\x04\x80\x09N.",
    "global without end": head(b"c" + b"a" * 100_000),
    "bad text": head(b"\x8c\x02\xff\xff."),
}


@pytest.fixture(scope="module")
def ends_of_bombs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ending]:
    folder = tmp_path_factory.mktemp("bombs")
    for name, content in BOMBS.items():
        (folder / name).write_bytes(content)
    return read_each([folder / name for name in BOMBS], allowed=400_000_000)


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_in_a_pickle(ends_of_bombs: dict[str, Ending], name: str) -> None:
    assert_refused(ends_of_bombs[name])


def nested(depth: int, fan: int) -> Any:
    """Modules within modules, each level referring to the next `fan` times: fan ** depth paths in a small file."""
    child = Persistent("Net", {"_parameters": {"w": torch.ones(1)}})
    for _ in range(depth):
        child = Persistent("Net", {"_modules": {str(i): child for i in range(fan)}})
    return child


@pytest.mark.parametrize(
    ("depth", "fan", "found"),
    [(100, 1, "modules nested deeper than 64"), (40, 2, "modules with more than 100000 entries")],
    ids=["deep", "wide"],
)
def test_modules_that_never_end(tmp_path: Path, depth: int, fan: int, found: str) -> None:
    with original_modules():
        (tmp_path / "a.pkl").write_bytes(pickle.dumps({"ema": nested(depth, fan)}))
    with pytest.raises(CheckpointError, match=found):
        read(str(tmp_path / "a.pkl"))


def test_arguments_that_never_end(tmp_path: Path) -> None:
    laughs: Any = ["ha"]
    for _ in range(30):
        laughs = [laughs, laughs]
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"ema": {"w": torch.ones(1)}, "args": {"x": laughs}}))
    with pytest.raises(CheckpointError, match="arguments nested deeper than 32, or more than"):
        read(str(tmp_path / "a.pkl"))


SHAPES: dict[str, tuple[Any, Any, Any]] = {
    "overrun": (0, (5,), (1,)),
    "offset": (4, (1,), (1,)),
    "negative offset": (-1, (1,), (1,)),
    "negative stride": (3, (4,), (-1,)),
    "negative size": (0, (-1,), (1,)),
    "wide stride": (0, (2, 2), (3, 1)),
    "repeated": (0, (1_000_000, 1_000_000), (0, 0)),
    "huge": (0, (2**61, 2**61), (1, 1)),
    "huge stride": (0, (1, 2), (1, 2**70)),
    "missing stride": (0, (2, 2), (1,)),
    "list": (0, [2], (1,)),
    "float": (0, (2.0,), (1,)),
    "bool": (0, (True,), (1,)),
    "dimensions": (0, (1,) * 100, (1,) * 100),
}


@pytest.mark.parametrize("name", SHAPES)
def test_views_that_do_not_fit(tmp_path: Path, name: str) -> None:
    view = Calls(torch._utils._rebuild_tensor_v2, Stored(blob()), *SHAPES[name], False, {})
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"ema": {"w": view}}))
    with pytest.raises(CheckpointError, match="a tensor"):
        read(str(tmp_path / "a.pkl"))


class Stored(Calls):
    def __init__(self, data: bytes) -> None:
        super().__init__(torch.storage._load_from_bytes, data)


class Reference:
    """Pickles as the persistent id that it holds."""

    def __init__(self, *fields: Any) -> None:
        self.fields = fields


def blob(fields: tuple[Any, ...] = (torch.FloatStorage, "0", "cpu", 4, None), **changes: Any) -> bytes:
    """A storage of four floats in torch's stream format, with something changed."""

    class Pickler(pickle.Pickler):
        def persistent_id(self, value: object) -> Any:
            return ("storage", *value.fields) if isinstance(value, Reference) else None

    buffer = io.BytesIO()
    parts: dict[str, Any] = {"magic": 0x1950A86A20F9469CFC6C, "version": 1001, "system": {"little_endian": True},
             "object": Reference(*fields), "keys": ["0"], "numel": 4, "raw": bytes(16)} | changes  # fmt: skip
    for part in ("magic", "version", "system", "object", "keys"):
        Pickler(buffer, 2).dump(parts[part])
    return buffer.getvalue() + parts["numel"].to_bytes(8, "little", signed=True) + parts["raw"]


def test_blob_is_right_when_unchanged(tmp_path: Path) -> None:
    view = Calls(torch._utils._rebuild_tensor_v2, Stored(blob()), 0, (2, 2), (2, 1), False, {})
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"ema": {"w": view}}))
    assert read(str(tmp_path / "a.pkl")).tensors["w"].tolist() == [[0, 0], [0, 0]]


@pytest.mark.parametrize(
    "data",
    [
        blob(magic=1),
        blob(version=1002),
        blob(system={"little_endian": False}),
        blob(keys=["0", "1"]),
        blob(keys=["1"]),
        blob(keys=[]),
        blob(keys=[["0"]]),
        blob(numel=5),
        blob(numel=-1),
        blob(numel=2**62),
        blob(raw=bytes(15)),
        blob(raw=bytes(17)),
        blob(object=3),
        blob((torch.FloatStorage, "0", "cpu", 2**50, None), numel=2**50),
        blob((torch.FloatStorage, "0", "cpu", -4, None), numel=-4),
        blob((torch.FloatStorage, "0", "cpu", 4, ("1", 0, 4))),
        blob((torch.FloatStorage, "0", "cpu", 4)),
        blob((torch.FloatStorage, 0, "cpu", 4, None)),
        blob(("FloatStorage", "0", "cpu", 4, None)),
        blob((torch.nn.ModuleDict, "0", "cpu", 4, None)),
    ],
)
def test_damaged_storages(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"ema": {"w": Stored(data)}}))
    with pytest.raises(CheckpointError):
        read(str(tmp_path / "a.pkl"))


@pytest.mark.parametrize("change", [{"version": 5}, {"type": "function"}, {"class_name": None}, {"state": []}])
def test_persistent_objects_of_another_kind(tmp_path: Path, change: dict[str, Any]) -> None:
    net = Persistent("EDMPrecond", {})
    net.meta |= change
    with original_modules():
        (tmp_path / "a.pkl").write_bytes(pickle.dumps({"ema": net}))
    with pytest.raises(CheckpointError, match="persistent object"):
        read(str(tmp_path / "a.pkl"))


def rezipped(path: Path, change: Callable[[str, bytes], bytes | None], method: int = zipfile.ZIP_STORED) -> str:
    torch.save({"a": torch.ones(100)}, path)
    with zipfile.ZipFile(path) as old:
        members = {info.filename: old.read(info) for info in old.infolist()}
    with zipfile.ZipFile(path, "w", method) as new:
        for name, content in members.items():
            if (changed := change(name, content)) is not None:
                new.writestr(name, changed)
    return str(path)


def test_zips_that_do_not_hold_what_they_declare(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    assert read(rezipped(path, lambda name, content: content)).tensors["a"].sum() == 100
    with pytest.raises(CheckpointError, match="storage '0' has 399 bytes where 400 are declared"):
        read(rezipped(path, lambda name, content: content[:399] if name.endswith("data/0") else content))
    with pytest.raises(CheckpointError, match="storage '0' is missing"):
        read(rezipped(path, lambda name, content: None if name.endswith("data/0") else content))
    with pytest.raises(CheckpointError, match="big-endian"):
        read(rezipped(path, lambda name, content: b"big" if name.endswith("byteorder") else content))
    bomb = 200_000_000
    with pytest.raises(CheckpointError, match="claim more bytes"):
        read(rezipped(path, lambda name, content: bytes(bomb) if "data/" in name else content, zipfile.ZIP_DEFLATED))


def test_every_prefix_of_a_small_file(tmp_path: Path) -> None:
    net = torch.nn.Linear(2, 2)
    write_edm_pickle(tmp_path / "a.pkl", net)
    torch.save(net.state_dict(), tmp_path / "a.pt", _use_new_zipfile_serialization=False)
    for name in ("a.pkl", "a.pt"):
        whole = (tmp_path / name).read_bytes()
        assert read(str(tmp_path / name)).tensors
        for length in range(0, len(whole), 1 if name == "a.pt" else 3):
            (tmp_path / "cut").write_bytes(whole[:length])
            with pytest.raises(CheckpointError):
                read(str(tmp_path / "cut"))


def test_truncated_golden(tmp_path: Path) -> None:
    whole = (GOLDEN / "edm_ncsnpp_cond.pkl").read_bytes()
    for length in range(2, len(whole), 8191):
        (tmp_path / "cut.pkl").write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match="cut short at byte"):
            read(str(tmp_path / "cut.pkl"))


@pytest.mark.parametrize("name", ["edm_ncsnpp_cond.pkl", "sit_dump.pt", "legacy", "safetensors"])
def test_flipped_bytes_end_in_tensors_or_one_line(tmp_path: Path, name: str) -> None:
    """Seeded damage, mostly where the structure is: at the beginning, and in a zip's directory at the end."""
    if name == "legacy":
        torch.save({"ema": torch.nn.Linear(3, 3).state_dict()}, tmp_path / name, _use_new_zipfile_serialization=False)
        whole = (tmp_path / name).read_bytes()
    elif name == "safetensors":
        whole = safetensors.torch.save(torch.nn.Linear(3, 3).state_dict())
    else:
        whole = (GOLDEN / name).read_bytes()
    rng = random.Random(name)
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(rng.randrange(1, 4)):
            reach = rng.choice([300, 20_000, len(data)])
            at = rng.randrange(min(reach, len(data)))
            data[at if rng.random() < 0.5 or name.endswith(".pkl") else -1 - at] ^= 1 << rng.randrange(8)
        (tmp_path / "a").write_bytes(data)
        try:
            checkpoint = read(str(tmp_path / "a"))
        except CheckpointError:
            continue
        assert all(tensor.numel() <= len(data) for tensor in checkpoint.tensors.values())
