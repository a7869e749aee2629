"""What a Hub reference says, before anything is asked of the Hub."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Literal

from diffscope.errors import CheckpointError, DataError, DiffscopeError

SCHEME = "hf://"
Kind = Literal["model", "dataset"]
EXPECTED = {
    "model": "a model, hf://OWNER/NAME[@REVISION][/PATH]",
    "dataset": "a data set, hf://datasets/OWNER/NAME[@REVISION][/PATH]",
}
TYPES = {"datasets": "dataset", "models": "model", "spaces": "space", "kernels": "kernel", "buckets": "bucket"}
PARTS = re.compile(r"([^/@]+/[^/@]+)(?:@(refs/(?:pr|convert)/[^/]+|[^/]+))?(?:/(.+))?")
ADDRESS = re.compile(r"(?:\w+://|www\.|huggingface\.co/).+")
PAGE = re.compile(
    r"(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co)/(?P<kind>datasets/)?(?P<repo>[\w.-]+/[\w.-]+)"
    r"(?:/(?:tree|blob|resolve|raw)/(?P<revision>[^/?#]+)(?P<path>/[^?#]+)?)?/?(?:[?#].*)?"
)
BARE = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


@dataclass(frozen=True)
class Reference:
    """A Hub reference, taken apart."""

    text: str
    """The reference as it was given."""
    kind: Kind
    repo: str
    """OWNER/NAME."""
    revision: str | None
    """Branch, tag, pull request or commit; None is the default branch."""
    path: str
    """File or folder in the repository, "" for all of it."""

    def at(self, path: str) -> str:
        """Spells a reference to another path of the same repository and revision.

        Args:
            path: File or folder in the repository; "" for all of it.

        Returns:
            For example "hf://OWNER/NAME@v1/weights.pt".
        """
        root = f"{SCHEME}{'datasets/' if self.kind == 'dataset' else ''}{self.repo}"
        return f"{root}{'@' + self.revision if self.revision else ''}{'/' + path if path else ''}"

    def failure(self, reason: str) -> DiffscopeError:
        """Makes the error to raise about this reference, in one printable line.

        Args:
            reason: A sentence, which may quote names from the Hub; what is not printable in it becomes "?".

        Returns:
            A CheckpointError for models, a DataError for data sets, that begins with the reference.
        """
        text = " ".join(f"{self.text}: {reason}".split())
        text = "".join(character if character.isprintable() else "?" for character in text)
        return CheckpointError(text) if self.kind == "model" else DataError(text)


def is_reference(text: str) -> bool:
    """Tells whether a path is meant as a Hub reference, without touching the network.

    Args:
        text: A path as the user gave it.

    Returns:
        True if it begins with "hf://".
    """
    return text.startswith(SCHEME)


def hint(text: str, kind: Kind) -> str | None:
    """Says how to spell a web address or a bare OWNER/NAME, which are not files, as a Hub reference.

    Args:
        text: A path at which there is no file.
        kind: What is needed there, "model" or "dataset".

    Returns:
        The advice; None where `text` is neither.
    """
    if page := PAGE.fullmatch(text):
        revision = "" if page["revision"] in (None, "main") else f"@{page['revision']}"
        scheme = SCHEME + ("datasets/" if kind == "dataset" or page["kind"] else "")
        return f"a page of the Hub, which is expected as {scheme}{page['repo']}{revision}{page['path'] or ''}"
    if ADDRESS.fullmatch(text):
        return (
            f"a web address, and nothing is fetched from there; expected a path or {EXPECTED[kind]}: download it first"
        )
    if BARE.fullmatch(text) and not os.path.isdir(text.partition("/")[0]):
        scheme = f"{SCHEME}datasets/" if kind == "dataset" else SCHEME
        return f"no such file or folder; of a repository on the Hub say {scheme}{text}"
    return None


def parse(text: str, kind: Kind) -> Reference:
    """Takes a Hub reference apart.

    Args:
        text: "hf://[datasets/]OWNER/NAME[@REVISION][/PATH]".
        kind: What is needed here, "model" or "dataset".

    Returns:
        Its parts; nothing is asked of the Hub.

    Raises:
        CheckpointError: If a model is needed and `text` is misspelt or names another kind of repository.
        DataError: The same where a data set is needed.
    """
    misspelt = Reference(text, kind, "", None, "").failure(
        f"not the spelling of what is needed here; expected {EXPECTED[kind]}"
    )
    try:
        found, repo, revision, path = _parts(text)
    except ValueError:  # the client's HfUriError and HFValidationError
        raise misspelt from None
    path = path.strip("/")
    # What climbs out of a folder would do so in the cache too.
    climbs = {"", ".", ".."} & {*(path or "-").split("/"), *(revision or "-").split("/")}
    if found != kind or climbs or "\\" in f"{path}{revision}":
        raise misspelt
    return Reference(text, kind, repo, revision, path)


def parts_by_hand(text: str) -> tuple[str, str, str | None, str]:
    """Takes a Hub reference apart for clients that have no parser of their own.

    Args:
        text: A reference, with or without "hf://".

    Returns:
        (kind, repository, revision or None, path or "").

    Raises:
        ValueError: If it does not have these parts.
    """
    body = text.removeprefix(SCHEME).strip("/")
    first, _, rest = body.partition("/")
    kind = TYPES.get(first, "model")
    found = PARTS.fullmatch(rest if first in TYPES else body)
    if found is None:
        raise ValueError(text)
    revision = found[2].replace("%2F", "/").replace("%2f", "/") if found[2] else None
    return kind, found[1], revision, found[3] or ""


def _parts(text: str) -> tuple[str, str, str | None, str]:
    """What `parts_by_hand` gives, by the client's own parser where this version of it has one."""
    try:
        from huggingface_hub import parse_hf_uri
    except ImportError:
        return parts_by_hand(text)
    uri = parse_hf_uri(text)
    return uri.type, uri.id, uri.revision, uri.path_in_repo
