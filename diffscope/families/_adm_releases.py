"""The released networks of guided-diffusion and improved-diffusion: sizes by which they are known, and their settings.

Sizes stand in the tensors. Heads of attention, steps and the side of the images do not: they are the flags of the two
repositories' READMEs, github.com/openai/guided-diffusion and github.com/openai/improved-diffusion.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

HEADS = ("num_head_channels", "num_heads")
DEFAULTS: dict[str, Any] = {"use_new_attention_order": False, "noise_schedule": "linear", "diffusion_steps": 1000}
"""Of the training code's own command line."""
SIDES = {
    (1, 2, 2, 2): 32, (1, 2, 3, 4): 64, (1, 1, 2, 3, 4): 128, (1, 1, 2, 2, 4, 4): 256, (0.5, 1, 1, 2, 2, 4, 4): 512,
}  # fmt: skip
"""channel_mult → image_size, by which the training code chooses it."""


@dataclass(frozen=True)
class Release:
    """A released network: what its tensors show, and what they do not."""

    files: tuple[str, ...]
    """Names without ending."""
    sizes: Mapping[str, Any]
    settings: Mapping[str, Any]


def _release(files: str, sizes: tuple[Any, ...], heads: Mapping[str, int], **settings: Any) -> Release:
    names = (
        "model_channels", "channel_mult", "num_res_blocks", "resblock_updown", "attention_resolutions", "num_classes",
        "use_scale_shift_norm",
    )  # fmt: skip
    known = {**DEFAULTS, "rescale_timesteps": False, **settings, **heads}
    return Release(tuple(files.split()), dict(zip(names, sizes, strict=True)), known)


_256 = (256, [1, 1, 2, 2, 4, 4], 2, True, [8, 16, 32])
_COSINE = {"noise_schedule": "cosine", "diffusion_steps": 4000}
RELEASES = (
    _release("64x64_diffusion", (192, [1, 2, 3, 4], 3, True, [2, 4, 8], 1000, True), {"num_head_channels": 64},
             noise_schedule="cosine", use_new_attention_order=True),
    _release("128x128_diffusion", (256, [1, 1, 2, 3, 4], 2, True, [4, 8, 16], 1000, True), {"num_heads": 4}),
    _release("256x256_diffusion", (*_256, 1000, True), {"num_head_channels": 64}),
    _release("256x256_diffusion_uncond lsun_bedroom lsun_cat lsun_horse lsun_horse_nodropout", (*_256, None, True),
             {"num_head_channels": 64}),
    _release("512x512_diffusion", (256, [0.5, 1, 1, 2, 2, 4, 4], 2, True, [16, 32, 64], 1000, True),
             {"num_head_channels": 64}),
    _release("imagenet64_uncond_100M_1500K imagenet64_uncond_vlb_100M_1500K",
             (128, [1, 2, 3, 4], 3, False, [4, 8], None, True), {"num_heads": 4}, **_COSINE, rescale_timesteps=True),
    _release("imagenet64_cond_270M_250K", (192, [1, 2, 3, 4], 3, False, [4, 8], 1000, True), {"num_heads": 4},
             **_COSINE),
    _release("cifar10_uncond_50M_500K cifar10_uncond_vlb_50M_500K",
             (128, [1, 2, 2, 2], 3, False, [2, 4], None, True), {"num_heads": 4}, **_COSINE, rescale_timesteps=True),
    _release("lsun_uncond_100M_1200K_bs128 lsun_uncond_100M_2400K_bs64",
             (128, [1, 1, 2, 2, 4, 4], 2, False, [16], None, False), {"num_heads": 1}),
)  # fmt: skip
"""All of them take and learn the variance of three channels."""


def release_of(sizes: Mapping[str, Any]) -> Release | None:
    """Finds the released network that has all of these sizes.

    Args:
        sizes: From `infer_arguments`.

    Returns:
        The release; None where no released network has them.
    """
    if (sizes["in_channels"], sizes["out_channels"]) != (3, 6):
        return None
    return next((r for r in RELEASES if all(sizes[key] == value for key, value in r.sizes.items())), None)
