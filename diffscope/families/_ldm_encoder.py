"""Image encoders in the form of the code of latent diffusion, such as VA-VAE's, as diffusers' AutoencoderKL.

Rombach et al., "High-Resolution Image Synthesis with Latent Diffusion Models", 2022, https://arxiv.org/abs/2112.10752;
the two are one network under other names.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from diffscope.checkpoints import read
from diffscope.errors import CheckpointError
from diffscope.families.networks.autoencoder import Autoencoder
from diffscope.families.networks.library import diffusers_class
from diffscope.formats import CHECKPOINT_ENDINGS

PARTS = ("encoder.", "decoder.", "quant_conv.", "post_quant_conv.")
"""The autoencoder's own; networks that its training took to help lie beside."""
GROUPS = 32
"""Of every group norm: latent diffusion's code knows no other number."""

_NAMES = (
    (r"\.mid\.block_([12])\.", lambda m: f".mid_block.resnets.{int(m[1]) - 1}."),
    (r"\.mid\.attn_1\.", lambda _: ".mid_block.attentions.0."),
    (r"\.down\.(\d+)\.block\.", lambda m: f".down_blocks.{m[1]}.resnets."),
    (r"\.down\.(\d+)\.attn\.", lambda m: f".down_blocks.{m[1]}.attentions."),
    (r"\.down\.(\d+)\.downsample\.", lambda m: f".down_blocks.{m[1]}.downsamplers.0."),
    (r"\.nin_shortcut\.", lambda _: ".conv_shortcut."),
    (r"\.norm_out\.", lambda _: ".conv_norm_out."),
)
_ATTENTION = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}


def open_encoder(path: str) -> Autoencoder:
    """Opens an image encoder of either form.

    Args:
        path: A diffusers folder, a Hub reference, or a file of weights.

    Returns:
        The encoder.

    Raises:
        CheckpointError: If it cannot be read, or is no such encoder.
    """
    if path.endswith(CHECKPOINT_ENDINGS) and not os.path.isdir(path):
        return Autoencoder(path, _from_file(path))
    return Autoencoder(path)


def _from_file(path: str) -> Any:
    """The network, with the weights of a file."""
    own = {name: tensor for name, tensor in read(path).tensors.items() if name.startswith(PARTS)}
    if "encoder.down.0.block.0.conv1.weight" not in own:
        raise CheckpointError(
            f"{path}: no image encoder; expected a diffusers folder of an AutoencoderKL, or a file with the tensors of "
            "latent diffusion's (encoder.down.0.block.0.conv1.weight, …)"
        )
    config = infer_config(path, own)
    kl = diffusers_class("AutoencoderKL")
    tensors = diffusers_names(own, len(config["block_out_channels"]))
    try:
        with torch.device("meta"):  # the sizes are the file's: nothing is held for them until its tensors fit
            network = kl(**config)
        network.load_state_dict({name: tensor.float() for name, tensor in tensors.items()}, assign=True)
    except (RuntimeError, ValueError) as error:
        raise CheckpointError(
            f"{path}: its tensors make no AutoencoderKL: {' '.join(str(error).split())[:200]}"
        ) from None
    return network


def infer_config(path: str, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Reads the arguments of diffusers' AutoencoderKL from names and shapes.

    Args:
        path: Of the file, for messages.
        tensors: Under the names of latent diffusion's code.

    Returns:
        Argument → value.

    Raises:
        CheckpointError: If a tensor is missing or has a shape that no such encoder has.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    levels = _count(shapes, r"encoder\.down\.(\d+)\.")
    try:
        widths = [shapes[f"encoder.down.{i}.block.0.conv2.weight"][0] for i in range(levels)]
        latent = shapes["post_quant_conv.weight"][1]
        attends = [f"encoder.down.{i}.attn.0.q.weight" in shapes for i in range(levels)]
        attends_up = [f"decoder.up.{i}.attn.0.q.weight" in shapes for i in range(levels)]
        return {
            "in_channels": shapes["encoder.conv_in.weight"][1],
            "out_channels": shapes["decoder.conv_out.weight"][0],
            "latent_channels": latent,
            "block_out_channels": tuple(widths),
            "layers_per_block": _count(shapes, r"encoder\.down\.0\.block\.(\d+)\."),
            "down_block_types": tuple(f"{'Attn' if there else ''}DownEncoderBlock2D" for there in attends),
            "up_block_types": tuple(f"{'Attn' if there else ''}UpDecoderBlock2D" for there in reversed(attends_up)),
            "norm_num_groups": GROUPS,
        }
    except (KeyError, IndexError) as error:
        raise CheckpointError(f"{path}: not a whole image encoder: {error} is missing or of another shape") from None


def _count(shapes: Mapping[str, Any], pattern: str) -> int:
    return len({m[1] for name in shapes if (m := re.match(pattern, name))})


def diffusers_names(tensors: Mapping[str, Tensor], levels: int) -> dict[str, Tensor]:
    """Gives tensors the names and shapes of diffusers: its decoder counts levels from the smallest images on.

    Args:
        tensors: Under the names of latent diffusion's code.
        levels: Number of resolutions.

    Returns:
        The same tensors, in their order.
    """

    def renamed(name: str) -> str:
        for pattern, replacement in _NAMES:
            name = re.sub(pattern, replacement, name)
        up = re.fullmatch(r"(decoder)\.up\.(\d+)\.(block|attn|upsample)\.(.*)", name)
        if up:
            part = {"block": "resnets.", "attn": "attentions.", "upsample": "upsamplers.0."}[up[3]]
            name = f"decoder.up_blocks.{levels - 1 - int(up[2])}.{part}{up[4]}"
        attention = re.fullmatch(r"(.*\.attentions\.\d+)\.(norm|q|k|v|proj_out)\.(weight|bias)", name)
        return f"{attention[1]}.{_ATTENTION[attention[2]]}.{attention[3]}" if attention else name

    found = {}
    for name, tensor in tensors.items():
        new = renamed(name)
        is_matrix = re.search(r"\.attentions\.\d+\.to_.*weight$", new) is not None and tensor.dim() == 4
        found[new] = tensor.flatten(1) if is_matrix else tensor
    return found
