"""A diffusers folder → `Checkpoint`: a pipeline (model_index.json), or a model alone (config.json and weights).

Only JSON and tensors are read. safetensors come before `.bin`, which goes through this package's own reader, plain
names before variants such as fp16. A pipeline that names Python modules of its own is refused: they are never run.

    PIPELINE/model_index.json, unet/ or transformer/, vae/, scheduler/scheduler_config.json
    MODEL/config.json, diffusion_pytorch_model.safetensors, and sometimes scheduler_config.json
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from diffscope import hub
from diffscope.checkpoints import sniff
from diffscope.checkpoints.base import Checkpoint
from diffscope.checkpoints.diffusers_places import NETWORKS, STEM, STEP, homes_of, which_of_two
from diffscope.checkpoints.safetensors_file import names_in, opened, tensor_of
from diffscope.checkpoints.sniff import EXPECTED
from diffscope.checkpoints.weight_sets import checked_names
from diffscope.errors import CheckpointError
from diffscope.formats import CHECKPOINT_ENDINGS

STEMS = rf"(?:{STEM}|pytorch_model|model)"  # the latter two are accelerate's
SHARD = re.compile(rf"{STEMS}(?:\.\w+)?-\d{{5}}-of-\d{{5}}(?:\.\w+)?\.(?:safetensors|bin)")
INDEX = re.compile(rf"{STEMS}\.(?:safetensors|bin)\.index(?:\.\w+)?\.json")
MAX_JSON = 1 << 24  # bytes; an index of 10,000 tensors has 1 MB
ENCODERS = ("vae", "vqvae")
SUPPORTED = (
    "UNet2DModel, DiTTransformer2DModel, Transformer2DModel with norm_type ada_norm_zero, "
    "and conversions of SiT whose weights have their native names"
)
VIDEO = re.compile("3D|Temporal|Motion|Video")
WRAP = "in Python, diffscope.wrap(module, side=32, channels=3) in place of the path"
NATIVE_FIRST = "x_embedder.proj.weight"  # a tensor of SiT's own network

BinReader = Callable[[str], Mapping[str, Tensor]]


class StoredTensors(Mapping[str, Tensor]):
    """Tensors in safetensors files, read when first asked for.

    Args:
        places: Name → (file, name in it).
    """

    def __init__(self, places: Mapping[str, tuple[str, str]]) -> None:
        self.places = places
        self._read: dict[str, Tensor] = {}

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._read:
            path, stored = self.places[name]
            try:
                with opened(path) as file:
                    # A copy: in place, where it lies in the file would decide its alignment, and so sums' last bit.
                    self._read[name] = tensor_of(file, stored).clone()
            except OSError as error:
                raise CheckpointError(f"{path}: cannot be read again: {error.strerror or error}") from error
        return self._read[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.places)

    def __len__(self) -> int:
        return len(self.places)


def read_folder(path: str, weights: str, read_bin: BinReader) -> Checkpoint:
    """Reads the network of a diffusers folder.

    Args:
        path: The folder of a pipeline or of a model.
        weights: "ema" prefers the folder `unet_ema` that training scripts write beside `unet`.
        read_bin: Reads a `.bin` file as data.

    Returns:
        The network's record; safetensors are read when they are asked for.

    Raises:
        CheckpointError: If there is no network, no weights, a class that no family knows, or code to be run.
    """
    network, pipeline = _find_network(path, weights)
    config = _read_json(os.path.join(network, "config.json"))
    class_name = config.get("_class_name", "model of an unnamed class")
    if type(class_name) is not str:
        raise CheckpointError(f"config.json has the _class_name {class_name!r:.60}; the name of a class was expected")
    native = class_name.startswith("SiT")
    legacy_dit = class_name == "Transformer2DModel" and config.get("norm_type") == "ada_norm_zero"
    if not (native or legacy_dit or class_name in ("UNet2DModel", "DiTTransformer2DModel")):
        video = ", of a video model, where one of single images was expected" if VIDEO.search(class_name) else ""
        raise CheckpointError(f"the network is a {class_name}{video}; supported: {SUPPORTED}; others: {WRAP}")
    tensors, files, reason = read_weights(network, read_bin)
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
            "scheduler": next((found for home in homes if (found := _read_scheduler(home)) is not None), None),
            "folder": network,
            "vae": vae,
            "vae_config": _read_json(os.path.join(vae, "config.json")) if vae else None,
        },
        metadata={"family": "sit"} if native else {},
        step=int(found_step[-1]) if found_step else None,
        step_unit="steps" if found_step else None,
        files=tuple(files),
    )


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
    index = _read_json(os.path.join(pipeline, "model_index.json"))
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


def _read_scheduler(pipeline: str) -> dict[str, Any] | None:
    """Reads the scheduler's settings, beside the network or in their own folder.

    Args:
        pipeline: Folder of the pipeline.

    Returns:
        The settings; None where there are none.

    Raises:
        CheckpointError: If the file is damaged.
    """
    for name in ("scheduler/scheduler_config.json", "scheduler_config.json"):
        file = os.path.join(pipeline, *name.split("/"))
        if os.path.exists(file):
            return _read_json(file)
    return None


def _read_json(path: str) -> dict[str, Any]:
    """Reads a JSON object.

    Args:
        path: A file of at most MAX_JSON bytes.

    Returns:
        The object.

    Raises:
        CheckpointError: If it is no regular file, too large, or no JSON object.
    """
    sniff.refuse_irregular(path)
    name, size = os.path.basename(path), os.path.getsize(path)
    if size > MAX_JSON:
        raise CheckpointError(f"{name} has {size} bytes; {MAX_JSON} are read")
    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise CheckpointError(f"{name} is not a readable JSON object; fetch or copy it again")
    return found


def choose_weights(names: Sequence[str], stems: Sequence[str] = (STEM,)) -> str | None:
    """Chooses the file to begin with, safetensors before `.bin`, plain names before variants such as fp16.

    Args:
        names: Of all files in a model's folder.
        stems: How they may begin.

    Returns:
        A file of weights, or an index of several; None where there is neither.
    """
    plain = [
        f"{stem}.{kind}{index}" for kind in ("safetensors", "bin") for stem in stems for index in ("", ".index.json")
    ]
    variant = re.compile(rf"(?:{'|'.join(stems)})\.\w+\.(?:safetensors|bin)")
    variants = [n for n in sorted(names) if variant.fullmatch(n) or (INDEX.fullmatch(n) and n.startswith(tuple(stems)))]
    variants.sort(key=lambda name: ".bin" in name)
    return next((name for name in (*plain, *variants) if name in names), None)


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
            found += [folder + n for n in inside if SHARD.fullmatch(n) and n.endswith(suffix)]
        elif first:
            found.append(folder + first)
    return sorted(set(found))


def read_weights(
    folder: str, read_bin: BinReader, stems: Sequence[str] = (STEM,)
) -> tuple[Mapping[str, Tensor], list[str], str]:
    """Reads the weights in a model's folder.

    Args:
        folder: With the weights.
        read_bin: Reads a `.bin` file as data.
        stems: How their files' names begin.

    Returns:
        (tensors, their files, which they were and why).

    Raises:
        CheckpointError: If there are none, or one of several files is missing or damaged.
    """
    first = choose_weights(os.listdir(folder), stems)
    if first is None:
        raise CheckpointError(f"no weights beside the config.json: expected {STEM}.safetensors or {STEM}.bin")
    names = [first]
    if first.endswith(".json"):
        names = _shards(os.path.join(folder, first))
    files = [os.path.join(folder, name) for name in names]
    if absent := [name for name in names if not os.path.exists(os.path.join(folder, name))]:
        raise CheckpointError(f"'{absent[0]}', which {first} names, is missing; fetch or copy the folder again")
    for file in files:
        sniff.refuse_irregular(file)
    if names[0].endswith(".bin"):
        tensors: Mapping[str, Tensor] = {name: t for file in files for name, t in read_bin(file).items()}
        return tensors, files, f"the weights of {first}, for there are no safetensors"
    places: dict[str, tuple[str, str]] = {}
    for file in files:
        with open(file, "rb") as head:
            if sniff.kind_of(head.read(sniff.HEAD), os.path.getsize(file)) != "safetensors":
                raise CheckpointError(f"{os.path.basename(file)} is no safetensors file; fetch or copy it again")
        with opened(file) as library:
            places.update({name: (file, name) for name in names_in(library)})
    checked_names(places)
    return StoredTensors(places), files, f"the weights of {first}"


def _shards(index: str) -> list[str]:
    """Reads an index of weights.

    Args:
        index: A `.index.json` file.

    Returns:
        The files that it names, sorted; all of them lie beside it.

    Raises:
        CheckpointError: If it names no files, or others than weights beside it.
    """
    table = _read_json(index).get("weight_map")
    found = list(table.values()) if isinstance(table, dict) else []
    names = sorted({name for name in found if type(name) is str})
    if not names or not all(type(name) is str and SHARD.fullmatch(name) for name in found):
        raise CheckpointError(f"{os.path.basename(index)} does not name the weights' files; fetch or copy it again")
    return names


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
        return StoredTensors({short: tensors.places[name] for short, name in renamed.items()})
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
