"""Small files that once took the machine, or ended in an error that nobody expected; each stands for a class."""

from __future__ import annotations

import io
import json
import pickle
import struct
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from safetensors.torch import save

from fuzzing import pickles, pixels, zips
from fuzzing.cases import Case, Files, Odd
from fuzzing.seeds import DATA, fixtures, iddpm_tensors, parquet, picture_files, readers, zipped

MANY = 200_000


def corpus() -> Iterator[Case]:
    yield from checkpoint("large output", larger_than_their_input())
    yield from checkpoint("hashing", hashed_again())
    yield from checkpoint("shared again", walked_again())
    yield from facts()
    yield from stretched()
    yield from inflated()
    yield from no_files()
    yield from among_good_ones()


def checkpoint(what: str, contents: dict[str, bytes]) -> Iterator[Case]:
    for name, content in contents.items():
        yield Case("corpus", {"a.pkl": content}, ("inspect", "a.pkl"), ("a.pkl",), what=f"{what}: {name}")


# Pickles: a memo index of one byte is enough for each


def file_of(made: bytes) -> bytes:
    """`made` leaves one value, which stands beside a set of weights that is empty."""
    return b"\x80\x04}(X\x03\x00\x00\x00emah\x00X\x04\x00\x00\x00args".replace(b"h\x00", b"}") + made + b"u."


def again(value: bytes, call: bytes, times: int = MANY) -> bytes:
    """A list of the results of `times` calls with one shared argument."""
    return value + b"q\x000" + call + b"q\x010](" + b"h\x01h\x00\x85R" * times + b"e"


def larger_than_their_input() -> dict[str, bytes]:
    long_list = b"](" + b"N" * 500_000 + b"e"
    numbers = b"](" + b"".join(pickles.integer(k) for k in range(100_000)) + b"e"
    pairs = b"](" + b"".join(pickles.integer(k) + b"N\x86" for k in range(100_000)) + b"e"
    storage = b"B" + struct.pack("<I", len(stream := stored_bytes(1 << 20))) + stream
    size, encode = pickles.name("torch", "Size"), pickles.name("_codecs", "encode")
    # A text in UTF-8 of one megabyte, which is copied at each call.
    letters = pickles.text("a" * (1 << 20)) + b"q\x000" + pickles.text("latin1") + b"q\x020" + encode + b"q\x010"
    return {
        "Size": file_of(again(long_list, size)),
        "set": file_of(again(numbers, pickles.name("builtins", "set"))),
        "OrderedDict": file_of(again(pairs, pickles.name("collections", "OrderedDict"))),
        "encode": file_of(letters + b"](" + b"h\x01h\x00h\x02\x86R" * MANY + b"e"),
        "_load_from_bytes": file_of(again(storage, pickles.name("torch.storage", "_load_from_bytes"))),
        "arrays": arrays_in_arguments(),
    }


def stored_bytes(count: int) -> bytes:
    """A storage in torch's stream format."""
    out = io.BytesIO()
    torch.save(torch.zeros(count, dtype=torch.uint8).untyped_storage(), out, _use_new_zipfile_serialization=False)
    return out.getvalue()


def arrays_in_arguments() -> bytes:
    """One array of 4,096 numbers in 100,000 places of what the file says of itself."""
    array = np.zeros(4096)
    return pickle.dumps({"ema": {"w": torch.ones(2)}, "args": {"x": [[array] * 300] * 300}}, 4)


def hashed_again() -> dict[str, bytes]:
    key = b"(" + b"N" * 500_000 + b"tq\x000"
    multiples = b"".join(pickles.integer(k * (2**61 - 1)) + b"N" for k in range(150_000))
    return {
        "a long key": file_of(key + b"}(" + b"h\x00N" * 300_000 + b"u"),
        "keys of one hash": file_of(b"}(" + multiples + b"u"),
        "members of one hash": file_of(
            b"\x8f(" + b"".join(pickles.integer(k * (2**61 - 1)) for k in range(150_000)) + b"\x90"
        ),
    }


def walked_again() -> dict[str, bytes]:
    with fixtures() as edm:
        many = edm.Persistent("Net", {"_parameters": {f"w{k}": torch.ones(1) for k in range(1000)}})
        top = edm.Persistent("Net", {"_modules": {str(k): many for k in range(30_000)}})
        values = [[0] * 300] * 300
        wide = edm.Persistent(
            "EDMPrecond", {"_parameters": {"w": torch.ones(1)}, **{f"a{k}": values for k in range(5000)}}
        )
        with edm.original_modules():
            return {"modules": pickle.dumps({"ema": top}, 4), "attributes": pickle.dumps({"ema": wide}, 4)}


# What a file says of itself


def facts() -> Iterator[Case]:
    tensors, metadata = iddpm_tensors()
    said: list[dict[str, Any]] = [
        {"num_blocks": 10**7}, {"channel_mult": [1] * 20_000}, {"M": 10**7}, {"M": 1}, {"label_dim": 10**30},
        {"img_resolution": 10**400}, {"C_1": float("nan")}, {"model_channels": -8}, {"attn_resolutions": [[[]]]},
    ]  # fmt: skip
    for fact in said:
        arguments = json.loads(metadata["arguments"])
        arguments |= fact
        content = save(tensors, {**metadata, "arguments": json.dumps(arguments)})
        yield Case(
            "corpus", {"a.safetensors": content}, ("inspect", "a.safetensors"), ("a.safetensors",), what=str(fact)[:60]
        )
    for model, fact in (
        ("diffusers-unet", {"layers_per_block": 10**7}), ("diffusers-unet", {"sample_size": 10**9}),
        ("diffusers-dit", {"num_layers": 10**7}), ("diffusers-dit", {"attention_head_dim": 10**400}),
    ):  # fmt: skip
        files = {f"m/{path.name}": path.read_bytes() for path in sorted((DATA / "sit" / model).iterdir())}
        files["m/config.json"] = json.dumps({**json.loads(files["m/config.json"]), **fact}).encode()
        yield Case("corpus", files, ("inspect", "m"), tuple(files), what=f"{model} {fact}"[:60])
    deep = {**files, "m/config.json": b'{"a":' * 100_000 + b"1" + b"}" * 100_000}
    yield Case("corpus", deep, ("inspect", "m"), tuple(deep), what="deep JSON")


# Images


def images(what: str, files: Files, data: str, every: bool = True) -> Iterator[Case]:
    for argv in list(readers(data))[: 2 if every else 1]:
        yield Case("corpus", files, argv, tuple(files), pictures=True, what=what)


def stretched() -> Iterator[Case]:
    for width, height in ((1, 20_000), (20_000, 1), (1, 10**6), (10**7, 4)):
        yield from images(f"{width} x {height}", {"pics/a.png": pixels.plain_png(width, height)}, "pics")


def inflated() -> Iterator[Case]:
    count = 3 * 10**9
    good = [zips.stored(name, content) for name, content in picture_files().items()]
    bombs: dict[str, Sequence[zips.Member]] = {
        "a picture": [*good, zips.bomb("a/z.png", count, pixels.plain_png(4, 4))],
        "dataset.json": [*good, zips.bomb("dataset.json", count)],
    }
    for what, members in bombs.items():
        yield from images(f"{what} of 3 GB", {"a.zip": zips.pack(members)}, "a.zip", every=False)
    for shape in ((count // 192, 8, 8, 3), (4, 8, 8, 3)):
        head = pixels.npy(np.zeros((1, 8, 8, 3), np.uint8))[:128].replace(b"(1, 8, 8, 3), }", f"{shape}, }}".encode())
        head = head.rstrip()[:127].ljust(127) + b"\n"
        content = zips.pack([zips.bomb("images.npy", count, head)])
        yield from images(f"an npz of 3 GB that says {shape}", {"a.npz": content}, "a.npz", every=False)


def no_files() -> Iterator[Case]:
    good = {f"pics/{name}": content for name, content in picture_files().items()}
    for kind in ("fifo", "socket", "link:/dev/zero", "link:/dev/full", "link:missing", "folder"):
        odd = Odd(kind)
        yield Case("corpus", {"a.pkl": odd}, ("inspect", "a.pkl"), ("a.pkl",), what=f"checkpoint: {kind}")
        for name in ("a.npz", "a.zip", "a.parquet"):
            yield from images(f"{name}: {kind}", {name: odd}, name, every=False)
        yield from images(f"among pictures: {kind}", {**good, "pics/a/odd.png": odd}, "pics", every=False)
        yield from images(f"dataset.json: {kind}", {**good, "pics/dataset.json": odd}, "pics", every=False)


def among_good_ones() -> Iterator[Case]:
    files = picture_files()
    rows = [{"image": {"bytes": content, "path": name}, "label": 0} for name, content in files.items()]
    nulls: list[dict[str, Any]] = [*rows, {"image": None, "label": 1}]
    yield from images("a null cell", {"a.parquet": parquet(nulls)}, "a.parquet", every=False)
    deep = {"huggingface": '{"a":' * 100_000 + "1" + "}" * 100_000}
    yield from images("deep JSON in Parquet", {"a.parquet": parquet(rows, deep)}, "a.parquet", every=False)
    good = [zips.stored(name, content) for name, content in files.items()]
    yield from images("a zip of version 255", {"a.zip": zips.pack([replace(m, needed=255) for m in good])}, "a.zip")
    yield from images("a damaged zip", {"a.zip": zips.pack([*good[1:], replace(good[0], crc=1)])}, "a.zip")
    damaged = {f"pics/{name}": content[: len(content) // 2] for name, content in files.items()}
    whole = {f"pics/whole/{name}": content for name, content in files.items()}
    yield from images("damaged pictures", {**damaged, **whole}, "pics")
    names = {"pics/\x1b[31m.png": files["a/png.png"], "pics/\u202egnp.png": files["a/png.png"][:50]}
    yield from images("names", {**names, "pics/a.zip": zipped(files)}, "pics")
