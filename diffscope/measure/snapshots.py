"""The snapshots of a training run: which files they are, and how far training was at each."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from diffscope.checkpoints import Checkpoint, is_checkpoint_folder, read
from diffscope.checkpoints.run_files import is_optimiser, run_file
from diffscope.checkpoints.sniff import EXPECTED
from diffscope.errors import (
    CheckpointError,
    EstimationError,
    NeedTwoViews,
    NoiseLevelError,
    ProtocolMismatch,
    TooFewImages,
    UnknownLayer,
    UsageError,
)
from diffscope.formats import CHECKPOINT_ENDINGS

NUMBERED = re.compile(r"(?:checkpoint|step)[-_]\d+")
"""What training scripts call the folders of a run, beside which the last weights lie once more."""

SHARED_FAULTS = (NeedTwoViews, TooFewImages)
"""What is wrong with the images or the settings, and so with all snapshots."""
OWN_FAULTS = (CheckpointError, EstimationError, NoiseLevelError, ProtocolMismatch, UnknownLayer)
"""What can be wrong with one snapshot (damaged, diverged, another network) while the others are sound."""


@dataclass(frozen=True)
class Snapshot:
    """One checkpoint of a run.

    Attributes:
        path: Where it lies.
        step: How far training was; None of a checkpoint alone that does not say.
        unit: What `step` counts: images or steps; None where only the name tells it.
    """

    path: str
    step: int | None
    unit: str | None = None

    @property
    def order(self) -> int:
        """Of the snapshots of a run."""
        return self.step or 0


@dataclass(frozen=True)
class LeftOut:
    """What could not be taken for a snapshot, and the reason."""

    path: str
    why: str


def find_snapshots(
    paths: Sequence[str], step_from: str | None = None, weights: str = "ema"
) -> tuple[list[Snapshot], list[LeftOut]]:
    """Finds the snapshots of a run.

    Args:
        paths: Checkpoints, and folders of them.
        step_from: A regular expression with one group, searched in each path, that finds the step.
        weights: Which are read of a file with several: ema or model.

    Returns:
        Snapshots by rising step, and what could not be taken for one.

    Raises:
        CheckpointError: If no snapshot is left, two have the same step, or their steps count different things.
        UsageError: If `step_from` is no such expression.
    """
    pattern = step_pattern(step_from)
    found: list[Snapshot] = []
    left_out: list[LeftOut] = []
    for path in expanded(paths, weights, runs=True):
        try:
            found.append(snapshot_of(path, pattern, weights))
        except CheckpointError as error:
            left_out.append(LeftOut(path, str(error)))
    if not found:
        why = left_out[0].why if left_out else f"nothing of the kind in {', '.join(paths)}; {EXPECTED}"
        raise CheckpointError(f"no snapshot of a training run; {why}")
    found.sort(key=lambda snapshot: snapshot.order)
    check_series(found)
    return found, left_out


def find_series(
    paths: Sequence[str], step_from: str | None = None, weights: str = "ema"
) -> tuple[list[Snapshot], list[LeftOut]]:
    """`find_snapshots`, but that a single checkpoint need not say its step."""
    if step_from is None and len(single := expanded(paths, weights)) == 1:
        checkpoint = read(single[0], weights, outline=True)
        return [Snapshot(single[0], checkpoint.step, checkpoint.step_unit)], []
    return find_snapshots(paths, step_from, weights)


def step_pattern(step_from: str | None) -> re.Pattern[str] | None:
    """What finds the step in a path; UsageError where it is no regular expression with one group."""
    if step_from is None:
        return None
    try:
        pattern = re.compile(step_from)
    except re.error as error:
        raise UsageError(
            f"`step_from=` '{step_from}': not a regular expression ({error}); such as 'step=(\\d+)'"
        ) from None
    if pattern.groups != 1:
        raise UsageError(f"`step_from=` '{step_from}': expected one group around the step, such as 'step=(\\d+)'")
    return pattern


def expanded(paths: Sequence[str], weights: str = "ema", runs: bool = False) -> list[str]:
    """Folders replaced by the checkpoints in them, but those that are one themselves.

    Args:
        paths: Files and folders.
        weights: Which of several kinds side by side: ema or model.
        runs: Whether a folder that is one and holds others as well, as of a finished run, stands for these.

    Returns:
        Checkpoints, each once.
    """
    found: list[str] = []
    for path in paths:
        is_run = os.path.isdir(path) and (not is_checkpoint_folder(path) or (runs and _numbered(path)))
        found += in_folder(path, weights) if is_run else [path]
    return list(dict.fromkeys(found))


def in_folder(folder: str, weights: str = "ema") -> list[str]:
    """Checkpoints of a folder by name, unfinished ones (hidden, or with another suffix) not among them.

    Of a run with numbered folders these are taken alone; where NVIDIA's snapshots lie beside the larger training
    states, the snapshots are; where OpenAI's averages lie beside the weights in training, those that `weights` says.
    CheckpointError where the averages have several rates.
    """
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise CheckpointError(f"{folder}: cannot be read: {error.strerror or error}") from None
    paths = [os.path.join(folder, name) for name in names if not name.startswith(".")]
    if numbered := _numbered(folder):
        return numbered
    taken = [p for p in paths if p.endswith(CHECKPOINT_ENDINGS) and os.path.isfile(p)]
    taken += [p for p in paths if os.path.isdir(p) and is_checkpoint_folder(p)]
    if any(os.path.basename(p).startswith("network-snapshot-") for p in taken):
        taken = [p for p in taken if not os.path.basename(p).startswith("training-state-")]
    return _of_one_kind(folder, [p for p in taken if not is_optimiser(p)], weights)


def _of_one_kind(folder: str, paths: list[str], weights: str) -> list[str]:
    """Without the raw weights beside averages, or the other way round."""
    named = {path: file for path in paths if (file := run_file(path)) is not None}
    wanted = [path for path, file in named.items() if file.weights == weights]
    taken = [path for path in paths if path in wanted or path not in named] if wanted else paths
    rates = sorted({str(file.rate) for path, file in named.items() if path in taken and file.rate is not None})
    if len(rates) > 1:
        globs = " or ".join(os.path.join(folder, f"ema_{rate}_*") for rate in rates)
        raise CheckpointError(
            f"{folder}: averages (EMA) of the rates {' and '.join(rates)} side by side; a series has one: give {globs}"
        )
    return taken


def _numbered(folder: str) -> list[str]:
    """The folders of a run that are checkpoints, such as `checkpoint-500`, by name."""
    paths = [os.path.join(folder, name) for name in sorted(os.listdir(folder)) if NUMBERED.fullmatch(name)]
    return [path for path in paths if os.path.isdir(path) and is_checkpoint_folder(path)]


def snapshot_of(path: str, pattern: re.Pattern[str] | None = None, weights: str = "ema") -> Snapshot:
    """One checkpoint and its step, from its outline alone. Raises CheckpointError where it has none."""
    checkpoint = read(path, weights, outline=True)
    if pattern is not None:
        match = pattern.search(path)
        if not match or not match[1].isdecimal():
            raise CheckpointError(f"{path}: `step_from=` '{pattern.pattern}' finds no step in this path")
        return Snapshot(path, int(match[1]), None)
    if checkpoint.step is not None:
        return Snapshot(path, checkpoint.step, checkpoint.step_unit)
    return Snapshot(path, _step_in_name(checkpoint), None)


def _step_in_name(checkpoint: Checkpoint) -> int:
    """`epoch=3-step=1200.ckpt`, `model_1200.pt`: a number called step, or the only one there is."""
    stem = os.path.splitext(checkpoint.name)[0]
    called = re.findall(r"step[-_=]?(\d+)", stem, re.IGNORECASE)
    numbers = called or re.findall(r"\d+", stem)
    if len(numbers) != 1:
        raise CheckpointError(
            f"{checkpoint.path}: neither the file nor its name says at which training step it was written; "
            r"say where it stands, such as `step_from=` 'ckpt-(\d+)'"
        )
    return int(numbers[0])


def check_series(snapshots: Sequence[Snapshot]) -> None:
    """Whether these can be one run, ordered by its steps."""
    kinds: dict[str, str] = {}
    for snapshot in snapshots:
        if (file := run_file(snapshot.path)) is not None:
            kinds.setdefault(file.kind, snapshot.path)
    if len(kinds) > 1:
        named = "; ".join(f"{path}: {kind}" for kind, path in kinds.items())
        raise CheckpointError(
            f"different weights of a run in one series: {named}; give one kind (such as 'ema_0.9999_*'), or the folder"
        )
    for before, after in pairwise(snapshots):
        if before.step == after.step:
            raise CheckpointError(
                f"{before.path} and {after.path} both stand at step {after.step}; a series has one checkpoint a step: "
                "name one set of files (a glob such as '*-0.050.pkl'), or `step_from=`"
            )
    units = {snapshot.unit: snapshot.path for snapshot in reversed(snapshots)}
    if len(units) > 1:
        named = "; ".join(f"{path} in {unit or 'an unknown unit'}" for unit, path in units.items())
        raise CheckpointError(f"steps are counted differently: {named}; give the files of one run, or `step_from=`")
