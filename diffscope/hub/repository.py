"""One commit of one repository on the Hub: its list of files, and local copies of them."""

from __future__ import annotations

import glob
import hashlib
import json
import logging
import os
import posixpath
import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from diffscope.errors import DiffscopeError
from diffscope.hub.failures import client, is_unanswered, listed, nearest, unreached
from diffscope.hub.reference import Kind, Reference, parse

COMMIT = re.compile(r"[0-9a-f]{40}")
SHA256 = re.compile(r"[0-9a-f]{64}")
FEW = 200  # files that are asked for by name; more are asked for by their endings
HASH_CHUNK = 1 << 22  # bytes per read while hashing

logger = logging.getLogger(__name__)


def open(text: str, kind: Kind) -> Repository:
    """Opens the repository that a reference names, at one commit; nothing of it is downloaded yet.

    Args:
        text: A Hub reference.
        kind: "model" or "dataset".

    Returns:
        The repository, pinned to the commit that the revision means today.

    Raises:
        CheckpointError: If a model's reference is misspelt, its repository or revision does not exist or is closed to
            this user, or the Hub cannot be reached and the cache does not know the revision's commit.
        DataError: The same of a data set.
    """
    reference = parse(text, kind)
    with client(reference) as hub:
        name = hub.file_download.repo_folder_name(repo_id=reference.repo, repo_type=kind)
        storage = Path(hub.constants.HF_HUB_CACHE).expanduser() / str(name)
        offline = bool(hub.constants.HF_HUB_OFFLINE)
    return Repository(reference, _commit(reference, storage), storage, offline)


def snapshot(text: str, allow_patterns: Sequence[str]) -> Path:
    """Fetches a folder of a model repository, or the part of it that matches.

    Args:
        text: A Hub reference; its PATH is the folder.
        allow_patterns: Patterns of `fnmatch` for names below PATH, "*" crossing slashes.

    Returns:
        The local folder, holding at least the files that match. Python files are never fetched.

    Raises:
        CheckpointError: As `open` does, and where a `model_index.json` names Python modules of the repository itself.
    """
    return open(text, "model").snapshot(allow_patterns)


class Repository:
    """One commit of a repository and its copies in the client's cache.

    All names are whole paths in the repository, with forward slashes.
    """

    def __init__(self, reference: Reference, commit: str, storage: Path, offline: bool) -> None:
        self.reference = reference
        self.commit = commit
        self._offline = offline
        self._storage = storage
        """The repository's folder in the client's cache, whose layout is documented."""
        self._names: list[str] | None = None

    def find(self, name: str) -> Path | None:
        """Finds the local copy of a file, and downloads it if need be.

        Args:
            name: Whole path in the repository.

        Returns:
            The local file; None where the repository has no file of this name.

        Raises:
            CheckpointError: If the download fails or arrives damaged (a data set: DataError).
        """
        if local := self._cached(name):
            return local
        if (known := self._known()) is not None and name not in known:
            return None
        with client(self.reference) as hub:
            try:
                local = Path(hub.hf_hub_download(self.reference.repo, name, **self._pinned, **self._places(hub)))
            except hub.utils.LocalEntryNotFoundError:  # no network; it is an EntryNotFoundError too
                raise
            except hub.utils.EntryNotFoundError:
                return None
        if not local.is_file():  # a folder that is in the cache
            return None
        self._verify([name])
        return local

    def fetch(self, names: Sequence[str]) -> Path:
        """Downloads those of several files that are not in the cache.

        Args:
            names: Whole paths in the repository.

        Returns:
            The local folder of the whole repository, holding these files at least.

        Raises:
            CheckpointError: If one of them cannot be had, or arrives damaged (a data set: DataError).
        """
        missing = [name for name in names if self._cached(name) is None]
        if missing and self._offline:
            raise self.reference.failure(
                f"HF_HUB_OFFLINE is set and {len(missing)} of {len(names)} files are not in the cache, "
                f"such as '{missing[0]}'; unset it, or download them before"
            )
        if len(missing) == 1:
            self.find(missing[0])
        elif missing:
            try:
                with client(self.reference) as hub:
                    patterns, places = _patterns(missing), self._places(hub)
                    hub.snapshot_download(self.reference.repo, allow_patterns=patterns, **self._pinned, **places)
            finally:  # what arrived before a failure will count as cached from now on
                self._verify(missing)
        if lost := [name for name in missing if self._cached(name) is None]:
            # Without network the client is content with what it has.
            raise self.reference.failure(
                f"{len(lost)} of {len(names)} files could not be downloaded, such as '{lost[0]}'; "
                "check the network and run the command again"
            )
        return self._storage / "snapshots" / self.commit

    def names(self, complete: bool = True) -> list[str]:
        """Lists all files of the commit. A commit never changes: its list is kept, beside the client's own folders.

        Args:
            complete: Offline and without a list from before, refuse; otherwise take the files that the cache has.

        Returns:
            Whole paths, sorted.

        Raises:
            CheckpointError: If there is no list to be had (a data set: DataError).
        """
        if (known := self._known()) is not None:
            return known
        if not self._offline:
            with client(self.reference) as hub:
                api = hub.HfApi(hub.constants.ENDPOINT)
                tree = api.list_repo_tree(self.reference.repo, recursive=True, **self._pinned)
                self._names = sorted(entry.path for entry in tree if hasattr(entry, "size"))  # folders have none
            _keep(self._memory, json.dumps(self._names))
            return self._names
        if complete:
            raise self.reference.failure(
                "HF_HUB_OFFLINE is set and the repository's list of files is not in the cache; "
                "unset it, or add a file that is in the cache as /PATH"
            )
        root = self._storage / "snapshots" / self.commit
        return sorted(local.relative_to(root).as_posix() for local in root.rglob("*") if local.is_file())

    def files(self, complete: bool = True) -> list[str]:
        """Lists the files at or below the reference's PATH.

        Args:
            complete: As for `names`.

        Returns:
            Whole paths, sorted; at least one.

        Raises:
            CheckpointError: If there are none; it names the nearest (a data set: DataError).
        """
        path = self.reference.path
        names = self.names(complete)
        below = [name for name in names if not path or name == path or name.startswith(path + "/")]
        if not below:
            raise self.missing(path) if path else self.reference.failure("an empty repository; check the reference")
        return below

    def missing(self, path: str, also: Sequence[str] = ()) -> DiffscopeError:
        """Makes the error to raise where the repository has no such file or folder.

        Args:
            path: What was looked for.
            also: More names to suggest, beside files and folders of the repository.

        Returns:
            An error that names the nearest.
        """
        names = self.names(complete=False)
        close = nearest(path, [*names, *sorted({posixpath.dirname(name) for name in names} - {""}), *also])
        there = f"close: {listed(close)}" if close else f"it holds {listed(names) or 'nothing'}"
        return self.reference.failure(f"no '{path}' in the repository at commit {self.commit[:7]}; {there}")

    def snapshot(self, allow_patterns: Sequence[str]) -> Path:
        """Fetches the part of the reference's PATH that matches; see the function `snapshot`.

        Args:
            allow_patterns: Patterns of `fnmatch` for names below PATH.

        Returns:
            The local folder of PATH.

        Raises:
            CheckpointError: If a `model_index.json` names Python modules, or a file cannot be had.
        """
        path = self.reference.path
        prefix = path + "/" if path else ""
        below = [name[len(prefix) :] for name in self.files(complete=False)]
        if "model_index.json" in below:
            self._refuse_code(prefix, below)
        wanted = [
            prefix + name
            for name in below
            if not name.endswith(".py") and any(fnmatchcase(name, pattern) for pattern in allow_patterns)
        ]
        return self.fetch(wanted) / path

    def _refuse_code(self, prefix: str, below: Sequence[str]) -> None:
        """A pipeline with modules of its own needs its author's code to run, which is never done."""
        local = self.find(prefix + "model_index.json")
        try:
            index = json.loads(local.read_text(encoding="utf-8")) if local else None
        except ValueError:
            raise self.reference.failure("its model_index.json is not JSON; expected a diffusers pipeline") from None
        if modules := local_modules(index, below):
            raise self.reference.failure(
                f"its model_index.json names Python modules of the repository ({listed(modules)}), and "
                "code from a repository is never run; give the file with the weights as /PATH"
            )

    @property
    def _pinned(self) -> dict[str, Any]:
        return {"repo_type": self.reference.kind, "revision": self.commit}

    def _places(self, hub: Any) -> dict[str, Any]:
        """Said outright, so that the client and this class cannot mean two caches."""
        return {
            "cache_dir": self._storage.parent,
            "endpoint": hub.constants.ENDPOINT,
            "local_files_only": self._offline,
        }

    @property
    def _memory(self) -> Path:
        return self._storage / "diffscope" / f"{self.commit}.json"

    def _known(self) -> list[str] | None:
        """All files of the commit, where they have been asked for before."""
        if self._names is None:
            self._names = _read_names(self._memory)
        return self._names

    def _cached(self, name: str) -> Path | None:
        local = self._storage / "snapshots" / self.commit / name
        return local if local.is_file() else None

    def _verify(self, names: Iterable[str]) -> None:
        """Hold what was just downloaded against its sha256: the client itself checks no more than the size.

        The cache calls a file of Git-LFS by its sha256 and links to it, wherever the system has links. What that blob
        may be a link to in turn, a store shared by repositories, has names of another kind.
        """
        damaged = []
        for name in names:
            local = self._storage / "snapshots" / self.commit / name
            expected = Path(os.readlink(local)).name if local.is_symlink() else ""
            if SHA256.fullmatch(expected) and (found := _sha256(local)) != expected:
                local.unlink()
                (self._storage / "blobs" / expected).unlink(missing_ok=True)
                damaged.append(f"'{name}' arrived with sha256 {found[:12]}…, the Hub says {expected[:12]}…")
        if damaged:
            raise self.reference.failure(f"{listed(damaged, 1)}; the damaged copy was deleted: run the command again")


def local_modules(index: object, names: Iterable[str]) -> list[str]:
    """Lists the Python files that a `model_index.json` wants to run.

    Args:
        index: Its content, parsed.
        names: The files in its folder, relative to it.

    Returns:
        Names of the Python files; empty for a pipeline of the library's own classes.
    """
    if not isinstance(index, dict):
        return []
    there, found = set(names), []
    for part, value in index.items():
        module = value[0] if isinstance(value, list) and value else None
        if not isinstance(module, str):
            continue
        if part == "_class_name":  # a class of the library stands there as plain text
            found.append(f"{module}.py")
        else:
            found += [file for file in (f"{part}/{module}.py", f"{module}.py") if file in there]
    return found


def _commit(reference: Reference, storage: Path) -> str:
    """The commit of the reference's revision: what the Hub says, else what it said when it last answered."""
    if reference.revision and COMMIT.fullmatch(reference.revision):
        return reference.revision
    known = storage / "refs" / (reference.revision or "main")
    kept = known.read_text(encoding="utf-8").strip() if known.is_file() else None
    with client(reference) as hub:
        if hub.constants.HF_HUB_OFFLINE:
            if kept is None:
                raise reference.failure(unreached(hub))
            return kept
        api = hub.HfApi(hub.constants.ENDPOINT)
        try:
            found = str(api.repo_info(reference.repo, repo_type=reference.kind, revision=reference.revision).sha)
        except hub.utils.RevisionNotFoundError:
            refs = api.list_repo_refs(reference.repo, repo_type=reference.kind)
            names = [ref.name for ref in (*refs.branches, *refs.tags)]
            close = nearest(str(reference.revision), names)
            there = f"close: {listed(close)}" if close else f"it has {listed(names)}"
            raise reference.failure(f"no revision '{reference.revision}' in the repository; {there}") from None
        except Exception as error:
            if kept is None or not is_unanswered(error):
                raise
            logger.warning("%s: the Hub cannot be reached; taking commit %s from before", reference.text, kept)
            return kept
    _keep(known, found)
    return found


def _keep(path: Path, text: str) -> None:
    """Writes down what times without network will need; a cache that may only be read goes without."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(text, encoding="utf-8")
        os.replace(part, path)
    except OSError:
        return


def _read_names(path: Path) -> list[str] | None:
    try:
        names = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return names if isinstance(names, list) and all(isinstance(name, str) for name in names) else None


def _patterns(names: Sequence[str]) -> list[str]:
    """Patterns for the client, whose time grows with patterns times files of the repository."""
    if len(names) <= FEW:
        return [glob.escape(name) for name in names]
    root = posixpath.commonpath([posixpath.dirname(name) for name in names])
    start = glob.escape(root) + "/" if root else ""
    return sorted({f"{start}*{glob.escape(posixpath.splitext(name)[1])}" for name in names})


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(HASH_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
