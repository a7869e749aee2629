"""Measures a job piece by piece, in one process or several, and keeps the pieces on disk.

Whatever was computed when a run ended early is found again by the same command.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from diffscope.cache.store import Arrays, Parts, Record
from diffscope.errors import DataError, DiffscopeError
from diffscope.features import Extractor, Inputs, not_finite
from diffscope.measure.job import Job
from diffscope.measure.pieces import Kept, Piece, kept, moments_of, skipped_in
from diffscope.measure.progress import Listener
from diffscope.moments import BlockAccumulator, Moments, NonFiniteFeature
from diffscope.ranks import world

MAX_UNREADABLE = 0.05


@dataclass
class Blocks:
    """The pieces of one job; those of an earlier run of the same protocol are there already."""

    job: Job
    parts: Parts
    listener: Listener
    inputs: Inputs
    measured: int = 0
    """Pieces, by this run."""
    resumed: int = 0
    found: list[Kept] = field(default_factory=list, init=False)
    """On disk; other processes than the first know of what was there at the start."""
    _extractors: dict[tuple[tuple[int, ...], tuple[int, ...]], Extractor] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        def found() -> list[tuple[int, Record]]:
            return [(number, self.parts.record(number)) for number in sorted(self.parts.finished())]

        records = world().lead(found)
        self.found = [kept(self.parts, number, record) for number, record in records]

    def run(self, pieces: Sequence[Piece]) -> None:
        """Measure what is not on disk yet of these pieces, dealt to the processes in turn."""
        missing = [left for piece in pieces if (left := self._left(piece)) is not None]
        done = len(pieces) - len(missing)
        if done:
            self.resumed += done
            self.listener.skip(sum(piece.passes(self.job) for piece in pieces if self._left(piece) is None))
            self.listener.say(f"{done} of {len(pieces)} blocks were measured before; going on from there")
        several = world()
        for first in range(0, len(missing), several.size):
            dealt = missing[first : first + several.size]
            mine = self._attempt(dealt[several.rank]) if several.rank < len(dealt) else None

            def take(rank: int, arrays: Arrays, record: Record, dealt: list[Piece] = dealt) -> None:
                if rank:
                    self.listener.advance(dealt[rank].passes(self.job))
                self._keep(dealt[rank], arrays, record)

            several.gather(mine, take)
            self.measured += len(dealt)

    def moments(self, level: int, layer: int, images: int | None = None) -> Moments:
        """Of all images measured at this level, or of the first `images`; in the first process only."""
        found = [one for one in self.found if images is None or one.piece.stop <= images]
        return moments_of(found, level, layer)

    def skipped(self) -> tuple[Mapping[str, str], ...]:
        """{file, why} of the images that could not be read; in the first process only."""
        return skipped_in(self.found)

    def forget(self, pieces: Sequence[Piece]) -> None:
        """Their numbers have been read."""
        for one in [one for one in self.found if one.piece in pieces]:
            self.parts.remove(one.number)
            self.found.remove(one)

    def timing(self, started: tuple[float, float]) -> dict[str, Any]:
        """For a result: since the clocks of wall and CPU stood at `started`."""
        return {
            "seconds": round(time.perf_counter() - started[0], 3),
            "cpu_seconds": round(time.process_time() - started[1], 3),
            "blocks_measured": self.measured,
            "blocks_resumed": self.resumed,
            **({"processes": world().size} if world().size > 1 else {}),
        }

    def _left(self, piece: Piece) -> Piece | None:
        """What is not on disk of it; None where all is."""
        there = {
            cell
            for one in self.found
            if (one.piece.block, one.piece.start, one.piece.stop) == (piece.block, piece.start, piece.stop)
            for cell in one.piece.cells()
        }
        cells = [cell for cell in piece.cells() if cell not in there]
        if not cells:
            return None
        levels, layers = ({cell[axis] for cell in cells} for axis in (0, 1))
        return replace(piece, levels=tuple(sorted(levels)), layers=tuple(sorted(layers)))

    def _attempt(self, piece: Piece) -> tuple[Arrays, Record] | DiffscopeError:
        before = len(self.inputs.skipped)
        try:
            arrays = self._measure(piece)
        except DiffscopeError as error:
            return error
        return arrays, {"piece": piece.to_json(), "skipped": self.inputs.skipped[before:]}

    def _extractor(self, levels: tuple[int, ...], layers: tuple[int, ...]) -> Extractor:
        """The same for all pieces of a kind: to make one readies the whole network."""
        if (levels, layers) not in self._extractors:
            plan = self.job.plan
            some = replace(
                plan,
                layers=tuple(plan.layers[layer] for layer in layers),
                sigmas=tuple(plan.sigmas[level] for level in levels),
            )
            self._extractors[levels, layers] = Extractor(self.job.denoiser, self.inputs, some)
        return self._extractors[levels, layers]

    def _measure(self, piece: Piece) -> Arrays:
        extractor = self._extractor(piece.levels, piece.layers)
        plan = extractor.plan
        cells = [(level, layer) for level in range(len(plan.sigmas)) for layer in range(len(plan.layers))]
        deferred = plan.device.startswith("cuda")
        sums = {cell: BlockAccumulator(plan.views, plan.width(plan.layers[cell[1]]), deferred) for cell in cells}
        added: list[int] = []
        arrays: Arrays = {}
        cell = (0, 0)
        try:
            for features in extractor.run(piece.images(self.job)):
                cell = (features.level, features.layer)
                if cell == (0, 0):
                    added += features.indices
                sums[cell].update(features.z)
                if features.layer == len(plan.layers) - 1:
                    self.listener.advance(len(features.indices) * plan.views)
            for cell in cells:
                # Each is let go as it is packed: together they may be all the memory there is.
                place = f"{piece.levels[cell[0]]}/{piece.layers[cell[1]]}"
                arrays |= {f"{place}/{name}": array for name, array in sums.pop(cell).finish().to_arrays().items()}
        except NonFiniteFeature as error:
            image, layer = self.job.source.name(added[error.position]), plan.layers[cell[1]].name
            what = f"image {image}: features of layer {layer} at sigma {plan.sigmas[cell[0]]:g} are"
            raise not_finite(what, plan.precision) from None
        return arrays

    def _keep(self, piece: Piece, arrays: Arrays, record: Record) -> None:
        """On disk; in the first process."""
        latest = record["skipped"]
        if latest:
            check_unreadable(self.job, len(self.skipped()) + len(latest), latest)
        padded = -(-len(self.job.indices) // self.job.blocks) * self.job.blocks
        # The rank of its first image, beside the number of its first cell: of one piece with all cells, its block.
        number = padded * (piece.levels[0] * len(self.job.plan.layers) + piece.layers[0]) + piece.start + piece.block
        while number in self.parts.finished():
            number += padded * len(self.job.levels) * len(self.job.plan.layers)
        self.parts.write(number, arrays, record)
        self.found.append(kept(self.parts, number, record))


def check_unreadable(job: Job, count: int, latest: Sequence[Mapping[str, str]]) -> None:
    """DataError where `count` unreadable images are more than 5 % of all: something else is wrong then."""
    check_unreadable_of(job.source.path, len(job.indices), count, latest)


def check_unreadable_of(path: str, images: int, count: int, latest: Sequence[Mapping[str, str]]) -> None:
    """The same of `images` at `path`."""
    if count > MAX_UNREADABLE * images:
        raise DataError(
            f"{path}: {count} images so far cannot be decoded, more than 5 % of {images}; "
            f"one of them: {latest[-1]['why']}"
        )
