"""A live network of somebody's own as a `Denoiser`: watched from outside, changed in nothing.

No weight is cast or moved, hooks are on during a forward pass alone, and every train/eval flag is as it was after it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from diffscope.checkpoints.base import Checkpoint
from diffscope.errors import UnknownLayer, UsageError
from diffscope.families._conventions import PlainSigma
from diffscope.families._latents import LatentScale
from diffscope.families.base import Classes, Denoiser, Layer, input_space
from diffscope.families.networks.hooked import HookedNetwork, watched

CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
"""They return what their last part returns, or are never called."""

Inputs = tuple[Sequence[Any], Mapping[str, Any]]
SigmaToInput = Callable[[Tensor, Tensor], Inputs]
PosteriorMean = Callable[[Tensor, Tensor], Tensor]


def wrap(
    module: nn.Module,
    *,
    side: int,
    channels: int,
    sigma_to_input: SigmaToInput | None = None,
    layers: Sequence[str] | None = None,
    default_layer: str | None = None,
    family: str = "wrapped",
    sigma_range: tuple[float, float] = (0.0, math.inf),
    latent_scale: float | None = None,
    posterior_mean: PosteriorMean | None = None,
) -> Denoiser:
    """Makes a live network what `diffscope.sweep` and `diffscope.icr` take in place of a checkpoint's path.

    Args:
        module: The network; it is run where it is, as it is.
        side: Of the network's input, a square.
        channels: Of the network's input: pixels in [-1, 1], or VAE latents where `latent_scale` is given.
        sigma_to_input: (x, sigma) → (args, kwargs): how the network is called for x = data + sigma · noise, float32
            (B, C, S, S), and sigma, the noise-to-signal ratio, float32 (B,); if None, `module(x, sigma)`.
        layers: Dotted names of submodules; if None, all that are called once and return one tensor of 2 to 4 dimensions
            whose first is the batch, in the order in which they return.
        default_layer: What `mid` means; if None, the middle one.
        family: The name under which results are recorded.
        sigma_range: Smallest and largest noise-to-signal ratio.
        latent_scale: What VAE latents are multiplied with; None for pixels.
        posterior_mean: (x, sigma) → data, both as above; only for what needs the denoised image.

    Returns:
        The denoiser; no weight of the network is copied.

    Raises:
        UsageError: If the network cannot be run on zeros.
        UnknownLayer: If it has no such layer.
    """
    network = LiveNetwork(module, layers or _candidates(module), _caller(sigma_to_input))
    found = _dry_run(network, channels, side, layers)
    network.names = tuple(layer.name for layer in found)
    if default_layer is not None and default_layer not in network.names:
        raise UnknownLayer(f"no layer '{default_layer}' among {', '.join(network.names[:8])}")
    kind = type("WrappedDenoiser", (WrappedDenoiser,), {"family": family})
    denoiser: Denoiser = kind(
        network_class=type(module).__name__,
        network=network,
        space=input_space(channels, side, latent_scale is not None, "lanczos"),
        noise=PlainSigma(*sigma_range),
        classes=Classes(),
        layers=found,
        default_layer=default_layer or found[(len(found) - 1) // 2].name,
        evidence="a live network",
        constructor={"side": side, "channels": channels},
        latent_scale=None if latent_scale is None else LatentScale((latent_scale,)),
        posterior_mean=posterior_mean,
    )  # fmt: skip
    return denoiser


class LiveNetwork(HookedNetwork):
    """A network that stays on its owner's device and in its owner's precision."""

    def set_precision(self, dtype: torch.dtype) -> None:
        """Accepts the precision that the weights have.

        Args:
            dtype: The precision wanted.

        Raises:
            UsageError: If the weights are of another one: a live network is run as it is.
        """
        owned = {p.dtype for p in self.module.parameters() if p.is_floating_point()} or {dtype}
        if dtype not in owned:
            names = ", ".join(sorted(str(d).removeprefix("torch.") for d in owned))
            raise UsageError(f"a live network is run as it is, in {names}; choose that precision")


@dataclass
class WrappedDenoiser(Denoiser):
    """A live network as a denoiser; it takes no classes."""

    family: ClassVar[str] = "wrapped"
    posterior_mean: PosteriorMean | None = None

    @property
    def denoises(self) -> bool:
        """Whether its owner has said what it predicts."""
        return self.posterior_mean is not None

    def to(self, device: torch.device) -> None:
        """Moves the image encoder to the network's device.

        Args:
            device: Where to measure.

        Raises:
            UsageError: If the network is elsewhere: it is not moved.
        """
        there = torch.device(device_of(self))
        if device.type != there.type or (device.index is not None and device.index != there.index):
            raise UsageError(f"a live network is run where it is, on {there}, not on {device}; choose that device")
        if self.encoder is not None:
            self.encoder.to(device)

    def label(self, classes: Tensor | None, device: torch.device) -> Tensor | None:
        """Gives None: a wrapped network is called without classes."""
        return None

    def denoise(self, x: Tensor, sigma: Tensor, label: Tensor | None) -> Tensor:
        """Calls `posterior_mean`.

        Args:
            x: (B, C, H, W), in the network's input space.
            sigma: Noise-to-signal ratio, (B,) or (1,).
            label: Not used.

        Returns:
            (B, C, H, W).

        Raises:
            UsageError: If there is no `posterior_mean`.
        """
        if self.posterior_mean is None:
            raise UsageError("what the live network predicts is not known; say it with wrap(…, posterior_mean=…)")
        return self.posterior_mean(x, sigma.flatten().expand(len(x)))


def live_record(denoiser: Denoiser) -> Checkpoint:
    """Makes the record that stands for the file of a network in memory.

    Args:
        denoiser: From `wrap`.

    Returns:
        A checkpoint of the weights as they are now, which is what its sha256 is of when first asked for.
    """
    network = denoiser.network
    module = network.module if isinstance(network, HookedNetwork) else network
    tensors = {name: value for name, value in module.state_dict().items() if isinstance(value, Tensor)}
    return Checkpoint(f"live:{denoiser.network_class}", "live", tensors, "model", "a live network, with its weights")


def device_of(denoiser: Denoiser) -> str:
    """Tells where a denoiser's weights are, such as "cuda:0"."""
    return str(_device(denoiser.network))


def _device(network: nn.Module) -> torch.device:
    tensors = [*network.parameters(), *network.buffers()]
    return tensors[0].device if tensors else torch.device("cpu")


def _caller(sigma_to_input: SigmaToInput | None) -> Callable[[nn.Module, Tensor, Tensor, Tensor | None], Tensor]:
    def call(module: nn.Module, x: Tensor, time: Tensor, label: Tensor | None) -> Tensor:
        # Outside inference mode: what the network keeps of it (a table of positions) must still serve its training.
        with torch.inference_mode(False), torch.no_grad():
            x, sigma = x.clone(), time.clone().expand(len(x))
            args, kwargs = ((x, sigma), {}) if sigma_to_input is None else sigma_to_input(x, sigma)
            output: Tensor = module(*args, **kwargs)
            return output

    return call


def _candidates(module: nn.Module) -> list[str]:
    return [name for name, part in module.named_modules() if name and not isinstance(part, CONTAINERS)]


def _dry_run(network: LiveNetwork, channels: int, side: int, asked: Collection[str] | None) -> tuple[Layer, ...]:
    """Names and shapes from one pass over two images of zeros, sigma = 1."""
    known = dict(network.module.named_modules())
    if absent := [name for name in network.names if name not in known]:
        raise UnknownLayer(f"no submodule '{absent[0]}' in {type(network.module).__name__}")
    outputs: dict[str, list[tuple[int, ...] | None]] = {}

    def take(name: str, output: object) -> None:
        outputs.setdefault(name, []).append(_shape(output))

    x = torch.zeros(2, channels, side, side, device=_device(network))
    try:
        with watched(network.module, network.names, take):
            network.call(network.module, x, torch.ones(1, device=x.device), None)
    except Exception as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise UsageError(
            f"the network cannot be run on zeros {list(x.shape)} ({reason}); say with sigma_to_input how it is called"
        ) from error
    for name in asked or ():
        if outputs.get(name, [None])[0] is None or len(outputs[name]) > 1:
            raise UsageError(
                f"layer '{name}' is not called exactly once or does not return one tensor of 2 to 4 dimensions"
            )
    found = tuple(Layer(n, shapes[0]) for n, shapes in outputs.items() if len(shapes) == 1 and shapes[0] is not None)
    if not found:
        raise UsageError(f"no submodule of {type(network.module).__name__} returns one tensor of 2 to 4 dimensions")
    return found


def _shape(output: object) -> tuple[int, ...] | None:
    """The shape without the batch; None for what is no layer."""
    if isinstance(output, Tensor) and 2 <= output.dim() <= 4 and len(output) == 2 and output.is_floating_point():
        return tuple(output.shape[1:])
    return None
