"""Linear-probe and k-NN accuracy over noise levels and layers, beside ICR of the same: do the two agree on the best?

Li et al., "Evaluating the representation space of diffusion models via self-supervised principles", 2026,
https://arxiv.org/abs/2606.09718, figures 3 and 10. ICR is measured as a sweep measures it, on augmented views. The
probe's features are what `diffscope features --augment none --views 1` writes: the plain image with the noise of view
0. The images are parted by `classifiers.split`, or a second source is the test.

Clean beside noisy input, label noise, ensembles of neighbouring levels, CSNR and the posterior mean are those of Wang
et al., "Understanding representation dynamics of diffusion models via low-dimensional modeling", 2025,
https://arxiv.org/abs/2502.05743, figures 1, 6, 12, 13, tables 1 and 2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open

from diffscope import __version__
from diffscope.errors import DataError, EstimationError, MemoryLimit, NonFinite, UsageError
from diffscope.families.base import Denoiser
from diffscope.protocol import digest
from diffscope.results import ProbeRow, Result, Row, WindowRow
from diffscope.sources.base import Source
from diffscope.store import Arrays, Parts, cache_folder
from diffscope.studies import classifiers, labelled
from diffscope.studies.description import described_checkpoint, described_data
from diffscope.studies.export import export
from diffscope.studies.labelled import Labels
from diffscope.studies.measurement import Listener, half_of_memory, null_row, total_passes
from diffscope.studies.overlay import rank_correlation
from diffscope.studies.posterior import PosteriorMean
from diffscope.studies.settings import Job, prepare
from diffscope.studies.sweep import sweep, windows
from diffscope.studies.window import ALPHA

VERSION = "probe-1"
"""Raised whenever the same features give another number."""


@dataclass(frozen=True)
class Probing:
    """What a user chooses for a probe beside the settings of a sweep; names and defaults are the command line's."""

    test_share: float = 0.25
    """Of the images; unused where there is a source of test images."""
    solver: str = "sklearn"
    knn: int = 20
    label_noise: tuple[float, ...] = ()
    ensemble: int = 1
    """Neighbouring levels whose probabilities are averaged, odd; fewer at the ends of the range."""
    posterior: bool = False
    """Also probe the denoised images."""
    both: bool = False
    """Also probe clean input, where the settings say noisy."""
    rank: int = labelled.RANK

    def __post_init__(self) -> None:
        if not 0 < self.test_share < 1:
            raise UsageError(f"--test-share {self.test_share:g}: expected a share between 0 and 1")
        if self.solver not in ("sklearn", "torch"):
            raise UsageError(f"--solver {self.solver}: expected sklearn or torch")
        for share in self.label_noise:
            if not 0 < share < 1:
                raise UsageError(f"--label-noise {share:g}: expected shares between 0 and 1, such as 0.2,0.4")
        for name, number in (("--knn", self.knn), ("--rank", self.rank), ("--ensemble", self.ensemble)):
            if number < 1:
                raise UsageError(f"{name} {number}: expected at least 1")
        if self.ensemble % 2 == 0:
            raise UsageError(f"--ensemble {self.ensemble}: expected an odd number, a level and its neighbours")


class Kind(NamedTuple):
    """Features that are probed in their own right."""

    prefix: str
    """Of their keys in a row."""
    train: Job
    test: Job | None

    @property
    def layers(self) -> list[str]:
        return [layer.name for layer in self.train.plan.layers]


@dataclass(frozen=True)
class Probe:
    """A job and what to probe, checked against each other: ready to run."""

    job: Job
    probing: Probing
    kinds: tuple[Kind, ...]

    @property
    def passes(self) -> int:
        """Forward passes, for a progress bar."""
        jobs = [job for kind in self.kinds for job in (kind.train, kind.test) if job is not None]
        return total_passes(self.job) + sum(map(total_passes, jobs))

    def protocol(self) -> dict[str, Any]:
        """That of ICR, what else the accuracies depend on, and the hash of both."""
        base = self.job.protocol.to_json()
        test = self.kinds[0].test
        chosen = asdict(self.probing) | {"label_noise": list(self.probing.label_noise)}
        if test is not None:
            chosen |= {"test_share": None, "test_data": test.protocol.data}
        record = {**base, "probe": {"version": VERSION, **chosen}}
        return {**record, "hash": digest(record)}


def plan(job: Job, probing: Probing, test: Source | None = None) -> Probe:
    """Cheap, and before any image is read; DataError where labels are missing, MemoryLimit."""
    for source in (job.source, *([] if test is None else [test])):
        if source.labels is None:
            raise DataError(f"probe needs labels and {source.path} has none; use class folders or dataset.json")
    names = [source.class_names for source in (job.source, test) if source is not None]
    if None not in names and names[0] != names[-1]:
        raise DataError(f"--test: its class folders are not those of {job.source.path}; use the same names")

    def kind(prefix: str, denoiser: Denoiser, input: str, layers: tuple[str, ...]) -> Kind:
        chosen = replace(job.settings, layers=layers, views=1, augment="none", augment_strength=1.0, input=input)

        def features(source: Source, count: int) -> Job:
            return prepare(job.checkpoint, denoiser, source, replace(chosen, num_images=count))

        return Kind(
            prefix,
            features(job.source, len(job.indices)),
            None if test is None else features(test, len(test)),
        )

    layers = tuple(layer.name for layer in job.plan.layers)
    kinds = [kind("", job.denoiser, job.plan.input, layers)]
    if probing.both:
        kinds.append(kind("clean_", job.denoiser, "clean", layers))
    if probing.posterior:
        posterior = PosteriorMean(job.denoiser)
        kinds.append(kind("posterior_", posterior, job.plan.input, (posterior.default_layer,)))
    found = Probe(job, probing, tuple(kinds))
    _check_memory(found)
    test_job = found.kinds[0].test
    _parted(found, _labels_of(found.kinds[0].train), None if test_job is None else _labels_of(test_job))
    return found


def _labels_of(job: Job) -> Labels:
    """In the order in which `export` writes images, all of them readable."""
    assert job.source.labels is not None
    found: Labels = job.source.labels[np.sort(job.indices)]
    return found


def _check_memory(probe: Probe) -> None:
    """The features of one layer at one level, standardised, and the solver's copies."""
    copies = {"sklearn": 4 * 4, "torch": 2 * 4 + 3 * 8}[probe.probing.solver]
    widest = max(kind.train.plan.width(layer) for kind in probe.kinds for layer in kind.train.plan.layers)
    images = sum(len(job.indices) for job in probe.kinds[0][1:] if job is not None)
    need = images * widest * copies
    limit = probe.job.settings.max_memory or half_of_memory()
    if need > limit:
        raise MemoryLimit(
            f"probing {images} images of {widest} features needs {need / 1e9:.2g} GB, more than --max-memory "
            f"{limit / 1e9:.2g} GB; take fewer images (--num-images), --pool mean, or a larger --max-memory"
        )


def row_keys(probing: Probing) -> tuple[str, ...]:
    """What a probe adds to the keys of a sweep's rows."""
    shares = [noise_name(share) for share in probing.label_noise]
    accuracies = ["accuracy", *(f"accuracy_{share}" for share in shares)]
    if probing.ensemble > 1:
        accuracies += ["ensemble_accuracy", *(f"ensemble_accuracy_{share}" for share in shares)]
    own = [key for name in accuracies for key in (name, *(f"{name}_{end}" for end in ("se", "low", "high")))]
    own += ["knn", "knn_se", "subspace", "subspace_se", *COMPANIONS]
    prefixes = ["", *(["clean_"] if probing.both else []), *(["posterior_"] if probing.posterior else [])]
    return tuple(f"{prefix}{key}" for prefix in prefixes for key in own)


COMPANIONS = ("csnr", "csnr_se", "separation", "silhouette", "nc1")


def noise_name(share: float) -> str:
    """noise20 for a share of 0.2: keys are words."""
    return f"noise{100 * share:g}".replace(".", "_")


def run(
    probe: Probe, listener: Listener | None = None, folder: Path | None = None
) -> tuple[Result, Callable[[], None]]:
    """The result, and what forgets the finished parts on disk once the result is safe.

    Without a `folder` parts are kept in the cache. Levels and features that an earlier run of the same protocol
    finished are found again.
    """
    listener = listener or Listener()
    place = folder or cache_folder()
    protocol = probe.protocol()
    parts = Parts(place, protocol["hash"])
    parts.claim()
    result, forget_blocks = _measured_icr(probe, listener, place)
    rows = [dict(row.values) for row in result.rows]
    notes: list[list[str]] = [[] for _ in rows]
    at = {(row.layer, row.sigma): number for number, row in enumerate(result.rows)}
    right: dict[tuple[str, float], NDArray[np.bool_]] = {}
    sets, done, number = [], parts.finished(), 0
    for kind in probe.kinds:
        data = _labelled_features(probe, kind, parts.folder, listener)
        sets.append(data)
        for layer in kind.layers:
            first = number
            for level in range(len(probe.job.levels)):
                if number not in done:
                    parts.write(number, *_fitted(probe, data, layer, level))
                number += 1
            found = [(parts.read(part, ""), parts.record(part)) for part in range(first, number)]
            for level, (values, told, correct) in enumerate(_rows(probe, kind, data, found)):
                sigma = probe.job.levels[level].sigma
                same = [layer] if kind.prefix != "posterior_" else probe.kinds[0].layers
                for name in same:
                    rows[at[name, sigma]].update(values)
                    notes[at[name, sigma]] += told
                    if not kind.prefix:
                        right[name, sigma] = correct
    measured = [
        replace(row, values=values, notes=(*row.notes, *dict.fromkeys(told)))
        for row, values, told in zip(result.rows, rows, notes, strict=True)
    ]
    whole = replace(
        result,
        protocol=protocol,
        rows=tuple(measured),
        data={**result.data, **_described(probe, sets[0])},
        probe=_probe_rows(probe, measured, result.window, right),
    )

    def forget() -> None:
        forget_blocks()
        parts.clear()

    return whole, forget


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
            null_row(job, layer.name, level, len(job.indices), job.plan.width(layer), note)
            for layer in job.plan.layers
            for level in range(len(job.levels))
        ]
        return _without_icr(job, tuple(rows)), Parts(place, job.protocol.hash()).clear
    return replace(result, window=windows(job, result.rows)), measured.parts.clear


def _without_icr(job: Job, rows: tuple[Row, ...]) -> Result:
    return Result(
        version=__version__,
        command="probe",
        checkpoint=described_checkpoint(job),
        data=described_data(job, len(job.indices), ()),
        protocol=job.protocol.to_json(),
        rows=rows,
        warnings=job.denoiser.warnings,
    )


class FeatureFile:
    """What `export` wrote, a layer and level at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.labels: Labels = self._tensor("label")

    def _tensor(self, name: str) -> Any:
        with safe_open(self.path, framework="np") as file:
            return file.get_tensor(name)

    def read(self, layer: str, level: int) -> NDArray[np.float32]:
        """[images, d], view 0."""
        with safe_open(self.path, framework="np") as file:
            found: NDArray[np.float32] = file.get_slice(layer)[level : level + 1][0, 0]
            return found


@dataclass(frozen=True)
class Data:
    """Labelled features, parted into training and test."""

    train: FeatureFile
    test: FeatureFile | None
    classes: NDArray[np.int64]
    """Labels [K] of the source, ascending; what follows counts 0…K−1 in this order."""
    labels: Labels
    test_labels: Labels
    positions: tuple[NDArray[np.int64], NDArray[np.int64]] | None
    """Of training and test images in `train`, where there is no other source."""

    def read(self, layer: str, level: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        z = self.train.read(layer, level)
        if self.test is not None:
            return z, self.test.read(layer, level)
        assert self.positions is not None
        return z[self.positions[0]], z[self.positions[1]]


def _labelled_features(probe: Probe, kind: Kind, folder: Path, listener: Listener) -> Data:
    train = _exported(kind.train, folder, listener)
    test = None if kind.test is None else _exported(kind.test, folder, listener)
    labels, test_labels, positions = _parted(probe, train.labels, None if test is None else test.labels)
    classes = np.unique(labels)
    encoded, test_encoded = (np.searchsorted(classes, part) for part in (labels, test_labels))
    return Data(train, test, classes, encoded, test_encoded, positions)


def _parted(
    probe: Probe, labels: Labels, test_labels: Labels | None
) -> tuple[Labels, Labels, tuple[NDArray[np.int64], NDArray[np.int64]] | None]:
    """Labels of training and test images, and their positions where one source holds both; DataError."""
    positions = None
    if test_labels is None:
        positions = classifiers.split(len(labels), probe.probing.test_share, probe.job.plan.seed)
        labels, test_labels = labels[positions[0]], labels[positions[1]]
    _check_labels(probe, labels, test_labels)
    return labels, test_labels, positions


def _check_labels(probe: Probe, labels: Labels, test_labels: Labels) -> None:
    path = probe.job.source.path
    classes = np.union1d(labels, test_labels)
    if len(classes) < 2:
        raise DataError(f"{path}: all images are of one class; a probe needs at least two")
    if not len(test_labels):
        raise DataError(f"{path}: no test image among {len(labels)}; take more images or a larger --test-share")
    missing = np.setdiff1d(classes, labels)
    if len(missing):
        names = probe.job.source.class_names
        name = str(missing[0]) if names is None else names[missing[0]]
        raise DataError(f"{path}: {len(missing)} classes have no training image (class {name}); take more images")
    if len(labels) < probe.probing.knn:
        raise DataError(f"--knn {probe.probing.knn}: only {len(labels)} training images; take more, or a smaller k")


def _exported(job: Job, folder: Path, listener: Listener) -> FeatureFile:
    path = folder / f"features-{job.protocol.hash()[:16]}.safetensors"
    if path.exists():
        listener.advance(total_passes(job))
    else:
        export(job, path, listener)
    return FeatureFile(path)


def _fitted(probe: Probe, data: Data, layer: str, level: int) -> tuple[Arrays, dict[str, object]]:
    """Everything that one layer at one level is asked for, but what several levels have to say together."""
    probing, plan = probe.probing, probe.job.plan
    z, test = data.read(layer, level)
    arrays: Arrays = {}
    slow = []
    for name, labels in _training_labels(probe, data):
        found = classifiers.linear_probe(z, labels, test, probing.solver, plan.device)
        arrays[f"labels{name}"] = found.labels
        if probing.ensemble > 1:
            arrays[f"probabilities{name}"] = found.probabilities
        slow += [] if found.converged else [name]
    arrays["knn"] = classifiers.nearest_neighbours(z, data.labels, test, probing.knn)
    subspaces = labelled.ClassSubspaces(z, data.labels, probing.rank)
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
    """CSNR of the test images; separation, silhouette and NC1 of the training images."""
    # A seeded sample: the images may stand in the order of their classes.
    some = np.random.default_rng([seed, 2]).permutation(len(z))[: labelled.SILHOUETTE_IMAGES]
    asked: dict[str, Callable[[], float]] = {
        "csnr": lambda: labelled.csnr(energies, data.test_labels),
        "csnr_se": lambda: labelled.csnr_se(energies, data.test_labels),
        "separation": lambda: labelled.class_separation(z, data.labels),
        "silhouette": lambda: labelled.silhouette(z[some], data.labels[some]),
        "nc1": lambda: labelled.nc1(z, data.labels),
    }
    values: dict[str, float | None] = {}
    notes = []
    for key, measure in asked.items():
        try:
            values[key] = measure()
        except EstimationError as error:
            values[key] = None
            notes.append(f"undefined: {key}: {error}")
    return values, notes


def _rows(
    probe: Probe, kind: Kind, data: Data, found: Sequence[tuple[Arrays, Mapping[str, Any]]]
) -> Iterator[tuple[dict[str, Any], list[str], NDArray[np.bool_]]]:
    """Values of one layer's levels under their keys, notes, and which test images the probe got right."""
    names = [name for name, _ in _training_labels(probe, data)]
    reach = probe.probing.ensemble // 2
    for level, (arrays, record) in enumerate(found):
        values: dict[str, Any] = {}
        for name in names:
            values |= _accuracy(f"accuracy{name}", arrays[f"labels{name}"] == data.test_labels)
            if reach:
                around = found[max(0, level - reach) : level + reach + 1]
                vote = np.mean([neighbour[f"probabilities{name}"] for neighbour, _ in around], 0).argmax(1)
                values |= _accuracy(f"ensemble_accuracy{name}", vote == data.test_labels)
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
