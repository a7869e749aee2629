"""What `probe --masks` opens."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path

from diffscope.cache.sizes import in_bytes
from diffscope.families.base import Denoiser
from diffscope.measure.cautions import warnings_of
from diffscope.measure.estimate import Estimate, of_job, passes_a_second
from diffscope.measure.opening import open_images, open_job
from diffscope.measure.progress import Listener
from diffscope.measure.study import Finished
from diffscope.options.settings import Loading, Settings
from diffscope.studies.probe.mask_options import PixelProbing, refuse_what_is_of_images
from diffscope.studies.probe.options import Probing
from diffscope.studies.probe.segmentation import run
from diffscope.studies.probe.segmentation_plan import Segmentation, plan_segmentation


def open_segmentation(
    checkpoint: str | Denoiser,
    data: str,
    settings: Settings,
    loading: Loading,
    *,
    probing: Probing,
    pixels: PixelProbing,
    test: str | None = None,
) -> SegmentationStudy:
    """Opens images, their masks and a checkpoint.

    Args:
        checkpoint: A path, or a network in memory.
        data: Images, named as their masks.
        settings: Layers, noise levels and input, which may be both.
        loading: How to read the checkpoint.
        probing: Of which the share of test images counts.
        pixels: The masks, and how pixels are probed.
        test: Refused: the test is a share of the images.

    Raises:
        UsageError: An option is of a probe of images.
        DiffscopeError: Whatever keeps images, masks and checkpoint from being opened.
    """
    refuse_what_is_of_images(settings, probing, test)
    both = settings.input == "both"
    whole = replace(settings, input="noisy" if both else settings.input, pool="flatten", views=1, augment="none")
    job = open_job(checkpoint, open_images(whole, data), whole, loading)
    return SegmentationStudy(plan_segmentation(job, pixels, probing.test_share, both=both))


@dataclass(frozen=True)
class PixelEstimate(Estimate):
    """What a segmentation would take, with what bounds its memory."""

    inputs: int = 1
    bound: str = ""

    def lines(self) -> list[str]:
        """For a person."""
        seen = f"{self.images} images × {self.levels} levels × {self.inputs} inputs: {self.passes:,} passes"
        return [seen, *super().lines()[1:], self.bound]


@dataclass(frozen=True)
class SegmentationStudy:
    """A probe of pixels, ready to run."""

    of: Segmentation
    unit: str = "passes"

    @property
    def total(self) -> float:
        """Forward passes."""
        return self.of.passes

    def warnings(self) -> list[str]:
        """What a user should know before the run."""
        return warnings_of(self.of.job)

    def estimate(self) -> Estimate:
        """What the run would take but for training the heads, by a short measurement; nothing is written."""
        of = self.of
        pixels, all_pixels = of.probing.train_pixels, len(of.train) * of.side**2
        found = of_job(
            of.job,
            of.passes,
            of.memory,
            4 * of.features * pixels,
            of.passes / passes_a_second(of.job),
            protocol=of.protocol(),
        )
        bound = (
            f"memory is bounded by {pixels:,} training pixels × {of.features:,} features; "
            f"all {all_pixels:,} pixels would take {in_bytes(4 * of.features * all_pixels)} once"
        )
        return PixelEstimate(
            **{one.name: getattr(found, one.name) for one in fields(found)}, inputs=len(of.kinds), bound=bound
        )

    def run(self, folder: Path | None, listener: Listener) -> Finished:
        """Measures mIoU at all noise levels."""
        listener.agree(self.of.protocol())
        return Finished(*run(self.of, listener, folder))
