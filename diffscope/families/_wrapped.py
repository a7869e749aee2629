"""A live network of somebody's own as a `Denoiser`: watched from outside, changed in nothing.

No weight is cast or moved, hooks are on during a forward pass alone, and every train/eval flag is as it was after it.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from diffscope.checkpoints.base import Checkpoint
from diffscope.errors import DiffscopeError, NetworkError, UnknownLayer, UsageError
from diffscope.families._interface import Interface, PosteriorMean, SigmaToInput, by_functions, by_names
from diffscope.families._latents import LatentScale
from diffscope.families._outermost import central
from diffscope.families._own_code import told
from diffscope.families.base import Classes, Denoiser, Layer, input_space
from diffscope.families.networks.hooked import Call, HookedNetwork, watched

CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
"""They return what their last part returns, or are never called."""


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
    noise: str | None = None,
    predicts: str | None = None,
    call: str | None = None,
) -> Denoiser:
    """Makes a live network what `diffscope.sweep` and `diffscope.icr` take in place of a checkpoint's path.

    How it is called and told of noise is said by the field's names (`noise`, `predicts`, `call`, as on the command
    line) or by functions (`sigma_to_input`, `sigma_range`, `posterior_mean`).

    Args:
        module: The network; it is run where it is, as it is.
        side: Of the network's input, a square.
        channels: Of the network's input: pixels in [-1, 1], or VAE latents where `latent_scale` is given.
        sigma_to_input: (x, sigma) → (args, kwargs): how the network is called for x = data + sigma · noise, float32
            (B, C, S, S), and sigma, the noise-to-signal ratio, float32 (B,); if None, `module(x, sigma)`.
        layers: Dotted names of submodules; if None, all that are called once and return one tensor of 2 to 4 dimensions
            whose first is the batch, in the order in which they return.
        default_layer: What `mid` means; if None, the middle one of the outermost layers of lowest resolution.
        family: The name under which results are recorded.
        sigma_range: Smallest and largest noise-to-signal ratio.
        latent_scale: What VAE latents are multiplied with; None for pixels.
        posterior_mean: (x, sigma) → data, both as above; only for what needs the denoised image.
        noise: Such as "ddpm:linear", "flow:data=0", "edm", "vp" or "ve": what the network is fed and how its input is
            scaled.
        predicts: eps, x0, v, velocity, denoised or score, from which the posterior mean follows.
        call: How it is called, such as "x,t" (the default) or "sample=x,timestep=t,class_labels=y:10".

    Returns:
        The denoiser; no weight of the network is copied.

    Raises:
        UsageError: If the network cannot be run on zeros, or what is said of it does not go together.
        UnknownLayer: If it has no such layer.
    """
    if noise is None:
        if predicts is not None or call is not None:
            name = "call" if predicts is None else "predicts"
            raise UsageError(f"`{name}=` goes with `noise=`, such as noise='edm'")
        interface = by_functions(sigma_to_input, sigma_range, posterior_mean)
    else:
        if sigma_to_input is not None or posterior_mean is not None or sigma_range != (0.0, math.inf):
            raise UsageError(
                "`noise=`, `predicts=` and `call=` say by names what sigma_to_input, posterior_mean and sigma_range "
                "say by functions; expected one or the other"
            )
        interface = by_names(noise, predicts, call or "x,t")
    return wrapped(
        LiveNetwork(module, interface.call),
        type("WrappedDenoiser", (WrappedDenoiser,), {"family": family}),
        interface,
        side=side,
        channels=channels,
        latent_scale=latent_scale,
        asked=layers,
        default_layer=default_layer,
    )


class LiveNetwork(HookedNetwork):
    """A network that stays on its owner's device and in its owner's precision.

    Args:
        module: The network.
        run: Calls it on (x, time, label), of which time has the length of x.
    """

    def __init__(self, module: nn.Module, run: Call) -> None:
        super().__init__(module, (), self._called)
        self.owners_call = run

    def _called(self, module: nn.Module, x: Tensor, time: Tensor, label: Tensor | None) -> Tensor:
        # Outside inference mode: what the network keeps of it (a table of positions) must still serve its training.
        with torch.inference_mode(False), torch.no_grad():
            x, label = x.clone(), None if label is None else label.clone()
            return self.owners_call(module, x, time.clone().expand(len(x)), label)

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


@dataclass(kw_only=True)
class WrappedDenoiser(Denoiser):
    """A live network as a denoiser."""

    family: ClassVar[str] = "wrapped"
    interface: Interface

    @property
    def denoises(self) -> bool:
        """Whether its owner has said what it predicts."""
        return self.interface.mean is not None

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
        """Makes what the network takes for classes; None where it is called without."""
        calling = self.interface.calling
        return None if calling is None else calling.label(classes, device)

    def denoise(self, x: Tensor, sigma: Tensor, label: Tensor | None) -> Tensor:
        """Computes the posterior mean, as far as its owner has said what the network predicts.

        Args:
            x: (B, C, H, W), in the network's input space.
            sigma: Noise-to-signal ratio, (B,) or (1,).
            label: From `label`.

        Returns:
            (B, C, H, W).

        Raises:
            UsageError: If that is not known.
        """
        if self.interface.mean is None:
            raise UsageError(
                "what the network predicts is not known; say it with `predicts=` (of a live network, also with "
                "wrap(…, posterior_mean=…))"
            )
        return self.interface.mean(self, x, sigma, label)


def wrapped(
    network: LiveNetwork,
    kind: type[WrappedDenoiser],
    interface: Interface,
    *,
    side: int,
    channels: int,
    latent_scale: float | None = None,
    asked: Sequence[str] | None = None,
    default_layer: str | None = None,
    known: tuple[Layer, ...] | None = None,
) -> WrappedDenoiser:
    """Makes a denoiser of a network and its interface.

    Args:
        network: Its names are set here.
        kind: Class of the denoiser.
        interface: How the network is called.
        side: Of its input.
        channels: Of its input.
        latent_scale: As for `wrap`.
        asked: As `layers` of `wrap`.
        default_layer: As for `wrap`.
        known: Its layers, where the same network was run before.

    Returns:
        The denoiser.

    Raises:
        UsageError: If the network cannot be run on zeros; of one that names describe NetworkError.
        UnknownLayer: If it has no such layer.
    """
    network.names = tuple(asked or _candidates(network.module))
    if absent := [name for name in network.names if name not in dict(network.module.named_modules())]:
        raise UnknownLayer(f"no submodule '{absent[0]}' in {type(network.module).__name__}")
    found = known or _dry_run(network, interface, channels, side, asked)
    network.names = tuple(layer.name for layer in found)
    if default_layer is not None and default_layer not in network.names:
        raise UnknownLayer(f"no layer '{default_layer}' among {', '.join(network.names[:8])}")
    calling = interface.calling
    return kind(
        network_class=type(network.module).__name__,
        network=network,
        space=input_space(channels, side, latent_scale is not None, "lanczos"),
        noise=interface.noise,
        classes=Classes() if calling is None else calling.classes,
        layers=found,
        default_layer=default_layer or central(found).name,
        evidence="a live network",
        constructor={"side": side, "channels": channels, **_said(interface)},
        latent_scale=None if latent_scale is None else LatentScale((latent_scale,)),
        interface=interface,
    )


def _said(interface: Interface) -> dict[str, Any]:
    """What names say, for the protocol."""
    if interface.named is None or interface.calling is None:
        return {}
    return {"noise": interface.named.text, "predicts": interface.predicts, "call": interface.calling.text}


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


def _candidates(module: nn.Module) -> list[str]:
    return [name for name, part in module.named_modules() if name and not isinstance(part, CONTAINERS)]


def _dry_run(
    network: LiveNetwork, interface: Interface, channels: int, side: int, asked: Collection[str] | None
) -> tuple[Layer, ...]:
    """Names and shapes from one pass over two images of zeros, at sigma = 1 or the nearest level."""
    outputs: dict[str, list[tuple[int, ...] | None]] = {}

    def take(name: str, output: object) -> None:
        outputs.setdefault(name, []).append(_shape(output))

    x, noise = torch.zeros(2, channels, side, side, device=_device(network)), interface.noise
    time = noise.to_native(noise.nearest(min(max(1.0, noise.sigma_min), noise.sigma_max)))
    try:
        for label in _labels(interface, x.device):
            outputs.clear()
            with watched(network.module, network.names, take):
                output = network.call(network.module, x, torch.full((1,), float(time), device=x.device), label)
    except Exception as error:
        raise _refusal(interface, x, time, error) from error
    if interface.predicts is not None:
        _check_output(output, x, type(network.module).__name__)
    for name in asked or ():
        if outputs.get(name, [None])[0] is None or len(outputs[name]) > 1:
            raise UsageError(
                f"layer '{name}' is not called exactly once or does not return one tensor of 2 to 4 dimensions"
            )
    found = tuple(Layer(n, shapes[0]) for n, shapes in outputs.items() if len(shapes) == 1 and shapes[0] is not None)
    if not found:
        raise UsageError(f"no submodule of {type(network.module).__name__} returns one tensor of 2 to 4 dimensions")
    return found


def _labels(interface: Interface, device: torch.device) -> list[Tensor | None]:
    """What the network is tried with: the last class, so that a wrong count shows, and no class where it knows that."""
    calling = interface.calling
    if calling is None or not calling.classes.count:
        return [None]
    last = torch.tensor([calling.classes.count - 1], device=device)
    return [calling.label(last, device), *([calling.label(None, device)] if calling.classes.null else [])]


def _refusal(interface: Interface, x: Tensor, time: float, error: Exception) -> DiffscopeError:
    if isinstance(error, NetworkError):
        return error
    shape = list(x.shape)
    if interface.calling is None:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        return UsageError(
            f"the network cannot be run on zeros {shape} ({reason}); say with sigma_to_input how it is called"
        )
    return NetworkError(
        f"the network cannot be run on x = zeros {shape} and t = {time:g}, called as {interface.calling.text}: "
        f"{told(error)}; say with `call=` how it is called, and see `noise=` and the size of its input"
    )


def _check_output(output: Tensor, x: Tensor, name: str) -> None:
    """NetworkError where no image can be made of what the network returns."""
    shape, expected = list(output.shape), list(x.shape)
    if len(shape) != 4 or shape[2:] != expected[2:] or shape[0] != expected[0] or shape[1] < expected[1]:
        raise NetworkError(
            f"{name} returns {shape} for x of {expected}; expected the same shape (of more channels the first are "
            "taken); leave `predicts=` out where only its features are wanted"
        )


def _shape(output: object) -> tuple[int, ...] | None:
    """The shape without the batch; None for what is no layer."""
    if isinstance(output, Tensor) and 2 <= output.dim() <= 4 and len(output) == 2 and output.is_floating_point():
        return tuple(output.shape[1:])
    return None
