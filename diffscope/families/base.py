"""What a family gives: a `Denoiser`, that is a network with its noise convention, input space and named layers.

A family is one file in this folder with two functions:

    def recognise(checkpoint: Checkpoint) -> Match | None:
        '''Whether the file is, or could be, of this family.'''

    def build(checkpoint: Checkpoint, config: Mapping[str, str], match: Match) -> Denoiser:
        '''The denoiser, its network on the CPU with the checkpoint's weights.'''

`config` holds what the user says of a file that cannot say it of itself (`--config num_heads=6`).
Everywhere outside a family's file the noise level is sigma, the noise-to-signal ratio.
"""

from __future__ import annotations

import difflib
import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from diffscope.errors import CheckpointError, UnknownLayer, UsageError
from diffscope.families._latents import LatentScale, read_statistics
from diffscope.families._ldm_encoder import open_encoder
from diffscope.families._noise import NoiseConvention
from diffscope.families._posterior import posterior_mean
from diffscope.families.networks.autoencoder import Autoencoder
from diffscope.families.networks.walk import OUTPUT, Walk, WalkedNetwork

__all__ = ["Classes", "Denoiser", "InputSpace", "Layer", "Match", "NoiseConvention", "input_space"]

VAE_FACTOR = 8
"""Image side over latent side, of the VAE with four channels that most published models share."""


@dataclass(frozen=True)
class Match:
    """A family's claim on a file."""

    certain: bool
    """False: the weights fit, but they fit another family as well."""
    why: str
    """The evidence, in a few words."""


@dataclass(frozen=True)
class InputSpace:
    """What the network takes, and what an image must be made into first."""

    kind: Literal["pixels", "latents"]
    channels: int
    """Channels of the network's input."""
    side: int
    """Side of the network's input, which is square, in pixels or latents."""
    image_channels: int
    image_side: int
    resize: Literal["lanczos", "adm", "bilinear"]
    """How the family's own data preparation brings an image to its size (`sources/base.py`)."""


@dataclass(frozen=True)
class Classes:
    """Class conditioning. `count` 0: unconditional."""

    count: int = 0
    null: bool = True
    """Whether the network can be run without a class."""
    null_trained: bool | None = None
    """Whether it was trained without a class now and then; None where the file does not say."""


@dataclass(frozen=True)
class Layer:
    """A named place in the network whose activation can be measured."""

    name: str
    shape: tuple[int, ...]
    """Shape without the batch: (C, H, W) for maps, (T, D) for tokens, (D,) for vectors."""
    flops: int = 0
    """Operations of one image's matrix products and convolutions up to and with this layer, 2 a multiply-add."""

    @property
    def width(self) -> int:
        """Number of features after averaging over positions."""
        return self.shape[0] if len(self.shape) != 2 else self.shape[1]

    @property
    def positions(self) -> int:
        """Number of positions that the features are averaged over."""
        return math.prod(self.shape) // self.width


@dataclass
class Denoiser(ABC):
    """A frozen network that can be walked at any noise level."""

    family: ClassVar[str]
    network_class: str
    network: WalkedNetwork
    space: InputSpace
    noise: NoiseConvention
    classes: Classes
    layers: tuple[Layer, ...]
    default_layer: str
    evidence: str
    """How family and constructor were decided."""
    constructor: dict[str, Any] = field(default_factory=dict)
    """What the network was built with: enough to build it again."""
    warnings: tuple[str, ...] = ()
    prediction: str | None = None
    """What the network predicts, by a name of `posterior_mean`; None where the family denoises in a way of its own."""
    exact: tuple[str, ...] = ()
    """Names in the file of tables that are no weights, such as noise levels: they are never rounded."""
    latent_scale: LatentScale | None = None
    """What a latent model makes of the VAE's latents; None for models on pixels, and where it is yet to be given."""
    scale_wanted: ClassVar[str] = (
        "this model takes latents normalised by the mean and deviation of each channel, which its file does not hold: "
        "give them with `latent_stats=FILE`, a latents_stats.pt, or `latent_stats=none` for latents that are "
        "normalised already"
    )
    """Said where it is yet to be given."""
    given_scale: bool = False
    """Whether the user gave it, rather than the file."""
    conditions: Mapping[str, Any] = field(default_factory=dict)
    """What the network is told besides noise and class, such as a text, as plain JSON for the protocol."""
    cited: Mapping[str, str] = field(default_factory=dict)
    """Layers that the literature uses → where."""
    encoder: Autoencoder | None = None
    """A latent model's own image encoder, from `use_encoder`."""

    def use_encoder(self, path: str | None, encoder: Autoencoder | None = None) -> None:
        """Reads the VAE of a latent model, or takes one that was read before; models on pixels take none.

        Args:
            path: A diffusers folder or Hub reference of an AutoencoderKL, or a file of the code of latent diffusion.
            encoder: The same VAE, read before.

        Raises:
            CheckpointError: If it is missing, cannot be read, has another number of channels than the model, or is
                given for a model on pixels.
        """
        if self.space.kind == "pixels":
            if path is not None:
                raise CheckpointError(f"`vae={path}`: this model works on pixels and takes no image encoder")
            return
        if path is None and encoder is None:
            channels = self.space.channels
            kind = "sd-vae-ft-ema" if channels == 4 else f"an AutoencoderKL of {channels} channels"
            raise CheckpointError(
                f"this model works on VAE latents: give its image encoder, a diffusers folder of {kind}, "
                "with `vae=PATH`, or latents made beforehand (.npz) as `data=`"
            )
        encoder = encoder or open_encoder(str(path))
        side = self.space.side * encoder.factor
        if encoder.latent_channels != self.space.channels:
            raise CheckpointError(
                f"`vae={path}`: it makes {encoder.latent_channels} channels, the model takes {self.space.channels}"
            )
        self.encoder = encoder
        self.space = replace(self.space, image_channels=encoder.image_channels, image_side=side)

    def use_statistics(self, path: str) -> None:
        """Reads the statistics of the latents, which then hold in place of what the model's file says.

        Args:
            path: As for `read_statistics`.

        Raises:
            CheckpointError: If there are none in it, of another number of channels, or the model works on pixels.
        """
        if self.space.kind == "pixels":
            raise CheckpointError(
                f"`latent_stats={path}`: this model works on pixels and takes no statistics of latents"
            )
        self.latent_scale, self.given_scale = read_statistics(path, self.space.channels), True

    def use_text(self, prompt: str | None, source: str | None) -> None:
        """Tells the network a text, the same for all images.

        Args:
            prompt: The text; None is the empty one.
            source: Whose text encoders are used, or a file of embeddings; None takes the pipeline's own.

        Raises:
            UsageError: If either is given for a network that is not told of a text.
            CheckpointError: If there is no text encoder or it cannot be read.
        """
        if prompt is not None or source is not None:
            given = "prompt_from" if prompt is None else "prompt"
            raise UsageError(f"`{given}=`: this model is not told of a text; leave it out")

    def use_image_size(self, size: int) -> None:
        """Makes the network take images of another side.

        Args:
            size: Side of the images, in pixels.

        Raises:
            UsageError: If the network takes images of one side alone.
        """
        if size != self.space.image_side:
            raise UsageError(f"`image_size={size}`: this model takes images of side {self.space.image_side} alone")

    @property
    def denoises(self) -> bool:
        """Whether `denoise` is known."""
        return True

    def to(self, device: torch.device) -> None:
        """Moves the network and the image encoder to a device."""
        self.network.to(device)
        if self.encoder is not None:
            self.encoder.to(device)

    @abstractmethod
    def label(self, classes: Tensor | None, device: torch.device) -> Tensor | None:
        """Makes what the network takes for classes.

        Args:
            classes: Indices (B,) int64; None stands for the null class.
            device: Where the result is used.

        Returns:
            The network's own form of them, of length B or 1; None where it takes no classes.

        Raises:
            UsageError: If there is no null class and `classes` is None.
        """

    def denoise(self, x: Tensor, sigma: Tensor, label: Tensor | None) -> Tensor:
        """Computes the posterior mean of the data, given x = data + sigma · noise, from what the network predicts.

        Args:
            x: (B, C, H, W), in the network's input space.
            sigma: Noise-to-signal ratio, (B,) or (1,).
            label: From `label`.

        Returns:
            (B, C, H, W), in the network's input space.
        """
        assert self.prediction is not None, "a family without a prediction has a `denoise` of its own"
        return posterior_mean(self.prediction, self.noise, x, sigma, self.predict(x, sigma, label))

    def predict(self, x: Tensor, sigma: Tensor, label: Tensor | None) -> Tensor:
        """Runs the network on x = data + sigma · noise.

        Args:
            x: (B, C, H, W), in the network's input space.
            sigma: Noise-to-signal ratio, (B,) or (1,).
            label: From `label`.

        Returns:
            The network's own prediction, cut to the data's channels, (B, C, H, W).
        """
        levels = sigma.flatten().double().tolist()
        scale = x.new_tensor([self.noise.input_scale(s) for s in levels])[:, None, None, None]
        time = x.new_tensor([self.noise.to_native(s) for s in levels])
        output: Tensor = self.network(scale * x, time, label)
        return output[:, : x.shape[1]].to(x.dtype)

    def encode(self, images: Tensor, noise: Tensor | None) -> Tensor:
        """Brings images into the network's input space.

        Args:
            images: (B, C, S, S) in [-1, 1].
            noise: Standard normal (B, c, s, s), to draw from the VAE's posterior; None takes its mean. Unused for
                pixels.

        Returns:
            The images themselves for pixels, else scaled latents (B, c, s, s).
        """
        if self.encoder is None:
            return images
        return self.scale_latents(*self.encoder.posterior(images), noise)

    def scale_latents(self, mean: Tensor, std: Tensor, noise: Tensor | None) -> Tensor:
        """Turns the VAE's unscaled posterior into what the network takes.

        Args:
            mean: (B, c, s, s).
            std: Standard deviation, (B, c, s, s).
            noise: Standard normal, (B, c, s, s); None takes the mean.

        Returns:
            Scaled latents (B, c, s, s).

        Raises:
            CheckpointError: If nobody says how they are scaled.
        """
        if self.latent_scale is None:
            raise CheckpointError(self.scale_wanted)
        return self.latent_scale.apply(mean if noise is None else torch.addcmul(mean, std, noise))

    def decode(self, x: Tensor) -> Tensor:
        """Brings points of the network's input space back to images: `encode` backwards.

        Args:
            x: (B, C, H, W), in the network's input space.

        Returns:
            Images (B, C, S, S), meant to lie in [-1, 1] but not cut to it; latents themselves where no encoder is
                loaded.
        """
        return x if self.encoder is None else self.encoder.decode(self.unscale_latents(x))

    def unscale_latents(self, x: Tensor) -> Tensor:
        """Undoes `scale_latents` without noise.

        Args:
            x: Scaled latents (B, c, s, s).

        Returns:
            Unscaled latents (B, c, s, s).
        """
        assert self.latent_scale is not None
        return self.latent_scale.undo(x)

    def walk(self, x: Tensor, sigma: float, label: Tensor | None, until: Collection[str] | None = None) -> Walk:
        """Runs the network on x = data + sigma · noise, one layer at a time.

        Args:
            x: (B, C, H, W), in the network's input space.
            sigma: Noise-to-signal ratio.
            label: From `label`.
            until: Names of the layers wanted, where the consumer stops after the last of them: others may be left out,
                and a library's network is run no further. None runs it to its end.

        Yields:
            (name, activation) of each layer in the order of execution, without the output.
        """
        time = torch.full((1,), self.noise.to_native(sigma), dtype=torch.float32, device=x.device)
        steps = self.network.walk_until(x * self.noise.input_scale(sigma), time, label, until)
        return (step for step in steps if step[0] != OUTPUT)

    def layer(self, name: str) -> Layer:
        """Finds a layer by its name, by `mid`, or by a tail that only one layer has.

        Args:
            name: Such as "enc.8x8_block3", "8x8_in0" or "mid".

        Returns:
            The layer.

        Raises:
            UnknownLayer: If no layer, or more than one, is meant.
        """
        by_name = {layer.name: layer for layer in self.layers}
        name = self.default_layer if name == "mid" else name
        if name in by_name:
            return by_name[name]
        tails = [n for n in by_name if n.endswith(f".{name}")]
        if len(tails) == 1:
            return by_name[tails[0]]
        if tails:
            raise UnknownLayer(f"layer '{name}' is ambiguous; use {' or '.join(tails)}")
        close = difflib.get_close_matches(name, by_name, n=3, cutoff=0.4)
        hint = f"close: {', '.join(close)}; " if close else ""
        raise UnknownLayer(f"no layer '{name}'; {hint}all layers: diffscope inspect CKPT")


def input_space(
    channels: int, side: int, latent: bool, resize: Literal["lanczos", "adm", "bilinear"], factor: int = VAE_FACTOR
) -> InputSpace:
    """Describes the input of a model on pixels, or on latents of a VAE.

    Args:
        channels: Of the network's input.
        side: Of the network's input, in pixels or latents.
        latent: Whether it takes latents; images then have three channels and `factor` times the side.
        resize: How the family's own data preparation brings an image to its size.
        factor: Image side over latent side, of the VAE.

    Returns:
        The input space.
    """
    if latent:
        return InputSpace("latents", channels, side, 3, side * factor, resize)
    return InputSpace("pixels", channels, side, channels, side, resize)
