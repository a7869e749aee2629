"""Which part of what a block of the diffusers library returns is the image's, by the class of the block.

Blocks return a map or tokens; or a tuple led by the map, followed by what skips to the other half of a U-Net; or
(text tokens, image tokens), whose first is None after the last of SD3's blocks. A class that is not known here is
refused by its name: the wrong element would be measured without a word.
"""

from __future__ import annotations

from torch import Tensor, nn

from diffscope.errors import CheckpointError

_ALONE = {
    "Conv2d", "GroupNorm", "ResnetBlock2D", "ResnetBlockCondNorm2D", "Attention", "KAttentionBlock",
    "BasicTransformerBlock", "SanaTransformerBlock", "UNetMidBlock2D", "UNetMidBlock2DCrossAttn",
    "UNetMidBlock2DSimpleCrossAttn", "UpBlock2D", "AttnUpBlock2D", "CrossAttnUpBlock2D", "SimpleCrossAttnUpBlock2D",
    "ResnetUpsampleBlock2D", "UpDecoderBlock2D", "AttnUpDecoderBlock2D", "KUpBlock2D", "KCrossAttnUpBlock2D",
}  # fmt: skip
"""They return the map or the tokens."""
_LEADING = {
    "Transformer2DModel", "DownBlock2D", "AttnDownBlock2D", "CrossAttnDownBlock2D", "SimpleCrossAttnDownBlock2D",
    "ResnetDownsampleBlock2D", "SkipDownBlock2D", "AttnSkipDownBlock2D", "DownEncoderBlock2D",
    "AttnDownEncoderBlock2D", "KDownBlock2D", "KCrossAttnDownBlock2D", "SkipUpBlock2D", "AttnSkipUpBlock2D",
}  # fmt: skip
"""They return a tuple led by the map; some the map alone."""
_AFTER_TEXT = {"JointTransformerBlock", "FluxTransformerBlock", "FluxSingleTransformerBlock"}
"""They return (text tokens, image tokens)."""
_JOINED = {"FluxSingleTransformerBlock"}
"""Before diffusers 0.36 it returns one tensor, the text's tokens before the image's."""
PATCH = 2
"""Side of FLUX's patches, in latents."""


def is_known(block: nn.Module) -> bool:
    """Tells whether it is known what a block returns.

    Args:
        block: Of the diffusers library.
    """
    return type(block).__name__ in _ALONE | _LEADING | _AFTER_TEXT


def image_output(block: nn.Module, output: object, x: Tensor) -> Tensor:
    """Takes the image's part of what a block returned.

    Args:
        block: It ran.
        output: It returned that.
        x: The network's input, (B, C, H, W).

    Returns:
        A map (B, D, h, w) or tokens (B, T, D), of the image alone.

    Raises:
        CheckpointError: If that class of block, or what it returned, is not known.
    """
    name = type(block).__name__
    if name in _ALONE | _LEADING and isinstance(output, Tensor):
        return output
    if name in _LEADING and isinstance(output, tuple) and isinstance(output[0], Tensor):
        return output[0]
    if name in _AFTER_TEXT and isinstance(output, tuple) and len(output) == 2 and isinstance(output[1], Tensor):
        return output[1]
    if name in _JOINED and isinstance(output, Tensor):
        return output[:, -(x.shape[2] // PATCH) * (x.shape[3] // PATCH) :]
    kind = type(output).__name__
    if isinstance(output, tuple):
        kind = f"({', '.join(type(part).__name__ for part in output[:4])})"
    raise CheckpointError(
        f"{name} returns {kind}; which part of that is the image's is not known here: measure other layers, or "
        "another version of diffusers"
    )
