"""What `probe` opens: a sweep, and the features that are probed at its levels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from diffscope.families.base import Denoiser
from diffscope.measure.cautions import warnings_of
from diffscope.measure.encoding import open_encoders
from diffscope.measure.estimate import Estimate
from diffscope.measure.opening import open_images, open_job
from diffscope.measure.progress import Listener
from diffscope.measure.study import Finished
from diffscope.options.beside import Beside
from diffscope.options.settings import Loading, Settings
from diffscope.studies.probe.beside import add_encoders, estimate_encoders
from diffscope.studies.probe.options import Probing
from diffscope.studies.probe.plan import Probe, plan
from diffscope.studies.probe.probe import estimate_probe, run


def open_probe(
    checkpoint: str | Denoiser,
    data: str,
    settings: Settings,
    loading: Loading,
    *,
    probing: Probing,
    test: str | None = None,
    beside: Beside | None = None,
) -> ProbeStudy:
    """Opens labelled images and a checkpoint.

    Args:
        checkpoint: A path, or a network in memory.
        data: Labelled images; a share of them, or `test`, is the test.
        settings: Of the sweep; `input` may be both.
        loading: How to read the checkpoint.
        probing: How features are probed.
        test: Labelled images to test on.
        beside: Encoders that are probed beside the network.

    Raises:
        DataError: Where images have no labels.
        DiffscopeError: Whatever keeps images and checkpoint from being opened.
    """
    both = settings.input == "both"
    settings = replace(settings, input="noisy") if both else settings
    job = open_job(checkpoint, open_images(settings, data), settings, loading)
    tested = None if test is None else open_images(settings, test)
    encoders = open_encoders(job, beside or Beside())
    return ProbeStudy(plan(job, probing, tested, both=both, encoders=encoders))


@dataclass(frozen=True)
class ProbeStudy:
    """A probe, ready to run."""

    probe: Probe
    unit: str = "passes"

    @property
    def total(self) -> float:
        """Forward passes, of the sweep and of the features."""
        return self.probe.passes

    def warnings(self) -> list[str]:
        """What a user should know before the run."""
        return warnings_of(self.probe.job)

    def estimate(self) -> Estimate:
        """What the run would take."""
        return estimate_encoders(self.probe, estimate_probe(self.probe))

    def run(self, folder: Path | None, listener: Listener) -> Finished:
        """ICR and accuracies of all layers at all noise levels, and of the encoders beside them."""
        listener.agree(self.probe.protocol())
        result, forget = run(self.probe, listener, folder)
        return add_encoders(self.probe, listener, folder, Finished(result, forget))
