"""Checkpoint → Denoiser: network, noise convention, input space, named layers; one file a family."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from types import ModuleType

from diffscope import registry
from diffscope.checkpoints import Checkpoint
from diffscope.errors import CheckpointError, UnknownFamily, UsageError
from diffscope.families._building import build_on_meta, load_weights
from diffscope.families._facts import Facts
from diffscope.families._foreign import kind_of
from diffscope.families._interface import PosteriorMean, SigmaToInput
from diffscope.families._outermost import outermost
from diffscope.families._own import OwnNetwork
from diffscope.families._posterior import posterior_mean
from diffscope.families._predictions import possible
from diffscope.families._wrapped import LiveNetwork, WrappedDenoiser, device_of, live_record, wrap
from diffscope.families.base import Denoiser, Match

__all__ = [
    "Facts",
    "LiveNetwork",
    "OwnNetwork",
    "PosteriorMean",
    "SigmaToInput",
    "WrappedDenoiser",
    "build_on_meta",
    "device_of",
    "live_record",
    "load",
    "load_weights",
    "outermost",
    "possible",
    "posterior_mean",
    "wrap",
]

PREFIXES = ("module.", "_orig_mod.", "net.", "model.", "network.", "unet.", "diffusion_model.", "diffusion.")
"""What wrappers and training loops put before a network's own names."""
MAX_PREFIXES = 4
LATENT_PREFIX = "diffusion_model."
"""Before CompVis's U-Nets, which work on latents and are otherwise named as those on pixels: not taken off there."""


def load(checkpoint: Checkpoint, family: str | None = None, config: Mapping[str, str] | None = None) -> Denoiser:
    """Builds the denoiser of a checkpoint.

    Args:
        checkpoint: As `checkpoints.read` gives it.
        family: Name of the family; if None, the one family that is certain.
        config: What the file cannot say of itself, such as {"num_heads": "6"}.

    Returns:
        The denoiser, its network on the CPU with the checkpoint's weights.

    Raises:
        UsageError: If `family` or an entry of `config` does not exist or is not allowed.
        UnknownFamily: If no family, or more than one, could be meant: they are named, and none is guessed.
        CheckpointError: If the file has no tensors, or its family refuses them.
    """
    known = registry.load(__name__)
    if family is not None and family not in known:
        raise UsageError(f"family '{family}' is not one of {', '.join(known)}")
    checkpoint, matches = _claims(checkpoint, known)
    if family is not None:
        if family not in matches:
            raise UnknownFamily(f"{checkpoint.path}: its {_held(checkpoint)} are not those of family '{family}'")
        match = Match(True, f"`family={family}` was given")
    else:
        family, match = _decide(checkpoint, matches, list(known))
    denoiser: Denoiser = known[family].build(checkpoint, config or {}, match)
    return denoiser


def _claims(checkpoint: Checkpoint, known: Mapping[str, ModuleType]) -> tuple[Checkpoint, dict[str, Match]]:
    """The families that claim the file, named as they name tensors; one that its metadata name claims it alone."""
    matches: dict[str, Match] = {}
    for found, note in _unwrapped(checkpoint):
        for name, module in known.items():
            if (match := module.recognise(found)) is not None:
                matches[name] = replace(match, why=match.why + note)
        if matches:
            _refuse_two_sets(checkpoint, found)
            break
    else:
        found, note = checkpoint, ""
    said = checkpoint.metadata.get("family", "")
    if said in known:
        return found, {said: Match(True, "the file's metadata names the family" + note)}
    return found, matches


def _unwrapped(checkpoint: Checkpoint) -> Iterator[tuple[Checkpoint, str]]:
    """The file as it is, then without one prefix after the other, and what was left out as lying outside of them."""
    whole = checkpoint.tensors
    yield checkpoint, ""
    for _ in range(MAX_PREFIXES):
        prefix = next((p for p in PREFIXES if any(name.startswith(p) for name in checkpoint.tensors)), None)
        if prefix is None or (prefix == LATENT_PREFIX and prefix + "input_blocks.0.0.weight" in checkpoint.tensors):
            return
        inside = {n.removeprefix(prefix): t for n, t in checkpoint.tensors.items() if n.startswith(prefix)}
        checkpoint = replace(checkpoint, tensors=inside)
        outside = len(whole) - len(inside)
        yield checkpoint, f", {outside} tensors outside of '{prefix}' left out" if outside else ""


def _refuse_two_sets(whole: Checkpoint, found: Checkpoint) -> None:
    """UnknownFamily where an average of the weights lies beside those found: none is left out in silence."""
    roots = dict.fromkeys(name.partition(".")[0] for name in whole.tensors)
    averages = [root for root in roots if "ema" in root.split("_")]
    if averages and len(found.tensors) < len(whole.tensors):
        raise UnknownFamily(
            f"{whole.path}: weights under '{averages[0]}.' beside those of a network under another name; expected one "
            "set: save the one to be measured alone"
        )


def _decide(checkpoint: Checkpoint, matches: Mapping[str, Match], known: list[str]) -> tuple[str, Match]:
    certain = [name for name, match in matches.items() if match.certain]
    if len(certain) == 1:
        return certain[0], matches[certain[0]]
    if matches:
        whys = "; ".join(f"{name}: {match.why}" for name, match in matches.items())
        raise UnknownFamily(
            f"{checkpoint.path}: the file does not say what it is ({whys}); say it with "
            + " or ".join(f"`family={name}`" for name in matches)
        )
    if not checkpoint.tensors:
        raise CheckpointError(f"{checkpoint.path}: no tensors in it")
    if (answer := kind_of(checkpoint)) is not None:
        raise UnknownFamily(f"{checkpoint.path}: {answer}")
    raise UnknownFamily(
        f"{checkpoint.path}: no family knows its {_held(checkpoint)}; supported: {', '.join(known)}; a network of your "
        "own: `network=FILE.py:NAME`, or in Python diffscope.wrap(module, side=…, channels=…)"
    )


def _held(checkpoint: Checkpoint) -> str:
    first = list(checkpoint.tensors)[:3]
    return f"{len(checkpoint.tensors)} tensors ({', '.join(first)}, …)"
