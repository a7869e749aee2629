"""Noise conventions by the field's names, such as `ddpm:linear,steps=1000` or `flow:data=1`.

| name | the network is fed | noisy data |
| --- | --- | --- |
| `edm` | σ | data + σ·noise |
| `ve` | σ, from sigma_min to sigma_max | data + σ·noise |
| `vp` | 999·t of the diffusion with rates beta_min to beta_max | (data + σ·noise)/√(1 + σ²) |
| `ddpm:SCHEDULE` | the step, a whole number from 0 | (data + σ·noise)/√(1 + σ²) |
| `flow:data=0` | t, where x_t = (1 - t)·data + t·noise | (data + σ·noise)/(1 + σ) |
| `flow:data=1` | t, where x_t = t·data + (1 - t)·noise | (data + σ·noise)/(1 + σ) |

`time_scale=F` multiplies what the network is fed. Karras et al. 2022, https://arxiv.org/abs/2206.00364 (edm); Song et
al. 2021, https://arxiv.org/abs/2011.13456 (ve, vp); Ho et al. 2020, https://arxiv.org/abs/2006.11239 (linear); Nichol &
Dhariwal 2021, https://arxiv.org/abs/2102.09672 (cosine); Rombach et al. 2022, https://arxiv.org/abs/2112.10752
(scaled_linear); Jabri et al. 2022, https://arxiv.org/abs/2212.11972 (sigmoid); Lipman et al. 2023,
https://arxiv.org/abs/2210.02747 (flow).
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from diffscope.errors import UsageError
from diffscope.families._conventions import DiscreteSteps, FlowToData, FlowToNoise, PlainSigma
from diffscope.families._preconditioners import VPPrecond
from diffscope.families.base import NoiseConvention
from diffscope.numerics import FloatArray

SCHEDULES = ("linear", "cosine", "scaled_linear", "sigmoid")
MAX_STEPS = 100_000
DDPM_STEPS = 1000
BETAS = {"linear": (1e-4, 0.02), "scaled_linear": (0.00085, 0.012)}
"""beta_start and beta_end of DDPM, and of Stable Diffusion, both with 1,000 steps."""

_FACTS: dict[str, dict[str, float]] = {
    "edm": {"sigma_min": 0.0, "sigma_max": math.inf, "time_scale": 1},
    "ve": {"sigma_min": 0.01, "sigma_max": 50, "time_scale": 1},
    "vp": {"beta_min": 0.1, "beta_max": 20, "time_scale": 999},
    "ddpm:linear": {"steps": DDPM_STEPS, "beta_start": 1e-4, "beta_end": 0.02, "time_scale": 1},
    "ddpm:scaled_linear": {"steps": DDPM_STEPS, "beta_start": 0.00085, "beta_end": 0.012, "time_scale": 1},
    "ddpm:cosine": {"steps": DDPM_STEPS, "s": 0.008, "time_scale": 1},
    "ddpm:sigmoid": {"steps": DDPM_STEPS, "start": -3, "end": 3, "tau": 1, "time_scale": 1},
    "flow": {"data": math.nan, "time_scale": 1},
}
"""Facts of every kind with their defaults; NaN where there is none."""
_PAIRS = (("beta_start", "beta_end"), ("beta_min", "beta_max"), ("sigma_min", "sigma_max"), ("start", "end"))
NAMES = ", ".join(["edm", "ve", "vp", f"ddpm:{'|'.join(SCHEDULES)}", "flow:data=0 or flow:data=1"])


@dataclass(frozen=True)
class NamedNoise:
    """A convention and what was said of it."""

    kind: str
    """edm, ve, vp, ddpm or flow."""
    text: str
    """All of its facts, in one spelling."""
    convention: NoiseConvention
    whole: bool = False
    """Whether the network is fed whole numbers, as an index."""
    data_at: int = 0
    """Of a flow: the time at which the data lie."""

    @property
    def is_variance_preserving(self) -> bool:
        """Whether the squares of the data's and the noise's factors add up to 1."""
        return self.kind in ("ddpm", "vp")

    def reversed(self) -> NamedNoise | None:
        """The same flow with its time running the other way; None for other kinds."""
        if self.kind != "flow":
            return None
        return named_noise(self.text.replace(f"data={self.data_at}", f"data={1 - self.data_at}"))


def named_noise(text: str) -> NamedNoise:
    """Reads a noise convention.

    Args:
        text: NAME[:SCHEDULE][,KEY=VALUE...], such as "ddpm:linear,steps=1000,beta_end=0.02".

    Returns:
        The convention.

    Raises:
        UsageError: If there is no such name, schedule or fact, or a value is out of its range.
    """
    name, _, rest = text.replace(" ", "").partition(":")
    parts = [part for part in rest.split(",") if part]
    if "," in name:  # `edm,sigma_max=80` is meant as `edm:sigma_max=80`
        name, _, more = name.partition(",")
        parts = [*more.split(","), *parts]
    kind = name
    if name == "ddpm":
        if not parts or "=" in parts[0]:
            raise UsageError(f"`noise={text}`: which betas? expected {_choices()}")
        kind = f"ddpm:{parts.pop(0)}"
    if kind not in _FACTS:
        close = difflib.get_close_matches(kind, _FACTS, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise UsageError(f"`noise={text}`: {hint}expected {NAMES}")
    given = _numbers(text, kind, parts)
    _ask(text, kind, given)
    facts = {**_FACTS[kind], **given}
    _check(text, facts)
    spelled = ",".join(f"{key}={int(value) if value % 1 == 0 else value}" for key, value in facts.items())
    return NamedNoise(
        name,
        f"{kind},{spelled}" if ":" in kind else f"{kind}:{spelled}",
        _convention(name, kind, facts, text),
        whole=name == "ddpm" and facts["time_scale"] == 1,
        data_at=int(facts.get("data", 0)),
    )


def _choices() -> str:
    return " or ".join([", ".join(f"ddpm:{name}" for name in SCHEDULES[:-1]), f"ddpm:{SCHEDULES[-1]}"])


def _numbers(text: str, kind: str, parts: list[str]) -> dict[str, float]:
    known, found = _FACTS[kind], dict[str, float]()
    for part in parts:
        key, equals, value = part.partition("=")
        if key not in known or not equals:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {close[0]}? " if close else ""
            raise UsageError(f"`noise={text}`: '{part}' is no fact of {kind}; {hint}it knows {', '.join(known)}")
        try:
            found[key] = float(value)
        except ValueError:
            raise UsageError(f"`noise={text}`: '{part}': expected a number") from None
    return found


def _ask(text: str, kind: str, given: Mapping[str, float]) -> None:
    """UsageError where something is not said that nobody can guess."""
    if kind == "flow" and given.get("data") not in (0, 1):
        raise UsageError(
            f"`noise={text}`: at which end of its time are the data? flow:data=0 where x_t = (1 - t)·data + t·noise, "
            "flow:data=1 where x_t = t·data + (1 - t)·noise"
        )
    steps = given.get("steps", DDPM_STEPS)
    if "beta_end" in _FACTS[kind] and steps != DDPM_STEPS and not {"beta_start", "beta_end"} <= given.keys():
        start, end = BETAS[kind.removeprefix("ddpm:")]
        raise UsageError(
            f"`noise={text}`: with {steps:g} steps, which betas? say beta_start and beta_end (with 1000 steps they are "
            f"{start:g} and {end:g}; some codes keep these, others divide them by steps/1000)"
        )


def _check(text: str, facts: Mapping[str, float]) -> None:
    def require(key: str, holds: bool, expected: str) -> None:
        if not holds:
            raise UsageError(f"`noise={text}`: {key}={facts[key]:g}; expected {expected}")

    for key, value in facts.items():
        if key == "steps":
            require(key, value == value // 1 and 2 <= value <= MAX_STEPS, f"a whole number from 2 to {MAX_STEPS}")
        elif key in ("beta_start", "beta_end"):
            require(key, 0 < value < 1, "a number between 0 and 1")
        elif key in ("time_scale", "tau", "s", "beta_min", "beta_max"):
            require(key, 0 < value < math.inf, "a finite number above 0")
        elif key in ("start", "end"):
            require(key, math.isfinite(value), "a finite number")
    for low, high in (
        ("beta_start", "beta_end"),
        ("beta_min", "beta_max"),
        ("sigma_min", "sigma_max"),
        ("start", "end"),
    ):
        if low in facts:
            require(high, facts[high] > facts[low], f"more than {low}, {facts[low]:g}")
    if "sigma_min" in facts:
        require("sigma_min", facts["sigma_min"] >= 0, "0 or more")


def _convention(name: str, kind: str, facts: Mapping[str, float], text: str) -> NoiseConvention:
    scale = facts["time_scale"]
    if name == "vp":
        return Diffusion(facts["beta_min"], facts["beta_max"], scale)
    if not name.startswith("ddpm"):
        inner: NoiseConvention
        if name == "flow":
            inner = FlowToNoise() if facts["data"] == 0 else FlowToData()
        else:
            inner = PlainSigma(facts["sigma_min"], facts["sigma_max"])
        return inner if scale == 1 else Scaled(inner, scale)
    with np.errstate(all="ignore"):
        signal = np.cumprod(1 - betas(kind.removeprefix("ddpm:"), facts))
        levels = np.sqrt((1 - signal) / signal)
    if not (levels[0] > 0 and np.isfinite(levels).all() and (np.diff(levels) > 0).all()):
        raise UsageError(
            f"`noise={text}`: its noise levels run from {levels[0]:g} to {levels[-1]:g}; expected them to rise, above "
            "0 and finite"
        )
    return DiscreteSteps(levels.tolist(), scale)


def betas(schedule: str, facts: Mapping[str, float]) -> FloatArray:
    """Computes the variances that the steps of a DDPM add.

    Args:
        schedule: One of SCHEDULES.
        facts: steps; beta_start and beta_end of linear and scaled_linear, s of cosine, start, end and tau of sigmoid.

    Returns:
        [steps], each in (0, 1).
    """
    count = int(facts["steps"])
    if schedule == "linear":
        return np.linspace(facts["beta_start"], facts["beta_end"], count)
    if schedule == "scaled_linear":
        return np.square(np.linspace(facts["beta_start"] ** 0.5, facts["beta_end"] ** 0.5, count))
    u = np.linspace(0, 1, count + 1)
    if schedule == "cosine":
        left = np.square(np.cos((u + facts["s"]) / (1 + facts["s"]) * np.pi / 2))
    else:
        start, end = facts["start"], facts["end"]
        first, last, now = (np.tanh(v / (2 * facts["tau"])) for v in (start, end, start + u * (end - start)))
        left = (last - now) / (last - first)
    # No step takes all of the signal: Nichol & Dhariwal 2021, section 3.2.
    found: FloatArray = np.clip(1 - left[1:] / left[:-1], 0, 0.999)
    return found


class Diffusion(VPPrecond):
    """The variance-preserving diffusion, its time t in (0, 1] multiplied before the network is fed it.

    Args:
        beta_min: Its rate at t = 0.
        beta_max: Its rate at t = 1.
        time_scale: What t is multiplied with.
    """

    def __init__(self, beta_min: float, beta_max: float, time_scale: float) -> None:
        # 1e-5 is where training begins: Song et al. 2021, appendix C.
        super().__init__(beta_max - beta_min, beta_min, time_scale + 1, 1e-5)  # type: ignore[arg-type]
        self.native = f"{time_scale:g}·t of the VP diffusion, rising with noise"


class Scaled(NoiseConvention):
    """Another convention, with the time that the network is fed multiplied by a factor.

    Args:
        inner: The convention, of a continuous time.
        factor: Above 0.
    """

    def __init__(self, inner: NoiseConvention, factor: float) -> None:
        self.inner, self.factor = inner, factor
        self.native = f"{factor:g} times the {inner.native}"
        self.sigma_min, self.sigma_max = inner.sigma_min, inner.sigma_max

    def to_native(self, sigma: float) -> float:
        """Gives the factor times the other's time."""
        return self.factor * self.inner.to_native(sigma)

    def to_sigma(self, t: float) -> float:
        """Gives the other's level at t over the factor."""
        return self.inner.to_sigma(t / self.factor)

    def input_scale(self, sigma: float) -> float:
        """Gives the other's."""
        return self.inner.input_scale(sigma)
