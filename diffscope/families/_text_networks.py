"""The networks of the diffusers library that are told of a text: what each is fed, and which of its blocks are layers.

Rombach et al., "High-Resolution Image Synthesis with Latent Diffusion Models", 2022, https://arxiv.org/abs/2112.10752;
Podell et al., "SDXL", 2023, https://arxiv.org/abs/2307.01952; Esser et al., "Scaling Rectified Flow Transformers for
High-Resolution Image Synthesis", 2024, https://arxiv.org/abs/2403.03206; Chen et al., "PixArt-Σ", 2024,
https://arxiv.org/abs/2403.04692; Xie et al., "SANA", 2024, https://arxiv.org/abs/2410.10629; FLUX.1 has no paper.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from diffscope.errors import CheckpointError
from diffscope.families._facts import Facts
from diffscope.families.networks.block_outputs import PATCH
from diffscope.families.networks.library import diffusers_is_before
from diffscope.families.networks.stored import ConditionedCall, Conditions

CLIP_ROWS = 77
STEPS = 1000
"""What flow matching networks other than FLUX's take s times; FLUX's class does that itself."""
GUIDANCE = 3.5
"""What FLUX's pipeline tells a guidance-distilled network by default."""
Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class TextNetwork:
    """One class of network."""

    name: str
    pipelines: tuple[str, ...]
    """Classes of pipelines that feed it as it is fed here."""
    layers: re.Pattern[str]
    """Names of the submodules that are layers."""
    call: ConditionedCall
    shapes: Callable[[Facts, int], Shapes]
    """(its config, rows of the text) → shape of each tensor that comes from a text."""
    straight: bool
    """Whether its noise is the straight line; else betas."""
    rows: int = 0
    """Rows of the longest text, as its pipeline has it by default; 0 where that is fixed."""
    factor: int = 8
    """Image side over latent side of its own VAE."""
    latent_channels: int = 4
    """Of its own VAE."""
    side: int | None = None
    """Of its input, where its config has none."""
    patch: int = 1
    """The side of its input is a multiple of that."""


def added_conditions(network: TextNetwork, module: nn.Module, facts: Facts, side: int) -> dict[str, Tensor]:
    """Makes what a network is told besides the text.

    Args:
        network: Its class.
        module: The network, which says what it takes.
        facts: The user's `--config` may have guidance.
        side: Of the images, in pixels.

    Returns:
        Name → (1, …).
    """
    size = float(side)
    if network.name == FLUX.name and getattr(module.config, "guidance_embeds", False):
        return {"guidance": torch.tensor([facts.number("guidance", GUIDANCE, 0, 1e4, above=False)])}
    if network.name == UNET.name and getattr(module.config, "addition_embed_type", None):
        return {"time_ids": torch.tensor([[size, size, 0, 0, size, size]])}  # original size, corner of crop, target
    if network.name == PIXART.name and module.use_additional_conditions:
        return {"resolution": torch.tensor([[size, size]]), "aspect_ratio": torch.ones(1, 1)}
    return {}


def default_layer(network: TextNetwork, module: nn.Module) -> str:
    """Names the layer at the middle: the U-Net's middle block, the block after which half of a transformer lies.

    Args:
        network: Its class.
        module: The network.

    Returns:
        Its path.
    """
    if network.name == UNET.name and module.mid_block is not None:
        return "mid_block"
    if network.name == UNET.name:
        return f"down_blocks.{_count(module, 'down_blocks') - 1}"
    lists = ("transformer_blocks", "single_transformer_blocks")
    blocks = [f"{name}.{number}" for name in lists for number in range(_count(module, name))]
    return blocks[max(0, len(blocks) // 2 - 1)]


def _count(module: nn.Module, name: str) -> int:
    blocks = getattr(module, name, ())
    return len(blocks)


def _call_unet(module: nn.Module, x: Tensor, time: Tensor, told: Conditions) -> Tensor:
    added = {name: told[name] for name in ("text_embeds", "time_ids") if name in told}
    text = told["encoder_hidden_states"]
    output: Tensor = module(x, time, encoder_hidden_states=text, added_cond_kwargs=added or None, return_dict=False)[0]
    return output


def _call_sd3(module: nn.Module, x: Tensor, time: Tensor, told: Conditions) -> Tensor:
    output: Tensor = module(hidden_states=x, timestep=STEPS * time, return_dict=False, **told)[0]
    return output


def _call_flux(module: nn.Module, x: Tensor, time: Tensor, told: Conditions) -> Tensor:
    """The image goes in as tokens of 2 × 2 latents, row by row; each has its row and column beside it."""
    height, width = x.shape[2] // PATCH, x.shape[3] // PATCH
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    places = torch.stack([torch.zeros_like(rows), rows, columns], -1).flatten(0, 1).to(x)
    text_places = x.new_zeros(told["encoder_hidden_states"].shape[1], 3)
    if diffusers_is_before(0, 31):  # each image has its own
        places, text_places = (part.expand(len(x), *part.shape) for part in (places, text_places))
    guidance = (STEPS * told["guidance"].float(),) if "guidance" in told else ()

    def exact(_: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return STEPS * time, *guidance, given[-1]

    # The class rounds 1000·s to the type of the image, which in 16 bit is off by up to 2: another noise level.
    handle = module.get_submodule("time_text_embed").register_forward_pre_hook(exact)
    try:
        tokens: Tensor = module(
            hidden_states=pixel_unshuffle(x, PATCH).flatten(2).transpose(1, 2),
            timestep=time,
            img_ids=places,
            txt_ids=text_places,
            return_dict=False,
            **told,
        )[0]
    finally:
        handle.remove()
    return pixel_shuffle(tokens.transpose(1, 2).reshape(len(x), -1, height, width), PATCH)


def _call_pixart(module: nn.Module, x: Tensor, time: Tensor, told: Conditions) -> Tensor:
    output: Tensor = module(
        x,
        encoder_hidden_states=told["encoder_hidden_states"],
        encoder_attention_mask=told["encoder_attention_mask"],
        timestep=time,
        added_cond_kwargs={name: told.get(name) for name in ("resolution", "aspect_ratio")},
        return_dict=False,
    )[0]
    return output


def _call_sana(module: nn.Module, x: Tensor, time: Tensor, told: Conditions) -> Tensor:
    scale = STEPS * float(getattr(module.config, "timestep_scale", 1.0))
    output: Tensor = module(x, timestep=scale * time, return_dict=False, **told)[0]
    return output


def _unet_shapes(facts: Facts, rows: int) -> Shapes:
    width = facts.said.get("cross_attention_dim", 1280)
    if isinstance(width, list) and len(set(width)) == 1:
        width = width[0]
    if type(width) is not int or width < 1:
        raise CheckpointError(f"{facts.path}: cross_attention_dim is {width!r:.60}; expected one whole number")
    shapes: Shapes = {"encoder_hidden_states": (1, CLIP_ROWS, width)}
    if facts.said.get("addition_embed_type"):
        size = facts.integer("addition_time_embed_dim", 256)
        pooled = facts.integer("projection_class_embeddings_input_dim", 2816) - 6 * size
        if pooled < 1 or pooled + size == width:
            raise CheckpointError(
                f"{facts.path}: it is told of five sizes beside the text, as SDXL's refiner, which works on images "
                "that are almost done; expected six, as the base model: give that"
            )
        shapes["text_embeds"] = (1, pooled)
    return shapes


def _sd3_shapes(facts: Facts, rows: int) -> Shapes:
    return {
        "encoder_hidden_states": (1, CLIP_ROWS + rows, facts.integer("joint_attention_dim", 4096)),
        "pooled_projections": (1, facts.integer("pooled_projection_dim", 2048)),
    }


def _flux_shapes(facts: Facts, rows: int) -> Shapes:
    return {
        "encoder_hidden_states": (1, rows, facts.integer("joint_attention_dim", 4096)),
        "pooled_projections": (1, facts.integer("pooled_projection_dim", 768)),
    }


def _masked_shapes(facts: Facts, rows: int) -> Shapes:
    width = facts.integer("caption_channels", facts.integer("cross_attention_dim", 1152))
    return {"encoder_hidden_states": (1, rows, width), "encoder_attention_mask": (1, rows)}


_UNET_LAYERS = re.compile(
    r"conv_in|conv_norm_out|conv_out|((down_blocks|up_blocks)\.\d+|mid_block)"
    r"(\.(resnets|attentions)\.\d+(\.transformer_blocks\.\d+)?)?"
)
_BLOCKS = re.compile(r"(single_)?transformer_blocks\.\d+")

UNET = TextNetwork(
    "UNet2DConditionModel",
    (
        "StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline", "StableDiffusionXLPipeline",
        "StableDiffusionXLImg2ImgPipeline",
    ),
    _UNET_LAYERS, _call_unet, _unet_shapes, straight=False,
)  # fmt: skip
SD3 = TextNetwork(
    "SD3Transformer2DModel", ("StableDiffusion3Pipeline", "StableDiffusion3Img2ImgPipeline"),
    _BLOCKS, _call_sd3, _sd3_shapes, straight=True, rows=256, latent_channels=16, patch=2,
)  # fmt: skip
FLUX = TextNetwork(
    "FluxTransformer2DModel", ("FluxPipeline", "FluxImg2ImgPipeline"),
    _BLOCKS, _call_flux, _flux_shapes, straight=True, rows=512, latent_channels=16, side=128, patch=PATCH,
)  # fmt: skip
PIXART = TextNetwork(
    "PixArtTransformer2DModel", ("PixArtAlphaPipeline", "PixArtSigmaPipeline"),
    _BLOCKS, _call_pixart, _masked_shapes, straight=False, rows=300, patch=2,
)  # fmt: skip
SANA = TextNetwork(
    "SanaTransformer2DModel", ("SanaPipeline",),
    _BLOCKS, _call_sana, _masked_shapes, straight=True, rows=300, factor=32, latent_channels=32,
)  # fmt: skip
NETWORKS = {network.name: network for network in (UNET, SD3, FLUX, PIXART, SANA)}
