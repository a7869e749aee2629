"""Does a network do what its user says of it? It is run on noisy images, and its output read in every way there is.

Of each reading (eps, x0, v, …) the noise that is left is

    E‖D(x + σn; σ) - x‖² / σ²,

with D the posterior mean that follows from it: 1 where nothing is denoised. In the reading that it was trained in, a
network has learnt to leave the least at every noise level; no other reading can leave less. Of two readings that with
the lower geometric mean over levels is therefore the likelier, and the other clearly wrong where it leaves several
times as much at some level. Where no reading leaves less than the input has, something else is wrong.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from diffscope import __version__
from diffscope.errors import UsageError
from diffscope.extraction import DTYPES, Inputs, arithmetic, batch_label, not_finite
from diffscope.families import WrappedDenoiser, outermost, possible, posterior_mean
from diffscope.measure.description import described_checkpoint
from diffscope.measure.job import Job
from diffscope.measure.opening import job_of, load, open_images
from diffscope.options.settings import Loading, Settings
from diffscope.results import SCHEMA, Record, finite

LEVELS = (0.1, 0.5, 2.0)
"""Below, about and above the spread of images in [-1, 1], which is 0.5."""
MUCH = 2.0
"""How many times as much noise a wrong reading leaves at some level, at least: of networks that were trained for
seconds, eps read as v, the nearest pair, has 2.7 and all others 4 and more."""
NOTHING = 0.95
"""The noise that is left is about that of the input."""


@dataclass(frozen=True)
class Reading:
    """One way to read the output, at every level."""

    predicts: str
    noise: str
    """The convention, where it is another one than was said."""
    left: tuple[float, ...]
    """Noise that is left, of each level; NaN where it is not finite."""
    nearer: tuple[int, ...]
    """Images that came nearer to the clean ones, of each level."""

    @property
    def mean(self) -> float:
        """Geometric mean over levels."""
        return math.exp(sum(math.log(max(one, 1e-12)) for one in self.left) / len(self.left))


def check(path: str, data: str, settings: Settings, loading: Loading) -> Record:
    """Runs a network of the user's own on some images, and says what it found.

    Args:
        path: Of the checkpoint.
        data: Images.
        settings: Images, levels, device; LEVELS where none is given.
        loading: With the network's code.

    Returns:
        The record that `diffscope network check --json` prints.

    Raises:
        UsageError: If no code is given.
        NonFinite: If the network's output is not finite.
    """
    if loading.network is None:
        raise UsageError("of which network? say its code, `network=FILE.py:NAME`")
    found, denoiser = load(path, loading)
    assert isinstance(denoiser, WrappedDenoiser)
    if not settings.sigma and not settings.t:
        low, high = denoiser.noise.sigma_min, denoiser.noise.sigma_max
        settings = replace(settings, sigma=tuple(min(max(sigma, low), high) for sigma in LEVELS))
    job = job_of(found, denoiser, open_images(settings, data), replace(settings, augment="none", views=1), loading)
    named = denoiser.interface.named
    assert named is not None
    other = named.reversed()
    readings, shape = _readings(job, denoiser, possible(named), "")
    if other is not None:
        turned = replace(denoiser, noise=other.convention, interface=replace(denoiser.interface, named=other))
        readings += _readings(job, turned, ("velocity",), other.text)[0]
    return Record("network", _content(job, denoiser, readings, shape))


def _readings(
    job: Job, denoiser: WrappedDenoiser, kinds: Sequence[str], noise: str
) -> tuple[list[Reading], tuple[int, ...]]:
    """Every way to read the output of one convention, and the output's shape."""
    kinds, named = _distinct(kinds, denoiser.interface.predicts), denoiser.interface.named
    assert named is not None
    sums = {kind: [0.0] * len(job.levels) for kind in kinds}
    nearer = {kind: [0] * len(job.levels) for kind in kinds}
    count, shape = 0, tuple[int, ...]()
    for signal, outputs in _outputs(job, denoiser):
        count += len(signal)
        for place, (level, output) in enumerate(zip(job.levels, outputs, strict=True)):
            sigma, shape = signal.new_full((1,), level.sigma), output.shape
            for kind in kinds:
                mean = posterior_mean(kind, named.convention, output.x, sigma, output.prediction, named.data_at)
                errors = (mean - signal).square().flatten(1).mean(1)
                sums[kind][place] += float(errors.double().sum()) / level.sigma**2
                nearer[kind][place] += int((errors < (output.x - signal).square().flatten(1).mean(1)).sum())
    made = [Reading(kind, noise, tuple(one / count for one in sums[kind]), tuple(nearer[kind])) for kind in kinds]
    if not all(math.isfinite(one) for reading in made for one in reading.left):
        raise not_finite("the network's output is", job.plan.precision)
    return made, shape


@dataclass(frozen=True)
class _Output:
    """Of one batch at one level."""

    x: Tensor
    """data + σ · noise, (B, C, H, W)."""
    prediction: Tensor
    """The network's output, cut to the data's channels, (B, C, H, W)."""
    shape: tuple[int, ...]
    """Of the whole output, without the batch."""


def _distinct(kinds: Sequence[str], chosen: str | None) -> list[str]:
    """x0 and denoised are two names for one thing: that which the user chose."""
    left = "x0" if chosen == "denoised" else "denoised"
    return [kind for kind in kinds if kind != left]


def _outputs(job: Job, denoiser: WrappedDenoiser) -> Iterator[tuple[Tensor, list[_Output]]]:
    """Of each batch the clean images, and what the network makes of them at each level."""
    inputs = Inputs(job.source, job.plan, job.settings.strict)
    denoiser.to(inputs.device)
    denoiser.network.set_precision(DTYPES[job.plan.precision])
    for batch in inputs.batches(denoiser, job.indices.tolist()):
        with torch.inference_mode(), arithmetic(job.plan.precision, inputs.device):
            label = batch_label(denoiser, job.source, job.plan, batch.indices)
            found = []
            for level in job.levels:
                x = batch.at(level.sigma)
                scale, time = denoiser.noise.input_scale(level.sigma), denoiser.noise.to_native(level.sigma)
                output = denoiser.network(x * scale, x.new_full((1,), float(time)), label)
                found.append(_Output(x, output[:, : x.shape[1]].float(), tuple(output.shape[1:])))
        yield batch.signal, found


def _content(
    job: Job, denoiser: WrappedDenoiser, readings: Sequence[Reading], shape: tuple[int, ...]
) -> dict[str, Any]:
    chosen = denoiser.interface.predicts
    best = min(readings, key=lambda reading: reading.mean)
    blocks = {layer.name for layer in outermost(denoiser.layers)}
    named = denoiser.interface.named
    assert named is not None
    return {
        "diffscope": __version__,
        "schema": SCHEMA,
        "command": "network",
        **described_checkpoint(job),
        "evidence": denoiser.evidence,
        "weights_reason": job.checkpoint.weights_reason,
        "constructor": denoiser.constructor,
        "data": {"path": job.source.path, "used": len(job.indices)},
        "input": [denoiser.space.channels, denoiser.space.side, denoiser.space.side],
        "output": list(shape),
        "noise": named.text,
        "predicts": chosen,
        "best": {"predicts": best.predicts, "noise": best.noise},
        "verdict": _verdict(readings, chosen, best),
        "sigmas": [level.sigma for level in job.levels],
        "times": [level.t for level in job.levels],
        "rows": [
            {
                "predicts": reading.predicts,
                "noise": reading.noise,
                "chosen": reading.predicts == chosen and not reading.noise,
                "left": [finite(one) for one in reading.left],
                "nearer": list(reading.nearer),
                "mean": finite(reading.mean),
            }
            for reading in readings
        ],
        "default_layer": denoiser.default_layer,
        "layers": [
            {"name": one.name, "shape": list(one.shape), "features": one.width, "block": one.name in blocks}
            for one in denoiser.layers
        ],
        "warnings": list(denoiser.warnings),
    }


def _verdict(readings: Sequence[Reading], chosen: str | None, best: Reading) -> str:
    """`right`, `wrong`, `unsaid` where nothing was chosen, or `nothing` where no reading denoises."""
    if best.mean > NOTHING:
        return "nothing"
    if chosen is None:
        return "unsaid"
    (mine,) = [reading for reading in readings if reading.predicts == chosen and not reading.noise]
    worst = max(one / least for one, least in zip(mine.left, best.left, strict=True))
    return "wrong" if mine is not best and (worst > MUCH or mine.mean > 1) else "right"
