"""diffscope probe: accuracy of a linear probe over noise levels, beside ICR."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from diffscope.commands.base import Gates
from diffscope.errors import UsageError
from diffscope.measure.study import Study
from diffscope.options.beside import Beside
from diffscope.options.option import MEASURE, Option
from diffscope.options.settings import Checkpoint, Data, Loading, Settings
from diffscope.studies.probe.mask_options import PixelProbing
from diffscope.studies.probe.options import Probing

Test = Annotated[
    str | None, Option("Labelled images to test on.", metavar="DATA", path=True, shown="a share of --data")
]


@dataclass(frozen=True)
class ProbeSettings(Settings):
    """Those of a sweep; clean input may be probed beside noisy one."""

    input: Annotated[
        str,
        Option(
            "noisy, clean: no noise, but the conditioning of the noise level; or both.",
            group=MEASURE,
            choices=("noisy", "clean", "both"),
            protocol=True,
        ),
    ] = "noisy"


def run(
    checkpoint: Checkpoint,
    data: Data,
    settings: ProbeSettings,
    probing: Probing,
    loading: Loading,
    beside: Beside,
    pixels: PixelProbing,
    test: Test = None,
) -> Study:
    """Is the level of lowest ICR the one where classes are told apart best? Accuracy of a linear probe and k-NN.

    Labels are class folders or dataset.json. Probes see the plain image; --augment and --views are ICR's.
    --input both adds probes of clean input; --beside those of another encoder, of the plain image at the network's
    size. --fail-if looks at each layer's best level.

    --distance-to-best adds how far the training images' features are from those of the level of best accuracy, in the
    unit of the features (swd_best) and over the spread of the latter (swd_best_relative).

    nc1 grows and separation falls with the number of training images (train_images): compare them at equal numbers.

    --masks DIR probes pixels instead, without labels and ICR: mIoU of a classifier of single pixels, whose features are
    those of every --layer at the image's size.

    Example: diffscope probe ckpt.pkl --data images/ --out probe/
    """
    if pixels.masks is not None:
        if beside.beside:
            raise UsageError("`beside=` is of probes of whole images, `masks=` of pixels; drop one")
        from diffscope.studies.probe.segmentation_study import open_segmentation

        return open_segmentation(checkpoint, data, settings, loading, probing=probing, pixels=pixels, test=test)
    from diffscope.studies.probe.study import open_probe

    return open_probe(checkpoint, data, settings, loading, probing=probing, test=test, beside=beside)


def _keys(values: Mapping[str, Any]) -> Collection[str]:
    from diffscope.measure.rows import row_keys
    from diffscope.studies.probe.plan import row_keys as probe_keys
    from diffscope.studies.probe.segmentation_rows import row_keys as segmentation_keys

    both = values["settings"].input == "both"
    if values["pixels"].masks is not None:
        return segmentation_keys(both=both)
    return {*row_keys(), *probe_keys(values["probing"], both=both)}


def _best(result: Any) -> Sequence[Mapping[str, Any]]:
    if result.segmentation:
        return [row for row in result.rows if row["sigma"] == result.segmentation[0].sigma]
    best = {row.layer: row.sigma for row in result.probe}
    return [row for row in result.rows if row["sigma"] == best[row["layer"]]]


GATES = Gates("the level of best accuracy of any layer", "accuracy<0.5", _keys, _best)
DISTRIBUTED = True
