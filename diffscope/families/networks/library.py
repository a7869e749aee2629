"""Classes of the diffusers and transformers libraries, imported when the first one is needed: that takes seconds."""

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
    except AttributeError:
        raise CheckpointError(
            f"diffusers {diffusers.__version__} has no {name}; upgrade it: pip install -U diffusers"
        ) from None
    except (ImportError, RuntimeError) as error:
        hint = "; uninstall torchvision or match it to torch" if "torchvision" in str(error) else ""
        raise CheckpointError(f"diffusers cannot be imported: {' '.join(str(error).split())[:200]}{hint}") from None


def diffusers_is_before(major: int, minor: int) -> bool:
    """Tells whether the installed diffusers is older than a release.

    Args:
        major: Of the release.
        minor: Of the release.
    """
    import diffusers

    return tuple(int(part) for part in diffusers.__version__.split(".")[:2]) < (major, minor)


TEXTS = "the pipeline's text encoder", "or give embeddings with `prompt_from=FILE.safetensors`"


def transformers_class(name: str, needed: tuple[str, str] = TEXTS) -> Any:
    """Imports a class of transformers, which is installed for texts and reference encoders alone.

    Args:
        name: Such as "CLIPTextModel".
        needed: What is one of the library, and what to do without it.

    Returns:
        The class.

    Raises:
        CheckpointError: If the library is missing, broken or does not have it.
    """
    try:
        import transformers

        return getattr(transformers, name)
    except ModuleNotFoundError as error:
        if error.name != "transformers":
            raise CheckpointError(f"transformers cannot be imported: {error}") from None
        raise CheckpointError(
            f"{needed[0]} is one of the transformers library, which is not installed: pip install 'diffscope[text]', "
            f"{needed[1]}"
        ) from None
    except AttributeError:
        raise CheckpointError(
            f"transformers {transformers.__version__} has no {name}; upgrade it: pip install -U transformers"
        ) from None
    except (ImportError, RuntimeError) as error:
        raise CheckpointError(f"transformers cannot be imported: {' '.join(str(error).split())[:200]}") from None
