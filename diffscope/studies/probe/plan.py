"""What to probe: a user's choices checked against the images and their labels, before anything is computed."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from diffscope.encoders import Encoder
from diffscope.errors import DataError, MemoryLimit
from diffscope.families.base import Denoiser
from diffscope.measure.encoding import protocol_of_encoders
from diffscope.measure.job import Job, prepare
from diffscope.measure.memory import half_of_memory, total_passes
from diffscope.protocol import digest
from diffscope.sources.base import Source
from diffscope.studies.probe import classifiers
from diffscope.studies.probe.class_metrics import Labels
from diffscope.studies.probe.options import Probing
from diffscope.studies.probe.posterior import PosteriorMean

VERSION = "probe-2"
"""Raised whenever the same features give another number, or one more."""
POSTERIOR = "posterior_"
"""Prefix of the keys of denoised images."""


class Kind(NamedTuple):
    """Features that are probed in their own right."""

    prefix: str
    """Of their keys in a row."""
    train: Job
    test: Job | None

    @property
    def layers(self) -> list[str]:
        """Names of the layers that are probed."""
        return [layer.name for layer in self.train.plan.layers]

    @property
    def has_pictures(self) -> bool:
        """Whether posterior means can be shown: not scaled ones, latents without a VAE, or what is no picture."""
        job = self.train
        blind = job.denoiser.space.kind == "latents" and job.denoiser.encoder is None
        return not blind and job.source.are_pictures and not job.plan.normalize

    def has_absolute(self, probing: Probing) -> bool:
        """Whether the absolute values of these features are probed too."""
        return probing.absolute and self.prefix == POSTERIOR


@dataclass(frozen=True)
class Probe:
    """A job and what to probe, checked against each other: ready to run."""

    job: Job
    probing: Probing
    kinds: tuple[Kind, ...]
    encoders: tuple[Encoder, ...] = ()
    """Those whose features of the same images are probed beside the network's."""

    @property
    def images(self) -> int:
        """Those that are probed, of training and test."""
        return sum(len(job.indices) for job in self.kinds[0][1:] if job is not None)

    @property
    def passes(self) -> int:
        """Forward passes, for a progress bar; one of an encoder counts as one of the network."""
        jobs = [job for kind in self.kinds for job in (kind.train, kind.test) if job is not None]
        of_encoders = self.images * len(self.encoders) + self.denoised * len(self.shown_denoised)
        return total_passes(self.job) + sum(map(total_passes, jobs)) + of_encoders

    @property
    def denoised(self) -> int:
        """Posterior means of training images, of all levels together."""
        return len(self.kinds[0].train.indices) * len(self.job.levels)

    @property
    def shown_denoised(self) -> tuple[Encoder, ...]:
        """Encoders that are given the posterior means too; features in a file are of other images."""
        shown = self.probing.posterior and self.kinds[-1].has_pictures
        return tuple(one for one in self.encoders if one.takes != "anything") if shown else ()

    def protocol(self) -> dict[str, Any]:
        """That of ICR, what else the accuracies depend on, and the hash of both."""
        base = self.job.protocol.to_json()
        test = self.kinds[0].test
        chosen = asdict(self.probing) | {
            "both": len(self.kinds) > 1 and self.kinds[1].prefix == "clean_",
            "label_noise": list(self.probing.label_noise),
        }
        if not self.probing.absolute:  # protocols without it are those of versions that had no such thing
            del chosen["absolute"]
        if not self.probing.distance_to_best:
            del chosen["distance_to_best"]
        if self.probing.head == "logistic":
            del chosen["head"]  # as before there was a choice: the same numbers have the same hash
        if test is not None:
            chosen |= {"test_share": None, "test_data": test.protocol.data, "test_seed": test.settings.seed}
        record = {**base, "probe": {"version": VERSION, **chosen}, **protocol_of_encoders(self.encoders)}
        return {**record, "hash": digest(record)}


def plan(
    job: Job,
    probing: Probing,
    test: Source | None = None,
    *,
    both: bool = False,
    encoders: tuple[Encoder, ...] = (),
) -> Probe:
    """Cheap, and before any image is read; DataError where labels are missing, MemoryLimit."""
    for source in (job.source, *([] if test is None else [test])):
        if source.labels is None:
            raise DataError(f"probe needs labels, and {source.without_classes()}")
    if test is not None:
        _check_names(job.source, test)

    def kind(prefix: str, denoiser: Denoiser, input: str, layers: tuple[str, ...]) -> Kind:
        chosen = replace(job.settings, layer=layers, views=1, augment="none", augment_strength=1.0, input=input)

        def features(source: Source, count: int, seed: int) -> Job:
            return prepare(job.checkpoint, denoiser, source, replace(chosen, num_images=count, seed=seed))

        return Kind(
            prefix,
            features(job.source, len(job.indices), chosen.seed),
            None if test is None else features(test, len(test), seed_of_test(chosen.seed)),
        )

    layers = tuple(layer.name for layer in job.plan.layers)
    kinds = [kind("", job.denoiser, job.plan.input, layers)]
    if both:
        kinds.append(kind("clean_", job.denoiser, "clean", layers))
    if probing.posterior:
        posterior = PosteriorMean(job.denoiser)
        kinds.append(kind(POSTERIOR, posterior, job.plan.input, (posterior.default_layer,)))
    found = Probe(job, probing, tuple(kinds), encoders)
    _check_memory(found)
    test_job = found.kinds[0].test
    parted(found, _labels_of(found.kinds[0].train), None if test_job is None else _labels_of(test_job))
    return found


def seed_of_test(seed: int) -> int:
    """Seed of the noise of a second source, another one than the first's.

    Noise belongs to an image's number. Where both sources have their classes in the same order, as folders have, the
    test image of a number would have the noise of a training image of its own class, and be told by that.
    """
    return seed ^ 1


def _check_names(source: Source, test: Source) -> None:
    """Labels count a source's own classes, so that they mean the same only where the names are the same."""
    ours, theirs = source.class_names, test.class_names
    if ours is None or theirs is None or ours == theirs:
        return
    sides = {test.path: set(theirs) - set(ours), source.path: set(ours) - set(theirs)}
    only = [f"only {path} has {_few(names)}" for path, names in sides.items() if names]
    raise DataError(
        f"`test=`: the classes of {test.path} are not those of {source.path}: {'; '.join(only) or 'another order'}; "
        "a probe is tested on the classes that it was trained on"
    )


def _few(names: set[str]) -> str:
    """The first three, and how many more."""
    first = ", ".join(sorted(names)[:3])
    return first if len(names) <= 3 else f"{first} and {len(names) - 3} more"


def _labels_of(job: Job) -> Labels:
    """In the order in which `export` writes images, all of them readable."""
    assert job.source.labels is not None
    found: Labels = job.source.labels[np.sort(job.indices)]
    return found


def _check_memory(probe: Probe) -> None:
    """The features of one layer at one level, standardised, and the solver's copies."""
    probing = probe.probing
    solver = probing.solver if probing.head == "logistic" else probing.head
    copies = {"sklearn": 4 * 4, "torch": 2 * 4 + 3 * 8, "batchnorm-linear": 2 * 4}[solver]
    if probing.distance_to_best:
        copies = max(copies, 3 * 4)  # of two levels, and what the training images are taken from
    widths = [kind.train.plan.width(layer) for kind in probe.kinds for layer in kind.train.plan.layers]
    widest = max(*widths, *(encoder.dims for encoder in probe.encoders), 0)
    images = probe.images
    need = images * widest * copies
    limit = probe.job.settings.max_memory or half_of_memory()
    if need > limit:
        raise MemoryLimit(
            f"probing {images} images of {widest} features needs {need / 1e9:.2g} GB, more than `max_memory=` "
            f"{limit / 1e9:.2g} GB; take fewer images (`num_images=`), `pool=mean`, or a larger `max_memory=`"
        )


def row_keys(probing: Probing, *, both: bool = False) -> tuple[str, ...]:
    """What a probe adds to the keys of a sweep's rows."""
    shares = [noise_name(share) for share in probing.label_noise]
    accuracies = ["accuracy", *(f"accuracy_{share}" for share in shares)]
    if probing.ensemble > 1:
        accuracies += ["ensemble_accuracy", *(f"ensemble_accuracy_{share}" for share in shares)]
    own = [key for name in accuracies for key in (name, *(f"{name}_{end}" for end in ("se", "low", "high")))]
    own += ["knn", "knn_se", "subspace", "subspace_se", *COMPANIONS]
    own += DISTANCES if probing.distance_to_best else ()
    prefixes = ["", *(["clean_"] if both else []), *([POSTERIOR] if probing.posterior else [])]
    keys = [f"{prefix}{key}" for prefix in prefixes for key in own]
    if probing.absolute:
        keys += [f"{POSTERIOR}absolute_accuracy{end}" for end in ("", "_se", "_low", "_high")]
    return tuple(keys)


COMPANIONS = ("csnr", "csnr_se", "train_images", "separation", "separation_se", "silhouette", "nc1", "nc1_se")
DISTANCES = ("swd_best", "swd_best_se", "swd_best_relative")
"""Sliced Wasserstein distance to the features of the best level, its error, and over the spread of those features."""


def noise_name(share: float) -> str:
    """noise20 for a share of 0.2: keys are words."""
    return f"noise{100 * share:g}".replace(".", "_")


def parted(
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
        raise DataError(f"{path}: no test image among {len(labels)}; take more images or a larger `test_share=`")
    missing = np.setdiff1d(classes, labels)
    if len(missing):
        names = probe.job.source.class_names
        name = str(missing[0]) if names is None else names[missing[0]]
        if (test := probe.kinds[0].test) is not None:
            raise DataError(
                f"`test=`: {test.source.path} has {len(missing)} classes without a training image in {path} (class "
                f"{name}); a probe is tested on the classes that it was trained on"
            )
        raise DataError(f"{path}: {len(missing)} classes have no training image (class {name}); take more images")
    if len(labels) < probe.probing.knn:
        raise DataError(f"`knn={probe.probing.knn}`: only {len(labels)} training images; take more, or a smaller k")
