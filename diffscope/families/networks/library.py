"""Classes of the diffusers library, imported when the first network of it is built: that takes seconds."""

from __future__ import annotations

from typing import Any

from diffscope.errors import CheckpointError


def diffusers_class(name: str) -> Any:
    """Imports a class of diffusers.

    Args:
        name: Such as "UNet2DModel".

    Returns:
        The class.

    Raises:
        CheckpointError: If the library is broken or does not have it.
    """
    try:
        import diffusers

        return getattr(diffusers, name)  # which imports it: the library is lazy
    except (ImportError, RuntimeError, AttributeError) as error:
        hint = "; uninstall torchvision or match it to torch" if "torchvision" in str(error) else ""
        raise CheckpointError(f"diffusers cannot be imported: {' '.join(str(error).split())[:200]}{hint}") from None
