"""EDM checkpoints: DDPM++, NCSN++ and ADM U-Nets behind the EDM, VP, VE or iDDPM preconditioner.

Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models", 2022,
https://arxiv.org/abs/2206.00364: D(x; σ) = c_skip·x + c_out·F(c_in·x; c_noise), table 1.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from diffscope.checkpoints.base import Checkpoint
from diffscope.errors import CheckpointError, UsageError
from diffscope.families._preconditioned import (
    EDMPrecond,
    PreconditionedDenoiser,
    Preconditioner,
    mid_of_unet,
    null_class_warnings,
)
from diffscope.families.base import (
    Classes,
    Match,
    as_type,
    build_on_meta,
    check_config_keys,
    config_value,
    dry_walk,
    file_arguments,
    input_space,
    load_weights,
)
from diffscope.families.networks.dhariwal_unet import CHANNELS_PER_HEAD, DhariwalUNet
from diffscope.families.networks.song_unet import SongUNet
from diffscope.families.networks.walk import WalkedNetwork


class VPPrecond(Preconditioner):
    native = "c_noise = (M-1)·t of the VP diffusion, rising with noise"

    def __init__(self, beta_d: float = 19.9, beta_min: float = 0.1, M: int = 1000, epsilon_t: float = 1e-5) -> None:
        self.beta_d, self.beta_min, self.M = beta_d, beta_min, M
        self.sigma_min, self.sigma_max = self.to_sigma((M - 1) * epsilon_t), self.to_sigma(M - 1)

    def to_native(self, sigma: float) -> float:
        root = math.sqrt(self.beta_min**2 + 2 * self.beta_d * math.log1p(sigma**2))
        return (self.M - 1) * (root - self.beta_min) / self.beta_d

    def to_sigma(self, t: float) -> float:
        time = t / (self.M - 1)
        return math.sqrt(math.expm1(0.5 * self.beta_d * time**2 + self.beta_min * time))

    def input_scale(self, sigma: float) -> float:
        return 1 / math.hypot(1, sigma)


class VEPrecond(Preconditioner):
    native = "c_noise = ln(sigma/2), rising with noise"

    def __init__(self, sigma_min: float = 0.02, sigma_max: float = 100.0) -> None:
        self.sigma_min, self.sigma_max = sigma_min, sigma_max

    def to_native(self, sigma: float) -> float:
        return math.log(sigma / 2)

    def to_sigma(self, t: float) -> float:
        return 2 * math.exp(t)

    def input_scale(self, sigma: float) -> float:
        return 1.0

    def c_skip_out(self, sigma: Tensor) -> tuple[Tensor, Tensor]:
        return torch.ones_like(sigma), sigma


class iDDPMPrecond(Preconditioner):
    """Discrete: the network knows the M levels of the buffer `u`, which descends from u[0] to u[M] = 0."""

    native = "c_noise = M-1-j, j the index of the noise level in the descending table u; rising with noise"
    discrete = True

    def __init__(self, u: Tensor | None = None, C_1: float = 0.001, C_2: float = 0.008, M: int = 1000) -> None:
        self.u = (iddpm_levels(C_1, C_2, M) if u is None else u).double().tolist()
        self.sigma_min, self.sigma_max = self.u[-2], self.u[0]

    def index(self, sigma: float) -> int:
        return min(range(len(self.u)), key=lambda j: abs(self.u[j] - sigma))

    def to_native(self, sigma: float) -> float:
        return len(self.u) - 2 - self.index(sigma)

    def to_sigma(self, t: float) -> float:
        index = len(self.u) - 2 - round(t)
        if not 0 <= index < len(self.u) - 1:
            raise UsageError(f"t {t:g} is no step of this model: expected 0 to {len(self.u) - 2}")
        return float(self.u[index])

    def nearest(self, sigma: float) -> float:
        return float(self.u[self.index(sigma)])

    def input_scale(self, sigma: float) -> float:
        return 1 / math.hypot(1, sigma)


def iddpm_levels(C_1: float, C_2: float, M: int) -> Tensor:
    """The table u, float32 (M + 1,): in float32 throughout, as the stored buffers were made."""

    def alpha_bar(j: Tensor) -> Tensor:
        return (0.5 * torch.pi * j / M / (C_2 + 1)).sin() ** 2

    u = torch.zeros(M + 1)
    for j in torch.arange(M, 0, -1):
        ratio = (alpha_bar(j - 1) / alpha_bar(j)).clamp(min=C_1)
        u[j - 1] = ((u[j] ** 2 + 1) / ratio - 1).sqrt()
    return u


PRECONDITIONERS: dict[str, type[Preconditioner]] = {
    c.__name__: c for c in (EDMPrecond, VPPrecond, VEPrecond, iDDPMPrecond)
}


@dataclass
class EDMDenoiser(PreconditionedDenoiser):
    family: ClassVar[str] = "edm"


def recognise(checkpoint: Checkpoint) -> Match | None:
    if family := checkpoint.metadata.get("family"):
        return Match(True, "the file's metadata names the family") if family == "edm" else None
    if checkpoint.class_name in PRECONDITIONERS:
        return Match(True, f"the file holds a pickled {checkpoint.class_name}")
    names = {_without_prefix(name) for name in checkpoint.tensors}
    if "map_layer0.weight" in names and any(re.fullmatch(r"enc\.(\d+)x\1_conv\.weight", n) for n in names):
        return Match(True, "the tensors have the names of EDM's U-Nets")
    return None


def build(checkpoint: Checkpoint, config: Mapping[str, str], match: Match) -> EDMDenoiser:
    tensors = {_without_prefix(name): tensor for name, tensor in checkpoint.tensors.items()}
    given = _given(checkpoint)
    u = tensors.pop("u", None)
    inferred = infer_arguments(tensors)
    network_class = str(given.get("model_type") or checkpoint.network_class or inferred.pop("model_type"))
    inferred.pop("model_type", None)
    if network_class not in NETWORKS:
        raise CheckpointError(
            f"{checkpoint.path}: network class {network_class} is not one of {', '.join(NETWORKS)}; "
            "this looks like a fork of EDM's format"
        )
    precond_class, why = _precond_class(checkpoint, given, inferred, u, config)
    precond_defaults = _PRECOND_ARGUMENTS[precond_class]
    check_config_keys(config, {"precond", "img_resolution", *precond_defaults, *inferred})
    facts = {**inferred, **{k: v for k, v in given.items() if k in inferred}}
    arguments = {key: config_value(config, key, value) for key, value in facts.items()}
    channels, side = arguments["in_channels"], arguments["img_resolution"]
    settings = {
        key: config_value(config, key, as_type(found, default, key, checkpoint.path))
        for key, default in precond_defaults.items()
        for found in [given.get(key, checkpoint.attributes.get(key, default))]
    }
    noise = PRECONDITIONERS[precond_class](**settings, **({"u": u} if precond_class == "iDDPMPrecond" else {}))

    network = build_on_meta(lambda: NETWORKS[network_class](**arguments), checkpoint.path)
    space = input_space(channels, side, latent=False, resize="lanczos")
    layers = dry_walk(network, space, None, checkpoint.path)
    load_weights(network, tensors, checkpoint.path)
    classes = Classes(arguments["label_dim"], null_trained=given.get("label_dropout", 0) > 0)
    return EDMDenoiser(
        network_class=f"{precond_class}({network_class})",
        network=network,
        space=space,
        noise=noise,
        classes=classes,
        layers=layers,
        default_layer=mid_of_unet(layers),
        evidence=f"{match.why}; {why}",
        constructor={
            "precond": precond_class,
            "model_type": network_class,
            **arguments,
            **{key: "inf" if value == math.inf else value for key, value in settings.items()},
        },
        warnings=null_class_warnings(classes),
    )


NETWORKS: dict[str, type[WalkedNetwork]] = {"SongUNet": SongUNet, "DhariwalUNet": DhariwalUNet}

_PRECOND_ARGUMENTS: dict[str, dict[str, Any]] = {
    "EDMPrecond": {"sigma_min": 0.0, "sigma_max": math.inf, "sigma_data": 0.5},
    "VPPrecond": {"beta_d": 19.9, "beta_min": 0.1, "M": 1000, "epsilon_t": 1e-5},
    "VEPrecond": {"sigma_min": 0.02, "sigma_max": 100.0},
    "iDDPMPrecond": {"C_1": 0.001, "C_2": 0.008, "M": 1000},
}


def infer_arguments(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Constructor arguments of the network, `model_type` among them, from names and shapes alone."""
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    sides = sorted({int(m[1]) for n in shapes if (m := re.match(r"enc\.(\d+)x\1_", n))}, reverse=True)
    if not sides or "map_layer0.weight" not in shapes or f"enc.{sides[0]}x{sides[0]}_conv.weight" not in shapes:
        raise CheckpointError("the tensors are not those of an EDM U-Net: enc.RxR_conv or map_layer0 is missing")
    first, top = sides[0], f"{sides[0]}x{sides[0]}"
    adm = "out_conv.weight" in shapes
    head = "out_conv.weight" if adm else f"dec.{top}_aux_conv.weight"
    blocks = {int(m[1]) for n in shapes if (m := re.match(rf"enc\.{top}_block(\d+)\.", n))}
    try:
        embedding, noise = shapes["map_layer0.weight"]
        width = noise if adm else shapes[f"enc.{top}_conv.weight"][0]
        arguments: dict[str, Any] = {
            "model_type": "DhariwalUNet" if adm else "SongUNet",
            "img_resolution": first,
            "in_channels": shapes[f"enc.{top}_conv.weight"][1],
            "out_channels": shapes[head][0],
            "label_dim": shapes.get("map_label.weight", (0, 0))[1],
            "augment_dim": shapes.get("map_augment.weight", (0, 0))[1],
            "model_channels": width,
            "channel_mult": [_ratio(shapes[f"enc.{r}x{r}_block0.conv1.weight"][0], width) for r in sides],
            "channel_mult_emb": _ratio(embedding, width),
            "num_blocks": len(blocks),
            "attn_resolutions": [r for r in sides if f"enc.{r}x{r}_block0.qkv.weight" in shapes],
        }
    except (KeyError, ValueError, IndexError) as error:
        raise CheckpointError(f"not a whole EDM U-Net: {error} is missing or of another shape") from None
    if adm:
        _check_head_size(shapes)
        return arguments
    filters = [n for n in shapes if n.endswith("_down.conv0.resample_filter")]
    arguments |= {
        "embedding_type": "fourier" if "map_noise.freqs" in shapes else "positional",
        "channel_mult_noise": _ratio(noise, width),
        "encoder_type": _kind(shapes, "enc", {"_aux_residual": "residual", "_aux_skip": "skip"}),
        "decoder_type": "skip" if sum("_aux_norm.weight" in n for n in shapes) > 1 else "standard",
        "resample_filter": [1, 3, 3, 1] if filters and shapes[filters[0]][-1] == 4 else [1, 1],
    }
    return arguments


def _precond_class(
    checkpoint: Checkpoint,
    given: Mapping[str, Any],
    inferred: Mapping[str, Any],
    u: Tensor | None,
    config: Mapping[str, str],
) -> tuple[str, str]:
    """The preconditioner's class name and how it was decided."""
    if "precond" in config:
        name, why = config["precond"], "the preconditioner is the one asked for"
    elif given.get("precond") or checkpoint.class_name:
        name, why = str(given.get("precond") or checkpoint.class_name), "the preconditioner is the file's own"
    elif u is not None or inferred["out_channels"] == 2 * inferred["in_channels"]:
        name, why = "iDDPMPrecond", "twice as many output channels, or the table u, mean iDDPMPrecond"
    elif match := re.search(r"baseline-.*-(vp|ve)\b", checkpoint.name):
        name, why = {"vp": "VPPrecond", "ve": "VEPrecond"}[match[1]], "the file's name decides the preconditioner"
    else:
        name, why = "EDMPrecond", "EDMPrecond is assumed, for bare weights do not tell (--config precond=VPPrecond)"
    if name not in PRECONDITIONERS:
        kind = UsageError if "precond" in config else CheckpointError
        raise kind(f"preconditioner {name} is not one of {', '.join(PRECONDITIONERS)}; say --config precond=NAME")
    return name, why


def _given(checkpoint: Checkpoint) -> dict[str, Any]:
    """What the file says of its constructor, under the network's own argument names."""
    given = file_arguments(checkpoint)
    if "img_channels" in given:
        given["in_channels"] = given.pop("img_channels")
    return {key: list(value) if isinstance(value, tuple) else value for key, value in given.items()}


def _without_prefix(name: str) -> str:
    return name.removeprefix("model.")


def _ratio(a: int, b: int) -> int | float:
    return a // b if a % b == 0 else a / b


def _kind(shapes: Mapping[str, Any], part: str, kinds: Mapping[str, str]) -> str:
    found = [kind for mark, kind in kinds.items() if any(n.startswith(part) and mark in n for n in shapes)]
    return found[0] if found else "standard"


def _check_head_size(shapes: Mapping[str, tuple[int, ...]]) -> None:
    for name, shape in shapes.items():
        if name.endswith(".qkv.weight") and shape[1] < CHANNELS_PER_HEAD:
            raise CheckpointError(
                f"{name} attends at {shape[1]} channels, where EDM's ADM has none below {CHANNELS_PER_HEAD}: "
                "a fork with another head size, which is not supported"
            )
