"""A case damaged: which of its files, and how, follows from a source of chance alone."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from fuzzing import generic, pickles, pixels, texts, zips
from fuzzing.cases import Case, Odd

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm")
ODD = ("fifo", "socket", "folder", "link:/dev/zero", "link:missing", "link:.", "link:/proc/self/mem", "hole:1000000000")


def damaged(chance: Random, case: Case, others: Sequence[bytes]) -> Case:
    """`others`: contents of files of the same kind, to splice with."""
    files = dict(case.files)
    said = []
    for name in chance.sample(case.changed, min(len(case.changed), chance.choice((1, 1, 1, 2, 3)))):
        content = files[name]
        how = chance.random()
        if isinstance(content, Odd) or how < 0.01:
            files[name] = odd = Odd(chance.choice(ODD))
            said.append(f"{name}: {odd}")
        elif how < 0.02:
            del files[name]
            said.append(f"{name}: gone")
        else:
            files[name] = changed(chance, name, content, others)
            said.append(f"{name}: {len(content)} bytes made {len(files[name])}")
    return case.with_files(files, "; ".join(said))


def changed(chance: Random, name: str, content: bytes, others: Sequence[bytes]) -> bytes:
    """By what the file is, or by brute force."""
    if chance.random() < 0.3:
        return generic.damaged(chance, content, others)
    return informed(chance, name, content, others)


def informed(chance: Random, name: str, content: bytes, others: Sequence[bytes] = ()) -> bytes:
    lower = name.lower()
    if content.startswith(b"PK\3\4"):
        return zips.edited(chance, content, informed)
    if content[:1] == b"\x80" and content[1:2] in (b"\2", b"\3", b"\4", b"\5"):
        return pickles.edited(chance, content, [other for other in others if other[:1] == b"\x80"])
    if content[8:9] == b"{" and lower.endswith(".safetensors"):
        return texts.edited_safetensors(chance, content)
    if lower.endswith(".json"):
        return texts.edited_json(chance, content)
    if lower.endswith(".csv"):
        return texts.edited_csv(chance, content)
    if content.startswith(b"\x93NUMPY"):
        return pixels.edited_array(chance, content)
    if lower.endswith(PICTURES):
        return pixels.edited_picture(chance, content, others)
    return generic.damaged(chance, content, others)
