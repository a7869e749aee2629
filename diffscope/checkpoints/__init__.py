"""From a file to a `Checkpoint`: flat tensors and what the file says of itself, read as data, never run."""

from diffscope.checkpoints.base import Checkpoint
from diffscope.checkpoints.reader import read
from diffscope.checkpoints.training_folder import is_checkpoint_folder

__all__ = ["Checkpoint", "is_checkpoint_folder", "read"]
