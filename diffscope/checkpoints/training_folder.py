"""Folders that training frameworks write: accelerate's and Lightning's, whole or in shards of several processes.

    FOLDER/model.safetensors, or model.safetensors.index.json and its shards, or pytorch_model.bin
    FOLDER/.metadata and __0_0.distcp, …, or the same in FOLDER/pytorch_model_fsdp_0

What lies beside them (optimizer.bin, random_states_0.pkl) is not opened.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence

from torch import Tensor

from diffscope.checkpoints import distributed
from diffscope.checkpoints.base import Checkpoint
from diffscope.checkpoints.diffusers_places import STEP, is_diffusers_folder
from diffscope.checkpoints.diffusers_weights import BinReader, StoredTensors, choose_weights, read_weights
from diffscope.checkpoints.weights import choose_names
from diffscope.errors import CheckpointError
from diffscope.formats import CHECKPOINT_ENDINGS

STEMS = ("model", "pytorch_model")
FSDP = re.compile(r"(?:pytorch_)?model_fsdp_\d+")
"""accelerate's folder of one model's shards."""
MODEL = re.compile(r"(?:pytorch_)?model(?:\.\w+)?(?:-\d{5}-of-\d{5})?\.(?:safetensors|bin)")
STATE = re.compile("optimizer|scheduler|sampler|scaler|random_states|dl_state_dict|custom_checkpoint|training_args")
"""How the files begin that accelerate and transformers keep beside the weights."""
SECOND = re.compile(r"(?:model|pytorch_model)_\d+\.(?:safetensors|bin)")
"""accelerate's second model and those that follow."""
CUSTOM = re.compile(r"custom_checkpoint_\d+\.pkl")
"""Whatever else a training script had accelerate keep."""


def is_training_folder(path: str) -> bool:
    """Tells whether a folder is one that a training framework wrote.

    Args:
        path: Of the folder.

    Returns:
        True if there are shards of several processes, or weights of accelerate's names and no other checkpoints: among
        others, they are one snapshot of many.
    """
    names = sorted(os.listdir(path))
    if _sharded(path, names):
        return True
    is_accelerate = any(name.startswith("random_states") for name in names)
    others = [
        name
        for name in names
        if name.endswith(CHECKPOINT_ENDINGS)
        and not (STATE.match(name) or MODEL.fullmatch(name) or (is_accelerate and SECOND.fullmatch(name)))
    ]
    return choose_weights(names, STEMS) is not None and not others


def is_checkpoint_folder(path: str) -> bool:
    """Tells whether a folder is one checkpoint, rather than a place for several.

    Args:
        path: Of the folder.

    Returns:
        True for those of diffusers and of training frameworks.
    """
    return is_diffusers_folder(path) or is_training_folder(path)


def read_training_folder(path: str, weights: str, outline: bool, read_bin: BinReader) -> Checkpoint:
    """Reads the network's weights in such a folder.

    Args:
        path: Of the folder.
        weights: "ema" or "model", where one set of tensors holds both.
        outline: Leave large tensors of shards unread, on the meta device.
        read_bin: Reads a `.bin` file as data.

    Returns:
        The network's record.

    Raises:
        CheckpointError: If there are several networks, or a file is missing or damaged.
    """
    names = sorted(os.listdir(path))
    remarks = [f"beside them lies {name}, which was not read" for name in names if CUSTOM.fullmatch(name)]
    tensors: Mapping[str, Tensor]
    if choose_weights(names, STEMS) is None:
        folders = _sharded(path, names)
        if len(folders) > 1:
            raise _several([os.path.basename(folder) for folder in folders])
        container, reason = "distributed", "the shards of several processes"
        tensors, files = distributed.read_shards(folders[0], outline)
    else:
        if second := [name for name in names if SECOND.fullmatch(name)]:
            raise _several([str(choose_weights(names, STEMS)), *second])
        container = "accelerate"
        tensors, files, reason = read_weights(path, read_bin, "outline" if outline else "copied", STEMS)
    choice = choose_names(list(tensors), weights)
    step = STEP.fullmatch(os.path.basename(os.path.abspath(path)))
    return Checkpoint(
        path=path,
        container=container,
        tensors=_renamed(tensors, choice.taken.tensors),
        weights=choice.weights,
        weights_reason="; ".join([reason, choice.reason, *remarks]),
        step=int(step[1]) if step else None,
        step_unit="steps" if step else None,
        files=tuple(files),
    )


def _sharded(path: str, names: Sequence[str]) -> list[str]:
    """Finds the folders with shards of several processes: this one, or accelerate's inside it."""
    if distributed.METADATA in names:
        return [path]
    inside = [os.path.join(path, name) for name in names if FSDP.fullmatch(name)]
    return [folder for folder in inside if os.path.isfile(os.path.join(folder, distributed.METADATA))]


def _several(names: Sequence[str]) -> CheckpointError:
    return CheckpointError(f"a folder with several networks ({', '.join(names)}); give one of them alone")


def _renamed(tensors: Mapping[str, Tensor], names: Mapping[str, str]) -> Mapping[str, Tensor]:
    """Takes tensors under their own names; `names` are own name → name in the files."""
    if isinstance(tensors, StoredTensors):
        return tensors.renamed(names)
    if isinstance(tensors, distributed.Shards):
        return tensors.renamed(names)
    return {own: tensors[stored] for own, stored in names.items()}
