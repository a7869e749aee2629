"""What the files beside a network that is told of a text say of it, and what the user must say where they do not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from diffscope.checkpoints.base import Checkpoint
from diffscope.errors import CheckpointError
from diffscope.families._constructors import known_arguments, made, square_side
from diffscope.families._facts import Facts, shown
from diffscope.families._schedules import SETTINGS, STRAIGHT, is_straight, schedule_of
from diffscope.families._text_networks import CLIP_ROWS, FLUX, GUIDANCE, NETWORKS, PIXART, SD3, TextNetwork
from diffscope.families.networks.block_outputs import PATCH
from diffscope.families.networks.library import diffusers_class

_REQUIRED = ("beta_schedule", "beta_start", "beta_end", "prediction_type")
"""What decides a network's noise, and differs between those of one class."""
_ALPHA_ROWS = 120
"""What PixArt-α's pipeline pads a text to."""
MAX_TABLE = 1 << 26
"""Most numbers in PixArt's table of positions, which stands in no file: 240 × 240 of them at its width."""


def network_of(checkpoint: Checkpoint) -> TextNetwork | None:
    """Finds the class of a network told of a text.

    Args:
        checkpoint: Of a diffusers folder.

    Returns:
        The class, or None where it takes no text.
    """
    name = str(checkpoint.class_name)
    if name == "Transformer2DModel" and checkpoint.arguments.get("norm_type") == "ada_norm_single":
        return PIXART
    return NETWORKS.get(name)


def config_keys(kind: TextNetwork) -> tuple[str, ...]:
    """Lists what `--config` may say of a network.

    Args:
        kind: Its class.
    """
    rows = ("max_sequence_length",) if kind.rows else ()
    guidance = ("guidance",) if kind.name == FLUX.name else ()
    return ("sample_size", *rows, *guidance, *(() if kind.straight else SETTINGS))


def constructor_of(kind: TextNetwork, facts: Facts) -> tuple[Any, dict[str, Any], int]:
    """Reads what a network is built with.

    Args:
        kind: Its class.
        facts: Its config.

    Returns:
        (the library's class, arguments of its constructor, side of its input).

    Raises:
        CheckpointError: If something in the config is not supported.
    """
    library = diffusers_class(kind.name)
    arguments, side = known_arguments(library, facts), square_side(facts, kind.side)
    if side % kind.patch:
        raise CheckpointError(f"{facts.path}: sample_size is {side}; expected a multiple of {kind.patch}")
    if kind.side is None:
        arguments["sample_size"] = side
    if kind.name == PIXART.name:
        width = facts.integer("num_attention_heads", 16) * facts.integer("attention_head_dim", 72)
        if (side // facts.integer("patch_size", 2)) ** 2 * width > MAX_TABLE:
            raise CheckpointError(
                f"{facts.path}: sample_size is {side}; positions of up to {MAX_TABLE} numbers are made"
            )
    return library, arguments, side


def made_for_file(kind: TextNetwork, library: Any, arguments: Mapping[str, Any]) -> nn.Module:
    """Calls the constructor of a network whose weights will come from a file.

    SD3's computes the table of positions that the file holds, of up to 0.9 GB, which takes seconds: it is left out.

    Args:
        kind: Class of the network.
        library: The library's class.
        arguments: Of its constructor.

    Returns:
        The network.
    """
    most = arguments.get("pos_embed_max_size") if kind.name == SD3.name else None
    if most is None:
        return made(library, arguments)
    network = made(library, {**arguments, "pos_embed_max_size": 1})
    table: Any = network.pos_embed
    table.pos_embed_max_size = most
    table.register_buffer("pos_embed", torch.empty(1, most**2, table.pos_embed.shape[2]))
    return network


def latent_channels(kind: TextNetwork, facts: Facts) -> int:
    """Reads how many channels of latents a network takes.

    Args:
        kind: Its class.
        facts: Its config.
    """
    tokens = PATCH**2 if kind.name == FLUX.name else 1  # FLUX's config counts the channels of its tokens
    return facts.integer("in_channels", kind.latent_channels * tokens) // tokens


def text_rows(kind: TextNetwork, facts: Facts, index: Mapping[str, Any]) -> int:
    """Reads how many rows a text is padded to.

    Args:
        kind: Class of the network.
        facts: Its config; the user's may have max_sequence_length.
        index: The pipeline's model_index.json.
    """
    if not kind.rows:
        return CLIP_ROWS
    alpha = index.get("_class_name") == "PixArtAlphaPipeline"
    return facts.integer("max_sequence_length", _ALPHA_ROWS if alpha else kind.rows, 1, 4096)


def text_schedule(
    kind: TextNetwork, scheduler: Mapping[str, Any] | None, config: Mapping[str, str], path: str
) -> tuple[dict[str, Any], list[str]]:
    """Reads the schedule of a network told of a text.

    Args:
        kind: Its class.
        scheduler: The scheduler's file; None where there is none.
        config: The user's `--config`.
        path: Of the checkpoint, for messages.

    Returns:
        (the schedule, what was assumed).

    Raises:
        CheckpointError: If it is not one that the class is trained on, or nobody says it.
        UsageError: If `config` is wrong.
    """
    if kind.straight:
        if scheduler is not None and not is_straight(scheduler, path):
            raise CheckpointError(
                f"{path}: its scheduler is a {shown(scheduler.get('_class_name'), quotes=False)} without flow sigmas; "
                f"expected flow matching for a {kind.name}"
            )
        return dict(STRAIGHT), [] if scheduler is not None else ["no scheduler_config.json: flow matching is assumed"]
    if scheduler is not None and is_straight(scheduler, path):
        raise CheckpointError(f"{path}: its scheduler is one of flow matching; expected betas for a {kind.name}")
    if scheduler is None and (absent := [key for key in _REQUIRED if key not in config]):
        raise CheckpointError(
            f"{path}: no scheduler_config.json, so that its noise is not known; copy it beside config.json, or say "
            f"`config=KEY=VALUE` for {', '.join(absent)} (Stable Diffusion: scaled_linear, 0.00085, 0.012, epsilon or "
            "v_prediction)"
        )
    return schedule_of(scheduler or {}, config, path, config_keys(kind)), []


def distillation_warnings(kind: TextNetwork, facts: Facts, folder: object) -> list[str]:
    """Says what a user should know of a network that was trained to do without guidance, or in few steps.

    Args:
        kind: Its class.
        facts: Its config.
        folder: Where it lies; published names say "turbo".
    """
    found = []
    if kind.name == FLUX.name and facts.said.get("guidance_embeds"):
        found.append(
            "a guidance-distilled network, which cannot be run without guidance: it is told of "
            f"{facts.number('guidance', GUIDANCE, 0, 1e4, above=False):g} (`config=guidance=X`)"
        )
    if "turbo" in f"{facts.said.get('_name_or_path')} {facts.path} {folder}".lower():
        found.append("distilled for few steps (turbo): what it knows of other noise levels may have changed")
    return found
