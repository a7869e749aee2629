"""Everything that diffscope raises on purpose.

A message has three parts on one line: what was found, what was expected, what to do next.
The library raises; `diffscope.cli` renders one line and the exit code.

DiffscopeError                       exit 1
├── UsageError                       exit 2: the command line alone is wrong
├── CheckpointError                  a file that cannot be read as a checkpoint
│   ├── UnsafePickle                 a pickle that asks for more than data
│   ├── UnknownFamily                no family, or more than one, claims the file
│   └── WeightsMismatch              tensors missing, surplus or misshapen
├── DataError                        images that cannot be found or read
├── UnknownLayer                     a layer name that does not exist or is ambiguous
├── NoiseLevelError                  a noise level outside the model's range
├── EstimationError                  a number that the data do not determine
│   ├── NeedTwoViews                 exit 2: --views alone decides it
│   ├── TooFewImages
│   ├── NonFinite
│   ├── ZeroNoise
│   ├── RankDeficient
│   └── IllConditioned
├── ProtocolMismatch                 two results that may not be compared
├── MemoryLimit                      the run would need more memory than allowed
├── Exhausted                        memory or open files ran out; no fault of an image, which is not left out for it
├── StoreError                       files of earlier runs that stand in the way
└── RankLost                         a process that measured the same run has ended
GateHeld                             exit 3: not a failure, a `--fail-if` that holds
"""

from __future__ import annotations


class DiffscopeError(Exception):
    """Base of all expected failures; its text is one line fit for a user."""

    exit_code = 1


class UsageError(DiffscopeError):
    exit_code = 2


class CheckpointError(DiffscopeError):
    pass


class UnsafePickle(CheckpointError):
    pass


class UnknownFamily(CheckpointError):
    pass


class WeightsMismatch(CheckpointError):
    pass


class DataError(DiffscopeError):
    pass


class UnknownLayer(DiffscopeError):
    pass


class NoiseLevelError(DiffscopeError):
    pass


class EstimationError(DiffscopeError):
    pass


class NeedTwoViews(EstimationError):
    exit_code = 2


class TooFewImages(EstimationError):
    pass


class NonFinite(EstimationError):
    pass


class ZeroNoise(EstimationError):
    pass


class RankDeficient(EstimationError):
    pass


class IllConditioned(EstimationError):
    pass


class ProtocolMismatch(DiffscopeError):
    pass


class MemoryLimit(DiffscopeError):
    pass


class Exhausted(DiffscopeError):
    pass


class StoreError(DiffscopeError):
    pass


class RankLost(DiffscopeError):
    pass


class GateHeld(Exception):
    """A `--fail-if` condition holds; carries one line per gate."""

    exit_code = 3

    def __init__(self, lines: list[str]) -> None:
        super().__init__("; ".join(lines))
        self.lines = lines
