"""What the models without a file share: their facts are spelled (`toy:d=32,side=8`), so that wrong ones are usage."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from diffscope.checkpoints.base import Checkpoint
from diffscope.errors import CheckpointError, UsageError
from diffscope.families._facts import Facts

MAX_SIDE = 1024
MAX_NUMBERS = 1 << 22
"""Most numbers in a model's matrices: 32 MB, and a second for their decomposition."""


def analytic_facts(checkpoint: Checkpoint, config: Mapping[str, str], known: Collection[str]) -> Facts:
    """Opens the facts of a model without a file.

    Args:
        checkpoint: From a spelling such as "toy:d=32,side=8".
        config: The user's `--config`.
        known: Keys that the spelling may have.

    Returns:
        Facts whose errors are UsageErrors.

    Raises:
        CheckpointError: If there are tensors: then it is a file.
        UsageError: If the spelling has another key.
    """
    if checkpoint.tensors:
        raise CheckpointError(f"{checkpoint.path}: holds tensors, where an analytic model has none: it is spelled")
    for key in checkpoint.arguments:
        if key not in known:
            raise UsageError(f"{checkpoint.path}: '{key}' is not one of {', '.join(known)}")
    return Facts(checkpoint.path, checkpoint.arguments, config, known, UsageError)
