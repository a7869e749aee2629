"""Networks and pipelines of the diffusers library that take more than noise and a text: refused, with the reason."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diffscope.errors import CheckpointError
from diffscope.families._facts import Facts, shown
from diffscope.families._text_networks import FLUX, SANA, UNET, TextNetwork
from diffscope.families.networks.autoencoder import KINDS
from diffscope.families.networks.block_outputs import PATCH

_MORE_CHANNELS = {
    5: "a depth map", 7: "a smaller image, as upscalers", 8: "another image, as edit networks",
    9: "a mask and the image under it, as inpainting networks",
    128: "a drawing, as Canny and Depth", 384: "a mask and the image under it, as Fill",
}  # fmt: skip
"""What networks of so many channels see beside the noisy latents."""


def refuse_network(kind: TextNetwork, config: Mapping[str, Any], vae: Mapping[str, Any] | None, path: str) -> None:
    """Refuses a network that is told of more than noise and a text.

    Args:
        kind: Its class.
        config: Its config.
        vae: Its image encoder's config, where there is one.
        path: Of the checkpoint, for messages.

    Raises:
        CheckpointError: With what it needs.
    """
    _refuse_channels(kind, config, vae, path)
    if config.get("quantization_config"):
        raise CheckpointError(f"{path}: quantised weights (quantization_config); expected them in 16 or 32 bit")
    if config.get("time_cond_proj_dim") is not None:
        raise CheckpointError(
            f"{path}: time_cond_proj_dim is set: a latent consistency model (LCM), which is told of a guidance scale "
            "instead of running without; give the network that it was distilled from"
        )
    if (kind.name == SANA.name and config.get("guidance_embeds")) or config.get("num_class_embeds"):
        key = "num_class_embeds" if config.get("num_class_embeds") else "guidance_embeds"
        raise CheckpointError(f"{path}: {key} is {shown(config[key])}; expected none, no value is known to be neutral")
    for key, allowed in (("addition_embed_type", "text_time"), ("encoder_hid_dim_type", ""), ("class_embed_type", "")):
        if config.get(key) not in (None, allowed or None):
            expected = f"null or {allowed!r}" if allowed else "null"
            raise CheckpointError(
                f"{path}: {key} is {shown(config[key])}; expected {expected}: what else the network is told is not "
                "known here"
            )
    if kind.name == UNET.name and config.get("time_embedding_type", "positional") != "positional":
        raise CheckpointError(
            f"{path}: time_embedding_type is {shown(config['time_embedding_type'])}; expected 'positional'"
        )


def _refuse_channels(kind: TextNetwork, config: Mapping[str, Any], vae: Mapping[str, Any] | None, path: str) -> None:
    if vae is not None and vae.get("_class_name") not in KINDS:
        raise CheckpointError(
            f"{path}: its image encoder is a {shown(vae.get('_class_name'), quotes=False)}; expected "
            f"{' or '.join(KINDS)}"
        )
    facts, patch = Facts(path, config), PATCH**2 if kind.name == FLUX.name else 1
    channels = facts.integer("in_channels", kind.latent_channels * patch)
    latents = kind.latent_channels
    if vae:
        latents = Facts(path, vae).integer("latent_channels", latents)
    elif kind.name == UNET.name:
        latents = facts.integer("out_channels", latents)
    if channels != latents * patch:
        why = f": it is also given {_MORE_CHANNELS[channels]}" if channels in _MORE_CHANNELS else ""
        raise CheckpointError(
            f"{path}: in_channels is {shown(channels)}, where the latents have {shown(latents * patch)}{why}; expected "
            "a network of noisy latents and a text alone"
        )


def refuse_pipeline(kind: TextNetwork, index: Mapping[str, Any], path: str) -> None:
    """Refuses a pipeline that feeds its network otherwise.

    Args:
        kind: Class of the network.
        index: The pipeline's model_index.json; empty of a network alone.
        path: Of the checkpoint, for messages.

    Raises:
        CheckpointError: If it is of another class than those known.
    """
    name = index.get("_class_name")
    if index and name not in kind.pipelines:
        raise CheckpointError(
            f"{path}: a {shown(name, quotes=False)}, which may feed its {kind.name} otherwise; expected "
            f"{', '.join(kind.pipelines)}; to measure it alone, copy the network's folder out of it and "
            "give `prompt_from=` and `vae=`"
        )
