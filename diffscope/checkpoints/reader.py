"""`read`: any supported checkpoint, as a `Checkpoint`.

Reading is data only. A file is sniffed, its pickle is read by `machine` with stand-ins for every name, one set of
weights is chosen, and only that set's bytes are read. Whatever is wrong with a file is one line: what was found, what
was expected, what to do.
"""

from __future__ import annotations

import json
import math
import os
import re
from dataclasses import replace
from typing import Any, BinaryIO

import safetensors
import torch

from diffscope import hub
from diffscope.checkpoints import legacy, published, sniff
from diffscope.checkpoints.archive import Archive
from diffscope.checkpoints.base import Checkpoint
from diffscope.checkpoints.budget import Budget
from diffscope.checkpoints.diffusers_folder import read_folder
from diffscope.checkpoints.hub import locate
from diffscope.checkpoints.machine import DAMAGE, Machine
from diffscope.checkpoints.plain import Plain, arguments_of, attributes_of, network_of
from diffscope.checkpoints.standins import Namespace, table_of
from diffscope.checkpoints.storages import OUTLINE_BYTES, materialise
from diffscope.checkpoints.weights import Choice, choose
from diffscope.checkpoints.window import Window
from diffscope.errors import CheckpointError

SUFFIX = r"\.(?:pkl|pt|safetensors)"
# EDM and EDM2 count thousands of images; EDM2 adds the width of the average, 2147483-0.130.
SNAPSHOT = re.compile(rf"(?:(?:network-snapshot|training-state)-(\d{{6,7}})(?:-\d\.\d+)?|.+-(\d{{7}})-\d\.\d+){SUFFIX}")
DUMP = re.compile(rf"(\d{{7}}){SUFFIX}")  # SiT, DiT and REPA count steps
SAFETENSORS_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
STEP_KEYS = ("steps", "step", "global_step")
ARGUMENT_KEYS = ("args", "config")


ANALYTIC = ("toy:", "mixture:")
"""How models without a file are spelled; what follows are the arguments of their family."""
EXAMPLE_OF_A_MIXTURE = "mixture:classes=3,rank=4,side=8,delta=0.2"


def read(path: str | os.PathLike[str], weights: str = "ema", outline: bool = False) -> Checkpoint:
    """Reads a file, a diffusers folder, a Hub reference ("hf://OWNER/NAME@v1/a.pt"), a published model's
    short name ("sit:b-2-256") or an analytic model ("toy:d=32,side=8", "mixture:classes=3").

    `weights` is "ema" or "model"; of a file that holds one set, that set is taken and the record says so. An `outline`
    has names, shapes and dtypes of all tensors and the contents of small ones: what a file is, in no time.
    """
    path = os.fspath(path)
    if weights not in ("ema", "model"):
        raise CheckpointError(one_line(f"{path}: --weights {weights} does not exist; use ema or model"))
    reference = path if os.path.exists(path) else published.resolve(path) or path
    local, revision = locate(reference) if hub.is_reference(reference) else (reference, None)
    try:
        if path.startswith(ANALYTIC):
            return read_toy(path)
        if os.path.isdir(local):
            folder = read_folder(local, weights, lambda file: read(file).tensors)
            return replace(folder, path=path, local=local, revision=revision)
        if not os.path.exists(local):
            raise CheckpointError(hub.meant(path, "model") or f"no such file; {sniff.EXPECTED}")
        with open(local, "rb") as file:
            return replace(read_file(file, local, weights, outline), path=path, local=local, revision=revision)
    except CheckpointError as error:
        raise type(error)(one_line(f"{path}: {error}")) from error
    except OSError as error:
        raise CheckpointError(one_line(f"{path}: cannot be read: {error.strerror or error}")) from error
    except (*DAMAGE, safetensors.SafetensorError) as error:
        damaged = f"{path}: a damaged file ({type(error).__name__}: {error}); fetch or copy it again"
        raise CheckpointError(one_line(damaged)) from error


def read_file(file: BinaryIO, path: str, weights: str, outline: bool) -> Checkpoint:
    size = os.fstat(file.fileno()).st_size
    kind = sniff.kind_of(file.read(sniff.HEAD), size)
    if kind == "safetensors":
        return read_safetensors(path, outline)
    top, is_plain_pickle = read_objects(file, size, kind)
    choice = choose(top, weights)
    module = choice.taken.module
    step, unit = step_of(top, path)
    plain = Plain()
    return Checkpoint(
        path=path,
        container=container_of(top, choice, is_plain_pickle),
        tensors=materialise(choice.taken.tensors, outline),
        weights=choice.weights,
        weights_reason=one_line(choice.reason),
        class_name=module.class_name if module else None,
        network_class=network_of(module) if module else None,
        arguments=arguments_of(module, plain) if module else {},
        attributes=attributes_of(module, plain) if module else {},
        training_args=training_args_of(top, plain),
        step=step,
        step_unit=unit,
    )


def read_objects(file: BinaryIO, size: int, kind: str) -> tuple[Any, bool]:
    """(the file's top object, whether it is a plain pickle rather than torch.save's)."""
    budget = Budget()
    table = table_of(budget)
    if kind == "zip":
        return Archive(file, size).read(table, budget), False
    window = Window(file, 0, size)
    top = Machine(window, table, budget).load()
    if type(top) is int and top == legacy.MAGIC:
        return legacy.read_after_magic(window, table, budget), False
    return top, True


def container_of(top: Any, choice: Choice, is_plain_pickle: bool) -> str:
    if choice.taken.module is not None:
        return "edm-pickle" if is_plain_pickle else "training-state"
    if not choice.taken.key:
        return "state-dict"
    return "training-state" if "net" in top and "state" in top else "train-dump"


def step_of(top: Any, path: str) -> tuple[int | None, str | None]:
    if isinstance(top, dict):
        for key in STEP_KEYS:
            if type(top.get(key)) is int:
                return top[key], "steps"
        state = top.get("state")
        if isinstance(state, dict) and type(state.get("cur_nimg")) is int:  # EDM2's training state
            return state["cur_nimg"], "images"
    return step_of_name(path)


def step_of_name(path: str) -> tuple[int | None, str | None]:
    name = os.path.basename(path)
    if found := DUMP.fullmatch(name):
        return int(found[1]), "steps"
    if found := SNAPSHOT.fullmatch(name):
        return int(found[1] or found[2]) * 1000, "images"
    return None, None


def training_args_of(top: Any, plain: Plain) -> dict[str, Any]:
    for key in ARGUMENT_KEYS if isinstance(top, dict) else ():
        if isinstance(top.get(key), (dict, Namespace)):
            return {str(name): value for name, value in plain(top[key]).items()}
    return {}


def read_safetensors(path: str, outline: bool) -> Checkpoint:
    """Our own conversions carry the record's fields in the header, each as JSON, so that nothing is lost on the way."""
    with safetensors.safe_open(path, framework="pt") as file:
        metadata = dict(file.metadata() or {})
        names = getattr(file, "offset_keys", file.keys)()  # in the file's order, where safetensors is new enough
        tensors = {name: _outlined(file, name) if outline else file.get_tensor(name) for name in names}
    if not tensors or not all(map(str.isprintable, tensors)):
        raise CheckpointError("a safetensors file without tensors, or with control characters in their names")
    known = metadata.get("weights")
    if known in ("ema", "model"):
        reason = f"the file holds one set of weights and its header says that it is '{known}'"
    else:
        known, reason = "model", "the file holds one set of weights and does not say whether it is an EMA"
    step, unit = step_of_name(path)
    if metadata.get("step", "").isdecimal():
        step, unit = int(metadata["step"]), metadata.get("step_unit", "steps")
    return Checkpoint(
        path=path,
        container="safetensors",
        tensors=tensors,
        weights=known,
        weights_reason=reason,
        class_name=metadata.get("class_name"),
        network_class=metadata.get("network_class"),
        arguments=header_dict(metadata, "arguments"),
        attributes=header_dict(metadata, "attributes"),
        training_args=header_dict(metadata, "training_args"),
        metadata=metadata,
        step=step,
        step_unit=unit,
    )


def _outlined(file: Any, name: str) -> torch.Tensor:
    part = file.get_slice(name)
    shape, dtype = part.get_shape(), SAFETENSORS_DTYPES.get(part.get_dtype())
    if dtype is None or math.prod(shape) * dtype.itemsize <= OUTLINE_BYTES:
        tensor: torch.Tensor = file.get_tensor(name)
        return tensor
    return torch.empty(shape, dtype=dtype, device="meta")


def header_dict(metadata: dict[str, str], key: str) -> dict[str, Any]:
    try:
        found = json.loads(metadata.get(key, "{}"))
    except ValueError:
        return {}  # somebody else's header, whose `arguments` mean something else; it stays under `metadata`
    return found if isinstance(found, dict) else {}


def read_toy(path: str) -> Checkpoint:
    kind, _, facts = path.partition(":")
    arguments: dict[str, int | float] = {}
    for part in filter(None, facts.split(",")):
        found = re.fullmatch(r"([a-z_]+)=(-?\d{1,9})(\.\d{1,9})?", part)
        if found is None or (found[3] and kind == "toy"):
            number, example = ("INTEGER", "toy:d=32,side=8") if kind == "toy" else ("NUMBER", EXAMPLE_OF_A_MIXTURE)
            raise CheckpointError(f"'{part}' is no KEY={number}; a {kind} model is spelled like {example}")
        arguments[found[1]] = float(found[2] + found[3]) if found[3] else int(found[2])
    return Checkpoint(
        path=path,
        container=kind,
        tensors={},
        weights="model",
        weights_reason=f"a {kind} model has no weights",
        arguments=arguments,
    )


def one_line(text: str) -> str:
    """Names come from the file: whatever is not printable in them must not reach a terminal."""
    return "".join(character if character.isprintable() else "?" for character in text)
