"""EDM checkpoints: DDPM++, NCSN++ and ADM U-Nets behind the EDM, VP, VE or iDDPM preconditioner.

Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models", 2022,
https://arxiv.org/abs/2206.00364: D(x; σ) = c_skip·x + c_out·F(c_in·x; c_noise), table 1.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from diffscope.checkpoints.base import Checkpoint
from diffscope.errors import CheckpointError, UsageError
from diffscope.families._building import MAX_SIDE, build_on_meta, dry_walk, load_weights, shapes_of
from diffscope.families._facts import Facts, file_arguments, integer_if_whole, shown
from diffscope.families._preconditioned import PreconditionedDenoiser, mid_of_unet, null_class_warnings
from diffscope.families._preconditioners import PRECONDITIONERS, Preconditioner, iDDPMPrecond
from diffscope.families.base import Classes, Match, input_space
from diffscope.families.networks.dhariwal_unet import CHANNELS_PER_HEAD, DhariwalUNet
from diffscope.families.networks.song_unet import SongUNet
from diffscope.families.networks.walk import WalkedNetwork

MAX_STEPS = 8191
"""Most steps of a discrete model; published ones have 1,000. Its table of one more is read even for an outline."""


@dataclass
class EDMDenoiser(PreconditionedDenoiser):
    """An EDM checkpoint as a denoiser."""

    family: ClassVar[str] = "edm"


def recognise(checkpoint: Checkpoint) -> Match | None:
    """Claims pickles of EDM's preconditioners, and tensors with the names of its U-Nets."""
    if checkpoint.class_name in PRECONDITIONERS:
        return Match(True, f"the file holds a pickled {checkpoint.class_name}")
    names = {_without_prefix(name) for name in checkpoint.tensors}
    if "map_layer0.weight" in names and any(re.fullmatch(r"enc\.(\d+)x\1_conv\.weight", n) for n in names):
        return Match(True, "the tensors have the names of EDM's U-Nets")
    return None


def build(checkpoint: Checkpoint, config: Mapping[str, str], match: Match) -> EDMDenoiser:
    """Builds network and preconditioner, with what the file does not say read from its tensors.

    Args:
        checkpoint: One that `recognise` claims.
        config: The user's `--config`: constructor arguments and settings of the preconditioner.
        match: From `recognise`.

    Returns:
        The denoiser, its network on the CPU.

    Raises:
        CheckpointError: If the file's arguments and tensors do not make an EDM network.
        WeightsMismatch: If its weights do not fit the network.
        UsageError: If `config` has an unknown key or value.
    """
    path = checkpoint.path
    tensors = {_without_prefix(name): tensor for name, tensor in checkpoint.tensors.items()}
    given = _given(checkpoint)
    u = tensors.pop("u", None)
    inferred = infer_arguments(path, tensors)
    network_class = given.get("model_type") or checkpoint.network_class or inferred["model_type"]
    del inferred["model_type"]
    if not isinstance(network_class, str) or network_class not in NETWORKS:
        raise CheckpointError(
            f"{path}: network class {shown(network_class, quotes=False)} is not one of {', '.join(NETWORKS)}; "
            "this looks like a fork of EDM's format"
        )
    precond_class, why = _precond_class(checkpoint, given, inferred, u, config)
    make, settings_of = PRECONDITIONERS[precond_class], _SETTINGS[precond_class]
    said = {**{key: checkpoint.attributes.get(key) for key in settings_of}, **given}
    if u is not None and u.dim() == 1 and said.get("M") is None:
        said["M"] = len(u) - 1
    facts = Facts(path, said, config, {"precond", *settings_of, *inferred})
    arguments = {key: _ARGUMENTS[key](facts, key, value) for key, value in inferred.items()}
    settings = {key: read(facts, key) for key, read in settings_of.items()}
    noise = _noise(make, settings, u, path)

    network: WalkedNetwork = build_on_meta(lambda: NETWORKS[network_class](**arguments), path, tensors)
    space = input_space(arguments["in_channels"], arguments["img_resolution"], latent=False, resize="lanczos")
    layers = dry_walk(network, space, None, path)
    load_weights(network, tensors, path)
    dropout = facts.number("label_dropout", 0.0, 0, 1, above=False)
    classes = Classes(arguments["label_dim"], null_trained=dropout > 0)
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

_ARGUMENTS: dict[str, Callable[[Facts, str, Any], Any]] = {
    **dict.fromkeys(("in_channels", "out_channels", "model_channels", "num_blocks"), Facts.integer),
    "img_resolution": lambda facts, key, value: facts.integer(key, value, high=MAX_SIDE),
    **dict.fromkeys(("label_dim", "augment_dim"), lambda facts, key, value: facts.integer(key, value, low=0)),
    **dict.fromkeys(
        ("channel_mult_emb", "channel_mult_noise"),
        lambda facts, key, value: integer_if_whole(facts.number(key, value, 0, 1000)),
    ),
    "channel_mult": lambda facts, key, value: facts.numbers(key, value, 1e-3, 1000),
    "attn_resolutions": lambda facts, key, value: facts.numbers(key, value, 1, MAX_SIDE, whole=True, least=0),
    "resample_filter": lambda facts, key, value: facts.numbers(key, value, 1, 1000, whole=True, least=2),
    "embedding_type": lambda facts, key, value: facts.choice(key, value, ("positional", "fourier")),
    "encoder_type": lambda facts, key, value: facts.choice(key, value, ("standard", "skip", "residual")),
    "decoder_type": lambda facts, key, value: facts.choice(key, value, ("standard", "skip")),
}
"""How each argument of the networks is read, with what its tensors show as default."""

_SETTINGS: dict[str, dict[str, Callable[[Facts, str], int | float]]] = {
    "EDMPrecond": {
        "sigma_min": lambda facts, key: facts.number(key, 0.0, 0, 1e6, above=False),
        "sigma_max": lambda facts, key: facts.number(key, math.inf, 0, math.inf),
        "sigma_data": lambda facts, key: facts.number(key, 0.5, 0, 1e6),
    },
    "VPPrecond": {
        "beta_d": lambda facts, key: facts.number(key, 19.9, 0, 1000),
        "beta_min": lambda facts, key: facts.number(key, 0.1, 0, 100, above=False),
        "M": lambda facts, key: facts.integer(key, 1000, 2, MAX_STEPS),
        "epsilon_t": lambda facts, key: facts.number(key, 1e-5, 0, 0.5),
    },
    "VEPrecond": {
        "sigma_min": lambda facts, key: facts.number(key, 0.02, 0, 1e6),
        "sigma_max": lambda facts, key: facts.number(key, 100.0, 0, 1e6),
    },
    "iDDPMPrecond": {
        "C_1": lambda facts, key: facts.number(key, 0.001, 0, 1, above=False),
        "C_2": lambda facts, key: facts.number(key, 0.008, 0, 1, above=False),
        "M": lambda facts, key: facts.integer(key, 1000, 2, MAX_STEPS),
    },
}


def _noise(make: type[Preconditioner], settings: Mapping[str, Any], u: Tensor | None, path: str) -> Preconditioner:
    if make is iDDPMPrecond and u is not None:
        _check_levels(u, settings["M"], path)
        noise: Preconditioner = iDDPMPrecond(u=u, **settings)
    else:
        noise = make(**settings)
    if not 0 <= noise.sigma_min < noise.sigma_max:
        raise CheckpointError(
            f"{path}: noise levels from {noise.sigma_min:g} to {noise.sigma_max:g} by {dict(settings)}; expected "
            "sigma_min below sigma_max; say what differs with `config=KEY=VALUE`"
        )
    return noise


def _check_levels(u: Tensor, steps: int, path: str) -> None:
    """CheckpointError where `u` is no table of a discrete model's noise levels."""
    shaped = u.shape == (steps + 1,) and u.is_floating_point() and not u.is_meta
    if not shaped or not bool((u.diff() <= 0).all() and u[-1] == 0 and u[-2] > 0 and u[0].isfinite()):
        kind = str(u.dtype).removeprefix("torch.")
        raise CheckpointError(
            f"{path}: u, of shape {list(u.shape)} and type {kind}, is no table of noise levels; expected M + 1 = "
            f"{steps + 1} numbers that descend to 0, where `config=M=N` says how many"
        )


def infer_arguments(path: str, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Reads the network's constructor arguments from names and shapes alone.

    Args:
        path: Of the checkpoint, for messages.
        tensors: Without the prefix `model.` and the table `u`.

    Returns:
        Argument → value, with "SongUNet" or "DhariwalUNet" under `model_type`.

    Raises:
        CheckpointError: If a tensor is missing or has a shape that no such network has.
    """
    shapes = shapes_of(path, tensors)
    sides = sorted({int(m[1]) for n in shapes if (m := re.match(r"enc\.([0-9]{1,5})x\1_", n))}, reverse=True)
    if not sides or "map_layer0.weight" not in shapes or f"enc.{sides[0]}x{sides[0]}_conv.weight" not in shapes:
        raise CheckpointError(f"{path}: no tensors of an EDM U-Net: enc.RxR_conv or map_layer0 is missing")
    first, top = sides[0], f"{sides[0]}x{sides[0]}"
    adm = "out_conv.weight" in shapes
    head = "out_conv.weight" if adm else f"dec.{top}_aux_conv.weight"
    blocks = {int(m[1]) for n in shapes if (m := re.match(rf"enc\.{top}_block([0-9]{{1,5}})\.", n))}
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
            "channel_mult": [integer_if_whole(shapes[f"enc.{r}x{r}_block0.conv1.weight"][0] / width) for r in sides],
            "channel_mult_emb": integer_if_whole(embedding / width),
            "num_blocks": len(blocks),
            "attn_resolutions": [r for r in sides if f"enc.{r}x{r}_block0.qkv.weight" in shapes],
        }
    except (KeyError, ValueError, IndexError) as error:
        raise CheckpointError(f"{path}: not a whole EDM U-Net: {error} is missing or of another shape") from None
    if adm:
        _check_head_size(shapes, path)
        return arguments
    filters = [n for n in shapes if n.endswith("_down.conv0.resample_filter")]
    arguments |= {
        "embedding_type": "fourier" if "map_noise.freqs" in shapes else "positional",
        "channel_mult_noise": integer_if_whole(noise / width),
        "encoder_type": _kind(shapes, "enc", {"_aux_residual": "residual", "_aux_skip": "skip"}),
        "decoder_type": "skip" if sum("_aux_norm.weight" in n for n in shapes) > 1 else "standard",
        "resample_filter": [1, 3, 3, 1] if filters and shapes[filters[0]][-1:] == (4,) else [1, 1],
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
    name: object
    if "precond" in config:
        name, why = config["precond"], "the preconditioner is the one asked for"
    elif given.get("precond") or checkpoint.class_name:
        name, why = given.get("precond") or checkpoint.class_name, "the preconditioner is the file's own"
    elif u is not None or inferred["out_channels"] == 2 * inferred["in_channels"]:
        name, why = "iDDPMPrecond", "twice as many output channels, or the table u, mean iDDPMPrecond"
    elif match := re.search(r"baseline-.*-(vp|ve)\b", checkpoint.name):
        name, why = {"vp": "VPPrecond", "ve": "VEPrecond"}[match[1]], "the file's name decides the preconditioner"
    else:
        name, why = "EDMPrecond", "EDMPrecond is assumed, for bare weights do not tell (`config=precond=VPPrecond`)"
    if not isinstance(name, str) or name not in PRECONDITIONERS:
        kind = UsageError if "precond" in config else CheckpointError
        raise kind(
            f"preconditioner {shown(name, quotes=False)} is not one of {', '.join(PRECONDITIONERS)}; "
            "say `config=precond=NAME`"
        )
    return name, why


def _given(checkpoint: Checkpoint) -> dict[str, Any]:
    """What the file says of its constructor, under the network's own argument names."""
    given = file_arguments(checkpoint)
    if "img_channels" in given:
        given["in_channels"] = given.pop("img_channels")
    return {key: list(value) if isinstance(value, tuple) else value for key, value in given.items()}


def _without_prefix(name: str) -> str:
    return name.removeprefix("model.")


def _kind(shapes: Mapping[str, Any], part: str, kinds: Mapping[str, str]) -> str:
    found = [kind for mark, kind in kinds.items() if any(n.startswith(part) and mark in n for n in shapes)]
    return found[0] if found else "standard"


def _check_head_size(shapes: Mapping[str, tuple[int, ...]], path: str) -> None:
    for name, shape in shapes.items():
        if name.endswith(".qkv.weight") and shape[1:] and shape[1] < CHANNELS_PER_HEAD:
            raise CheckpointError(
                f"{path}: {name} attends at {shape[1]} channels, where EDM's ADM has none below {CHANNELS_PER_HEAD}: "
                "a fork with another head size, which is not supported"
            )
