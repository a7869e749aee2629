"""A text as each kind of pipeline tells it to its network: which encoders, which of their outputs, and what is zero.

The embeddings of one text are a few megabytes, their encoders up to ten gigabytes: they are kept in the cache folder,
under a hash of the encoders' files and all else that they depend on.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffscope.cache.store import as_bytes, cache_folder, write_atomically, write_tensors
from diffscope.checkpoints.reader import one_line
from diffscope.checkpoints.safetensors_file import names_in, opened, tensor_of
from diffscope.errors import CheckpointError, DiffscopeError, StoreError, UsageError
from diffscope.families._text_encoders import TextEncoder
from diffscope.families._text_networks import CLIP_ROWS, FLUX, PIXART, SANA, SD3, UNET, Shapes, TextNetwork

Embeddings = dict[str, Tensor]
CACHED = "prompts-"
_FILE = "embeddings.safetensors"
_CHUNK = 1 << 22
_RECIPE = 1
"""Raised whenever the same text and encoders give other embeddings."""
_CLIP, _PROJECTED = ("CLIPTextModel",), ("CLIPTextModelWithProjection",)
_T5, _GEMMA = ("T5EncoderModel",), ("Gemma2Model",)


@dataclass(frozen=True)
class Text:
    """What is to be embedded, and for which network."""

    network: TextNetwork
    shapes: Shapes
    """Of each tensor."""
    rows: int
    """That the text is padded to."""
    prompt: str = ""
    pipeline: str | None = None
    """Folder with the encoders."""
    index: Mapping[str, Any] = field(default_factory=dict)
    """Its model_index.json."""


def embedded(text: Text) -> tuple[Embeddings, str | None]:
    """Embeds a text.

    Args:
        text: What, and for which network.

    Returns:
        (name → (1, …) in float32, what a user should know).

    Raises:
        CheckpointError: If an encoder is missing, damaged, or makes what the network does not take.
        UsageError: If the text is too long.
    """
    name = text.network.name
    if "text_embeds" in text.shapes and not text.prompt and text.index.get("force_zeros_for_empty_prompt", True):
        note = None if text.index else "no pipeline: zeros stand for the empty prompt, as SDXL's own has it"
        return {key: torch.zeros(shape) for key, shape in text.shapes.items()}, note
    if text.pipeline is None:
        raise CheckpointError(
            "this network is told of a text, and no text encoder lies beside it: say with `prompt_from=` which "
            "pipeline's to take (a folder or hf://OWNER/NAME), or a .safetensors file of embeddings"
        )
    recipe = _RECIPES["SDXL" if "text_embeds" in text.shapes else name]
    encoders = recipe.encoders(text)
    place = _place(text, encoders)
    found = _kept(place)
    if found is None:
        found = {key: value.float().contiguous() for key, value in _embedded(recipe, text, encoders).items()}
        _keep(place, found)
    return checked(found, text.shapes, text.pipeline), recipe.note(encoders)


def _embedded(recipe: _Recipe, text: Text, encoders: Sequence[TextEncoder]) -> Embeddings:
    try:
        return recipe.embed(text, encoders)
    except (DiffscopeError, MemoryError):
        raise
    except Exception as error:  # the library, on configs that contradict each other
        raise CheckpointError(
            f"{text.pipeline}: its text encoders cannot be run for a {text.network.name}: "
            f"{one_line(' '.join(str(error).split())[:120])}"
        ) from None


def from_file(path: str, shapes: Shapes) -> Embeddings:
    """Reads embeddings that were made elsewhere.

    Args:
        path: A .safetensors file with the tensors that the network is told.
        shapes: Of each of them.

    Returns:
        Name → (1, …) in float32.

    Raises:
        CheckpointError: If it lacks one, or one has another width.
    """
    try:
        with opened(path) as file:
            names = [name for name in names_in(file) if name in shapes]
            found = {name: tensor_of(file, name).float() for name in names}
    except (OSError, CheckpointError) as error:
        raise CheckpointError(f"`prompt_from={path}`: {error}") from None
    return checked(found, shapes, f"`prompt_from={path}`")


def checked(found: Embeddings, shapes: Shapes, path: str) -> Embeddings:
    """Compares embeddings with what a network takes; the rows of a text may be more or fewer.

    Args:
        found: Name → tensor.
        shapes: Of each, by the network.
        path: Where they come from, for messages.

    Returns:
        The embeddings, one tensor of one row for each.

    Raises:
        CheckpointError: If one is missing or of another width, or not finite.
    """
    if absent := [name for name in shapes if name not in found]:
        raise CheckpointError(f"{path}: no {absent[0]} in it; expected {', '.join(shapes)}")
    for name, shape in shapes.items():
        has = tuple(found[name].shape)
        free = name in ("encoder_hidden_states", "encoder_attention_mask") and len(has) > 1
        if has != ((1, has[1], *shape[2:]) if free else shape):
            raise CheckpointError(f"{path}: {name} of {list(has)}; the network takes {list(shape)}")
        if not bool(torch.isfinite(found[name]).all()):
            raise CheckpointError(f"{path}: {name} has numbers that are not finite")
    mask, states = (found.get(key) for key in ("encoder_attention_mask", "encoder_hidden_states"))
    if mask is not None and states is not None and mask.shape[1] != states.shape[1]:
        raise CheckpointError(f"{path}: a mask of {mask.shape[1]} rows beside {states.shape[1]} of text")
    return {name: found[name] for name in shapes}


def sha256_of(embeddings: Embeddings) -> str:
    """Hashes embeddings, by name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(embeddings.items()):
        digest.update(f"{name} {list(tensor.shape)}".encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class _Recipe:
    """How one kind of pipeline embeds a text."""

    encoders: Callable[[Text], list[TextEncoder]]
    embed: Callable[[Text, Sequence[TextEncoder]], Embeddings]
    note: Callable[[Sequence[TextEncoder]], str | None] = lambda encoders: None


def _opened(*wanted: tuple[str, tuple[str, ...]]) -> Callable[[Text], list[TextEncoder]]:
    def encoders(text: Text) -> list[TextEncoder]:
        assert text.pipeline is not None
        return [TextEncoder(text.pipeline, name, allowed) for name, allowed in wanted]

    return encoders


def _embed_sd(text: Text, encoders: Sequence[TextEncoder]) -> Embeddings:
    (clip,) = encoders
    if clip.config.get("use_attention_mask"):
        raise CheckpointError(f"{clip.folder}: use_attention_mask is set; expected an encoder that sees its padding")
    return {"encoder_hidden_states": clip.run(clip.ids(text.prompt, CLIP_ROWS), masked=False).last_hidden_state}


def _embed_two_clips(text: Text, encoders: Sequence[TextEncoder]) -> tuple[Tensor, list[Tensor]]:
    """The last but one state of both, side by side; and what each has for the whole text."""
    outputs = [clip.run(clip.ids(text.prompt, CLIP_ROWS), masked=False) for clip in encoders]
    pooled = [out.text_embeds if hasattr(out, "text_embeds") else out.pooler_output for out in outputs]
    return torch.cat([out.hidden_states[-2] for out in outputs], -1), pooled


def _embed_sdxl(text: Text, encoders: Sequence[TextEncoder]) -> Embeddings:
    states, pooled = _embed_two_clips(text, encoders)
    return {"encoder_hidden_states": states, "text_embeds": pooled[1]}


def _sd3_encoders(text: Text) -> list[TextEncoder]:
    """Without T5, as the pipeline allows: its rows are zeros."""
    assert text.pipeline is not None
    found = _opened(("text_encoder", _PROJECTED), ("text_encoder_2", _PROJECTED))(text)
    said = text.index.get("text_encoder_3")
    if said is None or said == [None, None]:
        return found
    return [*found, TextEncoder(text.pipeline, "text_encoder_3", _T5)]


def _embed_sd3(text: Text, encoders: Sequence[TextEncoder]) -> Embeddings:
    states, pooled = _embed_two_clips(text, encoders[:2])
    width = text.shapes["encoder_hidden_states"][2]
    if states.shape[2] > width:
        raise CheckpointError(f"{text.pipeline}: its CLIPs give {states.shape[2]} numbers; the network takes {width}")
    states = torch.nn.functional.pad(states, (0, width - states.shape[2]))
    if len(encoders) > 2:
        t5 = encoders[2]
        more = t5.run(t5.ids(text.prompt, text.rows), masked=False).last_hidden_state
    else:
        more = torch.zeros(1, text.rows, width)
    return {"encoder_hidden_states": torch.cat([states, more], 1), "pooled_projections": torch.cat(pooled, -1)}


def _embed_flux(text: Text, encoders: Sequence[TextEncoder]) -> Embeddings:
    clip, t5 = encoders
    pooled = clip.run(clip.ids(text.prompt, CLIP_ROWS), masked=False).pooler_output
    states = t5.run(t5.ids(text.prompt, text.rows), masked=False).last_hidden_state
    return {"encoder_hidden_states": states, "pooled_projections": pooled}


def _embed_masked(text: Text, encoders: Sequence[TextEncoder]) -> Embeddings:
    (encoder,) = encoders
    if text.prompt and text.network.name == SANA.name:
        raise UsageError(
            "`prompt=`: Sana's pipeline puts a long instruction of its own before a text; give embeddings that it made "
            "with `prompt_from=FILE.safetensors`, or leave `prompt=` out"
        )
    ids = encoder.ids(text.prompt.lower().strip(), text.rows)  # as PixArt's pipeline has it
    return {
        "encoder_hidden_states": encoder.run(ids, masked=True)[0],
        "encoder_attention_mask": ids.mask,
    }


_RECIPES = {
    UNET.name: _Recipe(_opened(("text_encoder", _CLIP)), _embed_sd),
    "SDXL": _Recipe(_opened(("text_encoder", _CLIP), ("text_encoder_2", _PROJECTED)), _embed_sdxl),
    SD3.name: _Recipe(
        _sd3_encoders,
        _embed_sd3,
        lambda encoders: None if len(encoders) > 2 else "a pipeline without T5: its rows of the text are zeros",
    ),
    FLUX.name: _Recipe(_opened(("text_encoder", _CLIP), ("text_encoder_2", _T5)), _embed_flux),
    PIXART.name: _Recipe(_opened(("text_encoder", _T5)), _embed_masked),
    SANA.name: _Recipe(_opened(("text_encoder", _GEMMA)), _embed_masked),
}


def _place(text: Text, encoders: Sequence[TextEncoder]) -> Path:
    """The file in the cache folder, under a hash of all that the embeddings depend on."""
    try:
        library = version("transformers")
    except PackageNotFoundError:
        library = ""
    about = {
        "recipe": [_RECIPE, text.network.name, sorted(text.shapes.items()), text.rows],
        "prompt": text.prompt,
        "encoders": [_hash(encoder) for encoder in encoders],
        "versions": [torch.__version__, library],
    }
    key = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
    return cache_folder() / f"{CACHED}{key[:16]}" / _FILE


def _hash(encoder: TextEncoder) -> str:
    """Of the bytes of its weights, config and tokenizer."""
    digest = hashlib.sha256()
    tokenizer = encoder.tokenizer
    more = [os.path.join(tokenizer, name) for name in sorted(os.listdir(tokenizer))] if os.path.isdir(tokenizer) else []
    for path in (os.path.join(encoder.folder, "config.json"), *encoder.files, *more):
        if not os.path.isfile(path):
            continue
        digest.update(os.path.basename(path).encode())
        with open(path, "rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    return digest.hexdigest()


def _kept(place: Path) -> Embeddings | None:
    """What an earlier run made; None where there is nothing whole."""
    try:
        with opened(str(place)) as file:
            found = {name: tensor_of(file, name).clone() for name in names_in(file)}
            return found if (file.metadata() or {}).get("sha256") == sha256_of(found) else None
    except (OSError, CheckpointError):
        return None


def _keep(place: Path, embeddings: Embeddings) -> None:
    tensors = {name: ("float32", tuple(t.shape), as_bytes(t.numpy())) for name, t in embeddings.items()}
    try:
        write_atomically(place, lambda part: write_tensors(part, tensors, {"sha256": sha256_of(embeddings)}))
    except StoreError:
        return  # they are made again
