"""The contract of a noise convention: how sigma, the noise-to-signal ratio, becomes what a network is fed."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import ClassVar

from diffscope.errors import NoiseLevelError


class NoiseConvention(ABC):
    """The mapping between sigma, the noise-to-signal ratio, and what the network is told of it."""

    native: ClassVar[str]
    """What the network is fed, in words, with its direction."""
    sigma_min: float
    sigma_max: float
    discrete: ClassVar[bool] = False
    trained: ClassVar[tuple[float, float]] = (0.0, math.inf)
    """The levels that such networks are trained at, where the range allows more."""

    @abstractmethod
    def to_native(self, sigma: float) -> float:
        """Converts a noise level to what the network is fed.

        Args:
            sigma: Noise-to-signal ratio, in [sigma_min, sigma_max].

        Returns:
            The network's own time or step.
        """

    @abstractmethod
    def to_sigma(self, t: float) -> float:
        """Converts what the network is fed to a noise level: the inverse of `to_native`.

        Args:
            t: The network's own time or step.

        Returns:
            Noise-to-signal ratio.

        Raises:
            NoiseLevelError: If `t` is outside the network's range, where that has bounds.
        """

    @abstractmethod
    def input_scale(self, sigma: float) -> float:
        """Gives the factor in the network's input, input_scale · (data + sigma · noise).

        Args:
            sigma: Noise-to-signal ratio.

        Returns:
            The factor, above 0.
        """

    def nearest(self, sigma: float) -> float:
        """Gives the noise level that is used where another one is asked for.

        Args:
            sigma: Noise-to-signal ratio.

        Returns:
            `sigma` itself; of discrete levels the nearest.
        """
        return sigma

    def check(self, sigma: float) -> float:
        """Gives the noise level that is used for `sigma`, if the model has it.

        Args:
            sigma: Noise-to-signal ratio that was asked for.

        Returns:
            `nearest(sigma)`.

        Raises:
            NoiseLevelError: If it is outside [sigma_min, sigma_max], or not above 0.
        """
        if not (math.isfinite(sigma) and self.sigma_min <= sigma <= self.sigma_max and sigma > 0):
            low = "above 0" if self.sigma_min == 0 else f"from {self.sigma_min:.6g}"
            high = "without upper limit" if math.isinf(self.sigma_max) else f"up to {self.sigma_max:.6g}"
            raise NoiseLevelError(f"sigma {sigma:g} is outside this model's range: {low}, {high}")
        return self.nearest(sigma)
