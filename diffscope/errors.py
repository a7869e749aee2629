"""Everything that diffscope raises on purpose.

A message has three parts on one line: what was found, what was expected, what to do next.
The library raises; `diffscope.cli` renders one line and the exit code.

DiffscopeError                       exit 1
├── UsageError                       exit 2: the command line alone is wrong
├── CheckpointError                  a file that cannot be read as a checkpoint
│   ├── UnsafePickle                 a pickle that asks for more than data
│   ├── UnknownFamily                no family, or more than one, claims the file
│   └── WeightsMismatch              tensors missing, surplus or misshapen
├── NetworkError                     a network of the user's own whose code fails, or that returns no tensor
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
    """The command line, or the arguments of a Python call, are wrong by themselves."""

    exit_code = 2


class CheckpointError(DiffscopeError):
    """A file cannot be read as a checkpoint."""


class UnsafePickle(CheckpointError):
    """A pickle asks for more than data; it was not run."""


class UnknownFamily(CheckpointError):
    """No family claims the file, or more than one does."""


class WeightsMismatch(CheckpointError):
    """Tensors are missing, surplus, or of another shape than the network's."""


class NetworkError(DiffscopeError):
    """A network of the user's own cannot be imported, built or run."""


class DataError(DiffscopeError):
    """Images cannot be found or read."""


class UnknownLayer(DiffscopeError):
    """A layer's name does not exist or is ambiguous."""


class NoiseLevelError(DiffscopeError):
    """A noise level lies outside the model's range."""


class EstimationError(DiffscopeError):
    """The data do not determine the number that was asked for."""


class NeedTwoViews(EstimationError):
    """The estimate compares two views of each image, and `--views` gives fewer."""

    exit_code = 2


class TooFewImages(EstimationError):
    """There are fewer images than the estimate needs."""


class NonFinite(EstimationError):
    """The features hold a NaN or an infinity."""


class ZeroNoise(EstimationError):
    """Some or all channels are the same in every view, so that their noise cannot be estimated."""


class RankDeficient(EstimationError):
    """Some channels are copies or combinations of others."""


class IllConditioned(EstimationError):
    """The residual covariance is too close to singular to be inverted."""


class ProtocolMismatch(DiffscopeError):
    """Two results were measured differently and may not be compared."""


class MemoryLimit(DiffscopeError):
    """The run would need more memory than allowed."""


class Exhausted(DiffscopeError):
    """Memory or open files ran out; this is never taken for a fault of the image being read."""


class StoreError(DiffscopeError):
    """Files of earlier runs stand in the way."""


class RankLost(DiffscopeError):
    """A process that measured the same run has ended."""


class GateHeld(Exception):
    """A `--fail-if` condition holds; carries one line per gate."""

    exit_code = 3

    def __init__(self, lines: list[str]) -> None:
        super().__init__("; ".join(lines))
        self.lines = lines
