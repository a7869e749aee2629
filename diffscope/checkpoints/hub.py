"""A Hub reference → the one checkpoint that it means, on this disk.

The PATH of the reference is a file, or a folder (or nothing: all of the repository) that is one of diffusers or has a
single checkpoint in it. Of several, none is guessed: they are listed. Only what is read is downloaded.
"""

from __future__ import annotations

import glob
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from diffscope import hub
from diffscope.checkpoints import published
from diffscope.checkpoints.diffusers_folder import needed, needed_for_text
from diffscope.errors import DiffscopeError
from diffscope.formats import CHECKPOINT_ENDINGS

DIFFUSERS_WEIGHTS = "diffusion_pytorch_model"


def locate(text: str) -> tuple[str, str]:
    """Finds and downloads the checkpoint that a Hub reference means.

    Args:
        text: "hf://OWNER/NAME[@REVISION][/PATH]".

    Returns:
        (local file or folder, commit).

    Raises:
        CheckpointError: If `text` does not lead to exactly one checkpoint.
    """
    repository = hub.open(text, "model")
    path = repository.reference.path
    if path and (local := repository.find(path)):
        return str(local), repository.commit
    below = repository.files()
    prefix = path + "/" if path else ""
    relative = [name[len(prefix) :] for name in below]
    if _is_diffusers(relative):
        return str(repository.snapshot([glob.escape(name) for name in needed(relative)])), repository.commit
    found = [name for name in below if name.lower().endswith(CHECKPOINT_ENDINGS)]
    if len(found) != 1:
        raise _not_one(repository.reference, found, below)
    return str(_found(repository, found[0])), repository.commit


def locate_text(text: str, revision: str | None) -> str:
    """Downloads the text encoders and tokenizers of a pipeline on the Hub.

    Args:
        text: "hf://OWNER/NAME[@REVISION][/PATH]", or a published model's short name.
        revision: A commit to take in place of the reference's revision.

    Returns:
        The pipeline's local folder.

    Raises:
        CheckpointError: If there is no pipeline.
    """
    reference = hub.parse(published.resolve(text) or text, "model")
    if revision is not None:
        reference = replace(reference, revision=revision)
    path = reference.path
    repository = hub.open(reference.at(path), "model")
    prefix = path + "/" if path else ""
    relative = [name[len(prefix) :] for name in repository.files()]
    if "model_index.json" not in relative:
        raise repository.reference.failure("no model_index.json in it; expected a pipeline with its text encoders")
    return str(repository.snapshot([glob.escape(name) for name in needed_for_text(relative)]))


def _is_diffusers(names: Sequence[str]) -> bool:
    """Tells whether a folder is a diffusers pipeline or model.

    Args:
        names: Of its files, relative to it.

    Returns:
        True if they are those of a pipeline, or of a model with its config.
    """
    weights = any(name.startswith(DIFFUSERS_WEIGHTS) for name in names)
    return "model_index.json" in names or ("config.json" in names and weights)


def _not_one(reference: hub.Reference, found: Sequence[str], below: Sequence[str]) -> DiffscopeError:
    if not found:
        endings = " ".join(ending[1:] for ending in CHECKPOINT_ENDINGS)
        return reference.failure(f"no checkpoint in it ({endings}); it holds {hub.listed(below)}")
    return reference.failure(
        f"{len(found)} checkpoints in it; give one as /PATH, such as {reference.at(found[0])}; all: {hub.listed(found)}"
    )


def _found(repository: hub.Repository, name: str) -> Path:
    """A file that the repository lists."""
    if local := repository.find(name):
        return local
    raise repository.missing(name)
