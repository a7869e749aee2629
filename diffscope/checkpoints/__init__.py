"""From a file to a `Checkpoint`: flat tensors and what the file says of itself, read as data, never run."""

from diffscope.checkpoints.base import Checkpoint
from diffscope.checkpoints.reader import read

__all__ = ["Checkpoint", "read"]
