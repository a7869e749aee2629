"""Hub references → local files: `hf://[datasets/]OWNER/NAME[@REVISION][/PATH]`, through huggingface_hub.

Checkpoints, sources and the image encoder of latent models all need this, and none of their rooms may import another:
so it stands in row 1 of the rooms. A branch or tag becomes a commit once, and everything after that is of this commit;
commits, files and lists of files that are in the client's cache are used without network. HF_HOME, HF_HUB_CACHE,
HF_HUB_OFFLINE, HF_ENDPOINT and HF_TOKEN mean what they mean to the client, which is imported at the first reference.
Code of a repository is neither downloaded nor run.

    repository = hub.open("hf://OWNER/NAME@v1/weights.pt", "model")
    local = repository.find("weights.pt")     # downloaded, or from the cache
    repository.commit                         # what `v1` is today

Failures are CheckpointError for models and DataError for data sets, one sentence each.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import posixpath
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

from diffscope import hub_failures
from diffscope.errors import CheckpointError, DataError, DiffscopeError
from diffscope.hub_failures import client

SCHEME = "hf://"
COMMIT = re.compile(r"[0-9a-f]{40}")
SHA256 = re.compile(r"[0-9a-f]{64}")
FEW = 200  # files that are asked for by name; more are asked for by their endings
HASH_CHUNK = 1 << 22  # bytes per read while hashing
SPELLING = {"model": "hf://OWNER/NAME[@REVISION][/PATH]", "dataset": "hf://datasets/OWNER/NAME[@REVISION][/PATH]"}

Kind = Literal["model", "dataset"]


@dataclass(frozen=True)
class Reference:
    """What a user wrote, taken apart."""

    text: str
    """As it was given."""
    kind: Kind
    repo: str
    """OWNER/NAME."""
    revision: str | None
    """Branch, tag, pull request or commit; None is the default branch."""
    path: str
    """File or folder in the repository, "" for all of it."""

    def at(self, path: str) -> str:
        """The same repository and revision, spelled with another path."""
        root = f"{SCHEME}{'datasets/' if self.kind == 'dataset' else ''}{self.repo}"
        return f"{root}{'@' + self.revision if self.revision else ''}{'/' + path if path else ''}"

    def failure(self, reason: str) -> DiffscopeError:
        """CheckpointError or DataError: the reference and one sentence."""
        text = " ".join(f"{self.text}: {reason}".split())
        text = "".join(character if character.isprintable() else "?" for character in text)
        return CheckpointError(text) if self.kind == "model" else DataError(text)


def is_reference(text: str) -> bool:
    """Cheap; a path for which this is false never touches the network."""
    return text.startswith(SCHEME)


def parse(text: str, kind: Kind) -> Reference:
    """`text` taken apart; CheckpointError or DataError where it is misspelt or names another kind of repository."""
    unread = Reference(text, kind, "", None, "")
    with client(unread):
        found, repo, revision, path = _parts(text)
    parts = path.split("/") if path else []
    if found != kind or any(part in ("", ".", "..") for part in parts):
        raise unread.failure(f"not the spelling of a {_word(kind)} repository on the Hub; expected {SPELLING[kind]}")
    return Reference(text, kind, repo, revision, path)


def open(text: str, kind: Kind) -> Repository:
    """The repository that `text` names, at one commit; nothing of it is downloaded yet.

    Raises CheckpointError or DataError where the reference is misspelt, the repository or revision does not exist or is
    closed to this user, and where the Hub cannot be reached and the cache does not know the revision's commit.
    """
    reference = parse(text, kind)
    storage = _storage(reference)
    return Repository(reference, _resolved(reference, storage), storage)


def snapshot(text: str, allow_patterns: Sequence[str]) -> Path:
    """The local folder of a model reference, holding at least the files whose names below its PATH match a pattern.

    Patterns are those of `fnmatch`, "*" crossing slashes. Raises CheckpointError as `open` does, and where a
    `model_index.json` names Python modules of the repository itself. Python files are never fetched.
    """
    return open(text, "model").snapshot(allow_patterns)


class Repository:
    """One commit of one repository. All names are whole paths in the repository, with forward slashes."""

    def __init__(self, reference: Reference, commit: str, storage: Path) -> None:
        self.reference = reference
        self.commit = commit
        self._storage = storage
        self._names: list[str] | None = None

    def find(self, name: str) -> Path | None:
        """The local copy of a file, downloaded if need be; None where the repository has no file of this name."""
        if local := self._cached(name):
            return local
        with client(self.reference) as hub:
            try:
                local = Path(hub.hf_hub_download(self.reference.repo, name, **self._pinned))
            except hub.utils.LocalEntryNotFoundError:
                raise
            except hub.utils.EntryNotFoundError:
                return None
        self._verify([name])
        return local

    def fetch(self, names: Sequence[str]) -> Path:
        """The local folder of the whole repository, holding these files at least."""
        missing = [name for name in names if self._cached(name) is None]
        if missing and hub_failures.offline():
            raise self.reference.failure(
                f"HF_HUB_OFFLINE is set and {len(missing)} of {len(names)} files are not in the cache "
                f"({missing[0]}); unset it, or download them before"
            )
        if len(missing) == 1:
            self.find(missing[0])
        elif missing:
            with client(self.reference) as hub:
                hub.snapshot_download(self.reference.repo, allow_patterns=_patterns(missing), **self._pinned)
            self._verify(missing)
        return self._storage / "snapshots" / self.commit

    def files(self, complete: bool = True) -> list[str]:
        """Sorted names of the files at or below the reference's PATH; fails, naming the nearest, where none are.

        `complete`: without network and a list from before, refuse; otherwise take what the cache has.
        """
        path = self.reference.path
        names = self._listed(complete)
        below = [name for name in names if not path or name == path or name.startswith(path + "/")]
        if not below:
            raise self.missing(path) if path else self.reference.failure("an empty repository; check the reference")
        return below

    def missing(self, path: str) -> DiffscopeError:
        """What to raise where the repository has no file or folder `path`: it names the nearest."""
        names = self._listed(complete=False)
        close = hub_failures.nearest(path, [*names, *{posixpath.dirname(name) for name in names} - {""}])
        found = f"close: {hub_failures.listed(close)}" if close else f"it holds {hub_failures.listed(names)}"
        return self.reference.failure(f"no '{path}' in the repository at {self.commit[:7]}; {found}")

    def snapshot(self, allow_patterns: Sequence[str]) -> Path:
        """See `snapshot` above."""
        path = self.reference.path
        names = self.files(complete=False)
        prefix = path + "/" if path else ""
        if prefix + "model_index.json" in names:
            self._refuse_code(prefix, names)
        wanted = [
            name
            for name in names
            if not name.endswith(".py") and any(fnmatchcase(name[len(prefix) :], p) for p in allow_patterns)
        ]
        return self.fetch(wanted) / path

    def _refuse_code(self, prefix: str, names: Sequence[str]) -> None:
        """A pipeline of modules of its own would need its author's code to run, which is never done."""
        local = self.find(prefix + "model_index.json")
        assert local is not None, "the repository lists it"
        try:
            index = json.loads(local.read_text(encoding="utf-8"))
        except ValueError:
            raise self.reference.failure("its model_index.json is not JSON; expected a diffusers pipeline") from None
        if modules := local_modules(index, [name[len(prefix) :] for name in names]):
            raise self.reference.failure(
                f"its model_index.json names Python modules of the repository ({hub_failures.listed(modules)}), and "
                "code from a repository is never run; give the file with the weights as PATH"
            )

    @property
    def _pinned(self) -> dict[str, Any]:
        return {"repo_type": self.reference.kind, "revision": self.commit}

    def _cached(self, name: str) -> Path | None:
        local = self._storage / "snapshots" / self.commit / name
        return local if local.is_file() else None

    def _listed(self, complete: bool) -> list[str]:
        """All files of the commit. A commit does not change, so its list is kept, beside the client's own folders."""
        if self._names is not None:
            return self._names
        memory = self._storage / "diffscope" / f"{self.commit}.json"
        if (known := _read_list(memory)) is not None:
            self._names = known
        elif hub_failures.offline():
            if complete:
                raise self.reference.failure(
                    "HF_HUB_OFFLINE is set and the repository's list of files is not in the cache; "
                    "unset it, or add the file as /PATH"
                )
            root = self._storage / "snapshots" / self.commit
            return sorted(local.relative_to(root).as_posix() for local in root.rglob("*") if local.is_file())
        else:
            with client(self.reference) as hub:
                tree = hub.HfApi().list_repo_tree(self.reference.repo, recursive=True, **self._pinned)
                self._names = sorted(entry.path for entry in tree if hasattr(entry, "size"))
            _keep(memory, json.dumps(self._names))
        return self._names

    def _verify(self, names: Iterable[str]) -> None:
        """Hold what was just downloaded against its sha256; the client itself checks no more than the size.

        The cache names a file kept by Git-LFS after its sha256, and links to it, where the system has links.
        """
        for name in names:
            local = self._cached(name)
            if local is None or not SHA256.fullmatch((blob := local.resolve()).name):
                continue
            digest = hashlib.sha256()
            with blob.open("rb") as file:
                while chunk := file.read(HASH_CHUNK):
                    digest.update(chunk)
            if digest.hexdigest() != blob.name:
                local.unlink()
                blob.unlink(missing_ok=True)
                raise self.reference.failure(
                    f"'{name}' arrived with sha256 {digest.hexdigest()[:12]}…, the Hub says {blob.name[:12]}…; "
                    "the damaged copy was deleted: run the command again"
                )


def local_modules(index: object, names: Iterable[str]) -> list[str]:
    """Python files among `names`, relative to a pipeline's folder, that its `model_index.json` wants to run."""
    if not isinstance(index, dict):
        return []
    there = set(names)
    found = []
    for part, value in index.items():
        module = value[0] if isinstance(value, list) and value else None
        if not isinstance(module, str):
            continue
        if part == "_class_name":  # a class of the library stands there as plain text
            found.append(f"{module}.py")
        else:
            found += [file for file in (f"{part}/{module}.py", f"{module}.py") if file in there]
    return found


def _parts(text: str) -> tuple[str, str, str | None, str]:
    """(type, repository, revision, path), by the client's own parser where this version of it has one."""
    try:
        from huggingface_hub import parse_hf_uri
    except ImportError:
        return parts_by_hand(text)
    uri = parse_hf_uri(text)
    return uri.type, uri.id, uri.revision, uri.path_in_repo


def parts_by_hand(text: str) -> tuple[str, str, str | None, str]:
    """The same for clients without a parser; a type that is neither model nor dataset is "other"."""
    body = text.removeprefix(SCHEME).strip("/")
    kind = "model"
    first, _, rest = body.partition("/")
    if first in ("datasets", "models", "spaces", "buckets", "kernels"):
        kind, body = {"datasets": "dataset", "models": "model"}.get(first, "other"), rest
    found = re.fullmatch(r"([^/@]+/[^/@]+)(?:@(refs/(?:pr|convert)/[^/]+|[^/]+))?(?:/(.+))?", body)
    if found is None:
        return "other", "", None, ""
    revision = found[2].replace("%2F", "/").replace("%2f", "/") if found[2] else None
    return kind, found[1], revision, found[3] or ""


def _word(kind: Kind) -> str:
    return "model" if kind == "model" else "data set"


def _storage(reference: Reference) -> Path:
    """The folder of a repository in the client's cache, whose layout is documented and stable."""
    with client(reference) as hub:
        name = hub.file_download.repo_folder_name(repo_id=reference.repo, repo_type=reference.kind)
        return Path(hub.constants.HF_HUB_CACHE).expanduser() / str(name)


def _resolved(reference: Reference, storage: Path) -> str:
    """The commit of the reference's revision: what the Hub says, else what it said when it was last reached."""
    if reference.revision and COMMIT.fullmatch(reference.revision):
        return reference.revision
    known = storage / "refs" / (reference.revision or "main")
    try:
        with client(reference) as hub:
            info = hub.HfApi().repo_info(
                reference.repo, repo_type=reference.kind, revision=reference.revision, files_metadata=False
            )
            commit = str(info.sha)
    except hub_failures.UNREACHABLE:
        if known.is_file() and COMMIT.fullmatch(commit := known.read_text(encoding="utf-8").strip()):
            return commit
        raise
    _keep(known, commit)
    return commit


def _keep(path: Path, text: str) -> None:
    """For times without network; a cache that may only be read goes without."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(text, encoding="utf-8")
        os.replace(part, path)
    except OSError:
        return


def _read_list(path: Path) -> list[str] | None:
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
