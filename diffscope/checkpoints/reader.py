"""`read`: any supported checkpoint, as a `Checkpoint`.

Reading is data only. A file is sniffed, its pickle is read by `machine` with stand-ins for every name, one set of
weights is chosen, and only that set's bytes are read. Whatever is wrong with a file is one line: what was found, what
was expected, what to do.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

import torch

from diffscope import hub
from diffscope.checkpoints import legacy, published, sniff
from diffscope.checkpoints.archive import Archive
from diffscope.checkpoints.base import Checkpoint
from diffscope.checkpoints.budget import Budget
from diffscope.checkpoints.diffusers_folder import read_folder
from diffscope.checkpoints.diffusers_places import is_diffusers_folder
from diffscope.checkpoints.hub import locate
from diffscope.checkpoints.machine import DAMAGE, Machine
from diffscope.checkpoints.plain import Plain, arguments_of, attributes_of, network_of
from diffscope.checkpoints.run_files import run_file
from diffscope.checkpoints.safetensors_file import read_safetensors
from diffscope.checkpoints.standins import Namespace
from diffscope.checkpoints.steps import step_of
from diffscope.checkpoints.storages import materialise
from diffscope.checkpoints.table import table_of
from diffscope.checkpoints.training_folder import is_training_folder, read_training_folder
from diffscope.checkpoints.weights import Choice, choose
from diffscope.checkpoints.window import Window
from diffscope.errors import CheckpointError

MAX_LINE = 1000  # characters of a message
ARGUMENT_KEYS = ("args", "config")


ANALYTIC = ("toy:", "mixture:")
"""How models without a file are spelled; what follows are the arguments of their family."""
EXAMPLE_OF_A_MIXTURE = "mixture:classes=3,rank=4,side=8,delta=0.2"


def read(path: str | os.PathLike[str], weights: str = "ema", outline: bool = False, verify: bool = False) -> Checkpoint:
    """Reads a checkpoint as data; nothing in it is run.

    Args:
        path: A file, a diffusers folder, a Hub reference ("hf://OWNER/NAME@v1/a.pt"), a published model's short name
            ("sit:b-2-256") or an analytic model ("toy:d=32,side=8", "mixture:classes=3").
        weights: "ema" or "model"; of a file that holds one set, that set is taken and the record says so.
        outline: Read names, shapes and dtypes of all tensors, and the contents of small ones alone: what a file is, in
            no time. Large tensors are then on the meta device.
        verify: Compare every checksum in the file, which reads all of it; those of a file from the Hub are compared as
            its weights are read in any case.

    Returns:
        Its tensors and what it says of itself.

    Raises:
        CheckpointError: If it cannot be read as a checkpoint (UnsafePickle: if its pickle asks for more than data).
    """
    path = os.fspath(path)
    if weights not in ("ema", "model"):
        raise CheckpointError(one_line(f"{path}: `weights={weights}` does not exist; use ema or model"))
    reference = path if os.path.exists(path) else published.resolve(path) or path
    local, revision = locate(reference) if hub.is_reference(reference) else (reference, None)
    try:
        if path.startswith(ANALYTIC):
            return _read_toy(path)
        found = read_local(local, ReadOptions(weights, outline, verify, downloaded=revision is not None))
        return replace(found, path=path, local=local, revision=revision)
    except CheckpointError as error:
        raise type(error)(one_line(f"{path}: {error}")) from error
    except OSError as error:
        raise CheckpointError(one_line(f"{path}: cannot be read: {error.strerror or error}")) from error
    except DAMAGE as error:
        damaged = f"{path}: a damaged file ({type(error).__name__}: {error}); fetch or copy it again"
        raise CheckpointError(one_line(damaged)) from error


@dataclass(frozen=True)
class ReadOptions:
    """The options of `read`."""

    weights: str = "ema"
    outline: bool = False
    verify: bool = False
    """Compare every checksum now."""
    downloaded: bool = False
    """Compare the checksums of weights as they are read."""


def read_local(path: str, options: ReadOptions) -> Checkpoint:
    """Reads a file or folder on this disk.

    Args:
        path: Of the file or folder.
        options: What to read.

    Returns:
        Its record.

    Raises:
        CheckpointError: If it cannot be read as a checkpoint; the message does not name the path.
        OSError: If the disk refuses.
    """
    if os.path.isdir(path):
        checksums = 0

        def read_bin(file: str) -> Mapping[str, torch.Tensor]:
            nonlocal checksums
            found = read_local(file, replace(options, weights="ema"))
            checksums += found.checksums or 0
            return found.tensors

        if is_diffusers_folder(path) or not is_training_folder(path):
            folder = read_folder(path, options.weights, read_bin, options.outline)
        else:
            folder = read_training_folder(path, options.weights, options.outline, read_bin)
        return replace(folder, checksums=checksums if options.verify else None)
    if not os.path.exists(path):
        raise CheckpointError(hub.hint(path, "model") or f"no such file; {sniff.EXPECTED}")
    sniff.refuse_irregular(path)
    with open(path, "rb") as file:
        return _read_file(file, path, options)


def _read_file(file: BinaryIO, path: str, options: ReadOptions) -> Checkpoint:
    """Reads an open file of any kind.

    Args:
        file: At its beginning.
        path: Its name, which may tell the step.
        options: What to read.

    Returns:
        Its record.

    Raises:
        CheckpointError: If it cannot be read as a checkpoint.
    """
    size = os.fstat(file.fileno()).st_size
    kind = sniff.kind_of(file.read(sniff.HEAD), size)
    if kind == "safetensors":
        stored = read_safetensors(path, options.outline, options.weights)
        return replace(stored, checksums=0 if options.verify else None)
    archive = Archive(file, size, options.downloaded) if kind == "zip" else None
    checksums = archive.verify_all() if archive and options.verify else 0
    top, is_plain_pickle = _read_objects(file, size, archive)
    choice = choose(top, options.weights, run_file(path))
    module = choice.taken.module
    step, unit = step_of(top, path)
    plain = Plain()
    return Checkpoint(
        path=path,
        container=_container_of(top, choice, is_plain_pickle),
        tensors=materialise(choice.taken.tensors, options.outline),
        weights=choice.weights,
        weights_reason=one_line(choice.reason),
        class_name=module.class_name if module else None,
        network_class=network_of(module) if module else None,
        arguments=arguments_of(module, plain) if module else {},
        attributes=attributes_of(module, plain) if module else {},
        training_args=_training_args_of(top, plain),
        step=step,
        step_unit=unit,
        checksums=checksums if options.verify else None,
    )


def _read_objects(file: BinaryIO, size: int, archive: Archive | None) -> tuple[Any, bool]:
    """Reads the objects of a file that holds a pickle.

    Args:
        file: Open for reading, in binary.
        size: Of the file, in bytes.
        archive: The same file where it is a zip file.

    Returns:
        (the file's top object, whether it is a plain pickle rather than torch.save's).

    Raises:
        CheckpointError: If the pickle is damaged.
        UnsafePickle: If it asks for more than data.
    """
    budget = Budget()
    table = table_of(budget)
    if archive is not None:
        return archive.read(table, budget), False
    window = Window(file, 0, size)
    top = Machine(window, table, budget).load()
    if type(top) is int and top == legacy.MAGIC:
        return legacy.read_after_magic(window, table, budget), False
    return top, True


def _container_of(top: Any, choice: Choice, is_plain_pickle: bool) -> str:
    """Tells what kind of file it was.

    Args:
        top: Its top object.
        choice: The weights that were taken.
        is_plain_pickle: Whether torch.save was not used.

    Returns:
        "edm-pickle", "training-state", "lightning", "state-dict" or "train-dump".
    """
    if isinstance(top, dict) and "pytorch-lightning_version" in top:
        return "lightning"
    if choice.taken.module is not None:
        return "edm-pickle" if is_plain_pickle else "training-state"
    if not choice.taken.key:
        return "state-dict"
    return "training-state" if "net" in top and "state" in top else "train-dump"


def _training_args_of(top: Any, plain: Plain) -> dict[str, Any]:
    """Gives the training script's options.

    Args:
        top: The file's top object.
        plain: The file's own.

    Returns:
        Option → plain value; empty where there are none.

    Raises:
        CheckpointError: If an option's name is no text.
    """
    for key in ARGUMENT_KEYS if isinstance(top, dict) else ():
        if isinstance(top.get(key), (dict, Namespace)):
            found: dict[Any, Any] = plain(top[key])
            if odd := [name for name in found if type(name) is not str]:
                raise CheckpointError(f"its '{key}' has the name {odd[0]!r:.60}; names of options are text")
            return found
    return {}


def _read_toy(path: str) -> Checkpoint:
    """Reads the spelling of an analytic model.

    Args:
        path: Such as "toy:d=32,side=8".

    Returns:
        A record without tensors, whose arguments are those of the spelling.

    Raises:
        CheckpointError: If a part of it is no KEY=INTEGER, or of a mixture no KEY=NUMBER or KEY=WORD.
    """
    kind, _, facts = path.partition(":")
    arguments: dict[str, int | float | str] = {}
    for part in filter(None, facts.split(",")):
        found = re.fullmatch(r"([a-z_]+)=(?:(-?\d{1,9})(\.\d{1,9})?|([a-z]{1,20}))", part)
        if found is None or (kind == "toy" and (found[3] or found[4])):
            toy, mixture = ("KEY=INTEGER", "toy:d=32,side=8"), ("KEY=NUMBER or KEY=WORD", EXAMPLE_OF_A_MIXTURE)
            wanted, example = toy if kind == "toy" else mixture
            raise CheckpointError(f"'{part}' is no {wanted}; a {kind} model is spelled like {example}")
        key, whole, decimals, word = found.groups()
        arguments[key] = word or (float(whole + decimals) if decimals else int(whole))
    return Checkpoint(
        path=path,
        container=kind,
        tensors={},
        weights="model",
        weights_reason=f"a {kind} model has no weights",
        arguments=arguments,
    )


def one_line(text: str) -> str:
    """Makes a message printable: names come from the file, and must not reach a terminal as they are.

    Args:
        text: The message.

    Returns:
        At most MAX_LINE characters, with "?" for those that are not printable.
    """
    shown = text if len(text) <= MAX_LINE else f"{text[:MAX_LINE]}…"
    return "".join(character if character.isprintable() else "?" for character in shown)
