"""Checkpoint → Denoiser: network, noise convention, input space, named layers; one file a family."""

from __future__ import annotations

from collections.abc import Mapping

from diffscope import registry
from diffscope.checkpoints import Checkpoint
from diffscope.errors import CheckpointError, UnknownFamily, UsageError
from diffscope.families.base import Denoiser, Match


def load(checkpoint: Checkpoint, family: str | None = None, config: Mapping[str, str] | None = None) -> Denoiser:
    """The denoiser of a checkpoint.

    `family` decides where it is given; else the one family that is certain. Where none is, the candidates are named
    and UnknownFamily is raised: never a guess.
    """
    known = registry.load(__name__)
    if family is not None and family not in known:
        raise UsageError(f"family '{family}' is not one of {', '.join(known)}")
    matches: dict[str, Match] = {n: m for n, module in known.items() if (m := module.recognise(checkpoint)) is not None}
    if family is not None:
        if family not in matches:
            raise UnknownFamily(f"{checkpoint.path}: its {_held(checkpoint)} are not those of family '{family}'")
        match = Match(True, f"--family {family} was given")
    else:
        family, match = _decide(checkpoint, matches, list(known))
    denoiser: Denoiser = known[family].build(checkpoint, config or {}, match)
    return denoiser


def _decide(checkpoint: Checkpoint, matches: Mapping[str, Match], known: list[str]) -> tuple[str, Match]:
    certain = [name for name, match in matches.items() if match.certain]
    if len(certain) == 1:
        return certain[0], matches[certain[0]]
    if matches:
        whys = "; ".join(f"{name}: {match.why}" for name, match in matches.items())
        raise UnknownFamily(
            f"{checkpoint.path}: the file does not say what it is ({whys}); say it with "
            + " or ".join(f"--family {name}" for name in matches)
        )
    if not checkpoint.tensors:
        raise CheckpointError(f"{checkpoint.path}: no tensors in it")
    raise UnknownFamily(f"{checkpoint.path}: no family knows its {_held(checkpoint)}; supported: {', '.join(known)}")


def _held(checkpoint: Checkpoint) -> str:
    first = list(checkpoint.tensors)[:3]
    return f"{len(checkpoint.tensors)} tensors ({', '.join(first)}, …)"
