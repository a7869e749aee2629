"""Files that are no network of any family, known by the names of their tensors, and what to do instead."""

from __future__ import annotations

import re

from diffscope.checkpoints.base import Checkpoint

_KINDS: tuple[tuple[str, str], ...] = (
    (
        r"(^|[._])lora[._]|\.lora_[A-Za-z]|^lora_(unet|te)|\.hada_w1|\.alpha$",
        "a LoRA, which only changes another network's weights: merge it into its base "
        "(in diffusers fuse_lora, then save_pretrained) and give that",
    ),
    (
        r"controlnet_|^control_model\.|^zero_convs\.",
        "a ControlNet, which works beside another network: give the network that it controls",
    ),
    (
        r"temporal_|temp_conv|motion_modules|time_stack",
        "a video network, which no family here is: measure networks of single images",
    ),
    (
        r"^(down_blocks|transformer_blocks)\.\d+\.",
        "weights of the diffusers library, whose sizes stand in a config.json: give the folder with both",
    ),
    (
        r"\.attn2\.to_k\.|^context_embedder\.|^double_blocks\.|^joint_blocks\.",
        "a network told of a text, in the layout of a single file: give the folder of its pipeline, or make one "
        "(in diffusers from_single_file, then save_pretrained)",
    ),
    (
        r"(^|\.)diffusion_model\.input_blocks\.",
        "a latent diffusion network as CompVis saves it, which no family here is: convert it with diffusers and give "
        "the folder",
    ),
    (
        r"^out\.2\.(positional_embedding$|qkv_proj\.|c_proj\.)",
        "a classifier of noisy images (guided-diffusion), which denoises nothing: give the diffusion network",
    ),
    (
        r"text_model\.encoder\.|^transformer\.resblocks\.|^encoder\.block\.\d+\.layer\.|^model\.layers\.\d+\.self_attn\.",
        "a text encoder or language model, which denoises nothing: give the pipeline's denoising network",
    ),
    (
        r"^(first_stage_model\.)?(post_)?quant_conv\.|^decoder\.(up|up_blocks|mid_block|mid)\.",
        "a VAE alone: give the network that works on its latents, and the VAE's folder with `vae=`",
    ),
)


def kind_of(checkpoint: Checkpoint) -> str | None:
    """Recognises a file that is no network of any family by the names of its tensors.

    Args:
        checkpoint: One that no family claims.

    Returns:
        What the file is, and what to do; None where its names say nothing.
    """
    for pattern, answer in _KINDS:
        if any(re.search(pattern, name) for name in checkpoint.tensors):
            return answer
    if any(t.dim() == 5 for t in checkpoint.tensors.values()):
        return _KINDS[2][1]
    return None
