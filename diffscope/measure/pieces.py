"""Measured pieces of a job on disk, read back as moments.

A piece is what is measured at one go and kept as one part: some images of one block, at some noise levels, of some
layers. Usually it is a whole block at all levels; less where memory is short (`measure/portions.py`) or where images
are spent in stages (`studies.sweep.adaptive`). Pieces are merged in their order, so that an interrupted run, and one in
several processes or shards, gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from diffscope.cache.store import Parts, Record
from diffscope.measure.job import Job
from diffscope.moments import BlockMoments, Moments


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

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(record: Mapping[str, Any]) -> Piece:
        return Piece(**{**record, "levels": tuple(record["levels"]), "layers": tuple(record["layers"])})


def whole_blocks(job: Job, levels: Sequence[int], layers: Sequence[int]) -> list[Piece]:
    """All images, block by block."""
    return [Piece(block, 0, len(job.indices), tuple(levels), tuple(layers)) for block in range(job.blocks)]


@dataclass(frozen=True)
class Kept:
    """A piece on disk."""

    piece: Piece
    skipped: tuple[Mapping[str, str], ...]
    """{file, why} of the images that could not be read."""
    parts: Parts
    number: int

    def block(self, level: int, layer: int) -> BlockMoments:
        names = BlockMoments.__dataclass_fields__
        return BlockMoments.from_arrays(self.parts.read(self.number, f"{level}/{layer}/", names))


def kept(parts: Parts, number: int, record: Record) -> Kept:
    """What `blocks` wrote with the part."""
    return Kept(Piece.from_json(record["piece"]), tuple(record["skipped"]), parts, number)


def moments_of(found: Sequence[Kept], level: int, layer: int) -> Moments:
    """Of all images measured at this level, block by block."""
    blocks: dict[int, dict[int, Kept]] = {}
    for one in found:
        if level in one.piece.levels and layer in one.piece.layers:
            blocks.setdefault(one.piece.block, {}).setdefault(one.piece.start, one)
    return Moments.from_blocks([_block(blocks[number], level, layer) for number in sorted(blocks)])


def _block(by_start: Mapping[int, Kept], level: int, layer: int) -> BlockMoments:
    first, *others = (by_start[start].block(level, layer) for start in sorted(by_start))
    for other in others:
        first = first + other
    return first


def skipped_in(found: Sequence[Kept]) -> tuple[Mapping[str, str], ...]:
    """{file, why} of the images that could not be read, in the order of blocks."""
    once = {(one.piece.block, one.piece.start): one.skipped for one in found}
    return tuple(entry for place in sorted(once) for entry in once[place])
