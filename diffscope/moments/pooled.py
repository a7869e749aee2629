"""Blocks stacked, and the covariances read from all of them or from all but one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from diffscope.errors import EstimationError
from diffscope.moments.blocks import BlockMoments
from diffscope.numerics import (
    FloatArray,
    eigenvalues,
    generalised_eigenvalues,
    mirrored,
    spd_inverse,
    symmetrise,
)


@dataclass(frozen=True, eq=False)
class Moments:
    """G blocks of one layer at one noise level, stacked; the fields are those of `BlockMoments`, with [G] in front."""

    n: FloatArray
    """[G] images."""
    view_sum: FloatArray
    """[G, V, d]."""
    between: FloatArray
    """[G, d, d] B."""
    within: FloatArray
    """[G, d, d] W."""
    l2_sum: FloatArray
    """[G, channels]; all channels, also where d has shrunk by a projection."""
    l2_between: FloatArray
    """[G]."""
    l2_within: FloatArray
    """[G]."""
    pair_kernel: FloatArray
    """[G, V]."""
    pairs: FloatArray
    """[G]."""

    @classmethod
    def from_blocks(cls, blocks: Sequence[BlockMoments]) -> Moments:
        """Stack blocks in their order; EstimationError where their shapes differ."""
        shapes = {block.view_sum.shape for block in blocks}
        if len(shapes) != 1:
            raise EstimationError(f"blocks of (views, channels) {sorted(shapes)}; expected one shape for all blocks")
        names = cls.__dataclass_fields__
        return cls(**{name: np.stack([np.float64(getattr(block, name)) for block in blocks]) for name in names})

    @property
    def blocks(self) -> int:
        """G."""
        return len(self.n)

    @property
    def views(self) -> int:
        """V."""
        return int(self.view_sum.shape[1])

    @property
    def d(self) -> int:
        """Channels."""
        return int(self.view_sum.shape[2])

    # Made when asked for: kept, it would close a cycle that holds 340 MB until the garbage collector comes by.
    @property
    def total(self) -> PooledMoments:
        """All blocks together."""
        return PooledMoments(self, None)

    def without(self, block: int) -> PooledMoments:
        """All blocks but one: a replicate of the jackknife."""
        return PooledMoments(self, block)

    @cached_property
    def spectra(self) -> dict[tuple[str, int | None], FloatArray]:
        """Eigenvalues that were computed so far, by name and block left out: several metrics share them."""
        return {}

    @cached_property
    def sums(self) -> dict[str, FloatArray]:
        """Every field summed over the blocks, by its name."""
        return {name: value.sum(0) for name, value in vars(self).items() if name in self.__dataclass_fields__}

    @cached_property
    def inverse_residual(self) -> FloatArray:
        """[d, d] S_W⁻¹ of all blocks, in full; IllConditioned if S_W is singular."""
        return mirrored(spd_inverse(self.total.cov_residual))

    def selected(self, channels: NDArray[np.intp]) -> Moments:
        """The moments of some channels. The unit features keep all of theirs."""
        square = (slice(None), channels[:, None], channels[None, :])
        return replace(
            self,
            view_sum=self.view_sum[:, :, channels],
            between=self.between[square],
            within=self.within[square],
        )

    def projected(self, matrix: FloatArray) -> Moments:
        """The moments of z·matrix, matrix [d, d']. The unit features stay as they were."""
        return replace(
            self,
            view_sum=self.view_sum @ matrix,
            between=symmetrise(matrix.T @ self.between @ matrix),
            within=symmetrise(matrix.T @ self.within @ matrix),
        )


@dataclass(frozen=True, eq=False)
class PooledMoments:
    """The sums over all blocks, or all but one, and the covariances read from them.

    Matrices are made when asked for and not kept: 16 replicates of d = 1152 would take 340 MB. Eigenvalues are kept,
    with the moments.
    """

    moments: Moments
    left_out: int | None

    def sum(self, name: str) -> FloatArray:
        """A field of `Moments`, summed over the blocks in question."""
        total = self.moments.sums[name]
        return total if self.left_out is None else np.asarray(total - getattr(self.moments, name)[self.left_out])

    def _diagonal(self, name: str) -> FloatArray:
        # Without the matrices: traces of all replicates then cost nothing.
        total = np.diagonal(self.moments.sums[name])
        return total if self.left_out is None else total - np.diagonal(getattr(self.moments, name)[self.left_out])

    @property
    def n(self) -> int:
        """N, images."""
        return int(self.sum("n"))

    @property
    def nu(self) -> int:
        """ν = N(V − 1), degrees of freedom of S_W."""
        return self.n * (self.moments.views - 1)

    @property
    def b_sum(self) -> FloatArray:
        """[d] s = Σ b_i."""
        return np.asarray(self.sum("view_sum").sum(0) / np.sqrt(self.moments.views))

    @property
    def mean(self) -> FloatArray:
        """[d] mean feature μ̂."""
        return np.asarray(self.sum("view_sum").sum(0) / (self.n * self.moments.views))

    @property
    def variance_between(self) -> FloatArray:
        """[d] diagonal of S_B."""
        return np.asarray((self._diagonal("between") - self.b_sum**2 / self.n) / (self.n - 1))

    @property
    def variance_residual(self) -> FloatArray:
        """[d] diagonal of S_W."""
        return np.asarray(self._diagonal("within") / self.nu)

    @property
    def mean_square(self) -> FloatArray:
        """[d] mean of z² over images and views."""
        return np.asarray((self._diagonal("between") + self._diagonal("within")) / (self.n * self.moments.views))

    @property
    def cov_between(self) -> FloatArray:
        """[d, d] S_B, divisor N − 1."""
        s = self.b_sum
        return np.asarray((self.sum("between") - np.outer(s, s) / self.n) / (self.n - 1))

    @property
    def cov_residual(self) -> FloatArray:
        """[d, d] S_W, divisor ν; not centred, as views that are exchangeable have residuals of mean zero."""
        return np.asarray(self.sum("within") / self.nu)

    @property
    def cov_invariant(self) -> FloatArray:
        """[d, d] Σ̂s = (S_B − S_W)/V, unbiased, may be indefinite."""
        return np.asarray((self.cov_between - self.cov_residual) / self.moments.views)

    @property
    def cov_view(self) -> FloatArray:
        """[d, d] S_z = (S_B + (V − 1)S_W)/V, the covariance of one view."""
        views = self.moments.views
        return np.asarray((self.cov_between + (views - 1) * self.cov_residual) / views)

    @property
    def second_moment(self) -> FloatArray:
        """[d, d] mean of z zᵀ over images and views, not centred."""
        return np.asarray((self.sum("between") + self.sum("within")) / (self.n * self.moments.views))

    @property
    def view_eigenvalues(self) -> FloatArray:
        """[d] eigenvalues of S_z, decreasing, rounding below zero clamped."""
        key = ("view", self.left_out)
        if key not in self.moments.spectra:
            self.moments.spectra[key] = np.maximum(eigenvalues(self.cov_view), 0)
        return self.moments.spectra[key]

    @property
    def fisher_eigenvalues(self) -> FloatArray:
        """[d] eigenvalues λ̂ of S_W⁻¹Σ̂s, decreasing; sample values, spread by sampling, some may be negative."""
        key = ("fisher", self.left_out)
        if key not in self.moments.spectra:
            raw = generalised_eigenvalues(self.cov_between, self.cov_residual)
            self.moments.spectra[key] = np.asarray((raw - 1) / self.moments.views)
        return self.moments.spectra[key]
