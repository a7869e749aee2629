"""The client in a `with`: quiet, and with each of its failures as one sentence.

Texts of the client's own errors are not passed on: they have several lines and may quote request headers, in which
the user's token stands.
"""

from __future__ import annotations

import errno
import importlib
import logging
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from difflib import get_close_matches
from typing import Any

from diffscope.errors import DiffscopeError
from diffscope.hub.reference import Reference

# What speaks HTTP for the client, by version: requests below 1.0, httpx below 2.0, then httpx2.
HTTP = frozenset({"requests", "urllib3", "httpx", "httpcore", "httpx2", "httpcore2", "h11", "ssl"})
MANY = 5000  # names that are compared letter by letter
FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def client(reference: Reference) -> Iterator[Any]:
    """Imports huggingface_hub and turns its failures into one sentence each.

    Args:
        reference: What is asked for; it decides the kind of error and stands at its beginning.

    Yields:
        The package `huggingface_hub`, with its bars and log messages suppressed where nobody would read them.

    Raises:
        CheckpointError: If the Hub, the network or the disk fails and the reference is to a model.
        DataError: The same where it is to a data set.
    """
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        hub = importlib.import_module("huggingface_hub")
        for part in ("constants", "file_download", "utils"):
            importlib.import_module(f"huggingface_hub.{part}")
        stack.enter_context(_quiet(hub))
        try:
            yield hub
        except DiffscopeError:
            raise
        # Some of the client's errors are no OSError, and which HTTP library raises depends on its version.
        except Exception as error:
            if (reason := _reason(hub, reference, error)) is None:
                raise
            raise reference.failure(reason) from None


def is_unanswered(error: Exception) -> bool:
    """Tells whether the Hub did not answer at all: there is no network, or a server is down.

    Args:
        error: What the client raised.

    Returns:
        True for lost connections, timeouts and statuses from 500; False for an answer that is a refusal.
    """
    status = _status(error)
    return status >= 500 if status else _is_http(error) or isinstance(error, (ConnectionError, TimeoutError))


def unreached(hub: Any) -> str:
    """Says what to do where something is only on the Hub, and the Hub is not asked or does not answer.

    Args:
        hub: The package `huggingface_hub`, whose constants hold the settings.

    Returns:
        The reason and the advice, without a full stop.
    """
    if hub.constants.HF_HUB_OFFLINE:
        return (
            f"HF_HUB_OFFLINE is set and it is not in the cache ({hub.constants.HF_HUB_CACHE}); "
            "unset it, or download it before"
        )
    return f"{hub.constants.ENDPOINT} cannot be reached and it is not in the cache; check the network and HF_ENDPOINT"


def nearest(name: str, names: Sequence[str]) -> list[str]:
    """Finds names that resemble a misspelt one.

    Args:
        name: As the user wrote it, with forward slashes.
        names: All that exist; beyond MANY only those with the same first letter are compared.

    Returns:
        Up to three of `names` whose whole spelling, or whose last part, is close; the closest first.
    """
    if len(names) > MANY:
        names = [known for known in names if known.rsplit("/", 1)[-1][:1] == name.rsplit("/", 1)[-1][:1]][:MANY]
    close = get_close_matches(name, names, n=3, cutoff=0.6)
    by_tail = {known.rsplit("/", 1)[-1]: known for known in names}
    tails = get_close_matches(name.rsplit("/", 1)[-1], list(by_tail), n=3, cutoff=0.6)
    return list(dict.fromkeys([*close, *(by_tail[tail] for tail in tails)]))[:3]


def listed(names: Sequence[str], limit: int = 8) -> str:
    """Joins names for a message.

    Args:
        names: Each is cut to 120 characters.
        limit: How many are named; the rest are counted.

    Returns:
        For example "a.pt, b.pt and 3 more".
    """
    shown = ", ".join(name[:120] for name in names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"


@contextmanager
def _quiet(hub: Any) -> Iterator[None]:
    """No bars where stderr is no terminal, and of the client's own log only errors, unless a user asked for more."""
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    if level == logging.WARNING:  # the client's default: HF_HUB_VERBOSITY is not set
        logger.setLevel(logging.ERROR)
    hide = not sys.stderr.isatty() and not hub.utils.are_progress_bars_disabled()
    if hide:
        hub.utils.disable_progress_bars()
    try:
        yield
    finally:
        logger.setLevel(level)
        if hide:
            hub.utils.enable_progress_bars()


def _reason(hub: Any, reference: Reference, error: Exception) -> str | None:
    """One sentence; None for what is no failure of the Hub, the network or the disk, but a mistake of ours."""
    kinds, place = hub.utils, hub.constants.ENDPOINT
    cause = error.__cause__
    if isinstance(error, kinds.LocalEntryNotFoundError) and isinstance(cause, Exception):
        return _reason(hub, reference, cause) or unreached(hub)
    if isinstance(error, kinds.GatedRepoError):
        page = f"{place}/{'datasets/' if reference.kind == 'dataset' else ''}{reference.repo}"
        return f"a gated repository; ask for access at {page}, then set HF_TOKEN or log in with `hf auth login`"
    if isinstance(error, kinds.RepositoryNotFoundError):
        return (
            f"no such {reference.kind} repository at {place}, or a private one; check the spelling, "
            "or set HF_TOKEN if it is yours"
        )
    if isinstance(error, kinds.RevisionNotFoundError):
        return f"no revision '{reference.revision}' in the repository; give one of its branches, tags or commits"
    if isinstance(error, (kinds.OfflineModeIsEnabled, kinds.LocalEntryNotFoundError)):
        return unreached(hub)
    if status := _status(error):
        return _answer(status, place)
    if isinstance(error, kinds.HFValidationError):
        return "not a name that a repository on the Hub can have; expected OWNER/NAME"
    if _is_http(error) or isinstance(error, (ConnectionError, TimeoutError)):
        return f"the connection to {place} failed ({type(error).__name__}); check the network and run the command again"
    if isinstance(error, OSError):
        return _stored(hub, error)
    return None


def _status(error: Exception) -> int:
    """The HTTP status of an answer that is an error; 0 where there was no answer."""
    return int(getattr(getattr(error, "response", None), "status_code", 0) or 0)


def _is_http(error: Exception) -> bool:
    return any(kind.__module__.split(".")[0] in HTTP for kind in type(error).__mro__)


def _answer(status: int, place: str) -> str:
    if status == 401:
        return f"{place} refuses the token (401); renew HF_TOKEN, or log in with `hf auth login`"
    if status == 403:
        return f"{place} forbids access (403); the repository is disabled, or the token lacks the permission to read it"
    if status == 429:
        return f"too many requests to {place} (429); wait some minutes, or set HF_TOKEN"
    return f"{place} answered with an error ({status}); try again later"


def _stored(hub: Any, error: OSError) -> str:
    cache = hub.constants.HF_HUB_CACHE
    if error.errno in FULL:
        return f"the disk of the cache ({cache}) is full; make room, or set HF_HUB_CACHE to a folder on another disk"
    if error.errno is not None:
        return f"cannot be kept in the cache ({cache}): {error.strerror}; set HF_HUB_CACHE to a folder of yours"
    return "the download arrived incomplete; run the command again"  # the client's check of the size
