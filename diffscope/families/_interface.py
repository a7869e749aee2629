"""How a network is called, told of noise, and what follows from its output: by the field's names or by functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from diffscope.families._calling import Calling, calling
from diffscope.families._conventions import PlainSigma
from diffscope.families._named_noise import NamedNoise, named_noise
from diffscope.families._posterior import posterior_mean as posterior_mean_of
from diffscope.families._predictions import check_prediction
from diffscope.families.base import Denoiser, NoiseConvention
from diffscope.families.networks.hooked import Call

Inputs = tuple[Sequence[Any], Mapping[str, Any]]
SigmaToInput = Callable[[Tensor, Tensor], Inputs]
PosteriorMean = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Interface:
    """How a network is called, told of noise, and what follows from its output."""

    noise: NoiseConvention
    call: Call
    mean: Callable[[Denoiser, Tensor, Tensor, Tensor | None], Tensor] | None
    """(denoiser, x, sigma, label) → the posterior mean of the data; None where it is not known."""
    calling: Calling | None = None
    """Where names say it."""
    named: NamedNoise | None = None
    """Where names say it."""
    predicts: str | None = None
    """Where names say it."""


def by_functions(
    sigma_to_input: SigmaToInput | None, sigma_range: tuple[float, float], posterior_mean: PosteriorMean | None
) -> Interface:
    """Makes the interface that `wrap` has of its functions."""

    def call(module: nn.Module, x: Tensor, sigma: Tensor, label: Tensor | None) -> Tensor:
        args, kwargs = ((x, sigma), {}) if sigma_to_input is None else sigma_to_input(x, sigma)
        output: Tensor = module(*args, **kwargs)
        return output

    def mean(denoiser: Denoiser, x: Tensor, sigma: Tensor, label: Tensor | None) -> Tensor:
        assert posterior_mean is not None
        return posterior_mean(x, sigma.flatten().expand(len(x)))

    return Interface(PlainSigma(*sigma_range), call, None if posterior_mean is None else mean)


def by_names(noise: str, predicts: str | None, call: str) -> Interface:
    """Makes the interface of the field's names.

    Args:
        noise: As `named_noise` reads it.
        predicts: One of PREDICTIONS, or None.
        call: As `calling` reads it.

    Returns:
        The interface.

    Raises:
        UsageError: If one cannot be read, or they do not go together.
    """
    named, how = named_noise(noise), calling(call)
    if predicts is not None:
        check_prediction(predicts, named)

    def run(module: nn.Module, x: Tensor, time: Tensor, label: Tensor | None) -> Tensor:
        return how(module, x, time.round().long() if named.whole else time, label)

    def mean(denoiser: Denoiser, x: Tensor, sigma: Tensor, label: Tensor | None) -> Tensor:
        assert predicts is not None
        output = denoiser.predict(x, sigma, label)
        return posterior_mean_of(predicts, named.convention, x, sigma, output, named.data_at)

    return Interface(named.convention, run, None if predicts is None else mean, how, named, predicts)
