"""The same probes on the features of reference encoders, of the same images in the same split.

An encoder sees the plain image, without noise, at the size at which the network is given it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open

from diffscope.cache.store import Parts, cache_folder
from diffscope.encoders import Encoder
from diffscope.measure.encoding import Encoding, seconds_of
from diffscope.measure.estimate import Estimate
from diffscope.measure.job import Job
from diffscope.measure.progress import Listener
from diffscope.measure.study import Finished
from diffscope.protocol import digest
from diffscope.ranks import world
from diffscope.results import Result
from diffscope.studies.features.kept import features_path
from diffscope.studies.probe import classifiers
from diffscope.studies.probe.class_metrics import Labels
from diffscope.studies.probe.denoised_distances import Distances
from diffscope.studies.probe.labelled import Data, labelled_features
from diffscope.studies.probe.plan import Kind, Probe
from diffscope.studies.probe.probe import fitted, values_of


def add_encoders(probe: Probe, listener: Listener, folder: Path | None, finished: Finished) -> Finished:
    """The result with a section `beside`, a row for each encoder.

    Args:
        probe: What was measured.
        listener: Hears of each image.
        folder: Where finished parts are kept, else in the cache.
        finished: The probe of the network; its parts are still on disk.
    """
    if not probe.encoders or not world().leads:
        return finished
    assert isinstance(finished.result, Result)
    place, hash = folder or cache_folder(), probe.protocol()["hash"]
    of_network = Parts(place, hash)
    parts = Parts(place, digest({"beside": hash}))
    parts.claim(listener.say)
    kind = probe.kinds[0]
    data = labelled_features(probe, kind, of_network.folder)
    right = _right_at_best(probe, finished.result, data, of_network)
    rows, distances = [], list[dict[str, Any]]()
    for number, encoder in enumerate(probe.encoders):
        sides = [
            None if job is None else _encoded(encoder, job, of_network.folder, parts, f"z{number}-{name}", listener)
            for name, job in (("train", kind.train), ("test", kind.test))
        ]
        key = f"probe-{number}"
        if key not in parts.finished():
            assert sides[0] is not None
            own = replace(data, train=sides[0], test=sides[1])
            parts.write(key, *fitted(probe, own, "", 0))
        arrays, record = parts.read(key, ""), parts.record(key)
        rows.append(_row(probe, encoder, data, arrays, record, right))
        if encoder in probe.shown_denoised:
            assert sides[0] is not None
            of_denoised = Distances(encoder, probe.kinds[-1], of_network.folder, parts, f"denoised{number}")
            distances += of_denoised.run(sides[0].z, listener)

    def forget() -> None:
        finished.forget()
        parts.clear()

    sections: dict[str, Any] = {"beside": tuple(rows)}
    if distances:
        sections["denoised"] = tuple(distances)
    return Finished(finished.result.having(**sections), forget)


def estimate_encoders(probe: Probe, of_network: Estimate) -> Estimate:
    """What the run would take with the encoders, given what it takes without."""
    denoised = probe.denoised
    features = 4 * probe.images * sum(encoder.dims for encoder in probe.encoders)
    features += 4 * denoised * sum(encoder.dims for encoder in probe.shown_denoised)
    seconds = seconds_of(probe.encoders, probe.job, probe.images)
    seconds += seconds_of(probe.shown_denoised, probe.job, denoised)
    return replace(
        of_network,
        passes=of_network.passes + probe.images * len(probe.encoders) + denoised * len(probe.shown_denoised),
        disk=of_network.disk + features,
        seconds=of_network.seconds + seconds,
    )


@dataclass(frozen=True)
class EncodedImages:
    """What stands for a file of the network's features: the encoder's, whatever layer and level are asked for."""

    labels: Labels
    z: NDArray[np.float32]

    def read(self, layer: str, level: int) -> NDArray[np.float32]:
        """[images, d]."""
        return self.z


def _encoded(encoder: Encoder, job: Job, folder: Path, parts: Parts, key: str, listener: Listener) -> EncodedImages:
    """Of the images whose features of the network are in its file, in their order."""
    with safe_open(features_path(job, folder), framework="np") as file:
        indices, labels = file.get_tensor("index"), file.get_tensor("label")
    encoding = Encoding(encoder, job, indices.tolist(), parts, key)
    encoding.run(listener)
    return EncodedImages(labels, encoding.features())


def _right_at_best(probe: Probe, result: Result, data: Data, parts: Parts) -> NDArray[np.bool_]:
    """Which test images the network's best layer gets right at its best level."""
    best = max(result.probe, key=lambda row: row.accuracy)
    levels = [level.sigma for level in probe.job.levels]
    number = probe.kinds[0].layers.index(best.layer) * len(levels) + levels.index(best.sigma)
    found: NDArray[np.bool_] = parts.read(number, "", ["labels"])["labels"] == data.test_labels
    return found


def _row(
    probe: Probe,
    encoder: Encoder,
    data: Data,
    arrays: Mapping[str, Any],
    record: Mapping[str, Any],
    right: NDArray[np.bool_],
) -> dict[str, Any]:
    alone = replace(probe, probing=replace(probe.probing, ensemble=1))
    kind = Kind("", probe.kinds[0].train, probe.kinds[0].test)
    rows: Sequence[Any] = list(values_of(alone, kind, data, [(dict(arrays), record)]))
    ((values, notes, correct),) = rows
    return {
        "encoder": encoder.name,
        "kind": encoder.kind,
        "d": encoder.dims,
        **values,
        "difference": float(correct.mean() - right.mean()),
        "difference_se": classifiers.difference_se(correct, right),
        "notes": notes,
    }
