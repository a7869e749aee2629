"""How far training was, from a file's content or else from its name: (step, what it counts)."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from diffscope.checkpoints.run_files import run_file
from diffscope.errors import CheckpointError

SUFFIX = r"\.(?:pkl|pt|safetensors)"
# EDM and EDM2 count thousands of images; EDM2 adds the width of the average, 2147483-0.130.
SNAPSHOT = re.compile(rf"(?:(?:network-snapshot|training-state)-(\d{{6,7}})(?:-\d\.\d+)?|.+-(\d{{7}})-\d\.\d+){SUFFIX}")
DUMP = re.compile(rf"(\d{{7}}){SUFFIX}")  # SiT, DiT and REPA count steps
KEYS = ("steps", "step", "global_step")
UNITS = ("steps", "images", "epochs")
MAX_STEP = 2**53  # so that every program reads it alike from JSON

Step = tuple[int | None, str | None]


def step_of(top: Any, path: str) -> Step:
    """Finds how far training was in a pickle's top object, or in the file's name.

    Args:
        top: The file's top object.
        path: Of the file.

    Returns:
        (step, one of UNITS), or (None, None).

    Raises:
        CheckpointError: If the file says a number beyond 2^53.
    """
    if isinstance(top, dict):
        for key in KEYS:
            if type(top.get(key)) is int:
                return _checked(key, top[key]), "steps"
        state = top.get("state")
        if isinstance(state, dict) and type(state.get("cur_nimg")) is int:  # EDM2's training state
            return _checked("cur_nimg", state["cur_nimg"]), "images"
    named = _step_of_name(path)
    if named[0] is None and isinstance(top, dict) and type(top.get("epoch")) is int:  # JiT counts nothing finer
        return _checked("epoch", top["epoch"]), "epochs"
    return named


def step_of_header(metadata: Mapping[str, str], path: str) -> Step:
    """Finds how far training was in the header of a safetensors file, or in its name.

    Headers of others may mean something else by it.

    Args:
        metadata: The header.
        path: Of the file.

    Returns:
        (step, one of UNITS), or (None, None).

    Raises:
        CheckpointError: If a header of ours says something that is no step.
    """
    step, unit = metadata.get("step", ""), metadata.get("step_unit", "steps")
    if re.fullmatch("[0-9]{1,16}", step) and unit in UNITS:
        return _checked("step", int(step)), unit
    if step and "diffscope" in metadata:
        raise CheckpointError(
            f"its header says step '{step[:40]}', counted in '{unit[:40]}'; a number up to 2^53 of {', '.join(UNITS)} "
            "was expected"
        )
    return _step_of_name(path)


def _step_of_name(path: str) -> Step:
    """Finds how far training was in a file's name.

    Args:
        path: Of the file.

    Returns:
        (step, "steps" or "images"), or (None, None) where the name does not tell.
    """
    name = os.path.basename(path)
    if (named := run_file(name)) is not None:
        return named.step, "steps"
    if found := DUMP.fullmatch(name):
        return int(found[1]), "steps"
    if found := SNAPSHOT.fullmatch(name):
        return int(found[1] or found[2]) * 1000, "images"
    return None, None


def _checked(key: str, step: int) -> int:
    """Gives a step from 0 to 2^53; CheckpointError for any other."""
    if not 0 <= step <= MAX_STEP:
        # Python refuses to write out an integer of thousands of digits.
        found = step if abs(step) < 10**40 else f"an integer of {step.bit_length()} bits"
        raise CheckpointError(f"its '{key}' is {found}; a count from 0 to 2^53 was expected")
    return step
