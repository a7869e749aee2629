"""Prepared batches → pooled features of all layers and noise levels.

Level by level, signal and noise are added up, the network is walked to the deepest layer asked for and no further, and
every layer is pooled as it passes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from diffscope.errors import MemoryLimit
from diffscope.extraction.devices import arithmetic
from diffscope.extraction.inputs import Inputs, Skipped
from diffscope.extraction.plan import DTYPES, Batch, Features, Plan
from diffscope.families.base import Denoiser
from diffscope.sources.base import Source


class Extractor:
    """Streams features of the images that `inputs` reads.

    Where a device runs out of memory, batches are halved until they fit, and later ones are as small.

    Args:
        denoiser: Moved to the device of `inputs` and set to the precision of `plan`.
        inputs: Reads the images, for the same plan.
        plan: What to extract.
    """

    def __init__(self, denoiser: Denoiser, inputs: Inputs, plan: Plan) -> None:
        self.denoiser, self.inputs, self.plan = denoiser, inputs, plan
        self.device = inputs.device
        self._most: int | None = None
        """Images in a batch that the device holds; None until one was too large."""
        denoiser.to(self.device)
        denoiser.network.set_precision(DTYPES[plan.precision])
        if plan.compile:
            denoiser.network.compile_blocks()

    def run(self, indices: Sequence[int], skipped: Skipped | None = None) -> Iterator[Features]:
        """Extracts features batch by batch, level by level, layer by layer in the order of execution.

        Args:
            indices: Of the images in their source.
            skipped: Takes {file, why} of each image that cannot be read.

        Yields:
            Features of one layer at one noise level for one batch, or part of it.

        Raises:
            MemoryLimit: One image is too much for the device.
            DataError: An image cannot be read, and the inputs are strict.
        """
        for batch in self.inputs.batches(self.denoiser, indices, skipped):
            for level in range(len(self.plan.sigmas)):
                yield from self._level(batch, level)

    def _level(self, batch: Batch, level: int) -> Iterator[Features]:
        """Features of one batch at one level, in parts that the device holds."""
        left = batch.split(self._most, self.plan.views)
        while left:
            try:
                pooled = self._walk(left[0], self.plan.sigmas[level])
            except torch.OutOfMemoryError:
                self.back_off(left[0])
                left = [half for part in left for half in part.split(self._most, self.plan.views)]
                continue
            part = left.pop(0)
            for layer, z in pooled:
                yield Features(part.indices, level, layer, z.view(len(part.indices), self.plan.views, -1))

    def _walk(self, batch: Batch, sigma: float) -> list[tuple[int, Tensor]]:
        """(layer's number, pooled (B·V, d)) in the order of execution."""
        wanted = {layer.name: number for number, layer in enumerate(self.plan.layers)}
        pooled: list[tuple[int, Tensor]] = []
        # The contexts stand around the consumer of the walk: inside a generator they would leak to its caller.
        with torch.inference_mode(), arithmetic(self.plan.precision, self.device):
            label = batch_label(self.denoiser, self.inputs.source, self.plan, batch.indices)
            for name, activation in self.denoiser.walk(batch.at(sigma), sigma, label, wanted):
                if name in wanted:
                    pooled.append((wanted[name], self._pooled(activation)))
                    if len(pooled) == len(wanted):
                        break
        return pooled

    def back_off(self, batch: Batch) -> None:
        """Makes batches smaller; called while the device's error is handled.

        Args:
            batch: The one that the device did not hold.

        Raises:
            MemoryLimit: It is a single image.
        """
        images = len(batch.indices)
        if images == 1:
            raise MemoryLimit(
                f"{self.device}: its memory does not hold one image of {self.plan.views} views; take `device=cpu`, "
                "fewer `views=` or a 16-bit `precision=`"
            ) from None
        self._most = (images + 1) // 2
        if self.device.type == "cuda":
            torch.cuda.empty_cache()  # what was cached for larger batches is of no use now
        self.inputs.say(f"{self.device} is out of memory at {images} images a batch; going on with {self._most}")

    def _pooled(self, activation: Tensor) -> Tensor:
        """Activations (B·V, …) as float32 (B·V, d)."""
        if self.plan.pool == "flatten":
            z = activation.flatten(1).float()
        elif activation.dim() == 4:
            z = activation.mean((2, 3), dtype=torch.float32)
        else:
            z = activation.mean(1, dtype=torch.float32) if activation.dim() == 3 else activation.float()
        return torch.nn.functional.normalize(z, dim=1) if self.plan.normalize else z


def batch_label(denoiser: Denoiser, source: Source, plan: Plan, indices: Sequence[int]) -> Tensor | None:
    """Makes what the network is told of the classes of some images.

    Args:
        denoiser: The network.
        source: Whose labels are taken where the plan says `label`.
        plan: Its `class_label` decides.
        indices: Of the images in their source, B of them.

    Returns:
        A label for each of the B · V views, one for all of them, or None where the network takes none.
    """
    chosen, device = plan.class_label, torch.device(plan.device)
    if chosen == "null":
        return denoiser.label(None, device)
    if chosen == "label":
        assert source.labels is not None
        return denoiser.label(torch.from_numpy(source.labels[list(indices)]).repeat_interleave(plan.views), device)
    return denoiser.label(torch.full((1,), int(chosen)), device)
