"""`random`: the same network, untrained: what its architecture alone makes of images. `random:LAYER` for another layer.

Every weight of a product (matrices, convolutions, tables) is drawn anew, normal with variance 1 over its number of
inputs (LeCun et al., "Efficient BackProp", 1998); every gain is 1, every bias 0. Families start differently, some with
branches of zeros: this start is the same for all. Images are given without noise, at the conditioning of the lowest
noise level that is measured.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffscope.encoders.base import Encoder, HeldImages, Network, Setting, finite, hash_of_tensors
from diffscope.errors import UsageError
from diffscope.extraction import Extractor, Inputs
from diffscope.families.base import Layer
from diffscope.seeding import Stream, generator
from diffscope.views import Augmentation

GAINS = ("weight", "gain", "gamma", "scale")
"""Last words of names of vectors that multiply."""


def accepts(spec: str) -> bool:
    """Tells whether it is called so."""
    return spec == "random" or spec.startswith("random:")


def open(spec: str, setting: Setting) -> Encoder:
    """Draws the weights of the network beside it anew."""
    if setting.network is None:
        raise UsageError(f"`{setting.option}={spec}`: needs a network beside it, of which it is the untrained one")
    _, _, name = spec.partition(":")
    beside = setting.network
    layers = beside.plan.layers
    asked = name or (layers[0].name if len(layers) == 1 else beside.denoiser.default_layer)
    return Untrained(spec, beside, beside.denoiser.layer(asked), setting.option)


class Untrained(Encoder):
    """Features of a network with random weights.

    Args:
        name: As the user spelled it.
        beside: The network with its weights, which stays as it is.
        layer: Whose features are taken, pooled as the network's own are.
        option: The option that named it, for messages.

    Raises:
        UsageError: If the network has no weights.
    """

    kind = "random"
    takes = "data"

    def __init__(self, name: str, beside: Network, layer: Layer, option: str = "beside") -> None:
        self.name, self._option, self._source = name, option, beside.source
        self._denoiser = copy.copy(beside.denoiser)
        network = self._denoiser.network = copy.deepcopy(beside.denoiser.network)
        self._seed = beside.plan.seed
        parameters = dict(network.named_parameters())
        if not parameters:
            raise UsageError(f"`{option}={name}`: a {beside.denoiser.family} network has no weights to be drawn anew")
        with torch.no_grad():
            for number, (key, parameter) in enumerate(sorted(parameters.items())):
                drawn = _drawn(key, tuple(parameter.shape), self._seed, number)
                # A new tensor: the old one may lie in its file.
                parameter.data = drawn.to(parameter.device, parameter.dtype)
        self._plan = replace(
            beside.plan,
            layers=(layer,),
            sigmas=(min(beside.plan.sigmas),),
            views=1,
            augmentation=Augmentation("none"),
            input="clean",
            workers=0,
            compile=False,
        )
        self.layer, self.dims = layer.name, self._plan.width(layer)

    def fingerprint(self) -> str:
        """Returns the sha256 of the random weights."""
        return hash_of_tensors(self._denoiser.network.named_parameters())

    def facts(self) -> dict[str, Any]:
        """Returns layer, conditioning and pooling."""
        plan = self._plan
        return {
            "weights": "normal, variance 1/inputs; gains 1, biases 0",
            "seed": self._seed,
            "layer": self.layer,
            "input": "clean",
            "sigma": plan.sigmas[0],
            "pool": plan.pool,
        }

    def features(self, images: np.ndarray, indices: Sequence[int] | None = None) -> Tensor:
        """Returns pooled features of the images without noise."""
        known = self._source.labels
        labels = None if known is None or indices is None else known[list(indices)]
        held = HeldImages(self._source, images, labels)
        extractor = Extractor(self._denoiser, Inputs(held, self._plan), self._plan)
        found = torch.cat([found.z[:, 0] for found in extractor.run(range(len(images)))])
        return finite(found, self.name, self._option)


def _drawn(name: str, shape: tuple[int, ...], seed: int, number: int) -> Tensor:
    """One parameter's values, float32, from numbers of its own."""
    if len(shape) < 2:
        return torch.full(shape, 1.0 if name.rpartition(".")[2] in GAINS else 0.0)
    # Numbers of images are below 2^40: no other draw has these.
    draws = generator(seed, Stream.SUBSET, image=(1 << 40) + number).standard_normal(shape, dtype=np.float32)
    return torch.from_numpy(draws) / float(np.sqrt(np.prod(shape[1:])))
