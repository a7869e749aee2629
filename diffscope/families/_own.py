"""A network of the user's own from the command line: their code, a file's weights, and what they say of the noise.

The code comes from `_own_code`, the weights through the same safe reader as all others, and all of them must fit.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from diffscope.checkpoints.base import Checkpoint
from diffscope.errors import CheckpointError, UsageError
from diffscope.families._building import _check_fit, shapes_of
from diffscope.families._interface import Interface, by_names
from diffscope.families._own_code import Named, built, named
from diffscope.families._wrapped import LiveNetwork, WrappedDenoiser, wrapped
from diffscope.families.base import VAE_FACTOR, Denoiser, Layer
from diffscope.families.networks.autoencoder import Autoencoder
from diffscope.families.networks.hooked import Call
from diffscope.names import first_few

LABELS = ("module.", "_orig_mod.", "net.", "model.", "network.", "unet.", "diffusion_model.")
"""What wrappers put before names, where no set fits and the nearest is to be told."""
_LAYERS: dict[str, tuple[Layer, ...]] = {}
"""Of networks that were built before: the snapshots of a run are all alike."""


@dataclass(frozen=True)
class OwnNetwork:
    """What the user says of it; checked before anything is read or run.

    Args:
        network: FILE.py:NAME or package.module:NAME.
        image_size: Side of the images in pixels.
        channels: Of the network's input.
        noise: As `named_noise` reads it.
        predicts: What it predicts; None where only its features are wanted.
        call: As `calling` reads it.
        arguments: Of the class or function.
        latent_scale: What the VAE's latents are multiplied with; None for pixels.
        latent_factor: Side of the images over side of the latents.

    Raises:
        UsageError: If something cannot be read, or does not go together.
        NetworkError: If there is no such file.
    """

    network: str
    image_size: int
    channels: int
    noise: str
    predicts: str | None = None
    call: str = "x,t"
    arguments: Mapping[str, Any] = field(default_factory=dict)
    latent_scale: float | None = None
    latent_factor: int = VAE_FACTOR
    code: Named = field(init=False)
    interface: Interface = field(init=False)

    def __post_init__(self) -> None:
        """Reads the texts."""
        object.__setattr__(self, "code", named(self.network))
        object.__setattr__(self, "interface", by_names(self.noise, self.predicts, self.call))
        if self.latent_scale is not None and self.image_size % self.latent_factor:
            raise UsageError(
                f"`image_size={self.image_size}`: no multiple of the image encoder's factor, {self.latent_factor} "
                "(`latent_factor=`)"
            )

    @property
    def side(self) -> int:
        """Of the network's input."""
        return self.image_size if self.latent_scale is None else self.image_size // self.latent_factor

    def load(self, checkpoint: Checkpoint, outline: bool = False) -> tuple[Checkpoint, Denoiser]:
        """Builds the network and gives it a file's weights.

        Args:
            checkpoint: As it was read.
            outline: The weights are not there, only their shapes.

        Returns:
            The checkpoint with the weights that were taken, and the denoiser.

        Raises:
            NetworkError: If the code fails.
            WeightsMismatch: If the weights do not fit.
        """
        module, sources = built(self.code, self.arguments)
        checkpoint, note = fitting(checkpoint, list(module.state_dict()))
        _check_fit(module, checkpoint.tensors, checkpoint.path, "; say what differs with `arguments=`")
        if not outline:
            give(module, checkpoint.tensors)
        made_of = {"network": self.code.name, "sources": sources, "arguments": dict(self.arguments)}
        key = json.dumps([made_of, self.side, self.channels, self.noise, self.call])
        denoiser = wrapped(
            ImportedNetwork(module, self.interface.call),
            OwnDenoiser,
            self.interface,
            side=self.side,
            channels=self.channels,
            latent_scale=self.latent_scale,
            known=_LAYERS.get(key),
        )
        _LAYERS[key] = denoiser.layers
        latents = {} if self.latent_scale is None else {"latent_scale": self.latent_scale}
        return checkpoint, replace(
            denoiser,
            space=replace(denoiser.space, image_side=self.image_size),
            constructor={**made_of, **denoiser.constructor, **latents},
            evidence=f"`network={self.network}` was given{note}",
        )


class ImportedNetwork(LiveNetwork):
    """Somebody's network that this process built: it may be moved, and computes half precision under autocast.

    Its code may mix embeddings in float32 with its own weights, so that casting these would break it.
    """

    def __init__(self, module: nn.Module, run: Call) -> None:
        super().__init__(module, run)
        self.dtype = torch.float32

    def _called(self, module: nn.Module, x: Tensor, time: Tensor, label: Tensor | None) -> Tensor:
        with torch.autocast(x.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32):
            return super()._called(module, x, time, label)

    def set_precision(self, dtype: torch.dtype) -> None:
        """Sets the type of matrix products and convolutions; weights keep theirs."""
        self.dtype = dtype


class OwnDenoiser(WrappedDenoiser):
    """A network of the user's own, from a file."""

    family: ClassVar[str] = "own"

    def to(self, device: torch.device) -> None:
        """Moves the network and the image encoder to a device."""
        Denoiser.to(self, device)

    def use_encoder(self, path: str | None, encoder: Autoencoder | None = None) -> None:
        """Reads the VAE; see `Denoiser.use_encoder`.

        Args:
            path: A diffusers folder or Hub reference.
            encoder: The same VAE, read before.

        Raises:
            CheckpointError: As `Denoiser.use_encoder`, or if its factor is another one than was said.
        """
        wanted = self.space.image_side
        super().use_encoder(path, encoder)
        if self.space.image_side != wanted:
            factor = self.space.image_side // self.space.side
            raise CheckpointError(
                f"`vae={path}`: its images have {factor} times the side of its latents; say `latent_factor={factor}`"
            )


def fitting(checkpoint: Checkpoint, names: list[str]) -> tuple[Checkpoint, str]:
    """Takes those of a file's tensors that have the network's names, below whatever wrappers put before them.

    Args:
        checkpoint: As it was read.
        names: Of the network's parameters and buffers.

    Returns:
        The checkpoint with these tensors, and what is to be told of the others. Where no set is whole, the nearest one,
        whose differences `_check_fit` names.

    Raises:
        CheckpointError: If there are several sets.
    """
    tensors = checkpoint.tensors
    shapes_of(checkpoint.path, tensors)
    longest = max(names, key=len, default="")
    ends = [name for name in tensors if name == longest or name.endswith(f".{longest}")]
    prefixes = [name.removesuffix(longest) for name in ends] if longest else []
    whole = [prefix for prefix in prefixes if all(prefix + name in tensors for name in names)]
    if not whole:
        return replace(checkpoint, tensors=_nearest(tensors, names)), ""
    if len(whole) > 1:
        raise CheckpointError(
            f"{checkpoint.path}: weights of such a network under {first_few([p or 'no prefix' for p in whole])}; "
            "expected one set: save the one to be measured alone"
        )
    (prefix,) = whole
    taken = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    left = len(tensors) - len(taken)
    note = f"; {left} tensors outside of '{prefix}' left out" if left else ""
    return replace(checkpoint, tensors=taken), note


def _nearest(tensors: Mapping[str, Tensor], names: list[str]) -> Mapping[str, Tensor]:
    """The tensors without the prefixes of wrappers that most of them have, as far as that brings them nearer."""
    expected = set(names)
    best = dict(tensors)
    while prefix := next((p for p in LABELS if any(name.startswith(p) for name in tensors)), None):
        tensors = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
        if len(expected & tensors.keys()) > len(expected & best.keys()):
            best = dict(tensors)
    return best


def give(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Gives a network weights that fit, in the types that it has."""
    own = module.state_dict()
    module.load_state_dict({name: tensors[name].to(tensor.dtype) for name, tensor in own.items()})
