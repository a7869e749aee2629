"""EDM2 checkpoints: snapshots, raw or of one EMA, post-hoc reconstructions, and training states.

Karras et al., "Analyzing and Improving the Training Dynamics of Diffusion Models", 2024,
https://arxiv.org/abs/2312.02696. Snapshots are stored in half precision; all weights are used as float32.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from diffscope.checkpoints.base import Checkpoint
from diffscope.errors import CheckpointError
from diffscope.families._building import build_on_meta, dry_walk, load_weights, shapes_of
from diffscope.families._facts import Facts, file_arguments
from diffscope.families._latents import LatentScale
from diffscope.families._preconditioned import PreconditionedDenoiser, mid_of_unet, null_class_warnings
from diffscope.families._preconditioners import EDMPrecond
from diffscope.families.base import Classes, Match, input_space
from diffscope.families.networks.edm2_unet import EDM2UNet

LATENT_CHANNELS = 4

# The latents' mean and standard deviation over ImageNet; EDM2 brings the latter to ½.
_MEAN = (5.81, 3.25, 0.12, -2.15)
_STD = (4.17, 4.62, 3.71, 3.28)
LATENT_SCALE = LatentScale(tuple(0.5 / std for std in _STD), _MEAN)


@dataclass
class EDM2Denoiser(PreconditionedDenoiser):
    """An EDM2 checkpoint as a denoiser, on pixels or on latents that are standardised channel by channel."""

    family: ClassVar[str] = "edm2"

    def encode(self, images: Tensor, noise: Tensor | None) -> Tensor:
        """Brings images into the network's input space; EDM2's VAE takes pixels in [0, 1], unlike others.

        Args:
            images: (B, C, S, S) in [-1, 1].
            noise: Standard normal (B, c, s, s), or None for the posterior's mean.

        Returns:
            The images themselves for pixels, else scaled latents (B, c, s, s).
        """
        return super().encode(images if self.encoder is None else (images + 1) / 2, noise)

    def decode(self, x: Tensor) -> Tensor:
        """Brings latents back to images; the VAE's pixels are in [0, 1] here as well.

        Args:
            x: (B, C, H, W), in the network's input space.

        Returns:
            Images (B, C, S, S), meant to lie in [-1, 1].
        """
        return x if self.encoder is None else 2 * super().decode(x) - 1


def recognise(checkpoint: Checkpoint) -> Match | None:
    """Claims files whose tensors have the names of EDM2's U-Net."""
    if any(n in checkpoint.tensors for n in ("emb_fourier.freqs", "unet.emb_fourier.freqs")):
        return Match(True, "the tensors have the names of EDM2's U-Net")
    return None


def build(checkpoint: Checkpoint, config: Mapping[str, str], match: Match) -> EDM2Denoiser:
    """Builds network and preconditioner; the head that serves training alone is left out.

    Args:
        checkpoint: One that `recognise` claims.
        config: The user's `--config`: channels_per_head, sigma_data and the balances of the network's sums.
        match: From `recognise`.

    Returns:
        The denoiser, its network on the CPU.

    Raises:
        CheckpointError: If the file's arguments and tensors do not make an EDM2 network.
        WeightsMismatch: If its weights do not fit the network.
        UsageError: If `config` has an unknown key or value.
    """
    tensors = {
        name: tensor
        for name, tensor in ((n.removeprefix("unet."), t) for n, t in checkpoint.tensors.items())
        if not name.startswith(("logvar_fourier.", "logvar_linear."))  # a head that serves training alone
    }
    path, balances = (
        checkpoint.path,
        {"label_balance": 0.5, "concat_balance": 0.5, "res_balance": 0.3, "attn_balance": 0.3},
    )
    facts = Facts(path, file_arguments(checkpoint), config, {"channels_per_head", "sigma_data", *balances})
    head, sigma_data = facts.integer("channels_per_head", 64), facts.number("sigma_data", 0.5, 0, 1e6)
    arguments = {
        **infer_arguments(path, tensors, head),
        "channels_per_head": head,
        **{key: facts.number(key, value, 0, 1, above=False) for key, value in balances.items()},
    }
    network = build_on_meta(lambda: EDM2UNet(**arguments), path, tensors)
    channels, side = arguments["img_channels"], arguments["img_resolution"]
    latent = channels == LATENT_CHANNELS
    space = input_space(channels, side, latent, "adm")
    layers = dry_walk(network, space, None, path)
    load_weights(network, tensors, path)
    classes = Classes(arguments["label_dim"], null_trained=False)
    return EDM2Denoiser(
        network_class="Precond(UNet)",
        network=network,
        space=space,
        noise=EDMPrecond(sigma_data=sigma_data),
        classes=classes,
        layers=layers,
        default_layer=mid_of_unet(layers),
        evidence=match.why,
        constructor={**arguments, "sigma_data": sigma_data},
        warnings=null_class_warnings(classes),
        latent_scale=LATENT_SCALE if latent else None,
    )


def infer_arguments(path: str, tensors: Mapping[str, Tensor], channels_per_head: int) -> dict[str, Any]:
    """Reads the network's constructor arguments from names and shapes.

    The file's multipliers are fractional products of these widths.

    Args:
        path: Of the checkpoint, for messages.
        tensors: Under the network's own names.
        channels_per_head: Width of one attention head, to check the shapes against.

    Returns:
        Argument of `EDM2UNet` → value.

    Raises:
        CheckpointError: If a tensor is missing or has a shape that no such network has.
    """
    shapes = shapes_of(path, tensors)
    sides = sorted({int(m[1]) for n in shapes if (m := re.match(r"enc\.([0-9]{1,5})x\1_", n))}, reverse=True)
    try:
        top = f"enc.{sides[0]}x{sides[0]}"
        blocks = {int(m[1]) for n in shapes if (m := re.match(rf"{re.escape(top)}_block([0-9]{{1,5}})\.", n))}
        embedding, noise = shapes["emb_noise.weight"]
        arguments: dict[str, Any] = {
            "img_resolution": sides[0],
            "img_channels": shapes[f"{top}_conv.weight"][1] - 1,
            "label_dim": shapes.get("emb_label.weight", (0, 0))[1],
            "widths": [shapes[f"enc.{r}x{r}_block0.conv_res1.weight"][0] for r in sides],
            "noise_width": noise,
            "embedding_width": embedding,
            "num_blocks": len(blocks),
            "attn_resolutions": [r for r in sides if f"enc.{r}x{r}_block0.attn_qkv.weight" in shapes],
        }
    except (KeyError, IndexError, ValueError) as error:
        raise CheckpointError(f"{path}: not a whole EDM2 U-Net: {error} is missing or of another shape") from None
    narrow = [n for n, s in shapes.items() if n.endswith("attn_qkv.weight") and s[1:] and s[1] < channels_per_head]
    if narrow:
        raise CheckpointError(
            f"{path}: {narrow[0]} attends at {shapes[narrow[0]][1]} channels, fewer than one head of "
            f"{channels_per_head}; say the head size with `config=channels_per_head=N`"
        )
    return arguments
