"""How far the features of a level are from those of the level of best accuracy: figure 7 of Wang et al., 2025.

https://arxiv.org/abs/2502.05743; the sliced Wasserstein distance of the training images' features. It has the unit of
the features; over the spread of the best level's features it can be compared with other layers and networks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffscope.cache.store import Parts
from diffscope.distributions.sliced import sliced_wasserstein, spread
from diffscope.studies.probe.labelled import Data
from diffscope.studies.probe.plan import DISTANCES, Kind, Probe

Level = tuple[dict[str, Any], list[str], NDArray[np.bool_]]


def with_distances(
    probe: Probe, kind: Kind, data: Data, layer: str, parts: Parts, levels: Iterable[Level]
) -> Iterator[Level]:
    """Adds each level's distance to the best one of its kind and layer, where it is asked for.

    Args:
        probe: What is measured.
        kind: Whose features they are.
        data: Those features.
        layer: Of the features.
        parts: Where each distance is kept.
        levels: Values, notes and what was got right of each level.
    """
    found = list(levels)
    if probe.probing.distance_to_best:
        best = int(np.argmax([values[f"{kind.prefix}accuracy"] for values, _, _ in found]))
        reference, done = None, parts.finished()
        for number, (values, _, _) in enumerate(found):
            part = f"distance-{kind.prefix}{kind.layers.index(layer)}-{number}"
            if part not in done:
                reference = data.read(layer, best)[0] if reference is None else reference
                z = data.read(layer, number)[0]
                parts.write(part, {}, {"values": _distance(z, reference, probe.job.plan.seed)})
            values |= {f"{kind.prefix}{key}": value for key, value in parts.record(part)["values"].items()}
    yield from found


def _distance(z: NDArray[np.float32], best: NDArray[np.float32], seed: int) -> dict[str, float | None]:
    found, scale = sliced_wasserstein(z, best, seed), spread(best)
    relative = found.value / scale if scale > 0 else None
    return dict(zip(DISTANCES, (found.value, found.error, relative), strict=True))
