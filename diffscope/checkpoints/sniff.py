"""What kind of file this is, from its first bytes; whatever is no checkpoint is named and refused here."""

from __future__ import annotations

import os

from diffscope.errors import CheckpointError
from diffscope.formats import CHECKPOINT_ENDINGS
from diffscope.textfile import irregular

HEAD = 512  # bytes looked at; a tar names itself at 257
MAX_HEADER = 1 << 25  # bytes of a safetensors header; that of 10,000 tensors has 2 MB
LIBRARY_HEADER = 100_000_000  # bytes, safetensors' own limit
EXPECTED = f"a checkpoint was expected ({', '.join(CHECKPOINT_ENDINGS[:-1])} or {CHECKPOINT_ENDINGS[-1]})"

MAGICS = {
    b"\x1f\x8b": "a gzip file; unpack it first (gunzip, tar -x)",
    b"BZh": "a bzip2 file; unpack it first",
    b"\xfd7zXZ": "an xz file; unpack it first",
    b"\x28\xb5\x2f\xfd": "a zstd file; unpack it first",
    b"Rar!": "a rar file; unpack it first",
    b"7z\xbc\xaf": "a 7z file; unpack it first",
    b"\x89HDF": "an HDF5 file; save the network's weights as safetensors",
    b"\x93NUMPY": "a NumPy array; save the network's weights as safetensors",
    b"PK\x05\x06": "an empty zip file; fetch or copy it again",
    b"\x89PNG": "a picture; pictures go to `data=`, in a folder",
    b"\xff\xd8\xff": "a picture; pictures go to `data=`, in a folder",
    b"GGUF": "a GGUF file; save the network's weights as safetensors",
}


def kind_of(head: bytes, size: int) -> str:
    """Tells a file's kind from its first bytes.

    Args:
        head: The first `HEAD` bytes, or all where there are fewer.
        size: Of the file, in bytes.

    Returns:
        "pickle", "zip" or "safetensors".

    Raises:
        CheckpointError: If it is anything else, which is named.
    """
    if not size:
        raise CheckpointError(f"an empty file; {EXPECTED}; fetch or copy it again")
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return "pickle"
    if head[:4] == b"PK\x03\x04":
        return "zip"
    if head[8:9] == b"{" and (length := int.from_bytes(head[:8], "little")) <= LIBRARY_HEADER:
        if length > MAX_HEADER:
            raise CheckpointError(f"a safetensors file whose header has {length} bytes; {MAX_HEADER} are read")
        return "safetensors"
    for magic, found in MAGICS.items():
        if head.startswith(magic):
            raise CheckpointError(f"{found}; {EXPECTED}")
    if head[:1] == b"\x08" and head[2:3] == b"\x12":  # a message of protobuf: ir_version, then the producer's name
        raise CheckpointError(f"an ONNX file, which holds a program; {EXPECTED}; save the weights as safetensors")
    if head[257:262] == b"ustar":
        raise CheckpointError(f"a tar file; unpack it first (tar -x); {EXPECTED}")
    _refuse_text(head)
    raise CheckpointError(
        f"begins with bytes {head[:4].hex(' ')}, which no known format does; {EXPECTED}; fetch or copy the file again"
    )


def refuse_irregular(path: str) -> None:
    """Refuses whatever could keep a reader waiting, or never ends.

    Args:
        path: Of the file.

    Raises:
        CheckpointError: If it is a folder, pipe, socket or device.
        OSError: If there is nothing.
    """
    if (kind := irregular(path)) is not None:
        found = kind.replace("a pipe", "a named pipe")
        raise CheckpointError(f"{os.path.basename(path)} is {found} and not a file; {EXPECTED}: copy it into a file")


def _refuse_text(head: bytes) -> None:
    """Names the text files that are given in place of a checkpoint; CheckpointError for each of them."""
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith(b"version https://git-lfs"):
        raise CheckpointError(f"a Git-LFS pointer instead of the file itself; {EXPECTED}; run `git lfs pull`")
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<?xml")):
        raise CheckpointError(
            f"a web page: a download page was saved instead of the file; {EXPECTED}; fetch the file itself"
        )
    if text.startswith(b"{") and b'"diffscope"' in text:
        raise CheckpointError(
            f"a result of diffscope; {EXPECTED}; results are for diffscope compare OLD/result.json NEW/result.json"
        )
    if text.startswith(b"{"):
        raise CheckpointError(f"a JSON file; {EXPECTED}; of a diffusers model give the folder that it lies in")
    if all(byte in b"\t\r\n\f\b\x1b" or byte >= 0x20 for byte in head) and head.isascii():
        raise CheckpointError(f"a text file; {EXPECTED}")
