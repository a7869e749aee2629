"""A diffusers folder → `Checkpoint`: a pipeline (model_index.json), or a model alone (config.json and weights).

Only JSON and tensors are read. safetensors come before `.bin`, which goes through this package's own reader, plain
names before variants such as fp16. A pipeline that names Python modules of its own is refused: they are never run.

    PIPELINE/model_index.json, unet/ or transformer/, vae/, scheduler/scheduler_config.json
    MODEL/config.json, diffusion_pytorch_model.safetensors, and sometimes scheduler_config.json
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from diffscope import hub
from diffscope.checkpoints.base import Checkpoint
from diffscope.checkpoints.diffusers_places import NETWORKS, STEP, homes_of, which_of_two
from diffscope.checkpoints.diffusers_weights import (
    ENCODER_STEMS,
    BinReader,
    StoredTensors,
    choose_weights,
    is_shard,
    read_json,
    read_weights,
)
from diffscope.checkpoints.sniff import EXPECTED
from diffscope.errors import CheckpointError
from diffscope.formats import CHECKPOINT_ENDINGS

ENCODERS = ("vae", "vqvae")
TOLD_OF_TEXT = (
    "UNet2DConditionModel", "SD3Transformer2DModel", "FluxTransformer2DModel", "PixArtTransformer2DModel",
    "SanaTransformer2DModel",
)  # fmt: skip
"""Networks of pipelines from text to images. Their weights stay in the file: they may be larger than memory."""
SUPPORTED = (
    f"UNet2DModel, {', '.join(TOLD_OF_TEXT)}, DiTTransformer2DModel, Transformer2DModel with norm_type ada_norm_zero "
    "or ada_norm_single, and conversions of SiT whose weights have their native names"
)
VIDEO = re.compile("3D|Temporal|Motion|Video")
WRAP = "in Python, diffscope.wrap(module, side=32, channels=3) in place of the path"
NATIVE_FIRST = "x_embedder.proj.weight"  # a tensor of SiT's own network


def read_folder(path: str, weights: str, read_bin: BinReader, outline: bool = False) -> Checkpoint:
    """Reads the network of a diffusers folder.

    Args:
        path: The folder of a pipeline or of a model.
        weights: "ema" prefers the folder `unet_ema` that training scripts write beside `unet`.
        read_bin: Reads a `.bin` file as data.
        outline: Read the headers of safetensors alone.

    Returns:
        The network's record; safetensors are read when they are asked for.

    Raises:
        CheckpointError: If there is no network, no weights, a class that no family knows, or code to be run.
    """
    network, pipeline = _find_network(path, weights)
    config = read_json(os.path.join(network, "config.json"))
    class_name = config.get("_class_name", "model of an unnamed class")
    if type(class_name) is not str:
        raise CheckpointError(f"config.json has the _class_name {class_name!r:.60}; the name of a class was expected")
    native = class_name.startswith("SiT")
    legacy = config.get("norm_type") if class_name == "Transformer2DModel" else None
    told = class_name in TOLD_OF_TEXT or legacy == "ada_norm_single"  # PixArt
    if not (native or told or legacy == "ada_norm_zero" or class_name in ("UNet2DModel", "DiTTransformer2DModel")):
        raise CheckpointError(_unsupported(class_name))
    tensors, files, reason = read_weights(network, read_bin, "outline" if outline else "mapped" if told else "copied")
    found_step = STEP.findall(network)
    homes = homes_of(pipeline)
    vae = next((f for home in homes for e in ENCODERS if _is_model(f := os.path.join(home, e))), None)
    return Checkpoint(
        path=path,
        container="diffusers",
        tensors=_without_prefix(tensors) if native else tensors,
        weights="ema" if network.endswith("_ema") else "model",
        weights_reason=which_of_two(path, network) + reason,
        class_name=class_name,
        arguments=_native_arguments(config) if native else config,
        attributes={
            "scheduler": _read_scheduler(*homes, network),
            "folder": network,
            "vae": vae,
            "vae_config": read_json(os.path.join(vae, "config.json")) if vae else None,
            "pipeline": pipeline,
            "index": _read_index(pipeline),
        },
        metadata={"family": "sit"} if native else {},
        step=int(found_step[-1]) if found_step else None,
        step_unit="steps" if found_step else None,
        files=tuple(files),
    )


def _unsupported(class_name: str) -> str:
    """Says why a network cannot be measured, by the name of its class."""
    if "ControlNet" in class_name:
        return f"a {class_name}, which works beside another network: give the network that it controls"
    video = ", of a video model, where one of single images was expected" if VIDEO.search(class_name) else ""
    return f"the network is a {class_name}{video}; supported: {SUPPORTED}; others: {WRAP}"


def _read_index(pipeline: str) -> dict[str, Any]:
    """The model_index.json of a pipeline; nothing where a network stands alone."""
    file = os.path.join(pipeline, "model_index.json")
    return read_json(file) if os.path.exists(file) else {}


def _find_network(path: str, weights: str) -> tuple[str, str]:
    """Finds the folder of the network.

    Args:
        path: The folder of a pipeline or of a model.
        weights: "ema" or "model".

    Returns:
        (folder of the network, folder of its pipeline), which may be one.

    Raises:
        CheckpointError: If there is no network in it, or the pipeline names code.
    """
    if os.path.exists(os.path.join(path, "model_index.json")):
        _refuse_code(path)
    elif _is_model(path):
        parent = os.path.dirname(os.path.abspath(path))
        return path, parent if os.path.exists(os.path.join(parent, "model_index.json")) else path
    names = [f"{name}_ema" for name in NETWORKS] if weights == "ema" else []
    for folder in (*(os.path.join(path, name) for name in (*names, *NETWORKS)), path):
        if _is_model(folder):
            return folder, path
    raise CheckpointError(_no_network(path))


def _no_network(path: str) -> str:
    """Says what a folder is that is not one of diffusers, and what to give instead.

    Args:
        path: A folder.

    Returns:
        The message, without the path before it.
    """
    names = sorted(name for name in os.listdir(path) if not name.startswith("."))
    if loras := [name for name in names if re.search(r"lora.*\.(safetensors|bin)$", name, re.IGNORECASE)]:
        return (
            f"a folder with a LoRA ({loras[0]}), which only changes another network's weights: merge it into its base "
            "first (in diffusers load_lora_weights, fuse_lora, save_pretrained) and give that"
        )
    found = [os.path.join(path, name) for name in names if name.endswith(CHECKPOINT_ENDINGS)]
    if len(found) == 1:
        return f"a folder with one checkpoint in it; give the file: {found[0]}"
    if found:
        return (
            f"a folder of {len(found)} checkpoints; give one of them, such as {found[-1]}, or follow all of one run: "
            f"diffscope track {path} --data IMAGES"
        )
    what = "without a network (config.json in it, in unet/ or in transformer/)" if names else "with nothing in it"
    return f"a folder {what}; {EXPECTED}, or a diffusers folder; images go to `data=`"


def _refuse_code(pipeline: str) -> None:
    """Refuses a pipeline with modules of its own, which would need its author's code.

    Args:
        pipeline: A folder with a `model_index.json`.

    Raises:
        CheckpointError: If it names Python files.
    """
    index = read_json(os.path.join(pipeline, "model_index.json"))
    files = [
        os.path.relpath(os.path.join(folder, name), pipeline).replace(os.sep, "/")
        for folder, _, names in os.walk(pipeline)
        for name in names
        if name.endswith(".py")
    ]
    if modules := hub.local_modules(index, files):
        raise CheckpointError(
            f"its model_index.json names Python modules of its own ({', '.join(modules[:3])}), and code beside a "
            "checkpoint is never run; give the network's own folder, such as transformer/"
        )


def _is_model(folder: str) -> bool:
    """Tells whether a folder is that of one model: it has a `config.json`."""
    return os.path.exists(os.path.join(folder, "config.json"))


def _read_scheduler(*folders: str) -> dict[str, Any] | None:
    """Reads the scheduler's settings, beside the network or in their own folder.

    Args:
        *folders: Of the pipeline and of the network; the first with settings decides.

    Returns:
        The settings; None where there are none.

    Raises:
        CheckpointError: If the file is damaged.
    """
    for folder in folders:
        for name in ("scheduler/scheduler_config.json", "scheduler_config.json"):
            file = os.path.join(folder, *name.split("/"))
            if os.path.exists(file):
                return read_json(file)
    return None


def needed(names: Sequence[str]) -> list[str]:
    """Chooses the files that reading a folder takes.

    Args:
        names: Of all files, relative to the folder.

    Returns:
        Those to download, sorted.
    """
    found = [n for n in names if n.endswith(".json") and n.count("/") <= 1]
    for folder in ("", *(f"{n}/" for n in (*NETWORKS, *(f"{n}_ema" for n in NETWORKS), *ENCODERS))):
        inside = [n[len(folder) :] for n in names if n.startswith(folder) and "/" not in n[len(folder) :]]
        first = choose_weights(inside)
        if first and first.endswith(".json"):
            suffix = ".safetensors" if ".safetensors" in first else ".bin"
            found += [folder + n for n in inside if is_shard(n) and n.endswith(suffix)]
        elif first:
            found.append(folder + first)
    return sorted(set(found))


def needed_for_text(names: Sequence[str]) -> list[str]:
    """Chooses the files that a pipeline's text encoders and tokenizers take.

    Args:
        names: Of all files, relative to the pipeline's folder.

    Returns:
        Those to download, sorted.
    """
    found = [n for n in names if n == "model_index.json" or n.startswith("tokenizer")]
    for folder in sorted({n.partition("/")[0] for n in names if n.startswith("text_encoder") and "/" in n}):
        inside = [n[len(folder) + 1 :] for n in names if n.startswith(f"{folder}/")]
        first = choose_weights(inside, ENCODER_STEMS)
        found += [f"{folder}/{n}" for n in inside if n in ("config.json", first)]
        if first and first.endswith(".json"):
            found += [f"{folder}/{n}" for n in inside if is_shard(n, ENCODER_STEMS) and n.endswith(".safetensors")]
    return sorted(set(found))


def _without_prefix(tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Gives tensors the names of SiT's own code, which a conversion may have put under one prefix.

    Args:
        tensors: As the file names them.

    Returns:
        The same tensors, unread where they were unread.

    Raises:
        CheckpointError: If they do not have SiT's names.
    """
    heads = [name.removesuffix(NATIVE_FIRST) for name in tensors if name.endswith(NATIVE_FIRST)]
    if len(heads) != 1 or not all(name.startswith(heads[0]) for name in tensors):
        raise CheckpointError(
            f"the weights do not have SiT's own names ({NATIVE_FIRST}, blocks.0.attn.qkv.weight, …), not even under "
            f"one prefix; {SUPPORTED}"
        )
    renamed = {name[len(heads[0]) :]: name for name in tensors}
    if isinstance(tensors, StoredTensors):
        return tensors.renamed(renamed)
    return {short: tensors[name] for short, name in renamed.items()}


def _native_arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """Translates a conversion's config into SiT's training arguments.

    Args:
        config: Of the folder.

    Returns:
        Those of num_heads, num_classes, path_type and prediction that it says.
    """
    words = {
        "num_heads": ("num_heads", "num_attention_heads"),
        "num_classes": ("num_classes", "num_embeds_ada_norm"),
        "path_type": ("path_type",),
        "prediction": ("prediction",),
    }
    known = {key: [config[w] for w in spelled if config.get(w) is not None] for key, spelled in words.items()}
    return {key: values[0] for key, values in known.items() if values}
