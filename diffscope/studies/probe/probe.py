"""Linear-probe and k-NN accuracy over noise levels and layers, beside ICR of the same: do the two agree on the best?

Li et al., "Evaluating the representation space of diffusion models via self-supervised principles", 2026,
https://arxiv.org/abs/2606.09718, figures 3 and 10. ICR is measured as a sweep measures it, on augmented views. The
probe's features are what `diffscope features --augment none --views 1` writes: the plain image with the noise of view
0. The images are parted by `classifiers.split`, or a second source is the test.

Clean beside noisy input, label noise, ensembles of neighbouring levels, CSNR and the posterior mean are those of Wang
et al., "Understanding representation dynamics of diffusion models via low-dimensional modeling", 2025,
https://arxiv.org/abs/2502.05743, figures 1, 6, 12, 13, tables 1 and 2; of data that are as likely as their negative the
probe reads the absolute values of the posterior mean (figure 5, appendix A.3).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffscope import __version__
from diffscope.cache.store import Arrays, Parts, cache_folder
from diffscope.errors import EstimationError, NonFinite
from diffscope.measure.description import described_checkpoint, described_data
from diffscope.measure.estimate import Estimate, estimate, of_job
from diffscope.measure.job import Job
from diffscope.measure.progress import Listener
from diffscope.measure.rows import null_row
from diffscope.numerics import rank_correlation
from diffscope.ranks import world
from diffscope.results import ProbeRow, Result, Row, WindowRow
from diffscope.studies.features import export as export_module
from diffscope.studies.features.kept import keep_features
from diffscope.studies.probe import batchnorm_linear, class_metrics, classifiers
from diffscope.studies.probe.class_metrics import Labels
from diffscope.studies.probe.denoised import denoised_pictures
from diffscope.studies.probe.distances import with_distances
from diffscope.studies.probe.labelled import Data, labelled_features
from diffscope.studies.probe.plan import POSTERIOR, Kind, Probe, noise_name
from diffscope.studies.sweep.recommended import ALPHA
from diffscope.studies.sweep.sweep import sweep
from diffscope.studies.sweep.window_rows import windows

SCORES = {"logistic": "probabilities", "batchnorm-linear": "logits"}
"""What a head says of a test image, of which an ensemble takes the mean."""


def run(
    probe: Probe, listener: Listener | None = None, folder: Path | None = None
) -> tuple[Result, Callable[[], None]]:
    """The result, and what forgets the finished parts on disk once the result is safe.

    Without a `folder` parts are kept in the cache. Levels and features that an earlier run of the same protocol
    finished are found again. Of several processes all compute features; the first fits and has the result, others have
    that of ICR alone.
    """
    listener = listener or Listener()
    place = folder or cache_folder()
    protocol = probe.protocol()
    parts = Parts(place, protocol["hash"])
    world().lead(partial(parts.claim, listener.say))
    result, forget_blocks = _measured_icr(probe, listener, place)
    rows: list[dict[str, Any]] = [{} for _ in result.rows]
    notes: list[list[str]] = [[] for _ in rows]
    at = {(row.layer, row.sigma): number for number, row in enumerate(result.rows)}
    right: dict[tuple[str, float], NDArray[np.bool_]] = {}
    for kind in probe.kinds:
        _export(kind, parts.folder, listener)
    if not world().leads:
        return result, forget_blocks
    sets, first = [], 0
    for kind in probe.kinds:
        data = labelled_features(probe, kind, parts.folder)
        sets.append(data)
        for layer in kind.layers:
            found = _fitted_levels(probe, kind, data, layer, parts, first)
            first += len(found)
            levels = with_distances(probe, kind, data, layer, parts, values_of(probe, kind, data, found))
            for level, (values, told, correct) in enumerate(levels):
                sigma = probe.job.levels[level].sigma
                same = [layer] if kind.prefix != POSTERIOR else probe.kinds[0].layers
                for name in same:
                    rows[at[name, sigma]].update(values)
                    notes[at[name, sigma]] += told
                    if not kind.prefix:
                        right[name, sigma] = correct
    measured = [
        row.having(**values, notes=(*row.notes, *dict.fromkeys(told)))
        for row, values, told in zip(result.rows, rows, notes, strict=True)
    ]
    whole = replace(
        result,
        protocol=protocol,
        rows=tuple(measured),
        data={**result.data, **_described(probe, sets[0])},
    ).having(probe=_probe_rows(probe, measured, result.window, right))
    if probe.probing.posterior:
        whole = replace(whole, pictures=denoised_pictures(probe.kinds[-1], parts.folder))

    def forget() -> None:
        forget_blocks()
        parts.clear()

    return whole, forget


def _fitted_levels(
    probe: Probe, kind: Kind, data: Data, layer: str, parts: Parts, first: int
) -> list[tuple[Arrays, Mapping[str, Any]]]:
    """Of one layer; its parts are numbered from `first` on, and those that are on disk are not fitted again."""
    numbers = range(first, first + len(probe.job.levels))
    done = parts.finished()
    for level, number in enumerate(numbers):
        if number not in done:
            parts.write(number, *fitted(probe, data, layer, level, kind.has_absolute(probe.probing)))
    return [(parts.read(number, ""), parts.record(number)) for number in numbers]


def estimate_probe(probe: Probe) -> Estimate:
    """What `run` would take but for fitting the classifiers, by a short measurement; nothing is written."""
    exports = [
        export_module.estimate(job) for kind in probe.kinds for job in (kind.train, kind.test) if job is not None
    ]
    try:
        found = estimate(probe.job)
    except EstimationError:  # accuracies need no ICR
        found = of_job(probe.job, 0, 0, 0, 0.0)
    return replace(
        found,
        protocol=probe.protocol(),
        passes=found.passes + sum(one.passes for one in exports),
        memory=max(found.memory, *(one.memory for one in exports)),
        disk=found.disk + sum(one.disk for one in exports),
        seconds=found.seconds + sum(one.seconds for one in exports),
    )


def _measured_icr(probe: Probe, listener: Listener, place: Path) -> tuple[Result, Callable[[], None]]:
    """The sweep; where ICR cannot be measured, null rows with the reason, as accuracies need no ICR."""
    job = probe.job
    try:
        result, measured = sweep(job, "probe", listener, place)
    except NonFinite:
        raise
    except EstimationError as error:
        listener.say(f"no ICR: {error}")
        note = f"no_icr: {error}"
        rows = [
            null_row(layer.name, level, len(job.indices), job.plan.width(layer), note)
            for layer in job.plan.layers
            for level in job.levels
        ]
        return _without_icr(job, tuple(rows)), Parts(place, job.protocol.hash()).clear
    return result.having(window=windows(job.denoiser.noise.to_native, result.rows)), measured.parts.clear


def _without_icr(job: Job, rows: tuple[Row, ...]) -> Result:
    return Result(
        version=__version__,
        command="probe",
        checkpoint=described_checkpoint(job),
        data=described_data(job, len(job.indices), ()),
        protocol=job.protocol.to_json(),
        rows=rows,
        sections={"window": ()},
        warnings=job.denoiser.warnings,
    )


def _export(kind: Kind, folder: Path, listener: Listener) -> None:
    for job in (kind.train, kind.test):
        if job is not None:
            keep_features(job, folder, listener)


def fitted(
    probe: Probe, data: Data, layer: str, level: int, absolute: bool = False
) -> tuple[Arrays, dict[str, object]]:
    """Everything that one layer at one level is asked for, but what several levels have to say together."""
    probing, plan = probe.probing, probe.job.plan
    z, test = data.read(layer, level)
    arrays: Arrays = {}
    slow = []

    def classify(z: classifiers.Features, labels: Labels, test: classifiers.Features) -> classifiers.Prediction:
        if probing.head == "logistic":
            return classifiers.linear_probe(z, labels, test, probing.solver, plan.device)
        return batchnorm_linear.probe(z, labels, test, plan.seed)

    for name, labels in _training_labels(probe, data):
        found = classify(z, labels, test)
        arrays[f"labels{name}"] = found.labels
        if probing.ensemble > 1:
            arrays[f"{SCORES[probing.head]}{name}"] = found.scores
        slow += [] if found.converged else [name]
    if absolute:
        found = classify(np.abs(z), data.labels, np.abs(test))
        arrays["labels_absolute"] = found.labels
        slow += [] if found.converged else ["absolute"]
    arrays["knn"] = classifiers.nearest_neighbours(z, data.labels, test, probing.knn)
    subspaces = class_metrics.ClassSubspaces(z, data.labels, probing.rank)
    energies = subspaces.energies(test)
    arrays["subspace"] = energies.argmax(1)
    values, notes = _companions(z, energies, data, plan.seed)
    if slow:
        notes.append(f"not_converged: the probe's solver stopped after {classifiers.MAX_STEPS} steps")
    return arrays, {"values": values, "notes": notes}


def _training_labels(probe: Probe, data: Data) -> Iterator[tuple[str, Labels]]:
    """What the probe is trained on: the labels, then each share of noise."""
    yield "", data.labels
    for share in probe.probing.label_noise:
        noisy = classifiers.with_noise(data.labels, share, len(data.classes), probe.job.plan.seed)
        yield f"_{noise_name(share)}", noisy


def _companions(
    z: NDArray[np.float32], energies: NDArray[np.float64], data: Data, seed: int
) -> tuple[dict[str, float | None], list[str]]:
    """CSNR of the test images; separation, silhouette and NC1 of the training images, and how many they are."""
    # A seeded sample: the images may stand in the order of their classes.
    some = np.random.default_rng([seed, 2]).permutation(len(z))[: class_metrics.SILHOUETTE_IMAGES]
    asked: dict[str, Callable[[], float]] = {
        "csnr": lambda: class_metrics.csnr(energies, data.test_labels),
        "csnr_se": lambda: class_metrics.csnr_se(energies, data.test_labels),
        "separation": lambda: class_metrics.class_separation(z, data.labels),
        "separation_se": lambda: class_metrics.blocks_se(class_metrics.class_separation, z, data.labels),
        "silhouette": lambda: class_metrics.silhouette(z[some], data.labels[some]),
        "nc1": lambda: class_metrics.nc1(z, data.labels),
        "nc1_se": lambda: class_metrics.blocks_se(class_metrics.nc1, z, data.labels),
    }
    values: dict[str, float | None] = {"train_images": len(z)}
    notes = []
    for key, measure in asked.items():
        try:
            values[key] = measure()
        except EstimationError as error:
            values[key] = None
            notes.append(f"undefined: {key}: {error}")
    return values, notes


def values_of(
    probe: Probe, kind: Kind, data: Data, found: Sequence[tuple[Arrays, Mapping[str, Any]]]
) -> Iterator[tuple[dict[str, Any], list[str], NDArray[np.bool_]]]:
    """Values of one layer's levels under their keys, notes, and which test images the probe got right."""
    names = [name for name, _ in _training_labels(probe, data)]
    reach, scores = probe.probing.ensemble // 2, SCORES[probe.probing.head]
    for level, (arrays, record) in enumerate(found):
        values: dict[str, Any] = {}
        for name in names:
            values |= _accuracy(f"accuracy{name}", arrays[f"labels{name}"] == data.test_labels)
            if reach:
                around = found[max(0, level - reach) : level + reach + 1]
                vote = np.mean([neighbour[f"{scores}{name}"] for neighbour, _ in around], 0).argmax(1)
                values |= _accuracy(f"ensemble_accuracy{name}", vote == data.test_labels)
        if kind.has_absolute(probe.probing):
            values |= _accuracy("absolute_accuracy", arrays["labels_absolute"] == data.test_labels)
        for key in ("knn", "subspace"):
            whole = _accuracy(key, arrays[key] == data.test_labels)
            values |= {name: whole[name] for name in (key, f"{key}_se")}
        values |= record["values"]
        notes = [note.replace("undefined: ", f"undefined: {kind.prefix}") for note in record["notes"]]
        prefixed = {f"{kind.prefix}{key}": value for key, value in values.items()}
        yield prefixed, notes, arrays["labels"] == data.test_labels


def _accuracy(key: str, correct: NDArray[np.bool_]) -> dict[str, float]:
    accuracy = float(correct.mean())
    low, high = classifiers.wilson_interval(accuracy, len(correct))
    return {
        key: accuracy,
        f"{key}_se": classifiers.binomial_se(accuracy, len(correct)),
        f"{key}_low": low,
        f"{key}_high": high,
    }


def _described(probe: Probe, data: Data) -> dict[str, Any]:
    test = probe.kinds[0].test
    names = probe.job.source.class_names
    return {
        "classes": len(data.classes),
        "class_names": None if names is None else [names[k] for k in data.classes],
        "train": len(data.labels),
        "test": len(data.test_labels),
        "test_path": None if test is None else test.source.path,
    }


def _probe_rows(
    probe: Probe,
    rows: Sequence[Row],
    window: Sequence[WindowRow],
    right: Mapping[tuple[str, float], NDArray[np.bool_]],
) -> tuple[ProbeRow, ...]:
    recommended = {found.layer: found.sigma for found in window}
    return tuple(
        _probe_row([row for row in rows if row.layer == layer], recommended.get(layer), right)
        for layer in probe.kinds[0].layers
    )


def _probe_row(
    rows: Sequence[Row], icr_sigma: float | None, right: Mapping[tuple[str, float], NDArray[np.bool_]]
) -> ProbeRow:
    """rows: of one layer, by rising sigma."""
    correct = [right[row.layer, row.sigma] for row in rows]
    best = int(np.argmax([row["accuracy"] for row in rows]))
    low, high = _indistinguishable(correct, best)
    known = [number for number, row in enumerate(rows) if row["icr"] is not None]
    lowest = min(known, key=lambda number: float(rows[number]["icr"]), default=None)
    with_csnr = [row for row in rows if row["csnr"] is not None]
    csnr_best = max(with_csnr, key=lambda row: float(row["csnr"]), default=None)
    return ProbeRow(
        layer=rows[best].layer,
        sigma=rows[best].sigma,
        t=rows[best].t,
        accuracy=rows[best]["accuracy"],
        low=rows[low].sigma,
        high=rows[high].sigma,
        icr_sigma=icr_sigma,
        steps=None if lowest is None else lowest - best,
        decades=None if icr_sigma is None else float(np.log10(icr_sigma / rows[best].sigma)),
        rank_correlation=rank_correlation([(rows[number]["accuracy"], rows[number]["icr"]) for number in known]),
        shortfall=None if lowest is None else rows[best]["accuracy"] - rows[lowest]["accuracy"],
        shortfall_se=None if lowest is None else classifiers.difference_se(correct[best], correct[lowest]),
        csnr_sigma=None if csnr_best is None else csnr_best.sigma,
        csnr_rank_correlation=rank_correlation([(row["accuracy"], row["csnr"]) for row in with_csnr]),
    )


def _indistinguishable(correct: Sequence[NDArray[np.bool_]], best: int) -> tuple[int, int]:
    """The run of levels around the best that McNemar's test, at α divided by the comparisons, cannot tell from it."""
    bound = ALPHA / max(1, len(correct) - 1)
    inside = [classifiers.same_accuracy_p(correct[best], other) > bound for other in correct]
    low = high = best
    while low > 0 and inside[low - 1]:
        low -= 1
    while high < len(inside) - 1 and inside[high + 1]:
        high += 1
    return low, high
