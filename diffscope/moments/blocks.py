"""One block of images: its sums, and what adds them up from batches of features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from diffscope.errors import EstimationError, NeedTwoViews, NonFinite
from diffscope.numerics import FloatArray, pack_lower, symmetrise, unpack_lower

PAIR_IMAGES = 256
"""Images of a block whose pairs enter uniformity: 16 blocks come to 4096 images, enough for three digits."""

GROUP = 64
"""Images that are summed at once: products of other sizes round otherwise, and these are large enough to be fast."""


class NonFiniteFeature(NonFinite):
    """A feature is NaN or infinite.

    Args:
        position: Place of the first image with such a feature among those added to the block, from 0.
    """

    def __init__(self, position: int) -> None:
        super().__init__(
            f"the features of image {position} of the block are not finite; expected finite numbers; "
            "use a wider precision (fp32)"
        )
        self.position = position


@dataclass(frozen=True, eq=False)
class BlockMoments:
    """Sums over one block of images; float64 on the host.

    The `l2_` sums and the kernel are those of the features divided by their Euclidean norm, f = z/‖z‖ (a feature that
    is zero stays zero); only traces are read from them, so that no matrix is kept. Pairs are taken within the block:
    unbiased, as images are assigned to blocks at random, and adding up over blocks.
    """

    n: int
    """Number of images in the block."""
    view_sum: FloatArray
    """[V, d] Σ_i z_iv."""
    between: FloatArray
    """[d, d] B = Σ_i b bᵀ, not centred."""
    within: FloatArray
    """[d, d] W = Σ_i Σ_v r rᵀ."""
    l2_sum: FloatArray
    """[d] Σ_i b_i of the unit features."""
    l2_between: float
    """Σ_i ‖b_i‖² of the unit features."""
    l2_within: float
    """Σ_i Σ_v ‖r_iv‖² of the unit features."""
    pair_kernel: FloatArray
    """[V] Σ_{i≠j} exp(−2‖f_iv − f_jv‖²) over the block's first 256 images, both orders of a pair."""
    pairs: int
    """Ordered pairs in `pair_kernel`, per view."""

    def to_arrays(self) -> dict[str, FloatArray]:
        """Returns every field as a float64 array for files, the symmetric matrices as packed lower triangles."""
        arrays = {name: np.asarray(value, dtype=np.float64) for name, value in vars(self).items()}
        return arrays | {"between": pack_lower(self.between), "within": pack_lower(self.within)}

    def __add__(self, other: BlockMoments) -> BlockMoments:
        """Adds the sums of further images of the same block; pairs are those within either part.

        Raises:
            EstimationError: The other part has other views or channels.
        """
        if self.view_sum.shape != other.view_sum.shape:
            raise EstimationError(f"{other.view_sum.shape} (views, channels); expected {self.view_sum.shape}")
        return BlockMoments(**{name: value + getattr(other, name) for name, value in vars(self).items()})

    @classmethod
    def from_arrays(cls, arrays: dict[str, FloatArray]) -> BlockMoments:
        """Rebuilds the block that `to_arrays` wrote, bit for bit.

        Args:
            arrays: Field → array, as `to_arrays` returns them.
        """
        fields: dict[str, Any] = {name: arrays[name] for name in cls.__dataclass_fields__}
        fields |= {name: unpack_lower(arrays[name]) for name in ("between", "within")}
        fields |= {name: int(arrays[name]) for name in ("n", "pairs")}
        fields |= {name: float(arrays[name]) for name in ("l2_between", "l2_within")}
        return cls(**fields)


def nbytes(views: int, d: int) -> int:
    """Counts the bytes of one finished block: 17 MB for 16 blocks at d = 256, 340 MB at d = 1152.

    Args:
        views: V.
        d: Channels.
    """
    return 8 * (2 * d * d + (views + 1) * d + views + 4)


def accumulator_nbytes(views: int, d: int) -> int:
    """Counts the bytes of one block in work on the device of its features: the block, and the images held with it.

    Args:
        views: V.
        d: Channels, of features in float32.
    """
    return nbytes(views, d) + (8 * PAIR_IMAGES + 4 * GROUP) * views * d


class BlockAccumulator:
    """Adds up one block: `update` with each batch in image order, then `finish`.

    The same features give the same bytes, whatever the batches.

    Args:
        views: V, at least 2.
        d: Channels.
        deferred: Whether `finish` checks that all features were finite instead of each `update`: for devices that
            compute while the host goes on, which a check would have to wait for.

    Raises:
        NeedTwoViews: `views` is below 2.
    """

    def __init__(self, views: int, d: int, deferred: bool = False) -> None:
        if views < 2:
            raise NeedTwoViews(f"{views} view per image; expected at least 2, as noise is what differs between views")
        self.views = views
        self.d = d
        self._n = 0
        self._sums: list[torch.Tensor] = []
        self._kept: list[torch.Tensor] = []
        self._rest: torch.Tensor | None = None
        """Features of the last images, fewer than GROUP, which are not in the sums yet."""
        self._deferred = deferred
        self._bad: list[torch.Tensor] = []

    def update(self, z: torch.Tensor) -> None:
        """Adds the features of further images.

        Args:
            z: Features [B, V, d] of B images, on any device; unchanged.

        Raises:
            EstimationError: `z` has another shape.
            NonFiniteFeature: A feature is NaN or infinite; the sums are unchanged. If `deferred`, `finish` raises it.
        """
        if z.ndim != 3 or z.shape[1:] != (self.views, self.d):
            raise EstimationError(f"features of shape {tuple(z.shape)}; expected (images, {self.views}, {self.d})")
        with torch.inference_mode():
            # Apple's devices have no float64; the host adds faster than such a device produces features.
            z = z.cpu() if z.device.type == "mps" else z
            bad = ~torch.isfinite(z).all(dim=2).all(dim=1)
            if self._deferred:
                self._bad.append(bad)
            elif bool(bad.any()):
                raise NonFiniteFeature(self._n + int(bad.nonzero()[0, 0]))
            self._n += len(z)
            held = z if self._rest is None else torch.cat([self._rest, z.to(self._rest.device)])
            whole = len(held) // GROUP * GROUP
            for start in range(0, whole, GROUP):
                self._add(*_sums(held[start : start + GROUP]))
            # A copy, so that a slice does not hold the memory of its whole batch.
            self._rest = held[whole:].clone() if whole < len(held) else None

    def merge(self, other: BlockAccumulator) -> None:
        """Adds the images of `other`, which follow this accumulator's in the order of the block.

        Raises:
            EstimationError: `other` has other views or channels.
        """
        if (other.views, other.d) != (self.views, self.d):
            raise EstimationError(f"{other.views} views × {other.d} channels; expected {self.views} × {self.d}")
        with torch.inference_mode():
            if other._n and self._rest is not None:
                self._add(*_sums(self._rest))
                self._rest = None
            if other._sums:
                self._add([part.clone() for part in other._sums], torch.cat(other._kept))
            if other._rest is not None:
                self._rest = other._rest.clone()
            self._n += other._n
            self._bad += other._bad

    def finish(self) -> BlockMoments:
        """Returns the sums over all images added so far; more may be added afterwards.

        Raises:
            EstimationError: No image was added.
            NonFiniteFeature: A feature was NaN or infinite, and the block is `deferred`.
        """
        if not self._n:
            raise EstimationError("a block without images; expected at least one image in every block")
        with torch.inference_mode():
            if self._bad and bool((bad := torch.cat(self._bad)).any()):
                raise NonFiniteFeature(int(bad.nonzero()[0, 0]))
            sums, kept = self._sums, self._kept
            if self._rest is not None:
                more, unit = _sums(self._rest)
                sums = [total + part.to(total.device) for total, part in zip(sums, more, strict=True)] if sums else more
                kept = [*kept, unit]
            view_sum, between, within, l2_sum, l2_between, l2_within = (_array(total) for total in sums)
            unit = torch.cat([part.to(kept[0].device) for part in kept])[:PAIR_IMAGES]
            return BlockMoments(
                n=self._n,
                view_sum=view_sum,
                between=symmetrise(between),
                within=symmetrise(within),
                l2_sum=l2_sum,
                l2_between=float(l2_between),
                l2_within=float(l2_within),
                pair_kernel=_array(_pair_kernel(unit)),
                pairs=len(unit) * (len(unit) - 1),
            )

    def _add(self, sums: list[torch.Tensor], unit: torch.Tensor) -> None:
        """Adds what `_sums` returned for further images."""
        if self._sums:
            for total, part in zip(self._sums, sums, strict=True):
                total += part.to(total.device)
        else:
            self._sums = sums
        room = PAIR_IMAGES - sum(map(len, self._kept))
        if room > 0:
            self._kept.append(unit[:room].to(self._sums[0].device, copy=True))


def _sums(z: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
    """(sums over some images, their unit features) of z [images, V, d]."""
    z = z.to(torch.float64)
    unit = z / torch.linalg.vector_norm(z, dim=2, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)
    b, r = _between_within(z)
    unit_b, unit_r = _between_within(unit)
    sums = [z.sum(0), b.T @ b, r.T @ r, unit_b.sum(0), unit_b.square().sum(), unit_r.square().sum()]
    return sums, unit


def _between_within(z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(b [images, d], r [images · V, d]) of z [images, V, d]."""
    mean = z.mean(1, keepdim=True)
    return mean[:, 0] * z.shape[1] ** 0.5, (z - mean).flatten(0, 1)


def _pair_kernel(unit: torch.Tensor) -> torch.Tensor:
    """[V] Σ_{i≠j} exp(−2‖f_i − f_j‖²) over [images, V, d]."""
    sums = []
    for f in unit.unbind(1):
        square = f.square().sum(1)
        distance = (square[:, None] + square[None, :] - 2 * f @ f.T).clamp_min(0)
        kernel = torch.exp(-2 * distance)
        sums.append(kernel.sum() - kernel.diagonal().sum())
    return torch.stack(sums)


def _array(tensor: torch.Tensor) -> FloatArray:
    return np.array(tensor.cpu().numpy(), dtype=np.float64)
