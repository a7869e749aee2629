"""The blocks of a job on disk: measured piece by piece, by one process or several, and read back as moments.

A piece is what is measured at one go and kept as one part: some images of one block, at some noise levels, of some
layers. Usually it is a whole block at all levels; less where memory is short (`studies/portions.py`) or where images
are spent in stages (`studies/staged.py`). Whatever was computed when a run ended early is found again by the same
command, and pieces are merged in their order, so that an interrupted run gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from diffscope.errors import DataError, DiffscopeError, NonFinite
from diffscope.features import Extractor, Inputs, cure
from diffscope.moments import BlockAccumulator, BlockMoments, Moments, NonFiniteFeature
from diffscope.ranks import world
from diffscope.store import Arrays, Parts, Record
from diffscope.studies.listener import Foresight, Listener
from diffscope.studies.portions import memory_of
from diffscope.studies.settings import Job

MAX_UNREADABLE = 0.05


@dataclass(frozen=True)
class Piece:
    """The images of one block among those of rank start … stop − 1, at some levels, of some layers."""

    block: int
    start: int
    """A multiple of the number of blocks."""
    stop: int
    levels: tuple[int, ...]
    layers: tuple[int, ...]
    """Both count from 0 in the plan's order."""

    def cells(self) -> Iterator[tuple[int, int]]:
        return ((level, layer) for level in self.levels for layer in self.layers)

    def images(self, job: Job) -> list[int]:
        """Of the job's source."""
        return [int(index) for index in job.indices[self.start : self.stop][self.block :: job.blocks]]

    def passes(self, job: Job) -> int:
        return len(self.images(job)) * job.plan.views * len(self.levels)


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

    def __post_init__(self) -> None:
        def found() -> dict[int, Record]:
            return {number: self.parts.record(number) for number in sorted(self.parts.finished())}

        records = world().lead(found, lambda value: sorted(value.items()), dict)
        self._found: dict[int, tuple[Piece, Record]] = {
            number: (_piece(record["piece"]), record) for number, record in records.items()
        }

    def run(self, pieces: Sequence[Piece]) -> None:
        """Measure what is not on disk yet of these pieces, dealt to the processes in turn."""
        missing = [left for piece in pieces if (left := self._left(piece)) is not None]
        done = len(pieces) - len(missing)
        if done:
            self.resumed += done
            self.listener.advance(sum(piece.passes(self.job) for piece in pieces if self._left(piece) is None))
            self.listener.say(f"{done} of {len(pieces)} blocks were measured before; going on from there")
        several = world()
        foresight = Foresight(
            f"{len(self.job.indices)} images × {self.job.plan.views} views × {len(self.job.levels)} noise levels, "
            f"{memory_of(self.job) / 1e6:.0f} MB for moments",
            sum(piece.passes(self.job) for piece in missing) / several.size,
            self.listener,
        )
        for first in range(0, len(missing), several.size):
            dealt = missing[first : first + several.size]
            mine = self._attempt(dealt[several.rank], foresight) if several.rank < len(dealt) else None

            def take(rank: int, arrays: Arrays, record: Record, dealt: list[Piece] = dealt) -> None:
                if rank:
                    self.listener.advance(dealt[rank].passes(self.job))
                self._keep(dealt[rank], arrays, record)

            several.gather(mine, take)
            self.measured += len(dealt)

    def moments(self, level: int, layer: int) -> Moments:
        """Of all images measured at this level; in the first process only."""
        pieces: dict[int, dict[int, int]] = {block: {} for block in range(self.job.blocks)}
        for number, (piece, _) in self._found.items():
            if level in piece.levels and layer in piece.layers:
                pieces[piece.block].setdefault(piece.start, number)
        return Moments.from_blocks(
            [self._block([found[start] for start in sorted(found)], level, layer) for found in pieces.values()]
        )

    def skipped(self) -> tuple[Mapping[str, str], ...]:
        """{file, why} of the images that could not be read, in the order of blocks; in the first process only."""
        once = {(piece.block, piece.start): record["skipped"] for piece, record in self._found.values()}
        return tuple(entry for place in sorted(once) for entry in once[place])

    def forget(self, pieces: Sequence[Piece]) -> None:
        """Their numbers have been read."""
        for number in [number for number, (piece, _) in self._found.items() if piece in pieces]:
            self.parts.remove(number)
            del self._found[number]

    def _block(self, numbers: Sequence[int], level: int, layer: int) -> BlockMoments:
        first, *others = (BlockMoments.from_arrays(self.parts.read(number, f"{level}/{layer}/")) for number in numbers)
        for other in others:
            first = first + other
        return first

    def _left(self, piece: Piece) -> Piece | None:
        """What is not on disk of it; None where all is."""
        there = {
            cell
            for found, _ in self._found.values()
            if (found.block, found.start, found.stop) == (piece.block, piece.start, piece.stop)
            for cell in found.cells()
        }
        cells = [cell for cell in piece.cells() if cell not in there]
        if not cells:
            return None
        levels, layers = ({cell[axis] for cell in cells} for axis in (0, 1))
        return replace(piece, levels=tuple(sorted(levels)), layers=tuple(sorted(layers)))

    def _attempt(self, piece: Piece, foresight: Foresight) -> tuple[Arrays, Record] | DiffscopeError:
        before = len(self.inputs.skipped)
        try:
            arrays = self._measure(piece, foresight)
        except DiffscopeError as error:
            return error
        return arrays, {"piece": asdict(piece), "skipped": self.inputs.skipped[before:]}

    def _measure(self, piece: Piece, foresight: Foresight) -> Arrays:
        job = self.job
        plan = replace(
            job.plan,
            layers=tuple(job.plan.layers[layer] for layer in piece.layers),
            sigmas=tuple(job.plan.sigmas[level] for level in piece.levels),
        )
        sums = {
            (level, layer): BlockAccumulator(plan.views, plan.width(plan.layers[layer]))
            for level in range(len(plan.sigmas))
            for layer in range(len(plan.layers))
        }
        last = len(plan.layers) - 1
        for features in Extractor(job.denoiser, self.inputs, plan).run(piece.images(job)):
            try:
                sums[features.level, features.layer].update(features.z)
            except NonFiniteFeature as error:
                image = job.source.name(features.indices[error.position])
                name, sigma = plan.layers[features.layer].name, plan.sigmas[features.level]
                raise NonFinite(
                    f"image {image}: features of layer {name} at sigma {sigma:g} are not finite in {plan.precision}; "
                    f"{cure(plan.precision)}"
                ) from None
            if features.layer == last:
                self.listener.advance(len(features.indices) * plan.views)
                foresight.observe(len(features.indices) * plan.views)
        arrays: Arrays = {}
        for level, number in enumerate(piece.levels):
            for at, place in enumerate(piece.layers):
                # Each is let go as it is packed: together they may be all the memory there is.
                finished = sums.pop((level, at)).finish()
                arrays |= {f"{number}/{place}/{name}": array for name, array in finished.to_arrays().items()}
        return arrays

    def _keep(self, piece: Piece, arrays: Arrays, record: Record) -> None:
        """On disk; in the first process."""
        latest = record["skipped"]
        if latest:
            check_unreadable(self.job, len(self.skipped()) + len(latest), latest)
        padded = -(-len(self.job.indices) // self.job.blocks) * self.job.blocks
        # The rank of its first image, beside the number of its first cell: of one piece with all cells, its block.
        number = padded * (piece.levels[0] * len(self.job.plan.layers) + piece.layers[0]) + piece.start + piece.block
        while number in self._found:
            number += padded * len(self.job.levels) * len(self.job.plan.layers)
        self.parts.write(number, arrays, record)
        self._found[number] = piece, record


def _piece(record: Mapping[str, Any]) -> Piece:
    return Piece(**{**record, "levels": tuple(record["levels"]), "layers": tuple(record["layers"])})


def whole_blocks(job: Job, levels: Sequence[int], layers: Sequence[int]) -> list[Piece]:
    """All images, block by block."""
    return [Piece(block, 0, len(job.indices), tuple(levels), tuple(layers)) for block in range(job.blocks)]


def check_unreadable(job: Job, count: int, latest: Sequence[Mapping[str, str]]) -> None:
    """DataError where `count` unreadable images are more than 5 % of all: something else is wrong then."""
    if count > MAX_UNREADABLE * len(job.indices):
        raise DataError(
            f"{job.source.path}: {count} images so far cannot be decoded, more than 5 % of {len(job.indices)}; "
            f"one of them: {latest[-1]['why']}"
        )
