"""Passes of a network to a layer → passes and FLOPs a second, by the walk that a sweep takes, at any batch size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from diffscope.extraction import Batch, Extractor, Features, Inputs, Plan, Skipped
from diffscope.families.base import Denoiser
from diffscope.measure.job import sweep_levels
from diffscope.sources.base import Source, open_source
from diffscope.studies.bench.stopwatch import Action, Stopwatch, undisturbed
from diffscope.views import Augmentation


@dataclass(frozen=True)
class WalkRate:
    """How fast a network is walked."""

    flops: float
    """Of one pass (one view at one noise level): its matrix products and convolutions, 2 a multiply-add."""
    passes_per_second: float
    """Of the fastest sample."""

    @property
    def flops_per_second(self) -> float:
        """Of the walk, on this machine."""
        return self.flops * self.passes_per_second


def walk_rate(
    denoiser: Denoiser,
    layer: str = "mid",
    batch: int = 32,
    precision: str = "fp32",
    device: str = "cpu",
    seconds: float = 10.0,
) -> WalkRate:
    """The rate to `layer` in batches of `batch` noisy inputs, in about `seconds`, on torch's threads as they are set.

    precision: a key of `features.DTYPES`; the network stays in it. Raises UnknownLayer.
    """
    plan = Plan(
        layers=(denoiser.layer(layer),),
        sigmas=tuple(denoiser.noise.check(sigma) for sigma in sweep_levels(denoiser, 1)),
        views=1,
        augmentation=Augmentation("none"),
        input="noisy",
        pool="mean",
        normalize=False,
        class_label="null" if denoiser.classes.null else "0",
        seed=0,
        precision=precision,
        device=device,
        batch_size=batch,
        workers=0,
    )
    x = torch.randn(1, denoiser.space.channels, denoiser.space.side, denoiser.space.side).to(device)
    passes = Passes(denoiser, open_source("synthetic:count=1"), plan, Batch((0,), x, torch.randn_like(x)))
    action = passes.action(batch)
    place = torch.device(device)
    Stopwatch(place, gauge=undisturbed(place)).alternate([action], seconds)
    return WalkRate(passes.flops(), batch / action.fastest)


class Passes:
    """Passes to the layers of a plan, at the middle one of its noise levels."""

    def __init__(self, denoiser: Denoiser, source: Source, plan: Plan, at_hand: Batch) -> None:
        self.denoiser, self.source, self.at_hand = denoiser, source, at_hand
        self.plan = replace(plan, sigmas=plan.sigmas[len(plan.sigmas) // 2 :][:1])
        self._extractors: dict[int, Extractor] = {}

    def run(self, images: int) -> list[Features]:
        """One batch of `images` × views, pooled: those at hand, again and again."""
        if images not in self._extractors:
            inputs = _Repeated(self.source, self.plan, self.at_hand, images)
            self._extractors[images] = _Unyielding(self.denoiser, inputs, self.plan)
        return list(self._extractors[images].run(()))

    def action(self, images: int, like: Action | None = None) -> Action:
        """A pass of so many images as something to be timed, in views."""
        return Action(lambda: self.run(images), images * self.plan.views, like)

    def flops(self) -> float:
        """Of one pass, counted over one image's views. What a level or a class is embedded with counts once a batch."""
        with FlopCounterMode(display=False, custom_mapping=_UNCOUNTED) as counter:
            self.run(1)
        return float(counter.get_total_flops()) / self.plan.views


class _Unyielding(Extractor):
    """A batch that does not fit is not to be timed in halves."""

    def back_off(self, batch: Batch) -> None:
        raise


class _Repeated(Inputs):
    """One batch of any number of images, made of those at hand."""

    def __init__(self, source: Source, plan: Plan, at_hand: Batch, images: int) -> None:
        super().__init__(source, plan)
        self.batch = repeated(at_hand, images, plan.views)

    def batches(self, denoiser: Denoiser, indices: Sequence[int], skipped: Skipped | None = None) -> Iterator[Batch]:
        yield self.batch


def repeated(batch: Batch, images: int, views: int) -> Batch:
    """A batch of `images`, which are those of `batch` from the first on, as often as it takes."""
    times = -(-images // len(batch.indices))

    def fill(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.repeat(times, *(1 for _ in tensor.shape[1:]))[: images * views]

    noise = None if batch.noise is None else fill(batch.noise)
    return Batch((batch.indices * times)[:images], fill(batch.signal), noise)


def _attention(query: Sequence[int], key: Sequence[int], value: Sequence[int], *_rest: Any, **_more: Any) -> int:
    """FLOPs of attention between tensors of these shapes, (B, heads, positions, width)."""
    batch, heads, positions, width = query
    return 2 * batch * heads * positions * key[2] * (width + value[3])


_UNCOUNTED: dict[Any, Any] = {
    getattr(torch.ops.aten, name): _attention
    for name in ("_scaled_dot_product_flash_attention_for_cpu",)
    if hasattr(torch.ops.aten, name)
}
"""What torch's counter leaves out: the attention of CPUs."""
